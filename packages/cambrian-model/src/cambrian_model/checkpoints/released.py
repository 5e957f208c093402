"""The released Cambrian-1 checkpoints in our terms: names of tensors, fields of config.json, names of vision towers.

Every released name appears in this one file. Names are translated, tensors are never changed. Source: the original's
`cambrian_arch.py`, `vision_sampler.py`, `train_fsdp.py` and its vision towers.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from cambrian_model.checkpoints.foreign import reading
from cambrian_model.config import (
    CambrianConfig,
    ConnectorConfig,
    InLLMConfig,
    ProjectorConfig,
    SVAConfig,
    VisionEncoderConfig,
)
from cambrian_model.connector_config import is_size
from cambrian_model.errors import CheckpointError, ConfigError, did_you_mean

# The released kinds of model, and transformers' name of the language model in each; llava_llama is an early name.
MODEL_TYPES = {"cambrian_llama": "llama", "llava_llama": "llama", "cambrian_phi3": "phi3"}
PROJECTOR_FILES = ("mm_projector.bin", "mm_projector.safetensors")
NUM_HEADS = 16  # which the original fixes
CLIP_MEAN_COLOR = (122, 116, 104)

_TOWER = re.compile(r"model\.vision_tower_aux_list\.(\d+)\.vision_tower\.(.+)")
# What a stage-1 file holds; whatever stands before is an accident of how it was saved.
_STAGE_1 = re.compile(
    r"(?:^|\.)(mm_projector(?:_aux_\d+)?\..+|vision_sampler_(?:layers|\d+)\..+|vision_query|image_newline)$"
)

# (ours, released); {n} is a number that both sides share
_BLOCK = [
    ("proj_context.weight", "proj_context.weight"),
    ("proj_in.weight", "proj_in.weight"),
    ("proj_out.0.weight", "proj_out.linear_1.weight"),
    ("proj_out.2.weight", "proj_out.linear_2.weight"),
    ("norm.{p}", "norm.{p}"),
]
_JOINT = [
    *_BLOCK,
    ("attention.q_norm.{p}", "cross_attn.q_proj.0.{p}"),
    ("attention.q_proj.weight", "cross_attn.q_proj.1.weight"),
    ("attention.k_norms.{n}.{p}", "cross_attn.k_proj_{n}.0.{p}"),
    ("attention.k_projs.{n}.weight", "cross_attn.k_proj_{n}.1.weight"),
    ("attention.v_norms.{n}.{p}", "cross_attn.v_proj_{n}.0.{p}"),
    ("attention.v_projs.{n}.weight", "cross_attn.v_proj_{n}.1.weight"),
    ("attention.o_proj.weight", "cross_attn.o_proj.weight"),
    ("attention.pos_embeds.{n}", "pos_embed_{n}"),
]
_SEPARATE = [
    *_BLOCK,
    ("weighting.0.weight", "weight_mlp.linear_1.weight"),
    ("weighting.2.weight", "weight_mlp.linear_2.weight"),
    ("per_encoder.{n}.0.weight", "aggregate_{n}.attention_layer.linear_1.weight"),
    ("per_encoder.{n}.2.weight", "aggregate_{n}.attention_layer.linear_2.weight"),
    ("per_encoder.{n}.q_norm.{p}", "aggregate_{n}.attention_layer.q_proj.0.{p}"),
    ("per_encoder.{n}.q_proj.weight", "aggregate_{n}.attention_layer.q_proj.1.weight"),
    ("per_encoder.{n}.k_norms.0.{p}", "aggregate_{n}.attention_layer.k_proj.0.{p}"),
    ("per_encoder.{n}.k_projs.0.weight", "aggregate_{n}.attention_layer.k_proj.1.weight"),
    ("per_encoder.{n}.v_norms.0.{p}", "aggregate_{n}.attention_layer.v_proj.0.{p}"),
    ("per_encoder.{n}.v_projs.0.weight", "aggregate_{n}.attention_layer.v_proj.1.weight"),
    ("per_encoder.{n}.o_proj.weight", "aggregate_{n}.attention_layer.o_proj.weight"),
    ("per_encoder.{n}.pos_embeds.0", "pos_embed_{n}"),
]
_BLOCKS = {"joint": _JOINT, "separate": _SEPARATE}
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
        attention: The attention of the SVA blocks, "joint" or "separate".
    """

    in_llm_layers: tuple[int, ...] = ()
    has_bare_projector: bool = False
    attention: str = "joint"

    @classmethod
    def of(cls, config: CambrianConfig) -> "KeyNames":
        """Returns the names of a configuration's parameters."""
        connector = config.connector_config
        attention = connector.attention if isinstance(connector, SVAConfig) else "joint"
        return cls(tuple(config.in_llm_layers), connector.type == "linear", attention)

    def to_ours(self, released: str) -> str:
        """Returns our name of a released parameter.

        Raises:
            CheckpointError: An SVA block inside the language model that the configuration does not have.
        """
        if match := re.fullmatch(r"model\.vision_sampler_layers\.(\d+)\.layers\.0\.(.+)", released):
            layer = self._layer(int(match[1]))
            return f"language_model.model.layers.{layer}.sva.{block_to_ours(match[2], self.attention)}"
        if match := re.fullmatch(r"model\.vision_sampler_(\d+)\.layers\.(\d+)\.(.+)", released):
            return f"connector.groups.{match[1]}.{match[2]}.{block_to_ours(match[3], self.attention)}"
        table = _BARE if self.has_bare_projector else _CONNECTOR
        return _translate(released, [(theirs, ours) for ours, theirs in table]) or f"language_model.{released}"

    def to_released(self, ours: str) -> str:
        """Returns the released name of one of our parameters.

        Raises:
            CheckpointError: A part that released checkpoints do not hold, such as a vision encoder.
        """
        if match := re.fullmatch(r"language_model\.model\.layers\.(\d+)\.sva\.(.+)", ours):
            block = self.in_llm_layers.index(int(match[1]))
            return f"model.vision_sampler_layers.{block}.layers.0.{block_to_released(match[2], self.attention)}"
        if match := re.fullmatch(r"connector\.groups\.(\d+)\.(\d+)\.(.+)", ours):
            return f"model.vision_sampler_{match[1]}.layers.{match[2]}.{block_to_released(match[3], self.attention)}"
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


def block_to_ours(released: str, attention: str = "joint") -> str:
    """Returns our name of a parameter of one released SVA block.

    Raises:
        CheckpointError: Unknown name.
    """
    if (name := _translate(released, [(theirs, ours) for ours, theirs in _BLOCKS[attention]])) is None:
        raise CheckpointError(f'unknown parameter "{released}" in a released SVA block')
    return name


def block_to_released(ours: str, attention: str = "joint") -> str:
    """Returns the released name of a parameter of one SVA block.

    Raises:
        CheckpointError: Unknown name.
    """
    if (name := _translate(ours, _BLOCKS[attention])) is None:
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


def stage_1_name(name: str) -> str | None:
    """Returns the full name of a tensor of a stage-1 file, or None if it is none of the connector's."""
    match = _STAGE_1.search(name)
    return f"model.{match[1]}" if match else None


def is_connector(released: str) -> bool:
    """Tells whether a tensor belongs to the connector or to a block inside the language model."""
    return stage_1_name(released) == released


class TowerTensor(NamedTuple):
    """A tensor of a vision tower that was trained along: which tower, and its name there."""

    tower: int
    name: str


def tower_tensor(released: str) -> TowerTensor | None:
    """Returns which tower a tensor belongs to, or None; of towers that stayed frozen a checkpoint holds nothing."""
    match = _TOWER.fullmatch(released)
    return TowerTensor(int(match[1]), match[2]) if match else None


def encoder_widths(shapes: Mapping[str, Sequence[int]], num_encoders: int) -> list[int | None]:
    """Returns how many channels the weights expect of each encoder; None where they do not say.

    Raises:
        CheckpointError: There are weights for another number of encoders than the configuration lists.
    """
    first = re.compile(r"model\.mm_projector_aux_(\d+)\.0\.weight")
    found = {int(match[1]): shape[1] for name, shape in shapes.items() if (match := first.fullmatch(name))}
    if found and sorted(found) != list(range(num_encoders)):
        raise CheckpointError(
            f"the configuration lists {num_encoders} vision encoders (mm_vision_tower_aux_list), but the weights hold "
            f"{len(found)} projections of their features (mm_projector_aux_{{i}}): {sorted(found)}"
        )
    if found:
        return [found[i] for i in range(num_encoders)]
    whole = shapes.get("model.mm_projector.0.weight") or shapes.get("model.mm_projector.weight")
    return [whole[1]] if whole and num_encoders == 1 else [None] * num_encoders


# --- config.json

_ALWAYS = ("mm_vision_tower_aux_list", "mm_vision_tower_aux_token_len_list", "image_token_len")
_SVA = ("vision_hidden_size", "query_num_list", "connector_only", "connector_depth")
_IN_LLM = ("num_of_vision_sampler_layers", "start_of_vision_sampler_layers", "stride_of_vision_sampler_layers")
_TEXT = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
# Fields of a language model's configuration that say nothing about it, or that have another name by now.
_NOT_TEXT = {"architectures", "model_type", "transformers_version", "id2label", "label2id", "problem_type", "dtype"}
_OLD_TEXT = {"rope_theta", "rope_scaling"}


def check_released_config(released: Mapping[str, Any], source: object) -> None:
    """Checks that a configuration says everything that we need.

    Raises:
        CheckpointError: It is of another kind, or fields are missing or contradict each other; names them.
    """
    model_type = released.get("model_type")
    if not isinstance(model_type, str) or model_type not in MODEL_TYPES:
        raise CheckpointError(
            f'{source}: model_type is "{model_type}"{did_you_mean(str(model_type), MODEL_TYPES)}; expected a released '
            "Cambrian-1 checkpoint"
        )
    projector = released.get("mm_projector_type", "linear")
    needed = [*_TEXT, *_ALWAYS, *(_SVA if projector == "sva" else ())]
    if projector == "sva" and not released.get("connector_only", True):
        needed += _IN_LLM
    if missing := [field for field in needed if released.get(field) is None]:
        raise CheckpointError(
            f'{source}: missing {", ".join(missing)}; a released configuration with the projector "{projector}" says '
            "them"
        )
    _check_kinds(released, needed, source)
    lists = ("mm_vision_tower_aux_list", "mm_vision_tower_aux_token_len_list")
    towers, lengths = (released[field] for field in lists)
    if len(towers) != len(lengths):
        raise CheckpointError(f"{source}: {lists[0]} has {len(towers)} entries, but {lists[1]} has {len(lengths)}")
    counts = [*lengths, released["image_token_len"], *(released["query_num_list"] if projector == "sva" else ())]
    if odd := [count for count in counts if not is_size(count) or math.isqrt(count) ** 2 != count]:
        raise CheckpointError(f"{source}: {odd[0]!r} tokens form no square grid; expected square numbers of tokens")


def _check_kinds(released: Mapping[str, Any], fields: Iterable[str], source: object) -> None:
    projector = released.get("mm_projector_type", "linear")
    if not isinstance(projector, str):
        raise CheckpointError(f'{source}: mm_projector_type is {projector!r}; expected a name, such as "sva"')
    for field in fields:
        value = released[field]
        if field in ("mm_vision_tower_aux_list", "mm_vision_tower_aux_token_len_list", "query_num_list"):
            kind = str if field == "mm_vision_tower_aux_list" else int
            if not isinstance(value, list) or not value or not all(isinstance(item, kind) for item in value):
                wanted = "names" if kind is str else "whole numbers"
                raise CheckpointError(f"{source}: {field} is {value!r}; expected a list of {wanted}")
        elif field == "connector_only":
            if not isinstance(value, bool):
                raise CheckpointError(f"{source}: {field} is {value!r}; expected true or false")
        elif not is_size(value, least=0 if field == "start_of_vision_sampler_layers" else 1):
            raise CheckpointError(f"{source}: {field} is {value!r}; expected a whole number above 0")


def check_counts(released: Mapping[str, Any], num_tensors: int, source: object) -> None:
    """Checks, before anything is built, that no part is repeated more often than there are tensors.

    Raises:
        CheckpointError: Names the field and both numbers.
    """
    for field in ("num_hidden_layers", "connector_depth", "num_of_vision_sampler_layers"):
        if (count := released.get(field)) is not None and is_size(count) and count > num_tensors:
            raise CheckpointError(f"{source}: {field} is {count}, but the weights hold {num_tensors} tensors in all")
    layers = re.fullmatch(r"mlp(\d+)x_gelu", released.get("mm_projector_type", ""))
    if layers and int(layers[1]) > num_tensors:
        raise CheckpointError(f"{source}: mm_projector_type is {layers[0]}, but there are {num_tensors} tensors in all")


def text_config_from_released(released: Mapping[str, Any]) -> PreTrainedConfig:
    """Returns the configuration of the language model alone."""
    model_type = MODEL_TYPES[released["model_type"]]
    config_class = CONFIG_MAPPING[model_type]
    known = {field.name for field in dataclasses.fields(config_class)} - _NOT_TEXT | _OLD_TEXT
    values = {key: value for key, value in released.items() if key in known}
    with reading("config.json", "a language model's configuration"):
        return AutoConfig.for_model(model_type, **values, dtype=released.get("torch_dtype"))


def config_from_released(
    released: Mapping[str, Any],
    text_config: Mapping[str, Any],
    encoder_widths: Sequence[int],
) -> CambrianConfig:
    """Translates a released config.json, its encoders taken as precomputed features.

    Args:
        released: The released configuration.
        text_config: Configuration of the language model alone, with its transformers `model_type`.
        encoder_widths: Channels of each encoder's features.

    Raises:
        ConfigError: The projector is unknown, or encoders and connector do not fit together.
    """
    sides = encoder_grid_sides(released)
    encoders = [
        VisionEncoderConfig(library="precomputed", name=name, image_side=0, width=width, grid_side=side)
        for name, width, side in zip(released["mm_vision_tower_aux_list"], encoder_widths, sides, strict=True)
    ]
    return config_with_encoders(released, text_config, encoders)


def config_with_encoders(
    released: Mapping[str, Any], text_config: Mapping[str, Any], encoders: Sequence[VisionEncoderConfig]
) -> CambrianConfig:
    """Translates a released config.json, but for its encoders, which are given.

    Raises:
        ConfigError: The projector is unknown, or encoders and connector do not fit together.
    """
    return CambrianConfig(
        text_config=dict(text_config),
        vision_encoders=list(encoders),
        connector=_connector_from_released(released),
        grid_side=math.isqrt(released["image_token_len"]),
        tie_word_embeddings=bool(text_config.get("tie_word_embeddings", False)),
        dtype=released.get("torch_dtype"),
    )


def encoder_grid_sides(released: Mapping[str, Any]) -> list[int]:
    """Returns the side of each encoder's token grid."""
    return [math.isqrt(count) for count in released["mm_vision_tower_aux_token_len_list"]]


def _connector_from_released(released: Mapping[str, Any]) -> ConnectorConfig:
    projector = released.get("mm_projector_type", "linear")
    if projector in ("linear", "identity") or re.fullmatch(r"mlp[1-9]\d*x_gelu", projector):
        return ProjectorConfig(projector)
    if projector != "sva":
        known = ("sva", "linear", "mlp2x_gelu", "identity")
        raise ConfigError(f'mm_projector_type is "{projector}"{did_you_mean(projector, known)}')
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
        num_heads=NUM_HEADS,
        query_grid_sides=tuple(math.isqrt(count) for count in released["query_num_list"]),
        in_llm=in_llm,
    )


def config_to_released(config: CambrianConfig, towers: Sequence[str], image_position: int | None) -> dict[str, Any]:
    """Returns the released config.json of a model.

    Args:
        config: Its configuration.
        towers: The original's names of its encoders.
        image_position: Tokens before the picture in a prompt, which the original wants to know beforehand.

    Raises:
        CheckpointError: The original cannot build this model; says what it lacks.
    """
    text = config.get_text_config()
    released_type = {ours: theirs for theirs, ours in MODEL_TYPES.items() if theirs.startswith("cambrian_")}
    if text.model_type not in released_type:
        raise CheckpointError(
            f"the original knows no language model of type {text.model_type}; known: {', '.join(released_type)}"
        )
    family = {"llama": "Llama", "phi3": "Phi3"}[text.model_type]
    dtype = config.dtype or text.dtype
    rope = dict(text.rope_parameters or {})
    values = {key: value for key, value in text.to_dict().items() if key not in _NOT_TEXT | {"rope_parameters"}}
    return {
        **values,
        "architectures": [f"Cambrian{family}ForCausalLM"],
        "model_type": released_type[text.model_type],
        "torch_dtype": str(dtype).removeprefix("torch.") if dtype else None,
        "rope_theta": rope.pop("rope_theta", None),
        "rope_scaling": None if rope.get("rope_type", "default") == "default" else rope,
        "mm_vision_tower_aux_list": list(towers),
        "mm_vision_tower_aux_token_len_list": [encoder.num_tokens for encoder in config.encoders],
        "image_token_len": config.grid_side**2,
        "image_position": image_position,
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "image_aspect_ratio": "pad",
        "tune_mm_mlp_adapter": False,
        "unfreeze_mm_vision_tower": False,
        "use_mm_proj": True,
        **_connector_to_released(config),
    }


def _connector_to_released(config: CambrianConfig) -> dict[str, Any]:
    connector = config.connector_config
    if isinstance(connector, ProjectorConfig):
        return {
            "mm_projector_type": connector.type,
            "mm_hidden_size": sum(encoder.width for encoder in config.encoders),
            "connector_only": True,
            "query_num_list": [config.grid_side**2],  # the original reads it, whatever the connector
            "num_query_group": 1,
        }
    if not isinstance(connector, SVAConfig):
        raise CheckpointError(f'the original knows no connector "{connector.type}"; it has sva and multi-layer ones')
    if connector.attention != "joint" or connector.num_heads != NUM_HEADS:
        raise CheckpointError(
            f"the original's SVA has joint attention and {NUM_HEADS} heads; this model has {connector.attention} "
            f"attention and {connector.num_heads} heads"
        )
    values = {
        "mm_projector_type": "sva",
        "vision_hidden_size": connector.width,
        "connector_depth": connector.depth,
        "connector_only": connector.in_llm is None,
        "query_num_list": [side**2 for side in connector.query_grid_sides],
        "num_query_group": len(connector.query_grid_sides),
    }
    if connector.in_llm is not None:
        in_llm = connector.in_llm
        values |= dict(zip(_IN_LLM, (in_llm.count, in_llm.start, in_llm.stride), strict=True))
    return values


def trained_parts(released: Mapping[str, Any]) -> dict[str, bool]:
    """Returns, by our names of the parts, what the original's flags say was trained last."""
    adapter_alone = bool(released.get("tune_mm_mlp_adapter"))
    return {
        "vision_encoders": bool(released.get("unfreeze_mm_vision_tower")),
        "connector": not released.get("freeze_mm_mlp_adapter"),
        "in_llm": not released.get("freeze_mm_mlp_adapter"),
        "language_model": not adapter_alone,
    }


# --- vision towers

# How the original names its towers, and how our registry names them. A suffix "-interpN" is a number of tokens, which
# the configuration says anyway. Towers that are wrapped, other than those of transformers, are padded with CLIP's mean.
TOWERS: dict[str, dict[str, Any]] = {
    "siglip/CLIP-ViT-SO400M-14-384": {"name": "siglip-so400m-384", "pad_color": CLIP_MEAN_COLOR},
    "timm/ViT-SO400M-14-SigLIP-384": {"name": "siglip-so400m-384", "pad_color": CLIP_MEAN_COLOR},
    "openai/clip-vit-large-patch14-336": {"name": "clip-l-336"},
    "facebook/dinov2-giant-res378": {"name": "dinov2-g-378"},
    "facebook/dinov2-large-res336": {"name": "dinov2-l-336"},
    "facebook/dinov2-large-res518": {"name": "dinov2-l-518"},
    "clip-convnext-XXL-multi-stage": {"name": "clip-convnext-xxl-1024-multistage", "pad_color": CLIP_MEAN_COLOR},
    "clip-convnext-XXL": {"name": "clip-convnext-xxl-1024", "pad_color": CLIP_MEAN_COLOR},
    "clip-convnext-L": {"name": "clip-convnext-l-1024", "pad_color": CLIP_MEAN_COLOR},
    "clip-convnext-L-res512": {"name": "clip-convnext-l-512", "pad_color": CLIP_MEAN_COLOR},
}


def encoder_specs(released: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the vision towers of a released configuration as encoders of a recipe, without where their weights are.

    Raises:
        CheckpointError: We know no encoder by a tower's name.
    """
    specs = []
    for tower, side in zip(released["mm_vision_tower_aux_list"], encoder_grid_sides(released), strict=True):
        name = re.sub(r"-interp\d+$", "", tower)
        if name not in TOWERS:
            raise CheckpointError(
                f'mm_vision_tower_aux_list names "{tower}"{did_you_mean(name, TOWERS)}; or convert with '
                "--precomputed-encoders, and pass vision_features to the model"
            )
        spec = {**TOWERS[name], "grid_side": side}
        if name.startswith("openai/") and released.get("mm_vision_select_layer") is not None:
            spec["feature_layer"] = released["mm_vision_select_layer"]  # the other towers take no notice of it
        specs.append(spec)
    return specs


def chat_template(released: Mapping[str, Any], vocabulary: Iterable[str]) -> str:
    """Returns the name of the template that a released model was trained with.

    Its configuration does not say. `image_position` is the number of tokens before the picture, and so tells the
    templates of the published 8B and 34B; the special tokens of the tokenizer tell the rest.
    """
    if MODEL_TYPES[released["model_type"]] == "phi3":
        return "phi3"
    by_position = {91: "llama_3", 87: "chatml_direct"}
    if (position := released.get("image_position")) in by_position:
        return by_position[position]
    by_token = {"<|start_header_id|>": "llama_3", "<|im_start|>": "chatml_direct"}
    known = set(vocabulary)
    return next((name for token, name in by_token.items() if token in known), "vicuna_v1")
