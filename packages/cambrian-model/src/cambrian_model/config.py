"""The configuration of a Cambrian model: its vision encoders, its connector, its language model.

`CambrianConfig` is what `config.json` holds. The encoders and the connector are plain dictionaries there, and typed
views (`VisionEncoderConfig`, `SVAConfig`) everywhere else; an unknown key is refused.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias, TypeVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from cambrian_model.errors import ConfigError, did_you_mean

IMAGE_TOKEN = "<image>"

Spec = TypeVar("Spec")


@dataclass(frozen=True)
class VisionEncoderConfig:
    """One vision encoder: where its features come from and how its pixels are prepared.

    Attributes:
        library: Which loader builds it: "timm", "transformers", "diffusers", or "precomputed" for saved features.
        name: The architecture's name in that library.
        image_side: Pixels per side of the square picture it receives.
        width: Channels of its features.
        grid_side: Side of the token grid handed to the connector; features are interpolated if theirs differs.
        feature_layer: Which feature level is taken, counted as the library counts them; -1 is the last. Several levels
            are each interpolated to the grid and concatenated on channels.
        mean: Mean of each RGB channel, of pixels in [0, 1].
        std: Standard deviation of each RGB channel, of pixels in [0, 1].
        interpolation: Resampling filter of the resize: "nearest", "bilinear", "bicubic" or "lanczos".
        pad_color: RGB (0 to 255) of the padding to square; None takes the encoder's own mean.
        model_args: Further keyword arguments of the library's constructor.
    """

    library: str
    name: str
    image_side: int
    width: int
    grid_side: int
    feature_layer: int | tuple[int, ...] = -1
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    interpolation: str = "bicubic"
    pad_color: tuple[int, int, int] | None = None
    model_args: dict[str, Any] = field(default_factory=dict)

    @property
    def num_tokens(self) -> int:
        """Tokens handed to the connector for one picture."""
        return self.grid_side**2


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
        if self.width % self.num_heads:
            raise ConfigError(f"connector.width {self.width} is not a multiple of connector.num_heads {self.num_heads}")
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

    in_llm: ClassVar[None] = None

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


ConnectorConfig: TypeAlias = SVAConfig | ProjectorConfig


def connector_config_class(type_name: str) -> type[Any]:
    """Returns the class that describes connectors of a type.

    Raises:
        ConfigError: Unknown type.
    """
    if MLP_TYPE.fullmatch(type_name):
        return ProjectorConfig
    if type_name not in CONNECTORS:
        raise ConfigError(f'connector.type is "{type_name}"{did_you_mean(type_name, [*CONNECTORS, "mlp2x_gelu"])}')
    return CONNECTORS[type_name]


ATTENTIONS = ("joint", "separate")
MLP_TYPE = re.compile(r"mlp([1-9]\d*)x_gelu")
CONNECTORS: dict[str, type[Any]] = {"sva": SVAConfig, "linear": ProjectorConfig, "identity": ProjectorConfig}


def parse_spec(cls: type[Spec], values: Mapping[str, Any], where: str) -> Spec:
    """Builds the dataclass `cls` from a dictionary, refusing unknown and missing keys by name.

    Raises:
        ConfigError: A key is unknown or a required one is missing.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise ConfigError(f'{where}: unknown key "{key}"{did_you_mean(key, fields)}')
    required = {
        name
        for name, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    if missing := sorted(required - set(values)):
        raise ConfigError(f"{where}: missing {', '.join(missing)}; found {', '.join(sorted(values)) or 'nothing'}")
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


class CambrianConfig(PreTrainedConfig):
    """Configuration of `CambrianForConditionalGeneration`.

    Attributes:
        vision_encoders: One dictionary per encoder, see `VisionEncoderConfig`.
        connector: A dictionary, see `SVAConfig` and `ProjectorConfig`.
        text_config: Configuration of the language model: any causal language model of transformers.
        grid_side: Side of the grid of image tokens of a square picture.
        image_token_id: The id that marks image tokens in `input_ids`; it may lie outside the vocabulary.
    """

    model_type = "cambrian"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama")
    }

    text_config: dict | PreTrainedConfig | None = None
    vision_encoders: list | None = None
    connector: dict | ConnectorConfig | None = None
    grid_side: int = 24
    image_token_id: int = -200
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        self.vision_encoders = [_as_dict(encoder) for encoder in self.vision_encoders or []]
        self.connector = _as_dict(self.connector if self.connector is not None else SVAConfig())
        super().__post_init__(**kwargs)
        self.validate_parts()

    @property
    def encoders(self) -> list[VisionEncoderConfig]:
        """The vision encoders, typed."""
        return [
            parse_spec(VisionEncoderConfig, encoder, f"vision_encoders[{i}]")
            for i, encoder in enumerate(self.vision_encoders or [])
        ]

    @property
    def connector_config(self) -> ConnectorConfig:
        """The connector, typed."""
        values = _as_dict(self.connector or {})
        in_llm = values.pop("in_llm", None)
        spec = parse_spec(connector_config_class(str(values.get("type", "sva"))), values, "connector")
        if in_llm is None:
            return spec
        return dataclasses.replace(spec, in_llm=parse_spec(InLLMConfig, in_llm, "connector.in_llm"))

    @property
    def in_llm_layers(self) -> list[int]:
        """Indices of the decoder layers that an SVA block follows."""
        in_llm = self.connector_config.in_llm
        return in_llm.layers if in_llm else []

    def validate_parts(self) -> None:
        """Checks that encoders, connector and language model fit together.

        Raises:
            ConfigError: Says which two numbers disagree.
        """
        self.connector_config.validate(self.encoders, self.grid_side)
        num_layers = self.get_text_config().num_hidden_layers
        if layers := [n for n in self.in_llm_layers if n >= num_layers]:
            raise ConfigError(
                f"connector.in_llm chooses decoder layers {layers}, but the language model has {num_layers} "
                f"(0 to {num_layers - 1}); lower start, stride or count"
            )


def _as_dict(spec: Any) -> dict[str, Any]:
    values = dataclasses.asdict(spec) if dataclasses.is_dataclass(spec) and not isinstance(spec, type) else dict(spec)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
