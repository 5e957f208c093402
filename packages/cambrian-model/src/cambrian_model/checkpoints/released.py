"""The released Cambrian-1 checkpoints in our terms. Every released key name appears in this one file.

Names are translated, tensors are never changed. Source: the original's `cambrian_arch.py` and `vision_sampler.py`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cambrian_model.config import (
    CambrianConfig,
    ConnectorConfig,
    InLLMConfig,
    ProjectorConfig,
    SVAConfig,
    VisionEncoderConfig,
)
from cambrian_model.errors import CheckpointError

# (ours, released); {n} is a number that both sides share
_BLOCK = [
    ("proj_context.weight", "proj_context.weight"),
    ("proj_in.weight", "proj_in.weight"),
    ("proj_out.0.weight", "proj_out.linear_1.weight"),
    ("proj_out.2.weight", "proj_out.linear_2.weight"),
    ("norm.{p}", "norm.{p}"),
    ("attention.q_norm.{p}", "cross_attn.q_proj.0.{p}"),
    ("attention.q_proj.weight", "cross_attn.q_proj.1.weight"),
    ("attention.k_norms.{n}.{p}", "cross_attn.k_proj_{n}.0.{p}"),
    ("attention.k_projs.{n}.weight", "cross_attn.k_proj_{n}.1.weight"),
    ("attention.v_norms.{n}.{p}", "cross_attn.v_proj_{n}.0.{p}"),
    ("attention.v_projs.{n}.weight", "cross_attn.v_proj_{n}.1.weight"),
    ("attention.o_proj.weight", "cross_attn.o_proj.weight"),
    ("attention.pos_embeds.{n}", "pos_embed_{n}"),
]
_CONNECTOR = [
    ("connector.query", "model.vision_query"),
    ("connector.newline", "model.image_newline"),
    ("connector.output.{n}.{p}", "model.mm_projector.{n}.{p}"),
    ("connector.inputs.{n}.{m}.{p}", "model.mm_projector_aux_{n}.{m}.{p}"),
]
_BARE = [("connector.newline", "model.image_newline"), ("connector.output.0.{p}", "model.mm_projector.{p}")]


@dataclass(frozen=True)
class KeyNames:
    """Translates parameter names between a released checkpoint and ours.

    Attributes:
        in_llm_layers: The decoder layers that an SVA block follows, in order.
        has_bare_projector: Whether the connector is one linear layer, which released names do not number.
    """

    in_llm_layers: tuple[int, ...] = ()
    has_bare_projector: bool = False

    @classmethod
    def of(cls, config: CambrianConfig) -> "KeyNames":
        """Returns the names of a configuration's parameters."""
        return cls(tuple(config.in_llm_layers), config.connector_config.type == "linear")

    def to_ours(self, released: str) -> str:
        """Returns our name of a released parameter.

        Raises:
            CheckpointError: An SVA block inside the language model that the configuration does not have.
        """
        if match := re.fullmatch(r"model\.vision_sampler_layers\.(\d+)\.layers\.0\.(.+)", released):
            return f"language_model.model.layers.{self._layer(int(match[1]))}.sva.{block_to_ours(match[2])}"
        if match := re.fullmatch(r"model\.vision_sampler_(\d+)\.layers\.(\d+)\.(.+)", released):
            return f"connector.groups.{match[1]}.{match[2]}.{block_to_ours(match[3])}"
        table = _BARE if self.has_bare_projector else _CONNECTOR
        return _translate(released, [(theirs, ours) for ours, theirs in table]) or f"language_model.{released}"

    def to_released(self, ours: str) -> str:
        """Returns the released name of one of our parameters.

        Raises:
            CheckpointError: A part that released checkpoints do not hold, such as a vision encoder.
        """
        if match := re.fullmatch(r"language_model\.model\.layers\.(\d+)\.sva\.(.+)", ours):
            block = self.in_llm_layers.index(int(match[1]))
            return f"model.vision_sampler_layers.{block}.layers.0.{block_to_released(match[2])}"
        if match := re.fullmatch(r"connector\.groups\.(\d+)\.(\d+)\.(.+)", ours):
            return f"model.vision_sampler_{match[1]}.layers.{match[2]}.{block_to_released(match[3])}"
        if ours.startswith("language_model."):
            return ours.removeprefix("language_model.")
        if (name := _translate(ours, _BARE if self.has_bare_projector else _CONNECTOR)) is None:
            raise CheckpointError(f'"{ours}" has no place in a released checkpoint')
        return name

    def _layer(self, block: int) -> int:
        if block >= len(self.in_llm_layers):
            raise CheckpointError(
                f"SVA block {block} inside the language model, but the configuration has {len(self.in_llm_layers)}"
            )
        return self.in_llm_layers[block]


def block_to_ours(released: str) -> str:
    """Returns our name of a parameter of one released SVA block.

    Raises:
        CheckpointError: Unknown name.
    """
    if (name := _translate(released, [(theirs, ours) for ours, theirs in _BLOCK])) is None:
        raise CheckpointError(f'unknown parameter "{released}" in a released SVA block')
    return name


def block_to_released(ours: str) -> str:
    """Returns the released name of a parameter of one SVA block.

    Raises:
        CheckpointError: Unknown name.
    """
    if (name := _translate(ours, _BLOCK)) is None:
        raise CheckpointError(f'unknown parameter "{ours}" in an SVA block')
    return name


def _translate(name: str, table: Sequence[tuple[str, str]]) -> str | None:
    for source, target in table:
        pattern = re.escape(source).replace(r"\{n\}", r"(?P<n>\d+)").replace(r"\{m\}", r"(?P<m>\d+)")
        if match := re.fullmatch(pattern.replace(r"\{p\}", "(?P<p>weight|bias)"), name):
            return target.format(**match.groupdict())
    return None


def translate_state_dict(state: Mapping[str, Tensor], names: KeyNames) -> dict[str, Tensor]:
    """Renames the tensors of a released checkpoint to ours."""
    return {names.to_ours(name): tensor for name, tensor in state.items()}


def config_from_released(
    released: Mapping[str, Any], text_config: Mapping[str, Any], encoder_widths: Sequence[int]
) -> CambrianConfig:
    """Translates a released config.json, its encoders taken as precomputed features.

    Args:
        released: The released configuration.
        text_config: Configuration of the language model alone, with its transformers `model_type`.
        encoder_widths: Channels of each encoder's features.
    """
    sides = [round(n**0.5) for n in released["mm_vision_tower_aux_token_len_list"]]
    encoders = [
        VisionEncoderConfig(library="precomputed", name=name, image_side=0, width=width, grid_side=side)
        for name, width, side in zip(released["mm_vision_tower_aux_list"], encoder_widths, sides, strict=True)
    ]
    return CambrianConfig(
        text_config=dict(text_config),
        vision_encoders=encoders,
        connector=_connector_from_released(released),
        grid_side=round(released["image_token_len"] ** 0.5),
    )


def _connector_from_released(released: Mapping[str, Any]) -> ConnectorConfig:
    if released["mm_projector_type"] != "sva":
        return ProjectorConfig(released["mm_projector_type"])
    in_llm = None
    if not released["connector_only"]:
        in_llm = InLLMConfig(
            released["start_of_vision_sampler_layers"],
            released["stride_of_vision_sampler_layers"],
            released["num_of_vision_sampler_layers"],
        )
    return SVAConfig(
        width=released["vision_hidden_size"],
        depth=released["connector_depth"],
        num_heads=16,
        query_grid_sides=tuple(round(n**0.5) for n in released["query_num_list"]),
        in_llm=in_llm,
    )
