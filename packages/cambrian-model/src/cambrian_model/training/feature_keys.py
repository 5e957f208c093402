"""What saved features belong to: a picture, by its file's bytes, and an encoder, by all that it computes with.

Hashes are xxh3 of 128 bits: no two pictures share one by chance, and hashing is as fast as reading.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor
from xxhash import xxh3_128, xxh3_128_digest, xxh3_128_hexdigest

from cambrian_model.errors import ImageError
from cambrian_model.processing.images import PixelSpec
from cambrian_model.training.bad_samples import OnBad
from cambrian_model.training.distributed import num_ranks, rank, together
from cambrian_model.vision.base import VisionEncoder

HASH_BYTES = 16
NO_HASH = bytes(HASH_BYTES)  # of a picture that cannot be read
READING_THREADS = 8  # files read at a time: a file far away takes long to answer, not to read
CHUNK = 256  # pictures in hand at a time

StoredImage: TypeAlias = str | Path | bytes  # what training data gives as a picture: a path, or its file's bytes


class KeyTable:
    """Finds one of many keys: two sorted arrays and no object per key, so that worker processes can share its memory.

    Args:
        keys: The keys, (keys, 16); of two equal ones the first is found.
    """

    def __init__(self, keys: NDArray[np.uint8]) -> None:
        words = _as_words(keys)
        self._places = np.argsort(words, kind="stable")
        self._sorted = words[self._places]

    def __len__(self) -> int:
        return len(self._sorted)

    def find(self, key: bytes) -> int | None:
        """Returns the place of a key among those given; None if it is not there."""
        position = int(np.searchsorted(self._sorted, np.bytes_(key)))
        is_there = position < len(self) and self._sorted[position] == np.bytes_(key)
        return int(self._places[position]) if is_there else None

    def contains(self, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Tells of each of many keys whether it is there."""
        return np.isin(_as_words(keys), self._sorted)


def _as_words(keys: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    return np.ascontiguousarray(keys).view(f"S{HASH_BYTES}").reshape(-1)


class ImageHashes:
    """Hashes of pictures; a file is read once, as long as its size and the time of its last change stay."""

    def __init__(self) -> None:
        self._known = np.empty((0, 2, HASH_BYTES), np.uint8)  # state of a file, hash of what it held
        self._table = KeyTable(self._known[:, 0])
        self._recent: dict[bytes, bytes] = {}  # files met after that

    def of(self, image: StoredImage) -> bytes:
        """Returns the hash of a picture's file.

        Raises:
            ImageError: The file cannot be read.
        """
        return self._entry(image)[HASH_BYTES:]

    def of_all(
        self,
        images: Sequence[StoredImage],
        device: torch.device,
        on_bad: OnBad = "error",
        report: Callable[[int, int], None] = lambda done, total: None,
    ) -> NDArray[np.uint8]:
        """Returns the hash of every picture, (images, 16); each rank reads its share, and all ranks get all.

        Args:
            images: The same on every rank.
            device: Where ranks exchange tensors.
            on_bad: "skip" gives a file that cannot be read the hash `NO_HASH`.
            report: Told how many files of this rank's share are done.

        Raises:
            ImageError: A file cannot be read.
            TrainingError: That befell another rank.
        """
        with together("reading the pictures", device):
            mine = b"".join(self._entries(images, on_bad, report))
        entries = _gather(np.frombuffer(mine, np.uint8).reshape(-1, 2, HASH_BYTES), len(images), device)
        self._learn(entries)
        return entries[:, 1]

    def _entries(
        self, images: Sequence[StoredImage], on_bad: OnBad, report: Callable[[int, int], None]
    ) -> Iterator[bytes]:
        """Yields the entries of this rank's share, some at a time."""
        share = range(rank(), len(images), num_ranks())
        with ThreadPoolExecutor(READING_THREADS) as threads:
            for start in range(0, len(share), CHUNK):
                chunk = [images[position] for position in share[start : start + CHUNK]]
                yield from threads.map(self._entry if on_bad == "error" else self._entry_or_nothing, chunk)
                report(start + len(chunk), len(share))

    def _entry_or_nothing(self, image: StoredImage) -> bytes:
        try:
            return self._entry(image)
        except ImageError:
            return 2 * NO_HASH

    def _entry(self, image: StoredImage) -> bytes:
        """Returns what tells the state of a file, and the hash of what it holds, one after the other."""
        if isinstance(image, bytes):
            return NO_HASH + hash_content(image)
        state = _file_state(image)
        known = self._find(state)
        if known is None:
            # Several threads may get here with the same file; each stores the same.
            known = self._recent[state] = hash_content(read_content(image))
        return state + known

    def _find(self, state: bytes) -> bytes | None:
        place = self._table.find(state)
        return self._known[place, 1].tobytes() if place is not None else self._recent.get(state)

    def _learn(self, entries: NDArray[np.uint8]) -> None:
        files = entries[first_of_each(entries[:, 0])]
        self._known = np.concatenate([self._known, files[~self._table.contains(files[:, 0])]])
        self._table = KeyTable(self._known[:, 0])
        self._recent = {}


def hash_content(content: bytes) -> bytes:
    """Returns the hash of an image file's bytes."""
    return xxh3_128_digest(content)


def read_content(image: StoredImage) -> bytes:
    """Returns the bytes of an image file.

    Raises:
        ImageError: It cannot be read.
    """
    if isinstance(image, bytes):
        return image
    with _named(image):
        return Path(image).read_bytes()


def _file_state(path: str | Path) -> bytes:
    with _named(path):
        status = Path(path).stat()
    return xxh3_128_digest(f"{status.st_size} {status.st_mtime_ns} {path}".encode(errors="surrogateescape"))


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); mend it or drop its record") from error


def first_of_each(hashes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Returns where each hash of (images, 16) stands first, in order, `NO_HASH` left out."""
    _, first = np.unique(_as_words(hashes), return_index=True)
    return np.sort(first[hashes[first].any(axis=1)])


def _gather(mine: NDArray[np.uint8], total: int, device: torch.device) -> NDArray[np.uint8]:
    """Joins what every rank has of `total` rows, of which rank r has r, r + ranks, and so on."""
    if num_ranks() == 1:
        return mine
    longest = -(-total // num_ranks())
    padded = np.zeros((longest, *mine.shape[1:]), np.uint8)
    padded[: len(mine)] = mine
    sent = torch.from_numpy(padded).to(device)
    received = [torch.empty_like(sent) for _ in range(num_ranks())]
    dist.all_gather(received, sent)
    return torch.stack(received, dim=1).flatten(0, 1)[:total].cpu().numpy()


def describe_encoder(encoder: VisionEncoder, pixels: PixelSpec, precision: str, device: torch.device) -> dict[str, Any]:
    """Returns all that decides an encoder's features of a picture, for JSON.

    Args:
        encoder: The encoder, with its weights.
        pixels: How its pixels are prepared.
        precision: In which the run computes: "fp32", "bf16" or "fp16".
        device: On which it computes: another kind of device rounds otherwise, and may return another type.
    """
    return {
        "encoder": asdict(encoder.config),
        "weights": hash_tensors(encoder.state_dict()),
        "pixels": asdict(pixels),
        "precision": precision,
        "device": device.type,
    }


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Returns the hash of what `describe_encoder` returned."""
    return xxh3_128_hexdigest(json.dumps(facts, sort_keys=True).encode())


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Returns a hash of names, types, shapes and bytes of tensors, wherever they lie."""
    state = xxh3_128()
    for name, tensor in tensors.items():
        state.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        state.update(as_bytes(tensor.detach().cpu()).numpy().data)
    return state.hexdigest()


def as_bytes(tensor: Tensor) -> UInt8[Tensor, " bytes"]:
    """Returns the bytes of a tensor on the CPU, without a copy if they lie one behind the other."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)
