"""Looks up the paper's backbones by their stable names."""

from copy import deepcopy

from cambrian_model.config import VisionEncoderConfig
from cambrian_model.errors import ConfigError, did_you_mean
from cambrian_model.vision.backbones import BACKBONES, Backbone
from cambrian_model.vision.published import Published

_BY_NAME = {backbone.name: backbone for backbone in BACKBONES}


def names() -> list[str]:
    """Returns all names, in the paper's order."""
    return list(_BY_NAME)


def is_known(name: str) -> bool:
    """Tells whether a name is that of a backbone here."""
    return name in _BY_NAME


def entry(name: str) -> Backbone:
    """Returns the backbone of a name.

    Raises:
        ConfigError: There is none; names the nearest.
    """
    if name not in _BY_NAME:
        hint = did_you_mean(name, _BY_NAME)
        raise ConfigError(f'unknown vision encoder "{name}"{hint}')
    return _BY_NAME[name]


def published(backbone: Backbone) -> Published:
    """Returns an entry in the form that every library's models come in."""
    mean, std = backbone.normalisation
    config = VisionEncoderConfig(
        library=backbone.library,
        name=backbone.model,
        image_side=backbone.image_side,
        width=backbone.width,
        grid_side=backbone.grid_side,
        feature_layer=backbone.feature_layer,
        mean=mean,
        std=std,
        interpolation=backbone.interpolation,
        model_args=deepcopy(dict(backbone.model_args)),
    )
    return Published(config, backbone.hub_id, backbone.licence, backbone.elsewhere)
