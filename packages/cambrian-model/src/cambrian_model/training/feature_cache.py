"""Features of frozen encoders, computed once for every picture and read from mapped files in every epoch after that.

An entry belongs to the bytes of an image file and to everything that an encoder computes with (`feature_keys`), so no
change of either ever meets old features. `CachedEncoder` takes the processor's place: same tokens, no pixels.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import data

from cambrian_model.errors import ImageError, TrainingError
from cambrian_model.processing.images import CambrianImageProcessor
from cambrian_model.processing.measure import Measure
from cambrian_model.processing.processor import CambrianProcessor
from cambrian_model.processing.sample import Sample
from cambrian_model.training.bad_samples import OnBad
from cambrian_model.training.distributed import DTYPES, num_ranks, rank, sum_over_ranks, together
from cambrian_model.training.feature_keys import (
    ImageHashes,
    StoredImage,
    describe_encoder,
    first_of_each,
    hash_content,
    read_content,
)
from cambrian_model.training.feature_shards import SHARD_BYTES, FeatureShards, ShardWriter
from cambrian_model.training.index import Dataset
from cambrian_model.training.workers import end_with_parent
from cambrian_model.vision.base import VisionEncoder

Report: TypeAlias = Callable[[Literal["hash", "encode"], int, int], None]  # phase, done, total


class DatasetImages(Sequence[StoredImage]):
    """All pictures of a dataset, one sample's after the other's; each is fetched when it is asked for.

    Args:
        dataset: The samples.
        num_images: Pictures of each of them; 0 also for a sample whose pictures are not to be looked at.
    """

    def __init__(self, dataset: Dataset, num_images: Sequence[int]) -> None:
        self._dataset = dataset
        self._starts = np.fromiter(accumulate(num_images, initial=0), np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, position: Any) -> Any:
        sample = int(np.searchsorted(self._starts, position, side="right")) - 1
        return self._dataset[sample]["images"][position - int(self._starts[sample])]


class FoundImage(NamedTuple):
    """Where a picture's features are.

    Attributes:
        size: (height, width) of the picture, upright.
        rows: Its row among the features of each encoder.
    """

    size: tuple[int, int]
    rows: list[int]


class FeatureCache:
    """Saved features of all encoders of a model. It can be sent to worker processes, which map the files themselves.

    Attributes:
        folder: Where it lies; several runs may share it.
        shards: Features of each encoder.
        hashes: Of the image files seen so far.
    """

    def __init__(
        self,
        folder: Path,
        shards: Sequence[FeatureShards],
        image_processor: CambrianImageProcessor,
        precision: str,
        device: torch.device,
    ) -> None:
        self.folder = folder
        self.shards = list(shards)
        self.hashes = ImageHashes()
        self._image_processor = image_processor
        self._precision = precision
        self._device = device

    @classmethod
    def open(
        cls,
        folder: Path | str,
        encoders: Sequence[VisionEncoder],
        processor: CambrianProcessor,
        precision: str = "fp32",
        device: torch.device | str = "cpu",
        verify: bool = False,
    ) -> Self:
        """Opens the saved features of these encoders; a folder that is empty or missing holds none.

        Args:
            folder: The cache.
            encoders: The model's, all frozen.
            processor: Prepares their pixels.
            precision: The run's: "fp32", "bf16" or "fp16".
            device: On which the run computes.
            verify: Whether to compare every file with its checksum, which reads all of it. Sizes and headers are
                checked always, and a picture's features whenever they are read.

        Raises:
            TrainingError: An encoder is trained or never sees pixels, or a file is missing, truncated or damaged.
        """
        for encoder in encoders:
            _check_cacheable(encoder)
        where, on, image_processor = Path(folder), torch.device(device), processor.image_processor
        facts = [describe_encoder(*pair, precision, on) for pair in zip(encoders, image_processor.specs, strict=True)]
        cache = cls(where, [FeatureShards(where, each) for each in facts], image_processor, precision, on)
        cache.refresh()
        for part in cache.shards if verify else ():
            part.check()
        return cache

    def refresh(self) -> None:
        """Looks at what has been written since.

        Raises:
            TrainingError: A file is missing, truncated or damaged.
        """
        for shards in self.shards:
            shards.refresh()

    def missing(self, images: Sequence[StoredImage], on_bad: OnBad = "error") -> list[int]:
        """Returns where in `images` each picture stands first of which some encoder's features are missing.

        All ranks ask together, and each hashes its share of the files.

        Raises:
            ImageError: A file cannot be read, unless `on_bad` is "skip".
        """
        return self._missing(self.hashes.of_all(images, self._device, on_bad))

    def write(
        self,
        images: Sequence[StoredImage],
        encoders: Sequence[VisionEncoder],
        *,
        batch_size: int = 16,
        num_workers: int = 0,
        shard_bytes: int = SHARD_BYTES,
        on_bad: OnBad = "error",
        report: Report = lambda phase, done, total: None,
    ) -> list[str]:
        """Encodes the pictures that are missing, each rank its share, and returns when all ranks are done.

        Whatever stops it, what was written stays; called again, it continues. Encoders are moved to the run's device
        and back.

        Args:
            images: Paths, or the bytes of files; the same on every rank.
            encoders: Those that the cache was opened for.
            batch_size: Pictures that go through an encoder at a time.
            num_workers: Processes that decode pictures; 0 decodes in this one.
            shard_bytes: About how large a file gets; so much memory is held for every encoder.
            on_bad: "skip" leaves out a picture that cannot be read.
            report: Told how far this rank is: files hashed, then pictures encoded.

        Returns:
            What is wrong with each picture that this rank left out.

        Raises:
            ImageError: A picture cannot be read, unless `on_bad` is "skip".
            TrainingError: The disk is full or would be, a rank failed, or the ranks do not see the same folder.
        """
        hashes = self.hashes.of_all(images, self._device, on_bad, lambda done, total: report("hash", done, total))
        positions = self._missing(hashes)
        done, bad = 0, list[str]()
        with together("encoding pictures for the feature cache", self._device):
            self._check_space(hashes[positions])
            if share := positions[rank() :: num_ranks()]:
                batches = _prepare(images, share, self._image_processor, batch_size, num_workers)
                with self._writing(encoders, shard_bytes) as jobs:
                    for pictures, errors in batches:
                        bad += _judge(errors, on_bad)
                        self._encode(jobs, pictures)
                        done += len(pictures) + len(errors)
                        report("encode", done, len(share))
        (num_bad,) = sum_over_ranks([len(bad)], self._device)
        with together("opening the feature cache", self._device):
            self.refresh()
            self._check_whole(len(self._missing(hashes)) - round(num_bad))
        return bad

    def find(self, image: StoredImage, name: str = "image") -> FoundImage:
        """Returns where a picture's features are; a file is only read if it has changed since it was hashed.

        Args:
            image: A path, or a file's bytes.
            name: What an error calls a picture that has no path.

        Raises:
            ImageError: There are none, or the file cannot be read.
        """
        image_hash = self.hashes.of(image)
        rows = [row for shards in self.shards if (row := shards.find(image_hash)) is not None]
        if len(rows) < len(self.shards):
            raise ImageError(
                f"{name if isinstance(image, bytes) else image}: {self.folder} has no features of this picture, which "
                "has changed since they were made, or could not be read then; start again to have it encoded, or drop "
                "its record"
            )
        return FoundImage(self.shards[0].size(rows[0]), rows)

    def features(self, image: StoredImage) -> list[Float[Tensor, "_tokens _width"]]:
        """Returns a picture's features of every encoder, as views of mapped files.

        Raises:
            ImageError: There are none, or the file cannot be read.
            TrainingError: They are damaged.
        """
        return [shards.read(row) for shards, row in zip(self.shards, self.find(image).rows, strict=True)]

    def stack(self, images: Sequence[FoundImage]) -> list[Float[Tensor, "images _tokens _width"]]:
        """Returns the features of several pictures, or of none, of every encoder.

        Raises:
            TrainingError: They are damaged.
        """
        return [shards.stack([image.rows[i] for image in images]) for i, shards in enumerate(self.shards)]

    def _missing(self, hashes: NDArray[np.uint8]) -> list[int]:
        first = first_of_each(hashes)
        is_here = np.all([shards.contains(hashes[first]) for shards in self.shards], axis=0)
        return first[~is_here].tolist()

    @property
    def _distinct(self) -> list[int]:
        """The numbers of the encoders, but of those that are alike, and so have the same features, of one only."""
        return list({shards.folder: number for number, shards in enumerate(self.shards)}.values())

    @contextmanager
    def _writing(self, encoders: Sequence[VisionEncoder], shard_bytes: int) -> Iterator[list["_Job"]]:
        """Lends the encoders to the device, and opens a writer for each."""
        with ExitStack() as stack:
            yield [
                _Job(
                    number,
                    stack.enter_context(_lent(encoders[number], self._device)),
                    stack.enter_context(ShardWriter(self.shards[number], shard_bytes)),
                )
                for number in self._distinct
            ]

    def _encode(self, jobs: Sequence["_Job"], pictures: Sequence["_Picture"]) -> None:
        """Runs each encoder on the pictures whose features it lacks, just as the model does in a training step."""
        for number, encoder, writer in jobs:
            new = [picture for picture in pictures if self.shards[number].find(picture.image_hash) is None]
            if not new:
                continue
            pixels = torch.cat([picture.pixels[number] for picture in new]).to(self._device)
            # Not under no_grad: nothing is recorded of what is frozen, and some kernels depend on whether it could be.
            with torch.autocast(self._device.type, DTYPES[self._precision], enabled=self._precision != "fp32"):
                features = encoder(pixels).cpu()
            for picture, of_picture in zip(new, features, strict=True):
                writer.add(picture.image_hash, picture.size, of_picture)

    def _check_space(self, hashes: NDArray[np.uint8]) -> None:
        distinct = [self.shards[number] for number in self._distinct]
        needed = sum(shards.row_bytes * int((~shards.contains(hashes)).sum()) for shards in distinct)
        self.folder.mkdir(parents=True, exist_ok=True)
        if needed > (free := shutil.disk_usage(self.folder).free):
            raise TrainingError(
                f"features of {len(hashes)} pictures need at least {needed / 1e9:.1f} GB, but {self.folder} has "
                f"{free / 1e9:.1f} GB free; free disk space, or set feature_cache: false"
            )

    def _check_whole(self, num_missing: int) -> None:
        if num_missing > 0:
            raise TrainingError(
                f"rank {rank()} does not see features of {num_missing} pictures that were just written to "
                f"{self.folder}; it must be one folder for all ranks. If it is, start again: a network file system was "
                "late, or pictures have changed meanwhile"
            )


@dataclass(frozen=True)
class CachedEncoder:
    """The processor's stand-in for training: tokens and labels as ever, and saved features in the place of pixels."""

    processor: CambrianProcessor
    cache: FeatureCache

    def encode(self, messages: Any, images: Sequence[StoredImage] = (), name: str = "conversation") -> Sample:
        """Encodes one training conversation; no picture is decoded.

        Raises:
            PromptError: As the processor's.
            ImageError: A picture has no saved features.
            TrainingError: Saved features are damaged.
        """
        found = [self.cache.find(image, f"{name}, image {i}") for i, image in enumerate(images)]
        input_ids, labels = self.processor.encode_text(messages, [image.size for image in found], name)
        sizes = torch.tensor([image.size for image in found], dtype=torch.long).reshape(-1, 2)
        end = self.processor.picture_end(input_ids)
        return Sample(torch.tensor(input_ids), torch.tensor(labels), [], sizes, self.cache.stack(found), end)

    def measure(self, messages: Any, image_sizes: Any) -> Measure:
        """Returns what `encode` will make of pictures of these (height, width), in numbers."""
        return self.processor.measure(messages, image_sizes)

    def empty_sample(self) -> Sample:
        """Returns a sample of no text and no pictures."""
        nothing = torch.zeros(0, dtype=torch.long)
        return Sample(nothing, nothing, [], nothing.reshape(0, 2), self.cache.stack([]))


class _Job(NamedTuple):
    """What encodes pictures, and where its features go; `number` is the encoder's among the model's."""

    number: int
    encoder: VisionEncoder
    writer: ShardWriter


class _Picture(NamedTuple):
    """A decoded picture: the hash of its file, its (height, width), its pixels for each encoder, (1, 3, side, side)."""

    image_hash: bytes
    size: tuple[int, int]
    pixels: list[Tensor]


@dataclass(frozen=True)
class _Pictures(data.Dataset):
    """Decodes pictures, in whichever process; an error is handed back, to be judged in the main one."""

    images: Sequence[StoredImage]
    image_processor: CambrianImageProcessor

    def __getitem__(self, position: int) -> _Picture | ImageError:
        image = self.images[position]
        try:
            content = read_content(image)  # hashed and decoded are the same bytes, even if the file just changes
            name = f"image {position}" if isinstance(image, bytes) else str(image)
            prepared = self.image_processor([content], names=[name])
        except ImageError as error:
            return error
        height, width = prepared["image_sizes"][0].tolist()
        return _Picture(hash_content(content), (height, width), prepared["pixel_values"])


def _prepare(
    images: Sequence[StoredImage],
    positions: Sequence[int],
    image_processor: CambrianImageProcessor,
    batch_size: int,
    num_workers: int,
) -> Iterator[tuple[list[_Picture], list[ImageError]]]:
    """Yields decoded pictures, some at a time, and what is wrong with those that cannot be decoded."""
    yield from data.DataLoader(
        _Pictures(images, image_processor),
        batch_size,
        sampler=positions,
        num_workers=num_workers,
        collate_fn=_sort_out,
        worker_init_fn=end_with_parent(),
        generator=torch.Generator(),  # its own: the loader would else draw from the generator that training uses
    )


def _sort_out(results: Sequence[_Picture | ImageError]) -> tuple[list[_Picture], list[ImageError]]:
    pictures = [result for result in results if isinstance(result, _Picture)]
    return pictures, [result for result in results if isinstance(result, ImageError)]


def _judge(errors: Sequence[ImageError], on_bad: OnBad) -> list[str]:
    if errors and on_bad == "error":
        raise errors[0]
    return [str(error) for error in errors]


@contextmanager
def _lent(encoder: VisionEncoder, device: torch.device) -> Iterator[VisionEncoder]:
    """Moves an encoder to a device for a while, in the mode in which it is trained with."""
    home = next((parameter.device for parameter in encoder.parameters()), device)
    try:
        yield encoder.to(device).train()
    finally:
        encoder.to(home)


def _check_cacheable(encoder: VisionEncoder) -> None:
    name = encoder.config.name
    if encoder.config.library == "precomputed":
        raise TrainingError(
            f"vision encoder {name} is precomputed, it has no features to save; set feature_cache: false"
        )
    if any(parameter.requires_grad for parameter in encoder.parameters()):
        raise TrainingError(
            f"vision encoder {name} is trained, so saved features would be stale after a step; leave vision_encoders "
            "out of train, or set feature_cache: false"
        )
