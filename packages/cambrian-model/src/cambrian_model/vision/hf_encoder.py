"""Any transformers vision model as a vision encoder; of a model of text and pictures, its vision part.

Notable: the model's configuration lies in `model_args`, so that a checkpoint of ours needs nothing else to build it;
what is computed for nothing (poolers, layers behind the chosen levels) is left out.
"""

import dataclasses
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from transformers.initialization import no_init_weights
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.utils import logging

from cambrian_model.checkpoints.foreign import reading
from cambrian_model.checkpoints.native import locate
from cambrian_model.config import VisionEncoderConfig
from cambrian_model.errors import CheckpointError, ConfigError, did_you_mean
from cambrian_model.vision.base import VisionEncoder, chosen_levels, unsaved_buffers
from cambrian_model.vision.dinov2_positions import Dinov2Positions
from cambrian_model.vision.published import Published
from cambrian_model.vision.weights import INDEX_FILE, WEIGHTS_FILE, LoadReport, Misfit, fetch, weight_files

CONFIG_FILES = ("config.json", "preprocessor_config.json")
FILES = (*CONFIG_FILES, WEIGHTS_FILE, INDEX_FILE, "model-*.safetensors")
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # PIL's numbers, in preprocessor_config.json

# What makes a model mask, pool or project, none of which features need.
SWITCHED_OFF = {"mask_ratio": 0.0, "use_head": False, "use_mask_token": False, "vision_use_head": False}
LAYER_LISTS = ("layer", "layers", "blocks")
FINAL_NORMS = ("layernorm", "norm", "post_layernorm", "rms_norm")
# Behind the last layer, but not of its features: they serve the pooled token alone, or project to few channels (SAM).
NOT_FEATURES = {
    "clip_vision_model": "post_layernorm",
    "convnext": "layernorm",
    "convnextv2": "layernorm",
    "sam_vision_model": "vision_encoder.neck",
}
NOT_IN_CONFIG = ("transformers_version", "architectures", "dtype", "id2label", "label2id", "_name_or_path")
OF_BACKBONES = ("out_features", "out_indices", "stage_names")  # follow from the rest


class HfEncoder(VisionEncoder):
    """Feature levels of a transformers vision model.

    `config.feature_layer` indexes `hidden_states`: 0 is what enters the first layer, n what leaves the n-th, before any
    final normalisation, negative numbers count from the end. -1 alone is the model's own output (`last_hidden_state`),
    which passes the final normalisation where the model has one.
    """

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__(config)
        self.body: Any = create_hf_model(config)
        self.prune()

    @classmethod
    def fits(cls, config: VisionEncoderConfig) -> Sequence[VisionEncoderConfig]:
        """Takes the model's own resolution, and others that are a whole number of patches.

        Raises:
            ConfigError: Pixels would be left over.
        """
        patch, native = _number(config.model_args.get("patch_size")), _number(config.model_args.get("image_size"))
        if patch and config.image_side not in (native, config.image_side // patch * patch):
            below = config.image_side // patch * patch
            raise ConfigError(
                f"{config.name}: image_side {config.image_side} is no multiple of its patches of {patch} pixels; "
                f"take {below or patch} or {below + patch}"
            )
        return [config]

    def prune(self) -> None:
        """Drops layers behind the chosen levels, where the model has the usual anatomy, and what pools or projects.

        Called again whenever `body` is replaced.
        """
        if name := NOT_FEATURES.get(self.body.config.model_type):
            self.body.set_submodule(name, nn.Identity())
        for module in self.body.modules():
            if getattr(module, "mask_token", None) is not None:
                module.mask_token = None
        if self.body.config.model_type == "dinov2":
            self.body.embeddings.__class__ = Dinov2Positions
        taken = inspect.signature(self.body.forward).parameters
        self.takes_noise, self.takes_interpolation = "noise" in taken, "interpolate_pos_encoding" in taken
        levels = chosen_levels(self.config)
        self.levels: list[int] | None = None
        if levels == [-1]:
            return
        layers, norm = _anatomy(self.body)
        if layers is None or norm is None:
            self.levels = levels
            return
        depth = len(self.body.get_submodule(layers))
        if outside := [level for level in levels if not -depth - 1 <= level <= depth]:
            raise ConfigError(f"{self.config.name}: no feature layer {outside[0]}; it has 0 to {depth}")
        levels = sorted(level % (depth + 1) for level in levels)
        if len(set(levels)) < len(levels):
            raise ConfigError(f"{self.config.name}: feature_layer names layer {levels[-1]} twice, from either end")
        self.body.set_submodule(layers, self.body.get_submodule(layers)[: levels[-1]])
        self.body.set_submodule(norm, nn.Identity())
        self.levels = levels if len(levels) > 1 else None

    def encode(self, pixels: Float[Tensor, "images 3 side side"]) -> list[Float[Tensor, "images _tokens _width"]]:
        """Returns the chosen feature levels in the order of depth, class and register tokens stripped."""
        outputs = self.body(pixels, **self._inputs(pixels))
        if self.levels is None:
            return [self._tokens(outputs.last_hidden_state)]
        return [self._tokens(outputs.hidden_states[level]) for level in self.levels]

    def _inputs(self, pixels: Tensor) -> dict[str, Any]:
        inputs: dict[str, Any] = {"output_hidden_states": True} if self.levels is not None else {}
        if self.takes_interpolation and pixels.shape[-1] != _number(self.body.config.image_size):
            inputs["interpolate_pos_encoding"] = True
        if self.takes_noise:  # a masked autoencoder shuffles its tokens by it: rising numbers leave them in order
            num_patches = (pixels.shape[-1] // _number(self.body.config.patch_size)) ** 2
            inputs["noise"] = torch.arange(num_patches, device=pixels.device).expand(len(pixels), -1)
        return inputs

    def _tokens(self, states: Tensor) -> Float[Tensor, "images tokens width"]:
        if states.ndim == 4:
            is_last = self.body.config.model_type == "sam_vision_model"  # channels: last in SAM's blocks, else second
            return states.flatten(1, 2) if is_last else states.flatten(2).transpose(1, 2)
        return states[:, self._num_prefix_tokens(states.shape[1]) :]

    def _num_prefix_tokens(self, num_tokens: int) -> int:
        """Tells how many tokens before the patches are no patches: class, distillation, registers."""
        patch = _number(getattr(self.body.config, "patch_size", None))
        registers = getattr(self.body.config, "num_register_tokens", 0)
        num_patches = (self.config.image_side // patch) ** 2 if patch else num_tokens
        prefix = num_tokens - num_patches
        return prefix if prefix in (0, 1, 2, 1 + registers) else 0  # models in stages have fewer tokens than patches

    def checkpoint_activations(self) -> None:
        """Lets transformers do it.

        Raises:
            ConfigError: transformers cannot, with this model.
        """
        if not self.body.supports_gradient_checkpointing:
            super().checkpoint_activations()
        self.body.activation_checkpointing_enable()

    def restore_buffers(self) -> None:
        """Copies the buffers that transformers computes and does not save (position indices, rotary frequencies)."""
        if unsaved := unsaved_buffers(self.body):
            with no_init_weights():
                fresh = dict(HfEncoder(self.config).body.named_buffers())
            for name, buffer in unsaved.items():
                buffer.copy_(fresh[name])


def create_hf_model(config: VisionEncoderConfig) -> nn.Module:
    """Creates a transformers vision model with fresh weights.

    Raises:
        ConfigError: `model_args` describe no vision model.
    """
    settings = _settings(config)
    return AutoModel.from_config(settings, **_constructor_args(settings))


def _settings(config: VisionEncoderConfig) -> PreTrainedConfig:
    values = dict(config.model_args)
    model_type = values.pop("model_type", None)
    if model_type not in CONFIG_MAPPING:
        known = did_you_mean(str(model_type), CONFIG_MAPPING) if model_type else "; give the model's configuration"
        raise ConfigError(f'{config.name}: unknown model_type "{model_type}" in model_args{known}')
    try:
        settings = CONFIG_MAPPING[model_type](**values)
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise ConfigError(f"{config.name} ({model_type}): {' '.join(str(error).split())}") from error
    for name, value in SWITCHED_OFF.items():
        if hasattr(settings, name):
            setattr(settings, name, value)
    return settings


def known_args(config: VisionEncoderConfig) -> set[str]:
    """Returns what `model_args` of a model of this type may say."""
    settings = type(_settings(config))
    return {*config.model_args, *(field.name for field in dataclasses.fields(settings)), *settings.attribute_map}


def _constructor_args(settings: PreTrainedConfig) -> dict[str, Any]:
    """Returns what keeps a model from having a pooler."""
    taken = inspect.signature(MODEL_MAPPING[type(settings)].__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in taken else {}


def _anatomy(body: Any) -> tuple[str | None, str | None]:
    """Finds the names of a model's list of layers and of its final normalisation; None for what is not usual."""
    depth = getattr(body.config, "num_hidden_layers", None)
    lists = [
        name
        for name, module in body.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth and name.split(".")[-1] in LAYER_LISTS
    ]
    known = NOT_FEATURES.get(body.config.model_type)
    norms = [known] if known else [name for name in FINAL_NORMS if hasattr(body, name)]
    return (lists[0] if len(lists) == 1 else None), (norms[0] if len(norms) == 1 else None)


def published_on_hub(name: str, folder: Path | None) -> Published:
    """Reads what is published of a transformers model: from a local folder, or from the hub or its cache.

    Args:
        name: A model of the hub.
        folder: Where it lies, if it is here already.

    Raises:
        CheckpointError: No such model, or it is damaged.
        ConfigError: It has no vision model.
    """
    root = folder or fetch(locate(name), CONFIG_FILES)
    whole = _read_config(root)
    vision = vision_part(whole, name)
    values = {k: v for k, v in vision.to_diff_dict().items() if k not in (*NOT_IN_CONFIG, *OF_BACKBONES)}
    preparation = read_preparation(root)
    side = _number(getattr(vision, "image_size", None)) or preparation.pop("image_side", 224)
    preparation.pop("image_side", None)
    config = VisionEncoderConfig(
        "transformers", name, image_side=side, width=0, grid_side=0, model_args=values, **preparation
    )
    return Published(config, hub_id=None if folder else name, elsewhere=str(folder or ""))


def _read_config(folder: Path) -> PreTrainedConfig:
    file = folder / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{folder}: no config.json; expected a transformers model's folder")
    with reading(file, "a transformers model's configuration"):
        card = json.loads(file.read_text(encoding="utf-8"))
        if "architecture" in card:
            raise ConfigError(f'{folder}: this is a timm model; name it "timm:{card["architecture"]}"')
        try:
            return AutoConfig.from_pretrained(folder, trust_remote_code=False)
        except (StrictDataclassError, TypeError, AttributeError) as error:  # a value of the wrong kind
            raise ValueError(" ".join(str(error).split())) from error


def vision_part(config: PreTrainedConfig, name: str) -> PreTrainedConfig:
    """Returns the configuration of the part of a model that sees.

    Raises:
        ConfigError: There is none.
    """
    for part in ("vision_config", "backbone_config"):
        config = getattr(config, part, None) or config
    model = MODEL_MAPPING.get(type(config), None)
    if model is None or getattr(model, "main_input_name", "input_ids") != "pixel_values":
        raise ConfigError(f'{name}: "{config.model_type}" is no vision model; choose one that takes pictures')
    return config


def read_preparation(folder: Path) -> dict[str, Any]:
    """Reads how pixels are prepared from preprocessor_config.json, in our terms; an absent file says nothing."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return {}
    values: dict[str, Any] = {}
    with reading(file, "a transformers image processor"):
        card = json.loads(file.read_text(encoding="utf-8"))
        for ours, theirs in (("mean", "image_mean"), ("std", "image_std")):
            if theirs in card:
                values[ours] = tuple(card[theirs])
        if card.get("resample") in RESAMPLING:
            values["interpolation"] = RESAMPLING[card["resample"]]
        size = card.get("crop_size") or card.get("size")
        if side := _number(next(iter(size.values()), None) if isinstance(size, Mapping) else size):
            values["image_side"] = side
    return values


def check_same_model(config: VisionEncoderConfig, folder: Path) -> None:
    """Refuses a folder whose vision model is not the one that `config` describes.

    Raises:
        CheckpointError: Names the first difference, with both values.
    """
    found = vision_part(_read_config(folder), str(folder)).to_diff_dict()
    for key, expected in config.model_args.items():
        if key in found and found[key] != expected:
            raise CheckpointError(
                f"{folder}: its {key} is {found[key]}, but {config.name} has {expected}; this is another model"
            )


def load_hf_encoder(config: VisionEncoderConfig, source: Path) -> tuple[HfEncoder, LoadReport]:
    """Builds the encoder with the weights of a transformers folder, of the model itself or of one that contains it.

    Raises:
        CheckpointError: The weights are missing, unreadable, or another model's.
    """
    weight_files(source)  # says more of what is missing than transformers does
    settings = _settings(config)
    with reading(source, "a transformers model's weights"), quiet():
        body, info = AutoModel.from_pretrained(
            source,
            config=settings,
            key_mapping={r"^backbone\.": ""},
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # they are reported, below
            output_loading_info=True,
            **_constructor_args(settings),
        )
    parts = {name.split(".")[0] for name in body.state_dict()}
    with torch.device("meta"):
        encoder = HfEncoder(config)
    encoder.body = body
    encoder.prune()
    kept = body.state_dict().keys()
    inside = [name for name in info["unexpected_keys"] if _belongs(name, parts, body.base_model_prefix)]
    reshaped = [
        f"{name}: {tuple(found)}, expected {tuple(wanted)}"
        for name, found, wanted in info["mismatched_keys"]
        if name in kept
    ]
    Misfit(sorted(set(info["missing_keys"]) & kept), sorted(inside), reshaped).refuse(source)
    return encoder, LoadReport(str(source), len(kept), tuple(sorted(info["unexpected_keys"])))


def _belongs(name: str, parts: set[str], base_model_prefix: str) -> bool:
    """Tells whether a weight lies in a part that the model has, so that it should have had a place there."""
    for prefix in (f"{base_model_prefix}.", "vision_model.", "backbone."):
        name = name.removeprefix(prefix)
    return name.split(".")[0] in parts and not name.endswith("mask_token")


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers from drawing bars and from printing its own report, which ours replaces."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _number(size: Any) -> int:
    """Returns the side of a square that is written as one number or two; 0 for none."""
    if isinstance(size, (list, tuple)):
        size = size[0]
    return int(size or 0)
