"""The `model` section of a recipe: language model, tokenizer, vision encoders, connector."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from cambrian_model.connector_config import (
    CAbstractorConfig,
    LDPv2Config,
    ProjectorConfig,
    ResamplerConfig,
    SVAConfig,
    find_connector_config,
    without_blocks,
)
from cambrian_model.training.recipe.section import Count, Positive, Section


class LanguageModelSection(Section):
    """Where the language model comes from.

    Attributes:
        path: Folder or hub id of its checkpoint.
        config: Its configuration: alone it gives random weights; beside a path it is what the checkpoint must agree
            with, and what plans are made from where the checkpoint is not at hand.
    """

    path: str | None = None
    config: dict[str, Any] | None = None


class VisionEncoderSection(Section):
    """One vision encoder, see `cambrian_model.vision.source.describe`.

    Attributes:
        name: One of the paper's ("siglip-so400m-384"), "timm:mobilenetv2_100", "hf:facebook/dinov2-small",
            "precomputed:mine", for example.
        path: Folder with its weights.
        pretrained: Whether published weights are fetched where no `path` is given; else they are random.
        image_side: Pixels per side of the picture that it receives.
        feature_layer: Feature level, as the library counts them; of several, the features are concatenated.
        grid_side: Side of the token grid handed to the connector.
        width: Channels of the saved features of a precomputed encoder that is not known by name.
        mean: Mean of each RGB channel.
        std: Standard deviation of each RGB channel.
        interpolation: Resampling filter.
        pad_color: RGB of the padding.
        model_args: Further arguments of the library's constructor.
    """

    name: str
    path: str | None = None
    pretrained: bool = False
    image_side: Count | None = None
    feature_layer: int | Annotated[tuple[int, ...], Field(min_length=2)] | None = None
    grid_side: Count | None = None
    width: Count | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[Positive, Positive, Positive] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None
    pad_color: tuple[int, int, int] | None = None
    model_args: dict[str, Any] = Field(default_factory=dict)


class InLLMSection(Section):
    """Which decoder layers are followed by an SVA block: `count` of them, from `start`, every `stride`."""

    start: Annotated[int, Field(ge=0)]
    stride: Count
    count: Count


class ConnectorSection(Section):
    """What turns visual features into image tokens; `type` decides which other keys there are."""

    type: str

    @model_validator(mode="before")
    @classmethod
    def _has_blocks(cls, values: Any) -> Any:
        if "in_llm" not in cls.model_fields and isinstance(values, Mapping) and values.get("in_llm") is not None:
            raise ValueError(without_blocks(str(values["type"])))
        return values


class SVASection(ConnectorSection):
    """See `SVAConfig`."""

    type: Literal["sva"] = "sva"
    attention: Literal["joint", "separate"] = "joint"
    width: Count = SVAConfig.width
    depth: Count = SVAConfig.depth
    num_heads: Count = SVAConfig.num_heads
    query_grid_sides: Annotated[tuple[Count, ...], Field(min_length=1)] = SVAConfig.query_grid_sides
    in_llm: InLLMSection | None = None


class ProjectorSection(ConnectorSection):
    """See `ProjectorConfig`: linear, mlp2x_gelu and so on, identity."""


class ResamplerSection(ConnectorSection):
    """See `ResamplerConfig`."""

    width: Count = ResamplerConfig.width
    depth: Count = ResamplerConfig.depth
    num_heads: Count = ResamplerConfig.num_heads


class CAbstractorSection(ConnectorSection):
    """See `CAbstractorConfig`."""

    width: Count = CAbstractorConfig.width
    depth: Count = CAbstractorConfig.depth
    mlp_depth: Count = CAbstractorConfig.mlp_depth


class LDPv2Section(ConnectorSection):
    """See `LDPv2Config`."""


def _connector_tag(values: Any) -> str | None:
    """Returns the tag of the section that describes a connector: the name of its class; None for an unknown type."""
    given = values.get("type", "sva") if isinstance(values, Mapping) else getattr(values, "type", "sva")
    found = find_connector_config(str(given))
    return found.__name__ if found else None


CONNECTOR_SECTIONS: dict[str, type[ConnectorSection]] = {
    SVAConfig.__name__: SVASection,
    ProjectorConfig.__name__: ProjectorSection,
    ResamplerConfig.__name__: ResamplerSection,
    CAbstractorConfig.__name__: CAbstractorSection,
    LDPv2Config.__name__: LDPv2Section,
}
AnyConnectorSection = Annotated[
    Annotated[SVASection, Tag(SVAConfig.__name__)]
    | Annotated[ProjectorSection, Tag(ProjectorConfig.__name__)]
    | Annotated[ResamplerSection, Tag(ResamplerConfig.__name__)]
    | Annotated[CAbstractorSection, Tag(CAbstractorConfig.__name__)]
    | Annotated[LDPv2Section, Tag(LDPv2Config.__name__)],
    Discriminator(_connector_tag),
]


class ModelSection(Section):
    """The model's parts; `assemble` builds the model and its processor from them.

    `connector_weights` is a folder that holds a trained connector, as `cambrian convert` makes of a stage-1 projector.
    `scene_seeds` are those of rendered scenes that pretrained parts were made from: no evaluation may ask about them.
    """

    language_model: LanguageModelSection
    tokenizer: str | None = None
    chat_template: str | None = None
    vision_encoders: Annotated[tuple[VisionEncoderSection, ...], Field(min_length=1)]
    connector: AnyConnectorSection = SVASection()
    connector_weights: str | None = None
    grid_side: Count = 24
    scene_seeds: tuple[Annotated[int, Field(ge=0)], ...] = ()

    def spec(self) -> dict[str, Any]:
        """Returns the plain mapping that `cambrian_model.assemble.assemble` takes; what is not set is left out."""
        spec = self.model_dump(mode="json", exclude_none=True, exclude={"scene_seeds"})
        for encoder in spec["vision_encoders"]:
            encoder["pretrained"] = encoder["pretrained"] and "path" not in encoder
        return spec
