"""Weights from one file to another under new names, shard by shard, each verified once it is written.

Renaming needs a new header and nothing else: the bytes of the tensors are hashed and written as they lie in the mapped
file, a small window of it at a time, and no tensor is ever made. What was written is read back and must give the same
hash, while the next shard is copied. The hash is xxh3_128, quicker than the copying; it finds accidents, not
forgeries.
"""

import mmap
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import xxhash
from safetensors.torch import save_file
from torch import Tensor

from cambrian_model.checkpoints.foreign import reading
from cambrian_model.checkpoints.tensor_file import StoredTensor, header_bytes, read_tensor_file
from cambrian_model.checkpoints.unfinished import UnfinishedFolder
from cambrian_model.errors import CheckpointError

HASH = "xxh3_128"
WINDOW = 1 << 25  # bytes of a file that are mapped at once
BLOCK = 1 << 20  # bytes that are hashed and written at once; they stay in a core's cache between the two
SPARE = 64 << 20  # bytes that the disk must have beyond the weights: tokenizer, configuration


class Range(NamedTuple):
    """A run of bytes in a file."""

    start: int
    size: int


@dataclass(frozen=True)
class Shard:
    """One safetensors file to write.

    Attributes:
        source: The safetensors file that its tensors are copied from, or whatever else they come from.
        tensors: What it will hold, by its new names, in the order of their bytes.
        metadata: Free text of its header.
        load: Returns the tensors by their new names, where they cannot be copied as bytes.
    """

    source: Path
    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]
    load: Callable[[], Mapping[str, Tensor]] | None = None

    @property
    def num_bytes(self) -> int:
        """Size of its tensors."""
        return sum(tensor.num_bytes for tensor in self.tensors.values())

    @property
    def ranges(self) -> list[Range]:
        """Where its bytes lie in the source, neighbours joined."""
        ranges: list[Range] = []
        for tensor in self.tensors.values():
            if ranges and sum(ranges[-1]) == tensor.start:
                ranges[-1] = Range(ranges[-1].start, ranges[-1].size + tensor.num_bytes)
            else:
                ranges.append(Range(tensor.start, tensor.num_bytes))
        return ranges


def check_space(shards: Mapping[str, Shard], folder: UnfinishedFolder) -> None:
    """Checks that the disk has room for the shards that are not finished.

    Raises:
        CheckpointError: Says how much there is, and how much is needed.
    """
    needed = sum(shard.num_bytes for name, shard in shards.items() if name not in folder.hashes) + SPARE
    free = shutil.disk_usage(folder.path).free
    if free < needed:
        raise CheckpointError(
            f"{folder.path.parent}: the disk has {free / 1e9:.1f} GB left, and {needed / 1e9:.1f} GB are to be "
            "written; free some space, or choose another place"
        )


def transfer(
    shards: Mapping[str, Shard], folder: UnfinishedFolder, report: Callable[[int], None] = lambda done: None
) -> list[str]:
    """Writes every shard that the folder does not hold yet, and returns the names of those that it did.

    Args:
        shards: What to write, by file name.
        folder: Where to; it remembers what is finished.
        report: Called with the number of bytes done.

    Raises:
        CheckpointError: A copy differs from its source, or the source ends early.
    """
    kept: list[str] = []
    done = 0
    with ThreadPoolExecutor(max_workers=1) as pool:
        finishing: Future[None] | None = None
        for name, shard in shards.items():
            path = folder.path / name
            if name in folder.hashes and is_whole(path, shard, folder.hashes[name]):
                kept.append(name)
            else:
                data_hash = _write(path, shard, report, done)
                if finishing is not None:
                    finishing.result()
                finishing = pool.submit(_finish, folder, name, shard, data_hash)
            done += shard.num_bytes
            report(done)
        if finishing is not None:
            finishing.result()
    return kept


def _write(path: Path, shard: Shard, report: Callable[[int], None], done: int) -> str:
    """Writes a shard, `done` bytes of others having been, and returns the hash of the tensors that it was made from."""
    if shard.load is not None:
        return _save(path, shard.load(), shard.metadata)
    digest = xxhash.xxh3_128()
    with path.open("wb") as target:
        target.write(header_bytes(shard.tensors, shard.metadata))
        for block in _blocks(shard.source, shard.ranges):
            digest.update(block)
            target.write(block)
            done += len(block)
            report(done)
    return digest.hexdigest()


def _finish(folder: UnfinishedFolder, name: str, shard: Shard, data_hash: str) -> None:
    """Verifies what was written, and notes that it is."""
    path = folder.path / name
    if not is_whole(path, shard, data_hash):
        raise CheckpointError(
            f"{path}: what was written differs from {shard.source}; is the disk or its memory failing?"
        )
    folder.record(name, data_hash)
    if hasattr(os, "posix_fadvise"):  # the disk begins now, while the next shard is copied, instead of at the end
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Writes tensors that are in memory; `save_file` decides in which order."""
    separate = _unshared(tensors)
    save_file(separate, path, metadata=dict(metadata))
    digest = xxhash.xxh3_128()
    for stored in read_tensor_file(path).tensors:
        digest.update(separate[stored.name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors contiguous, each in memory of its own, as safetensors wants them."""
    separate: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        alone = tensor.detach().contiguous()
        place = alone.untyped_storage().data_ptr()
        separate[name] = alone.clone() if place in seen else alone
        seen.add(place)
    return separate


def is_whole(path: Path, shard: Shard, data_hash: str) -> bool:
    """Tells whether a file holds a shard's tensors, each under its new name, with this hash of all their bytes."""
    try:
        file = read_tensor_file(path)
    except CheckpointError:  # missing, or cut off when a run was killed
        return False
    found = {tensor.name: (tensor.dtype, tensor.shape) for tensor in file.tensors}
    if found != {name: (tensor.dtype, tensor.shape) for name, tensor in shard.tensors.items()}:
        return False
    return hash_ranges(path, [Range(tensor.start, tensor.num_bytes) for tensor in file.tensors]) == data_hash


def hash_ranges(path: Path, ranges: Iterable[Range]) -> str:
    """Hashes ranges of a file, one after another."""
    digest = xxhash.xxh3_128()
    for block in _blocks(path, ranges):
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path, ranges: Iterable[Range]) -> Iterator[memoryview]:
    """Yields the bytes of ranges of a file, block by block, in place; a block is gone once the next is asked for."""
    with reading(path, "weights"), path.open("rb") as file:
        for start, size in ranges:
            end = start + size
            while start < end:
                base = start - start % mmap.ALLOCATIONGRANULARITY
                count = min(WINDOW, end - base)
                with mmap.mmap(file.fileno(), count, access=mmap.ACCESS_READ, offset=base) as window:
                    yield from _cut(window, start - base)
                start = base + count


def _cut(window: mmap.mmap, start: int) -> Iterator[memoryview]:
    with memoryview(window) as view:
        for i in range(start, len(view), BLOCK):
            with view[i : i + BLOCK] as block:
                yield block
