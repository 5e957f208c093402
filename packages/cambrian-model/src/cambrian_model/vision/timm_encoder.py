"""Any timm model as a vision encoder, at any feature levels that timm can return.

Notable: layers behind the chosen levels are pruned, so they cost neither memory nor time, and weights load strictly.
"""

import difflib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cambrian_model.checkpoints.foreign import reading
from cambrian_model.config import VisionEncoderConfig, parse_spec
from cambrian_model.errors import CheckpointError, ConfigError, did_you_mean
from cambrian_model.vision import moco
from cambrian_model.vision.base import VisionEncoder, chosen_levels, unsaved_buffers
from cambrian_model.vision.published import Published
from cambrian_model.vision.weights import WEIGHTS_FILE, LoadReport, compare, read_tensors

SIZE_ARGS = ("img_size", "dynamic_img_size")  # what a timm model may be told about its resolution
FILES = ("config.json", WEIGHTS_FILE)


class TimmEncoder(VisionEncoder):
    """Feature levels of a timm model.

    `config.feature_layer` indexes what `forward_intermediates` returns: blocks of a vision transformer, stages of a
    ConvNet. The last level, taken alone, passes the model's own final normalisation where it has one; SAM's neck, a
    projection to few channels, is none.
    """

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__(config)
        self.body: nn.Module = create_timm_model(config.name, config.model_args)
        self.prune()

    @classmethod
    def fits(cls, config: VisionEncoderConfig) -> Sequence[VisionEncoderConfig]:
        """Lets the model be, and then tells it its resolution, if that is a whole number of patches."""
        if any(name in config.model_args for name in SIZE_ARGS):
            return [config]
        with torch.device("meta"):
            patch_embed = getattr(create_timm_model(config.name, config.model_args), "patch_embed", None)
        patch = getattr(patch_embed, "patch_size", None)
        if patch is None or config.image_side % patch[0]:
            return [config]
        return [config, replace(config, model_args={**config.model_args, "img_size": config.image_side})]

    def prune(self) -> None:
        """Drops the classifier and every layer behind the chosen levels."""
        levels = chosen_levels(self.config)
        self.normed = levels == [-1] and not hasattr(self.body, "neck")
        prune = cast(Callable[..., list[int]], self.body.prune_intermediate_layers)
        self.levels = prune(levels, prune_norm=not self.normed)

    def encode(self, pixels: Float[Tensor, "images 3 side side"]) -> list[Float[Tensor, "images _tokens _width"]]:
        """Returns the chosen feature levels in the order of depth, prefix tokens stripped."""
        features = cast(Callable[..., list[Tensor]], self.body.forward_intermediates)
        grids = features(
            pixels, indices=self.levels, norm=self.normed, intermediates_only=True, output_fmt="NCHW", stop_early=True
        )
        return [grid.flatten(2).transpose(1, 2) for grid in grids]

    def checkpoint_activations(self) -> None:
        """Lets timm do it.

        Raises:
            ConfigError: timm cannot, with this model.
        """
        if not hasattr(self.body, "set_grad_checkpointing"):
            super().checkpoint_activations()
        try:
            cast(Callable[[bool], None], self.body.set_grad_checkpointing)(True)
        except AssertionError:  # how timm says that a model cannot
            super().checkpoint_activations()

    def restore_buffers(self) -> None:
        """Copies the buffers that timm computes and does not save (rotary tables, relative position indices)."""
        if unsaved := unsaved_buffers(self.body):
            fresh = dict(TimmEncoder(self.config).body.named_buffers())
            for name, buffer in unsaved.items():
                buffer.copy_(fresh[name])


def create_timm_model(name: str, model_args: Mapping[str, Any]) -> nn.Module:
    """Creates a timm model by architecture name, with fresh weights.

    Raises:
        ConfigError: timm does not know the name or the arguments, or the model cannot return intermediate features.
    """
    check_name(name)
    try:
        model = timm.create_model(name, pretrained=False, **model_args)
    except TypeError as error:
        raise ConfigError(f'timm model "{name}" does not take these model_args: {error}') from error
    if not hasattr(model, "prune_intermediate_layers"):
        raise ConfigError(f'timm model "{name}" cannot return intermediate features; choose another')
    return model


def check_name(name: str) -> None:
    """Refuses an architecture that timm does not know.

    Raises:
        ConfigError: Names the nearest one.
    """
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=1)
        hint = f'; did you mean "{close[0]}"?' if close else "; timm.list_models() lists them"
        raise ConfigError(f'unknown timm model "{name}"{hint}')


def published_by_timm(name: str, folder: Path | None) -> Published:
    """Reads what is published of a timm model: from a folder in timm's hub layout, or from timm's own registry.

    Raises:
        ConfigError: timm does not know the name.
        CheckpointError: The folder holds another model, or none of timm's.
    """
    check_name(name)
    facts: Mapping[str, Any] = {}
    model_args: dict[str, Any] = {}
    if folder is not None:
        card = read_timm_card(folder)
        _check_architecture(card, name, folder)
        facts, model_args = card.get("pretrained_cfg", {}), dict(card.get("model_args", {}))
    else:
        facts = _published_facts(name)
    side = facts.get("input_size", (3, 224, 224))[1]
    values = {key: facts[key] for key in ("mean", "std", "interpolation") if key in facts}
    values |= {
        "library": "timm",
        "name": name,
        "image_side": side,
        "width": 0,
        "grid_side": 0,
        "model_args": model_args,
    }
    config = parse_spec(VisionEncoderConfig, values, f"encoder {name}")
    elsewhere = (
        f"timm knows only {facts['url']}, which is a pickle" if facts.get("url") else "timm knows no weights of it"
    )
    return Published(config, facts.get("hf_hub_id"), facts.get("license"), elsewhere)


def _published_facts(name: str) -> Mapping[str, Any]:
    try:
        known = timm.get_pretrained_cfg(name, allow_unregistered=True)
    except RuntimeError as error:
        weights = timm.list_models(f"{name.split('.')[0]}.*", pretrained=True)
        raise ConfigError(f'timm knows no weights "{name}"{did_you_mean(name, weights)}') from error
    return known.to_dict() if known is not None else {}


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


def check_same_timm_model(config: VisionEncoderConfig, folder: Path) -> None:
    """Refuses a folder that holds another architecture than `config` names; one without config.json says nothing.

    Raises:
        CheckpointError: Names both.
    """
    if (folder / "config.json").is_file():
        _check_architecture(read_timm_card(folder), config.name, folder)


def _check_architecture(card: Mapping[str, Any], name: str, folder: Path) -> None:
    if card["architecture"] != name.split(".")[0]:
        raise CheckpointError(
            f'{folder}: holds timm model "{card["architecture"]}", but the recipe names "{name}"; change one'
        )


def load_timm_encoder(config: VisionEncoderConfig, source: Path) -> tuple[TimmEncoder, LoadReport]:
    """Builds the encoder with the weights of a folder or file, in timm's names or MoCo v3's.

    Raises:
        CheckpointError: The weights are missing, unreadable, or another model's.
    """
    encoder = TimmEncoder(config)
    whole = create_timm_model(config.name, config.model_args)
    known, classifier = whole.state_dict().keys(), _classifier(whole)
    encoder.body = whole
    encoder.prune()
    tensors = read_tensors(source)
    if moco.is_moco(tensors):
        tensors = moco.to_timm(tensors)
    wanted = whole.state_dict()
    unexpected = [name for name in tensors if name not in known and not name.startswith(classifier)]
    misfit = compare(wanted, tensors, unexpected)
    resized: list[str] = []
    if misfit.reshaped and not misfit.missing and not misfit.unexpected:
        tensors, resized = _resampled(whole, tensors, source)
    else:
        misfit.refuse(source)
    whole.load_state_dict({name: tensors[name] for name in wanted}, strict=True)
    return encoder, LoadReport(str(source), len(wanted), tuple(sorted(tensors.keys() - wanted.keys())), tuple(resized))


def _resampled(model: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Lets timm interpolate what depends on the resolution, such as position tables."""
    wanted = model.state_dict()
    adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    try:
        adapted: dict[str, Tensor] = adapt(dict(tensors), model) if adapt is not None else dict(tensors)
    except (RuntimeError, ValueError, KeyError, AssertionError):
        adapted = dict(tensors)  # no position table, so the shapes differ as before, and are refused by name
    compare(wanted, adapted).refuse(source)
    return adapted, [name for name in wanted if adapted[name].shape != tensors[name].shape]


def _classifier(model: nn.Module) -> tuple[str, ...]:
    """Returns the names that timm gives a model's classifiers, of any of its weights."""
    cfg = cast(Mapping[str, Any], model.pretrained_cfg)
    names = cfg.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)
