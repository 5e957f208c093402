"""Saved features of one vision encoder: shards of safetensors, each with a manifest of JSON beside it.

A shard is written beside its place, renamed, and counts once its manifest is there, so a writer may be killed at any
moment and any number of them may write at once. Shards are mapped into memory, never read whole; every row that is read
is checked against its own checksum, which costs less than copying it.
"""

import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from xxhash import xxh3_64_intdigest

from cambrian_model.errors import TrainingError
from cambrian_model.training.feature_keys import HASH_BYTES, KeyTable, as_bytes, fingerprint
from cambrian_model.training.files import UNFINISHED, FileFacts, file_facts, unfinished_path, write_json

FORMAT = 1
FACTS = "encoder.json"
SUFFIX = ".safetensors"
MANIFESTS = "[0-9a-f]*-*.json"  # not the facts of the encoder, nor what is being written
SHARD_BYTES = 512 * 2**20
MAPPED_SHARDS = 64  # per process; the kernel allows a process some 65,000 mappings
ABANDONED_SECONDS = 3600  # after which an unfinished file is no living writer's
# What reading a damaged shard or manifest raises.
_READ_ERRORS = (OSError, SafetensorError, ValueError, LookupError, TypeError)


class StoredTensors(NamedTuple):
    """What a shard holds.

    Attributes:
        features: What the encoder returned, in the type in which it did.
        hashes: Of the pictures' files.
        sizes: (height, width) of the pictures, as decoded.
        checksums: xxh3 of 64 bits of every picture's features.
    """

    features: Float[Tensor, "images tokens width"]
    hashes: UInt8[Tensor, "images bytes"]
    sizes: Int[Tensor, "images 2"]
    checksums: Int[Tensor, " images"]


@dataclass(frozen=True)
class Shard:
    """A finished shard, as its manifest describes it.

    Attributes:
        path: The file.
        facts: Its size and checksum.
        num_images: Pictures in it.
    """

    path: Path
    facts: FileFacts
    num_images: int

    @property
    def manifest(self) -> Path:
        """The file that describes it."""
        return self.path.with_suffix(".json")

    def check(self) -> None:
        """Compares the whole file with its checksum.

        Raises:
            TrainingError: They differ, or the file cannot be read.
        """
        with _blaming(self):
            if (found := file_facts(self.path)) != self.facts:
                raise ValueError(f"its checksum is {found.xxh3}, expected {self.facts.xxh3}")


class FeatureShards:
    """The features of one encoder.

    Args:
        folder: Parent of the folders of all encoders.
        facts: What decides the features, see `describe_encoder`.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self.facts = facts
        self.folder = folder / f"{_as_file_name(facts['encoder']['name'])}-{fingerprint(facts)}"
        self.shards: list[Shard] = []
        self._starts = np.zeros(1, np.int64)
        self._table = KeyTable(np.empty((0, HASH_BYTES), np.uint8))
        self._sizes = np.empty((0, 2), np.int64)

    def __len__(self) -> int:
        return len(self._table)

    @property
    def row_bytes(self) -> int:
        """Size of the features of one picture; while there are none, in 16 bits, the least that an encoder returns."""
        dtype = self._dtype if self.shards else torch.bfloat16
        return self._shape[0] * self._shape[1] * dtype.itemsize

    @property
    def _shape(self) -> tuple[int, int]:
        encoder = self.facts["encoder"]
        return encoder["grid_side"] ** 2, encoder["width"]

    @property
    def _dtype(self) -> torch.dtype:
        return _mapped(self.shards[0]).features.dtype if self.shards else torch.float32

    def refresh(self) -> None:
        """Looks at what is there: sizes and headers of all shards, and nothing of the features.

        Raises:
            TrainingError: A shard or a manifest is missing, truncated or damaged.
        """
        self.shards = [_read_manifest(file) for file in sorted(self.folder.glob(MANIFESTS))]
        parts = [self._read_index(shard) for shard in self.shards]
        self._starts = np.cumsum([0, *(shard.num_images for shard in self.shards)])
        self._table = KeyTable(np.concatenate([np.empty((0, HASH_BYTES), np.uint8), *(hashes for hashes, _ in parts)]))
        self._sizes = np.concatenate([np.empty((0, 2), np.int64), *(sizes for _, sizes in parts)])

    def check(self) -> None:
        """Compares all shards with their checksums; reads everything.

        Raises:
            TrainingError: One differs.
        """
        with ThreadPoolExecutor() as threads:
            list(threads.map(Shard.check, self.shards))

    def contains(self, hashes: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Tells of each picture (images, 16) whether its features are here."""
        return self._table.contains(hashes)

    def find(self, image_hash: bytes) -> int | None:
        """Returns the row of a picture, counted over all shards; None if its features are not here."""
        return self._table.find(image_hash)

    def size(self, row: int) -> tuple[int, int]:
        """Returns (height, width) of the picture of a row."""
        height, width = self._sizes[row].tolist()
        return height, width

    def read(self, row: int) -> Float[Tensor, "tokens width"]:
        """Returns a picture's features: a view of the mapped file.

        Raises:
            TrainingError: They are not what was written, or the file is gone.
        """
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        shard, row = self.shards[number], row - int(self._starts[number])
        stored = _mapped(shard)
        features = stored.features[row]
        if _row_checksum(features) != int(stored.checksums[row]):
            raise _damaged(shard, f"picture {row} of it is not as it was written")
        return features

    def stack(self, rows: Sequence[int]) -> Float[Tensor, "images tokens width"]:
        """Returns the features of several pictures, or of none.

        Raises:
            TrainingError: They are not what was written, or the file is gone.
        """
        return (
            torch.stack([self.read(row) for row in rows]) if rows else torch.zeros(0, *self._shape, dtype=self._dtype)
        )

    def _read_index(self, shard: Shard) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Returns hashes and sizes of a shard's pictures, after a look at its header."""
        expected = [shard.num_images, *self._shape]
        with _blaming(shard):
            if (size := shard.path.stat().st_size) != shard.facts.size:
                raise ValueError(f"it has {size} bytes, expected {shard.facts.size}")
            with safe_open(shard.path, "np") as file:
                if (found := file.get_slice("features").get_shape()) != expected:
                    raise ValueError(f"its features are {found}, expected {expected}")
                return file.get_tensor("hashes"), file.get_tensor("sizes").astype(np.int64)


class ShardWriter:
    """Writes features of one encoder into new shards; leaving its context finishes the last one, whatever happened.

    Args:
        shards: Where to; other writers may write there too.
        shard_bytes: About how large a shard gets, which is also the memory that is held.
    """

    def __init__(self, shards: FeatureShards, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder = shards.folder
        self.shard_bytes = shard_bytes
        self._name = secrets.token_hex(6)  # no other writer's
        self._number = 0
        self._rows: list[tuple[bytes, tuple[int, int], int]] = []
        self._features: Tensor | None = None
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            _sweep(self.folder)
            own = self.folder / f"{self._name}.json"  # others may write the same at the same time
            write_json(own, {"format": FORMAT, **shards.facts})
            own.replace(self.folder / FACTS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._finish_shard()

    def add(self, image_hash: bytes, size: tuple[int, int], features: Float[Tensor, "tokens width"]) -> None:
        """Adds the features of one picture of size (height, width).

        Raises:
            TrainingError: The disk is full, or not to be written.
        """
        if self._features is None:
            room = max(1, self.shard_bytes // max(1, features.nbytes))
            self._features = torch.empty(room, *features.shape, dtype=features.dtype)
        stored = self._features[len(self._rows)].copy_(features)
        self._rows.append((image_hash, size, _row_checksum(stored)))
        if len(self._rows) == len(self._features):
            self._finish_shard()

    def _finish_shard(self) -> None:
        if not self._rows or self._features is None:
            return
        hashes, sizes, checksums = zip(*self._rows, strict=True)
        stored = StoredTensors(
            self._features[: len(self._rows)],
            torch.from_numpy(np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, HASH_BYTES).copy()),
            torch.tensor(sizes),
            torch.tensor(checksums),
        )
        self._rows = []
        path = self.folder / f"{self._name}-{self._number:06d}{SUFFIX}"
        self._number += 1
        with _writing(path):
            _publish(path, stored)


def _publish(path: Path, stored: StoredTensors) -> None:
    """Writes a shard and then its manifest, each at once."""
    unfinished = unfinished_path(path)
    try:
        save_file(stored._asdict(), unfinished)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        shard = Shard(path, file_facts(unfinished), len(stored.hashes))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    write_json(shard.manifest, {"format": FORMAT, "images": shard.num_images, **shard.facts._asdict()})


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"could not write {path}: {error}; features written before are whole: free disk space, or mend that, and "
            "start again, which continues; or set feature_cache: false"
        ) from error


def _sweep(folder: Path) -> None:
    """Deletes what writers that were killed have left; whatever is young may be a living one's."""
    shards = {file for file in folder.glob(f"*{SUFFIX}") if not file.with_suffix(".json").exists()}
    for file in shards | set(folder.glob(f"{UNFINISHED}*")):
        try:
            if time.time() - file.stat().st_mtime > ABANDONED_SECONDS:
                file.unlink()
        except FileNotFoundError:  # another writer finished it, or swept it first
            continue


def _read_manifest(file: Path) -> Shard:
    path = file.with_suffix(SUFFIX)
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise ValueError(f"it has format {values['format']}, expected {FORMAT}")
        return Shard(path, FileFacts(values["size"], values["xxh3"]), values["images"])
    except _READ_ERRORS as error:
        raise TrainingError(
            f"{file} is no manifest of saved features ({error}); delete it and {path.name}: their features are then "
            "made again"
        ) from error


@contextmanager
def _blaming(shard: Shard) -> Iterator[None]:
    try:
        yield
    except _READ_ERRORS as error:
        raise _damaged(shard, str(error)) from error


def _damaged(shard: Shard, reason: str) -> TrainingError:
    return TrainingError(
        f"saved features in {shard.path} are damaged: {reason}; delete {shard.manifest.name} and {shard.path.name}: "
        f"the features of its {shard.num_images} pictures are then made again"
    )


@lru_cache(MAPPED_SHARDS)
def _mapped(shard: Shard) -> StoredTensors:
    """Maps a shard into the memory of this process."""
    with _blaming(shard), safe_open(shard.path, "pt") as file:
        return StoredTensors(*(file.get_tensor(name) for name in StoredTensors._fields))


def _row_checksum(features: Tensor) -> int:
    unsigned = xxh3_64_intdigest(as_bytes(features).numpy().data)
    return unsigned - 2**64 if unsigned >= 2**63 else unsigned  # the same bits, as safetensors and torch share them


def _as_file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[-80:]
