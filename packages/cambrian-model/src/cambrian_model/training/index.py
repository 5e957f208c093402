"""One pass over a dataset before training: the length of every sample, from text and image headers alone.

No picture is decoded. The index is what packing works on, and its hash stands for the data: same hash, same order,
whatever the number of processes that made it. A saved index is tensors and JSON.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch.utils import data

from cambrian_model.errors import CambrianModelError, TrainingError
from cambrian_model.processing.image_source import read_image_size
from cambrian_model.processing.measure import Measure
from cambrian_model.processing.sample import Sample
from cambrian_model.training.bad_samples import ADVICE, BadSample, OnBad, UnreadableSampleError
from cambrian_model.training.files import atomic_folder
from cambrian_model.training.mixing import MixtureIndex
from cambrian_model.training.workers import end_with_parent

BLOCK = 512  # samples measured and hashed together; another number gives other fingerprints

Conversation = Mapping[str, Any]  # {"id", "source", "messages", "images"}, see docs on records
Image = str | Path | bytes
Size = tuple[int, int]
Int32 = NDArray[np.int32]

_ARRAYS = ("lengths", "num_images", "picture_ends", "first_supervised")
_TENSORS, _IDS, _BAD = "index.safetensors", "ids.jsonl", "bad.jsonl"
_TO_JSON = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=str).encode
_IMAGE_PART = {"type": "image"}
_IMAGE_JSON = _TO_JSON(_IMAGE_PART)


class Dataset(Protocol):
    """Conversations in the chat form: ``{"id", "source", "messages", "images": [absolute path | bytes]}``.

    One that was read from a file may have a ``"location"``, its ``file:line``, which errors then name. One that cannot
    be read is an `UnreadableSampleError` when it is asked for.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Conversation: ...


class Encoder(Protocol):
    """What training needs of a processor."""

    def encode(self, messages: Any, images: Any) -> Sample:
        """Returns a conversation as model inputs with labels."""

    def measure(self, messages: Any, image_sizes: Any) -> Measure:
        """Returns what `encode` will make, in numbers, from image sizes (height, width) alone."""


@dataclass(frozen=True, eq=False)
class DataIndex:
    """What is known of every sample of one source before it is encoded. Indices are equal if all they hold is.

    Attributes:
        name: Of the source.
        ids: Names of the samples.
        lengths: Tokens of each; 0 of a bad one.
        num_images: Pictures.
        picture_ends: Tokens up to the end of the last picture; 0 without pictures.
        first_supervised: Place of the first token that is trained on.
        bad: The samples that cannot be read.
        fingerprint: SHA-256 over text, picture names and sizes, and lengths.
    """

    name: str
    ids: list[str]
    lengths: Int32
    num_images: Int32
    picture_ends: Int32
    first_supervised: Int32
    bad: list[BadSample]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DataIndex):
            return NotImplemented
        is_alike = (self.name, self.ids, self.bad, self.fingerprint) == (
            other.name,
            other.ids,
            other.bad,
            other.fingerprint,
        )
        return is_alike and all(np.array_equal(getattr(self, key), getattr(other, key)) for key in _ARRAYS)

    __hash__ = None  # type: ignore[assignment]

    @property
    def hash(self) -> int:
        """The fingerprint's first 64 bits, as a seed."""
        return int(self.fingerprint[:16], 16)

    def save(self, folder: Path) -> None:
        """Writes the index as a folder, whole or not at all; one that is there is replaced.

        Raises:
            TrainingError: The disk is full, or the folder cannot be written.
        """
        facts = {"name": self.name, "fingerprint": self.fingerprint}
        with atomic_folder(folder, "the index") as unfinished:
            _write_lines(unfinished / _IDS, self.ids)
            _write_lines(unfinished / _BAD, self.bad)
            # safetensors writes the memory as it lies, also that of a view with steps.
            arrays = {key: np.ascontiguousarray(getattr(self, key)) for key in _ARRAYS}
            save_file(arrays, unfinished / _TENSORS, metadata=facts)

    @classmethod
    def load(cls, folder: Path) -> "DataIndex":
        """Reads the index that `save` has written into a folder.

        Raises:
            TrainingError: A file is missing or damaged.
        """
        try:
            with safe_open(folder / _TENSORS, framework="np") as file:
                facts = file.metadata()
                arrays = {key: file.get_tensor(key) for key in _ARRAYS}
            ids = _read_lines(folder / _IDS)
            bad = [BadSample(*fields) for fields in _read_lines(folder / _BAD)]
            index = cls(name=facts["name"], ids=ids, bad=bad, fingerprint=facts["fingerprint"], **arrays)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(
                f"{folder}: holds no whole index of data ({error}); delete it and start again"
            ) from error
        if {array.shape for array in arrays.values()} != {(len(ids),)}:
            raise TrainingError(f"{folder}: names {len(ids)} samples and measures others; delete it and start again")
        return index


def index_dataset(
    name: str,
    dataset: Dataset,
    encoder: Encoder,
    *,
    on_bad: OnBad = "error",
    num_workers: int = 0,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> DataIndex:
    """Measures every sample of a dataset.

    Args:
        name: Of the source.
        dataset: Its samples.
        encoder: Measures them.
        on_bad: "error" stops at the first sample that cannot be measured, "skip" notes it.
        num_workers: Processes that share the work; 0 for this one. The index is the same.
        report: Is told how many samples are done, of how many.

    Raises:
        TrainingError: The dataset is empty, or a sample cannot be measured; names the sample.
    """
    total = len(dataset)
    if not total:
        raise TrainingError(f'data "{name}" is empty; training needs at least one record')
    digest = hashlib.sha256()
    blocks: list[_Block] = []
    done = 0
    for block in _measured_blocks(_Blocks(dataset, encoder), total, num_workers):
        if block.bad and on_bad == "error":
            first = block.bad[0]
            raise TrainingError(f'data "{name}": {first.name}: {first.reason}; {ADVICE}')
        digest.update(block.digest)
        blocks.append(block)
        done += len(block.ids)
        report(done, total)
    lengths, num_images, picture_ends, first_supervised = np.concatenate([block.numbers for block in blocks], axis=1)
    return DataIndex(
        name,
        [id for block in blocks for id in block.ids],
        lengths,
        num_images,
        picture_ends,
        first_supervised,
        [bad for block in blocks for bad in block.bad],
        digest.hexdigest(),
    )


def join(indices: Sequence[DataIndex], weights: Sequence[float]) -> MixtureIndex:
    """Lays the indices of several sources end to end; `weights` say how often an epoch takes each of their samples.

    Raises:
        TrainingError: A source is empty, or its weight is not a positive number.
    """
    facts = [[index.name, index.fingerprint] for index in indices]
    # A single source keeps its own hash; weights are left out: they choose among samples and do not change them.
    joined = (
        indices[0].hash if len(indices) == 1 else int(hashlib.sha256(_TO_JSON(facts).encode()).hexdigest()[:16], 16)
    )
    arrays = {key: np.concatenate([getattr(index, key) for index in indices]) for key in _ARRAYS}
    source = np.repeat(np.arange(len(indices), dtype=np.int32), [len(index) for index in indices])
    return MixtureIndex(
        **arrays, source=source, names=[index.name for index in indices], weights=list(weights), hash=joined
    )


def sample_name(conversation: Conversation) -> str:
    """Returns what errors call a conversation: the file and line it was read from where it says so, or its id."""
    location = conversation.get("location")
    return str(location) if location else f'sample "{conversation["id"]}"'


class _Block(NamedTuple):
    """Some samples one after another, measured: `numbers` has a row for each of `_ARRAYS`."""

    ids: list[str]
    numbers: NDArray[np.int32]
    bad: list[BadSample]
    digest: bytes


class _Measured(NamedTuple):
    """One sample: its id, a number for each of `_ARRAYS`, and what the fingerprint is made of."""

    id: str
    numbers: tuple[int, int, int, int]
    signature: str


@dataclass(frozen=True)
class _Blocks(data.Dataset[_Block]):
    """Measures samples, in whichever process."""

    dataset: Dataset
    encoder: Encoder

    def __getitem__(self, numbers: range) -> _Block:
        measured, bad = [], []
        sizes: dict[Image, Size] = {}
        for number in numbers:
            found = self._measure(number, sizes)
            if isinstance(found, BadSample):
                bad.append(found)
                found = _Measured(found.name, (0, 0, 0, 0), "bad")
            measured.append(found)
        digest = hashlib.sha256("\n".join([sample.signature for sample in measured]).encode(errors="surrogatepass"))
        flat = chain.from_iterable([sample.numbers for sample in measured])
        table = np.fromiter(flat, np.int32).reshape(-1, len(_ARRAYS)).T
        return _Block([sample.id for sample in measured], table, bad, digest.digest())

    def _measure(self, number: int, sizes: dict[Image, Size]) -> _Measured | BadSample:
        """Measures a sample; `sizes` remembers those of pictures."""
        try:
            conversation = self.dataset[number]
        except UnreadableSampleError as error:
            return BadSample(number, error.name, error.reason)
        images = conversation.get("images") or []
        try:
            shown = _sizes(images, sizes) if images else []
            length, picture_end, first_supervised = self.encoder.measure(conversation["messages"], shown)
        except CambrianModelError as error:
            return BadSample(number, sample_name(conversation), str(error))
        name = str(conversation["id"])
        pictures = [f"{_name(image)} {height}x{width}" for image, (height, width) in zip(images, shown, strict=True)]
        signature = f"{name}\n{pictures}{length}{_written(conversation['messages'])}"
        return _Measured(name, (length, len(images), picture_end, first_supervised), signature)


def _sizes(images: Sequence[Image], known: dict[Image, Size]) -> list[Size]:
    for i, image in enumerate(images):
        if image not in known:
            known[image] = read_image_size(image, f"image {i}")
    return [known[image] for image in images]


def _name(image: Image) -> str:
    """Returns what a picture is called in the fingerprint, wherever its folder is."""
    return hashlib.sha256(image).hexdigest() if isinstance(image, bytes) else str(image).rpartition("/")[2]


def _written(messages: Sequence[Mapping[str, Any]]) -> str:
    """Returns roles and contents as one text that begins with their lengths: other contents, another text.

    It takes a fraction of the time that JSON takes.
    """
    fields: list[str] = []
    lengths: list[int] = []
    for message in messages:
        content = message["content"]
        fields.append(str(message.get("role")))
        lengths.append(len(fields[-1]))
        for part in content if isinstance(content, (list, tuple)) else [{"type": "text", "text": content}]:
            is_text = len(part) == 2 and isinstance(part.get("text"), str)
            field = part["text"] if is_text else _IMAGE_JSON if part == _IMAGE_PART else _TO_JSON(part)
            fields.append(field)
            lengths.append(len(field) if is_text else -len(field))
    return f"{lengths}{''.join(fields)}"


def _as_it_is(block: Any) -> Any:
    return block


def _measured_blocks(blocks: _Blocks, total: int, num_workers: int) -> Iterable[_Block]:
    """Yields the blocks in order."""
    return data.DataLoader(
        blocks,
        sampler=[range(start, min(start + BLOCK, total)) for start in range(0, total, BLOCK)],
        batch_size=None,
        collate_fn=_as_it_is,  # the loader would look through all of it for arrays
        num_workers=num_workers,
        worker_init_fn=end_with_parent(),
        generator=torch.Generator(),  # its own: the loader would else draw from the generator that dropout uses
    )


def _write_lines(path: Path, values: Iterable[Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(value) + "\n" for value in values)


def _read_lines(path: Path) -> list[Any]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
