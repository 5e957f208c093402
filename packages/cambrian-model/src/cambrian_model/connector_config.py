"""What a connector is made of: one dataclass per kind, named by `type` in a model's configuration.

Defaults are those of the published papers. `validate` holds what depends on the encoders and on the grid.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from cambrian_model.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from cambrian_model.config import VisionEncoderConfig

ATTENTIONS = ("joint", "separate")
MLP_TYPE = re.compile(r"mlp([1-9]\d*)x_gelu")


@dataclass(frozen=True)
class InLLMConfig:
    """Which decoder layers are followed by an SVA block: `count` of them, from `start`, every `stride`."""

    start: int
    stride: int
    count: int

    @property
    def layers(self) -> list[int]:
        """Indices of the chosen decoder layers."""
        return [self.start + i * self.stride for i in range(self.count)]


@dataclass(frozen=True)
class SVAConfig:
    """The Spatial Vision Aggregator.

    Attributes:
        type: "sva".
        attention: "joint", one softmax over the windows of all encoders (the released models'), or "separate", one
            attention per encoder and a learned weighting of them.
        width: Channels of the queries and of the projected features.
        depth: Number of stacked blocks before the language model.
        num_heads: Attention heads; divides `width`. The original fixes 16.
        query_grid_sides: Side of each query group's grid; each is resized to the model's grid if it differs.
        in_llm: The blocks inside the language model, or None for none.
    """

    type: str = "sva"
    width: int = 1024
    depth: int = 3
    num_heads: int = 16
    query_grid_sides: tuple[int, ...] = (24,)
    attention: str = "joint"
    in_llm: InLLMConfig | None = None

    def validate(self, encoders: Sequence[VisionEncoderConfig], grid_side: int) -> None:
        """Checks the connector against the encoders and the grid of image tokens.

        Raises:
            ConfigError: Says which two numbers disagree.
        """
        if self.attention not in ATTENTIONS:
            raise ConfigError(f'connector.attention is "{self.attention}"{did_you_mean(self.attention, ATTENTIONS)}')
        _check_heads(self.width, self.num_heads)
        for i, encoder in enumerate(encoders):
            for side in {*self.query_grid_sides, *([grid_side] if self.in_llm else [])}:
                if encoder.grid_side % side:
                    raise ConfigError(
                        f"vision_encoders[{i}] ({encoder.name}): its grid side {encoder.grid_side} is not a multiple "
                        f"of the query grid side {side}; set its grid_side to one, features are interpolated to it"
                    )


@dataclass(frozen=True)
class ProjectorConfig:
    """A projector of the encoders' features, concatenated on channels, cell by cell.

    Attributes:
        type: "linear", "mlp2x_gelu" (any number of layers), or "identity" (the widths then sum to the language
            model's).
    """

    type: str

    @property
    def depth(self) -> int:
        """Number of linear layers; 0 for the identity."""
        if self.type == "identity":
            return 0
        match = MLP_TYPE.fullmatch(self.type)
        return int(match[1]) if match else 1

    def validate(self, encoders: Sequence[VisionEncoderConfig], grid_side: int) -> None:
        """Checks that every encoder gives one token per cell.

        Raises:
            ConfigError: Says which grid sides disagree.
        """
        for i, encoder in enumerate(encoders):
            if encoder.grid_side != grid_side:
                raise ConfigError(
                    f"vision_encoders[{i}] ({encoder.name}): its grid side is {encoder.grid_side}, but a "
                    f'"{self.type}" connector needs the grid side of the image tokens, {grid_side}; set it, features '
                    "are interpolated to it"
                )


@dataclass(frozen=True)
class ResamplerConfig:
    """The Perceiver Resampler: learned queries attend to all features of a picture, wherever they are.

    Attributes:
        type: "resampler".
        width: Channels of the queries and of the projected features; a multiple of 4, for the positions.
        depth: Number of layers, each an attention and a feed-forward network.
        num_heads: Attention heads; divides `width`.

    Source: Flamingo, arXiv 2204.14198 (1536 channels, 6 layers, 16 heads).
    """

    type: str = "resampler"
    width: int = 1536
    depth: int = 6
    num_heads: int = 16

    def validate(self, encoders: Sequence[VisionEncoderConfig], grid_side: int) -> None:
        """Checks the width; the grids of the encoders may be any.

        Raises:
            ConfigError: Says which two numbers disagree.
        """
        _check_heads(self.width, self.num_heads)
        if self.width % 4:
            raise ConfigError(
                f"connector.width {self.width} is not a multiple of 4; a position is the sine and cosine of a row and "
                "of a column"
            )


@dataclass(frozen=True)
class CAbstractorConfig:
    """The C-Abstractor: convolutions, average pooling to the grid of image tokens, convolutions, projection.

    Attributes:
        type: "c_abstractor".
        width: Channels of the convolutions.
        depth: Number of convolutional blocks before the pooling, and again after it.
        mlp_depth: Linear layers of the projection to the language model's width.

    Source: Honeybee, arXiv 2312.06742 (depth 3, two layers).
    """

    type: str = "c_abstractor"
    width: int = 1024
    depth: int = 3
    mlp_depth: int = 2

    def validate(self, encoders: Sequence[VisionEncoderConfig], grid_side: int) -> None:
        """Checks that the encoders share one grid, at least as fine as the image tokens'.

        Raises:
            ConfigError: Says which grid sides disagree.
        """
        _check_pooled_grid(self.type, encoders, grid_side)


@dataclass(frozen=True)
class LDPv2Config:
    """The second Lightweight Downsample Projector: two linear layers, average pooling, one depthwise convolution.

    Attributes:
        type: "ldp_v2".

    Source: MobileVLM V2, arXiv 2402.03766.
    """

    type: str = "ldp_v2"

    def validate(self, encoders: Sequence[VisionEncoderConfig], grid_side: int) -> None:
        """Checks that the encoders share one grid, at least as fine as the image tokens'.

        Raises:
            ConfigError: Says which grid sides disagree.
        """
        _check_pooled_grid(self.type, encoders, grid_side)


def _check_heads(width: int, num_heads: int) -> None:
    if width % num_heads:
        raise ConfigError(f"connector.width {width} is not a multiple of connector.num_heads {num_heads}")


def _check_pooled_grid(type_name: str, encoders: Sequence[VisionEncoderConfig], grid_side: int) -> None:
    for i, encoder in enumerate(encoders):
        if encoder.grid_side != encoders[0].grid_side:
            raise ConfigError(
                f"vision_encoders[{i}] ({encoder.name}): its grid side is {encoder.grid_side}, that of the first is "
                f'{encoders[0].grid_side}, but a "{type_name}" connector needs one for all; set them alike, features '
                "are interpolated"
            )
        if encoder.grid_side < grid_side:
            raise ConfigError(
                f"vision_encoders[{i}] ({encoder.name}): its grid side is {encoder.grid_side}, less than that of the "
                f'image tokens, {grid_side}, to which a "{type_name}" connector pools; raise it, or lower grid_side'
            )


def check_sizes(spec: ConnectorConfig) -> None:
    """Checks that every size and count is a whole number above 0.

    Raises:
        ConfigError: Names the first that is not.
    """
    for field in dataclasses.fields(spec):
        if isinstance(field.default, int | tuple):
            value = getattr(spec, field.name)
            sizes = value if isinstance(field.default, tuple) else (value,)
            if not isinstance(sizes, tuple) or not sizes or not all(is_size(size) for size in sizes):
                wanted = "a list of whole numbers" if isinstance(field.default, tuple) else "a whole number"
                raise ConfigError(f"connector.{field.name} is {value!r}; expected {wanted} above 0")


def check_in_llm(spec: InLLMConfig) -> None:
    """Checks that the numbers choose decoder layers.

    Raises:
        ConfigError: Names the first that does not.
    """
    for name, least in (("start", 0), ("stride", 1), ("count", 1)):
        value = getattr(spec, name)
        if not is_size(value, least):
            raise ConfigError(f"connector.in_llm.{name} is {value!r}; expected a whole number, at least {least}")


def is_size(value: object, least: int = 1) -> bool:
    """Tells whether a value is a whole number, and no less than `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


ConnectorConfig: TypeAlias = SVAConfig | ProjectorConfig | ResamplerConfig | CAbstractorConfig | LDPv2Config
CONNECTORS: dict[str, type[Any]] = {
    "sva": SVAConfig,
    "linear": ProjectorConfig,
    "identity": ProjectorConfig,
    "resampler": ResamplerConfig,
    "c_abstractor": CAbstractorConfig,
    "ldp_v2": LDPv2Config,
}


def find_connector_config(type_name: str) -> type[Any] | None:
    """Returns the class that describes connectors of a type; None for an unknown type."""
    return ProjectorConfig if MLP_TYPE.fullmatch(type_name) else CONNECTORS.get(type_name)


def unknown_type(type_name: str) -> str:
    """Says that there is no connector of this type, and which one may be meant."""
    return f'type is "{type_name}"{did_you_mean(type_name, [*CONNECTORS, "mlp2x_gelu"])}'


def without_blocks(type_name: str) -> str:
    """Says that a connector of this type has no part inside the language model."""
    return (
        f'of type "{type_name}" has no blocks inside the language model; remove connector.in_llm, or choose the type '
        '"sva"'
    )
