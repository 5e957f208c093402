"""The configuration of a Cambrian model: its vision encoders, its connector, its language model.

`CambrianConfig` is what `config.json` holds. The encoders and the connector are plain dictionaries there, and typed
views (`VisionEncoderConfig`, `connector_config`) everywhere else; an unknown key is refused.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from cambrian_model.connector_config import (
    CAbstractorConfig,
    ConnectorConfig,
    InLLMConfig,
    LDPv2Config,
    ProjectorConfig,
    ResamplerConfig,
    SVAConfig,
    check_in_llm,
    check_sizes,
    find_connector_config,
    is_size,
    unknown_type,
    without_blocks,
)
from cambrian_model.errors import ConfigError, did_you_mean

__all__ = [
    "IMAGE_TOKEN",
    "CAbstractorConfig",
    "CambrianConfig",
    "ConnectorConfig",
    "InLLMConfig",
    "LDPv2Config",
    "ProjectorConfig",
    "ResamplerConfig",
    "SVAConfig",
    "VisionEncoderConfig",
    "parse_spec",
]

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
        connector: A dictionary, see `cambrian_model.connector_config`.
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
        type_name, in_llm = str(values.get("type", "sva")), values.pop("in_llm", None)
        if (spec_class := find_connector_config(type_name)) is None:
            raise ConfigError(f"connector.{unknown_type(type_name)}")
        spec: ConnectorConfig = parse_spec(spec_class, values, "connector")
        check_sizes(spec)
        if in_llm is None:
            return spec
        if not isinstance(spec, SVAConfig):
            raise ConfigError(f"a connector {without_blocks(type_name)}")
        blocks = parse_spec(InLLMConfig, in_llm, "connector.in_llm")
        check_in_llm(blocks)
        return dataclasses.replace(spec, in_llm=blocks)

    @property
    def in_llm_layers(self) -> list[int]:
        """Indices of the decoder layers that an SVA block follows."""
        connector = self.connector_config
        return connector.in_llm.layers if isinstance(connector, SVAConfig) and connector.in_llm else []

    def validate_parts(self) -> None:
        """Checks that encoders, connector and language model fit together.

        Raises:
            ConfigError: Says which two numbers disagree.
        """
        if not is_size(self.grid_side):
            raise ConfigError(f"grid_side is {self.grid_side!r}; expected a whole number above 0")
        for i, encoder in enumerate(self.encoders):
            for key in ("width", "grid_side"):
                if not is_size(getattr(encoder, key)):
                    value = getattr(encoder, key)
                    raise ConfigError(f"vision_encoders[{i}].{key} is {value!r}; expected a whole number above 0")
        self.connector_config.validate(self.encoders, self.grid_side)
        num_layers = self.get_text_config().num_hidden_layers
        if layers := [n for n in self.in_llm_layers if n >= num_layers]:
            raise ConfigError(
                f"connector.in_llm chooses decoder layers {layers}, but the language model has {num_layers} "
                f"(0 to {num_layers - 1}); lower start, stride or count"
            )


def _as_dict(spec: Any) -> dict[str, Any]:
    if not isinstance(spec, Mapping) and (not dataclasses.is_dataclass(spec) or isinstance(spec, type)):
        raise ConfigError(f"{spec!r} describes no encoder and no connector; expected a dictionary of its options")
    values = dict(spec) if isinstance(spec, Mapping) else dataclasses.asdict(spec)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
