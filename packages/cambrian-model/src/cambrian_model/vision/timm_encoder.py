"""Any timm model as a vision encoder, at any feature level that timm can return.

Notable: layers behind the chosen level are pruned, so they cost neither memory nor time, and weights load strictly.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import timm
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from cambrian_model.checkpoints.native import reading
from cambrian_model.config import VisionEncoderConfig, parse_spec
from cambrian_model.errors import CheckpointError, ConfigError, did_you_mean
from cambrian_model.vision.base import VisionEncoder

WEIGHTS_FILE = "model.safetensors"


class FeatureShape(NamedTuple):
    """Channels and grid side of the chosen feature level."""

    width: int
    grid_side: int


class TimmEncoder(VisionEncoder):
    """One feature level of a timm model.

    `config.feature_layer` indexes what `forward_intermediates` returns: blocks of a vision transformer, stages of a
    ConvNet. The last level passes the model's own final normalisation where it has one.
    """

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__(config)
        self.body = create_timm_model(config.name, config.model_args)
        self.prune()

    def prune(self) -> None:
        """Drops the classifier and every layer behind the chosen level."""
        is_last = self.config.feature_layer == -1
        prune = cast(Callable[..., list[int]], self.body.prune_intermediate_layers)
        self.level = prune([self.config.feature_layer], prune_norm=not is_last)[0]
        self.normed = is_last

    def encode(self, pixels: Float[Tensor, "images 3 side side"]) -> Float[Tensor, "images tokens width"]:
        """Returns the chosen feature level, prefix tokens stripped."""
        features = cast(Callable[..., list[Tensor]], self.body.forward_intermediates)
        (grid,) = features(
            pixels, indices=[self.level], norm=self.normed, intermediates_only=True, output_fmt="NCHW", stop_early=True
        )
        return grid.flatten(2).transpose(1, 2)

    def restore_buffers(self) -> None:
        """Copies the buffers that timm computes and does not save (rotary tables, relative position indices)."""
        own = dict(self.body.named_buffers())
        unsaved = set(own) - set(self.body.state_dict())
        if unsaved:
            fresh = dict(TimmEncoder(self.config).body.named_buffers())
            for name in unsaved:
                own[name].copy_(fresh[name])


def create_timm_model(name: str, model_args: Mapping[str, Any], pretrained: bool = False) -> nn.Module:
    """Creates a timm model by architecture name.

    Raises:
        ConfigError: timm does not know the name, or the model cannot return intermediate features.
    """
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        raise ConfigError(f'unknown timm model "{name}"{did_you_mean(architecture, timm.list_models())}')
    with reading(f"timm:{name}", "a pretrained timm model") if pretrained else nullcontext():
        model = _create(name, pretrained, model_args)
    if not hasattr(model, "prune_intermediate_layers"):
        raise ConfigError(f'timm model "{name}" cannot return intermediate features; choose another')
    return model


def _create(name: str, pretrained: bool, model_args: Mapping[str, Any]) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=pretrained, **model_args)
    except TypeError as error:
        raise ConfigError(f'timm model "{name}" does not take these model_args: {error}') from error


def feature_shape(config: VisionEncoderConfig) -> FeatureShape:
    """Finds width and grid of the chosen level without computing anything (meta device).

    Raises:
        ConfigError: The model refuses this resolution, or its features lie on no square grid.
    """
    with torch.device("meta"):
        try:
            encoder = TimmEncoder(config).eval()
            tokens = encoder.encode(torch.zeros(1, 3, config.image_side, config.image_side))
        except (AssertionError, RuntimeError, TypeError, IndexError) as error:
            raise ConfigError(
                f'timm model "{config.name}" gives no feature layer {config.feature_layer} of {config.image_side} x '
                f"{config.image_side} pixels: {error}. Change image_side or feature_layer, or pass img_size or "
                "dynamic_img_size in model_args"
            ) from error
    side = round(tokens.shape[1] ** 0.5)
    if side * side != tokens.shape[1]:
        raise ConfigError(f'timm model "{config.name}" returns {tokens.shape[1]} tokens, which form no square grid')
    return FeatureShape(tokens.shape[2], side)


class EncoderSource(NamedTuple):
    """Where the weights of a timm encoder come from."""

    config: VisionEncoderConfig
    folder: Path | None
    pretrained: bool


def describe(spec: Mapping[str, Any]) -> EncoderSource:
    """Resolves an encoder as a recipe writes it into a full configuration, reading no weights.

    Args:
        spec: `name` ("timm:<model>"), and optionally `path` (a folder with config.json and model.safetensors in timm's
            hub layout), `pretrained`, `image_side`, `feature_layer`, `grid_side`, `model_args`, `mean`, `std`,
            `interpolation`, `pad_color`.

    Raises:
        ConfigError: Unknown model, or a resolution that it does not take.
        CheckpointError: `path` holds no timm model.
    """
    values = dict(spec)
    name = str(values.pop("name")).removeprefix("timm:")
    folder = values.pop("path", None)
    pretrained = bool(values.pop("pretrained", False))
    published: Mapping[str, Any] = {}
    model_args = dict(values.pop("model_args", None) or {})
    if folder is not None:
        card = read_timm_card(Path(folder))
        if card["architecture"] != name.split(".")[0]:
            raise CheckpointError(
                f'{folder}: holds timm model "{card["architecture"]}", but the recipe names "{name}"; change one'
            )
        published = card.get("pretrained_cfg", {})
        model_args = {**card.get("model_args", {}), **model_args}
    elif (known := timm.get_pretrained_cfg(name, allow_unregistered=True)) is not None:
        published = known.to_dict()
    side = int(values.pop("image_side", None) or published.get("input_size", (3, 224, 224))[1])
    preparation = {key: published[key] for key in ("mean", "std", "interpolation") if key in published}
    found = {"library": "timm", "name": name, "image_side": side, "width": 0, "model_args": model_args}
    config = parse_spec(VisionEncoderConfig, {**preparation, **values, **found, "grid_side": 0}, f"encoder {name}")
    shape = feature_shape(config)
    config = replace(config, width=shape.width, grid_side=int(values.get("grid_side") or shape.grid_side))
    return EncoderSource(config, Path(folder) if folder is not None else None, pretrained)


def read_timm_card(folder: Path) -> dict[str, Any]:
    """Reads config.json of a folder in timm's hub layout.

    Raises:
        CheckpointError: The folder or the file is missing, or it is another kind of model.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{folder}: no config.json; expected a timm model's folder (config.json, {WEIGHTS_FILE})")
    with reading(file, "a timm model's configuration"):
        card = json.loads(file.read_text(encoding="utf-8"))
    if "architecture" not in card:
        raise CheckpointError(f'{file}: no "architecture"; found {", ".join(sorted(card))}. This is no timm model')
    return card


def load_timm_encoder(source: EncoderSource) -> TimmEncoder:
    """Builds the encoder with its weights: from the folder, from timm's hub, or fresh.

    Raises:
        CheckpointError: The folder's weights are missing, unreadable, or are another model's.
    """
    encoder = TimmEncoder(source.config)
    if source.folder is None and not source.pretrained:
        return encoder
    whole = create_timm_model(source.config.name, source.config.model_args, pretrained=source.pretrained)
    if source.folder is not None:
        load_strictly(whole, source.folder / WEIGHTS_FILE)
    encoder.body = whole
    encoder.prune()
    return encoder


def load_strictly(model: nn.Module, file: Path) -> None:
    """Loads safetensors into a module; every tensor must fit.

    Raises:
        CheckpointError: Names what is missing, unexpected or of another shape.
    """
    if not file.is_file():
        raise CheckpointError(f"{file}: missing; expected the model's weights as safetensors")
    with reading(file, "weights of this model"):
        model.load_state_dict(load_file(file), strict=True)
