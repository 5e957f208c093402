"""Pixels for the vision encoders: every picture padded to a square, resized and normalised once for each of them.

Encoders differ in resolution, mean and padding colour, so there is one tensor per encoder. Encoders that prepare their
pixels alike share one computation and one tensor.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from cambrian_model.config import CambrianConfig, parse_spec
from cambrian_model.errors import ConfigError, did_you_mean
from cambrian_model.processing.image_source import ImageSource, load_image

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# A padded square larger than this (300 MB of RGB) is never made: a longer picture is shrunk before it is padded.
_LONGEST_SIDE = 10_000


@dataclass(frozen=True)
class PixelSpec:
    """How one encoder's pixels are prepared; the attributes are those of `VisionEncoderConfig`."""

    image_side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    pad_color: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if not all(value > 0 for value in self.std):
            raise ConfigError(f"std is {list(self.std)}; expected numbers above 0, by which pixels are divided")
        if self.interpolation not in _FILTERS:
            raise ConfigError(
                f'unknown interpolation "{self.interpolation}"{did_you_mean(self.interpolation, _FILTERS)}'
            )

    @property
    def fill(self) -> tuple[int, int, int]:
        """RGB of the padding: `pad_color`, or else the mean, rounded down as the original does."""
        red, green, blue = self.pad_color or (int(value * 255) for value in self.mean)
        return red, green, blue


def pad_to_square(image: Image.Image, fill: tuple[int, int, int]) -> Image.Image:
    """Centres a picture on a square of colour `fill`; of an odd remainder the larger part goes below or right."""
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new("RGB", (side, side), fill)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


class CambrianImageProcessor(BaseImageProcessor):
    """Turns pictures into one pixel tensor per vision encoder.

    Attributes:
        encoders: One dictionary per encoder, with the keys of `PixelSpec`.
    """

    model_input_names: ClassVar[list[str]] = ["pixel_values", "image_sizes"]

    def __init__(self, encoders: Sequence[Mapping[str, Any]] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        specs = [parse_spec(PixelSpec, encoder, f"encoders[{i}]") for i, encoder in enumerate(encoders)]
        self.encoders = [_as_json(spec) for spec in specs]

    @classmethod
    def from_config(cls, config: CambrianConfig) -> "CambrianImageProcessor":
        """Prepares pixels as the vision encoders of `config` expect them."""
        keys = [field.name for field in dataclasses.fields(PixelSpec)]
        return cls([{key: getattr(encoder, key) for key in keys} for encoder in config.encoders])

    @property
    def specs(self) -> list[PixelSpec]:
        """The encoders' preparation, typed."""
        return [parse_spec(PixelSpec, encoder, f"encoders[{i}]") for i, encoder in enumerate(self.encoders)]

    def __call__(
        self,
        images: Any,
        return_tensors: str | None = None,
        names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Prepares pictures.

        Args:
            images: One picture, or a list of them; see `load_image` for what a picture may be.
            return_tensors: Accepted for the library's sake; the result always holds torch tensors.
            names: What errors call the pictures that have no path; their positions by default.
            kwargs: None is known.

        Returns:
            `pixel_values`, a list with one (images, 3, side, side) tensor per encoder, and `image_sizes`, the original
            (height, width) of each picture after its EXIF rotation.

        Raises:
            ImageError: A picture cannot be read; says which.
        """
        if kwargs:
            raise TypeError(f"CambrianImageProcessor takes no {', '.join(sorted(kwargs))}")
        sources: list[ImageSource] = list(images) if isinstance(images, (list, tuple)) else [images]
        if names is not None and len(names) != len(sources):
            raise TypeError(f"{len(names)} names for {len(sources)} images; give one each")
        specs = self.specs
        distinct = list(dict.fromkeys(specs))
        prepared: dict[PixelSpec, list[Tensor]] = {spec: [] for spec in distinct}
        sizes = []
        for i, source in enumerate(sources):
            picture = load_image(source, names[i] if names else f"image {i}")
            sizes.append((picture.height, picture.width))
            for spec, pixels in zip(distinct, prepare_pixels(picture, distinct), strict=True):
                prepared[spec].append(pixels)
        stacked = {spec: _stack(prepared[spec], spec.image_side) for spec in distinct}
        image_sizes = torch.tensor(sizes, dtype=torch.long).reshape(-1, 2)
        return BatchFeature({"pixel_values": [stacked[spec] for spec in specs], "image_sizes": image_sizes})


def prepare_pixels(picture: Image.Image, specs: Sequence[PixelSpec]) -> list[Float[Tensor, "3 _ _"]]:
    """Pads, resizes and normalises one RGB picture for each of `specs`; equal padding is done once."""
    picture = _bounded(picture)
    squares = {fill: pad_to_square(picture, fill) for fill in {spec.fill for spec in specs}}
    return [_normalise(squares[spec.fill], spec) for spec in specs]


def _bounded(picture: Image.Image) -> Image.Image:
    scale = _LONGEST_SIDE / max(picture.size)
    if scale >= 1:
        return picture
    # Differs from the reference: it pads first whatever the size, and a strip of 1 x 80,000 needs 19 GB for it.
    return picture.resize((max(math.floor(picture.width * scale), 1), max(math.floor(picture.height * scale), 1)))


def _normalise(square: Image.Image, spec: PixelSpec) -> Float[Tensor, "3 side side"]:
    resized = square.resize((spec.image_side, spec.image_side), _FILTERS[spec.interpolation])
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1)  # 3, side, side
    pixels = pixels.to(torch.float32, memory_format=torch.contiguous_format)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (spec.mean, spec.std))
    return pixels.div_(255).sub_(mean).div_(std)  # in place: a third of the time at 1024 pixels per side


def _stack(pixels: list[Tensor], side: int) -> Float[Tensor, "images 3 side side"]:
    return torch.stack(pixels) if pixels else torch.empty(0, 3, side, side)


def _as_json(spec: PixelSpec) -> dict[str, Any]:
    values = dataclasses.asdict(spec)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
