"""An encoder as a recipe writes it: what it names, resolved into a full configuration, and its weights.

Names: one of the paper's backbones ("siglip-so400m-384"), "timm:<model>", "hf:<id or folder>" (transformers),
"diffusers:<id or folder>" (Stable Diffusion), or "precomputed:<name>" for saved features.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch

from cambrian_model.config import VisionEncoderConfig
from cambrian_model.errors import CheckpointError, ConfigError, did_you_mean
from cambrian_model.vision import diffusion_encoder, hf_encoder, registry, timm_encoder
from cambrian_model.vision.backbones import Backbone
from cambrian_model.vision.base import VisionEncoder
from cambrian_model.vision.build import build_vision_encoder, feature_shape, fit
from cambrian_model.vision.published import Published
from cambrian_model.vision.weights import LoadReport, fetch

READERS: dict[str, Callable[[str, Path | None], Published]] = {
    "timm": timm_encoder.published_by_timm,
    "hf": hf_encoder.published_on_hub,
    "diffusers": diffusion_encoder.published_diffusion,
}
LOADERS: dict[str, Callable[[VisionEncoderConfig, Path], tuple[VisionEncoder, LoadReport]]] = {
    "timm": timm_encoder.load_timm_encoder,
    "transformers": hf_encoder.load_hf_encoder,
    "diffusers": diffusion_encoder.load_diffusion_encoder,
}
CHECKERS: dict[str, Callable[[VisionEncoderConfig, Path], None]] = {
    "timm": timm_encoder.check_same_timm_model,
    "transformers": hf_encoder.check_same_model,
    "diffusers": diffusion_encoder.check_same_diffusion,
}
FILES = {"timm": timm_encoder.FILES, "transformers": hf_encoder.FILES, "diffusers": diffusion_encoder.FILES}
LIBRARY_OF_PREFIX = {"timm": "timm", "hf": "transformers", "diffusers": "diffusers"}
PRECOMPUTED = "precomputed"

# An entry's own grid holds as long as neither is overridden; its width, as long as its model_args are not either.
RESIZING = ("image_side", "feature_layer")
OVERRIDES = [f.name for f in fields(VisionEncoderConfig) if f.name not in ("library", "name", "width")]


class EncoderSource(NamedTuple):
    """An encoder and where its weights come from.

    Attributes:
        config: Its full configuration.
        folder: Folder or file that holds its weights; None for the hub's or fresh ones.
        pretrained: Whether published weights are taken where there is no folder.
        published: What its publisher says of it.
    """

    config: VisionEncoderConfig
    folder: Path | None
    pretrained: bool
    published: Published


class LoadedEncoder(NamedTuple):
    """An encoder with its weights, and what came of loading them."""

    encoder: VisionEncoder
    report: LoadReport


class EncoderFacts(NamedTuple):
    """What can be said of an encoder without its weights.

    Attributes:
        config: Its configuration.
        native_grid_side: Side of the deepest level's own grid.
        parameters: Of what is built.
        published: What its publisher says.
        backbone: Its entry among the paper's, if it is one.
    """

    config: VisionEncoderConfig
    native_grid_side: int
    parameters: int
    published: Published
    backbone: Backbone | None


def describe(spec: Mapping[str, Any]) -> EncoderSource:
    """Resolves an encoder as a recipe writes it into a full configuration, reading no weights.

    Args:
        spec: `name` (see the module), and optionally `path` (a folder with its weights), `pretrained`, `image_side`,
            `feature_layer` (one or several), `grid_side`, `model_args`, `mean`, `std`, `interpolation`, `pad_color`;
            `width` for saved features of an encoder that is not known here.

    Raises:
        ConfigError: Unknown model or key, or a resolution that the model does not take.
        CheckpointError: `path` holds no such model, or the hub's cache does not and the hub cannot be reached.
    """
    values = {key: value for key, value in spec.items() if value is not None}
    name = str(values.pop("name"))
    path, pretrained = values.pop("path", None), bool(values.pop("pretrained", False))
    if name.startswith(f"{PRECOMPUTED}:"):
        if path is not None or pretrained:
            raise ConfigError(f"{name}: saved features have no weights; leave path and pretrained away")
        return _describe_precomputed(name.removeprefix(f"{PRECOMPUTED}:"), values)
    folder = Path(path) if path is not None else _named_folder(name)
    published = _published(name, folder)
    return EncoderSource(_configured(published, values), folder, pretrained, published)


def _published(name: str, folder: Path | None) -> Published:
    prefix, colon, rest = name.partition(":")
    if colon and prefix in READERS:
        # A folder's path says where it lies on this machine, which is nothing that a checkpoint should tell.
        return READERS[prefix](folder.name if folder is not None and Path(rest) == folder else rest, folder)
    if colon:
        raise ConfigError(f'unknown kind of vision encoder "{name}"{did_you_mean(prefix, [*READERS, PRECOMPUTED])}')
    if not registry.is_known(name) and timm.is_model(name.split(".")[0]):
        raise ConfigError(f'unknown vision encoder "{name}"; did you mean "timm:{name}"?')
    published = registry.published(registry.entry(name))
    if folder is not None:
        CHECKERS[published.config.library](published.config, folder)
    return published


def _named_folder(name: str) -> Path | None:
    """Returns the folder that a name itself gives ("hf:weights/dinov2"), with its weights."""
    prefix, _, rest = name.partition(":")
    is_folder = prefix in ("hf", "diffusers") and Path(rest).is_dir()
    return Path(rest) if is_folder else None


def _configured(published: Published, values: Mapping[str, Any]) -> VisionEncoderConfig:
    for key in values:
        if key not in OVERRIDES:
            raise ConfigError(f'encoder {published.config.name}: unknown key "{key}"{did_you_mean(key, OVERRIDES)}')
    changes: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    asked_side = changes.pop("grid_side", None)
    changes["model_args"] = _merged_args(published.config, values.get("model_args") or {})
    config = replace(published.config, **changes)
    keeps_size = all(getattr(config, key) == getattr(published.config, key) for key in RESIZING)
    own_side = asked_side or (published.config.grid_side if keeps_size else 0)
    if config.width and keeps_size and config.model_args == published.config.model_args:
        return replace(config, grid_side=own_side)
    config, shape = fit(config)
    return replace(config, width=shape.width, grid_side=own_side or shape.grid_side)


def _merged_args(config: VisionEncoderConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    known = {"transformers": hf_encoder.known_args, "diffusers": diffusion_encoder.known_args}.get(config.library)
    for key in given:
        if known is not None and key not in known(config):
            raise ConfigError(f'{config.name}: unknown model_args "{key}"{did_you_mean(key, known(config))}')
    return {**config.model_args, **given}


def _describe_precomputed(name: str, values: dict[str, Any]) -> EncoderSource:
    """Describes saved features: of an encoder that is known here, or of any other if width and grid are given."""
    width = values.pop("width", None)
    prefix, colon, _ = name.partition(":")
    if registry.is_known(name) or (colon and prefix in READERS):
        known = describe({"name": name, **values})
        config = replace(known.config, library=PRECOMPUTED, name=name, model_args={}, width=width or known.config.width)
        return EncoderSource(config, None, False, replace(known.published, config=config))
    if width is None or "grid_side" not in values:
        raise ConfigError(
            f'precomputed encoder "{name}" is not known here, so give width and grid_side of its saved features'
            f"{did_you_mean(name, registry.names())}"
        )
    base = VisionEncoderConfig(PRECOMPUTED, name, image_side=values["grid_side"], width=width, grid_side=0)
    config = _configured(Published(base), values)
    return EncoderSource(config, None, False, Published(config))


def load_encoder(source: EncoderSource) -> LoadedEncoder:
    """Builds the encoder with its weights: from its folder, from the hub or its cache, or fresh.

    Raises:
        CheckpointError: The weights are missing, unreadable, another model's, or not published as safetensors.
    """
    if source.config.library == PRECOMPUTED or not (source.folder or source.pretrained):
        return LoadedEncoder(build_vision_encoder(source.config), LoadReport("fresh weights", loaded=0))
    folder = source.folder or _fetch(source.published)
    return LoadedEncoder(*LOADERS[source.config.library](source.config, folder))


def _fetch(published: Published) -> Path:
    if published.hub_id is None:
        raise CheckpointError(f"{published.config.name}: {published.elsewhere or 'no published weights are known'}")
    return fetch(published.hub_id, FILES[published.config.library])


def identify(name: str) -> str:
    """Returns "library:name" as a checkpoint of the encoder that a recipe names will say, reading nothing."""
    prefix, colon, rest = name.partition(":")
    if not colon:
        backbone = registry.entry(name)
        return f"{backbone.library}:{backbone.model}"
    if (folder := _named_folder(name)) is not None:
        rest = folder.name
    return f"{LIBRARY_OF_PREFIX.get(prefix, prefix)}:{rest}"


def find_facts(spec: Mapping[str, Any]) -> EncoderFacts:
    """Describes an encoder and builds it without weights, to tell its own grid and its parameters.

    Raises:
        ConfigError: As `describe`.
        CheckpointError: As `describe`.
    """
    source = describe(spec)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in build_vision_encoder(source.config).parameters())
    grid = source.config.grid_side if source.config.library == PRECOMPUTED else feature_shape(source.config).grid_side
    backbone = registry.entry(str(spec["name"])) if registry.is_known(str(spec["name"])) else None
    return EncoderFacts(source.config, grid, parameters, source.published, backbone)
