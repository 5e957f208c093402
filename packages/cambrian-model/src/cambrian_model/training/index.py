"""One pass over a dataset before training: the length of every sample, from text and image headers alone.

No picture is decoded. The index is what packing works on, and its hash stands for the data: same hash, same order.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cambrian_model.errors import CambrianModelError, TrainingError
from cambrian_model.processing.image_source import read_image_size
from cambrian_model.processing.sample import Sample

Conversation = Mapping[str, Any]  # {"id", "source", "messages", "images"}, see docs on records


class Dataset(Protocol):
    """Conversations in the chat form: ``{"id", "source", "messages", "images": [absolute path | bytes]}``.

    One that was read from a file may have a ``"location"``, its ``file:line``, which errors then name.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Conversation: ...


class Encoder(Protocol):
    """What training needs of a processor."""

    def encode(self, messages: Any, images: Any) -> Sample:
        """Returns a conversation as model inputs with labels."""

    def count_tokens(self, messages: Any, image_sizes: Any) -> int:
        """Returns how many tokens `encode` will make, from image sizes (height, width) alone."""


@dataclass(frozen=True)
class DataIndex:
    """What is known of every sample before it is encoded.

    Attributes:
        ids: Names of the samples.
        lengths: Tokens.
        num_images: Pictures.
        fingerprint: SHA-256 over text, picture names and sizes, and lengths.
    """

    ids: list[str]
    lengths: list[int]
    num_images: list[int]
    fingerprint: str

    @property
    def hash(self) -> int:
        """The fingerprint's first 64 bits, as a seed."""
        return int(self.fingerprint[:16], 16)


def index_dataset(
    dataset: Dataset, encoder: Encoder, report: Callable[[int, int], None] = lambda done, total: None
) -> DataIndex:
    """Measures every sample of a dataset.

    Raises:
        TrainingError: The dataset is empty, or a sample cannot be measured; names the sample.
    """
    if not len(dataset):
        raise TrainingError("the dataset is empty; training needs at least one record")
    digest = hashlib.sha256()
    ids, lengths, num_images = [], [], []
    for number in range(len(dataset)):
        conversation = dataset[number]
        name, images = str(conversation["id"]), conversation.get("images") or []
        try:
            sizes = [read_image_size(image, f"image {i}") for i, image in enumerate(images)]
            length = encoder.count_tokens(conversation["messages"], sizes)
        except CambrianModelError as error:
            raise TrainingError(f"{sample_name(conversation)}: {error}") from error
        ids.append(name)
        lengths.append(length)
        num_images.append(len(images))
        digest.update(_signature(conversation, images, sizes, length))
        report(number + 1, len(dataset))
    return DataIndex(ids, lengths, num_images, digest.hexdigest())


def sample_name(conversation: Conversation) -> str:
    """Returns what errors call a conversation: the file and line it was read from where it says so, or its id."""
    location = conversation.get("location")
    return str(location) if location else f'sample "{conversation["id"]}"'


def _signature(
    conversation: Conversation, images: Sequence[str | Path | bytes], sizes: Sequence[tuple[int, int]], length: int
) -> bytes:
    names = [hashlib.sha256(i).hexdigest() if isinstance(i, bytes) else Path(i).name for i in images]
    fields = [str(conversation["id"]), conversation["messages"], names, sizes, length]
    return json.dumps(fields, sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n"
