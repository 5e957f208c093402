"""From a configuration to an encoder, and to the shape of its features, which no weights are needed for."""

from typing import NamedTuple

import torch

from cambrian_model.config import VisionEncoderConfig
from cambrian_model.errors import ConfigError, did_you_mean
from cambrian_model.vision.base import VisionEncoder
from cambrian_model.vision.diffusion_encoder import DiffusionEncoder
from cambrian_model.vision.hf_encoder import HfEncoder
from cambrian_model.vision.precomputed import PrecomputedEncoder
from cambrian_model.vision.timm_encoder import TimmEncoder

LIBRARIES: dict[str, type[VisionEncoder]] = {
    "timm": TimmEncoder,
    "transformers": HfEncoder,
    "diffusers": DiffusionEncoder,
    "precomputed": PrecomputedEncoder,
}


class FeatureShape(NamedTuple):
    """Channels of the chosen levels together, and the grid side of the deepest of them."""

    width: int
    grid_side: int


def encoder_class(config: VisionEncoderConfig) -> type[VisionEncoder]:
    """Returns the class that runs an encoder.

    Raises:
        ConfigError: Its library is unknown.
    """
    if config.library not in LIBRARIES:
        raise ConfigError(
            f'vision encoder {config.name}: unknown library "{config.library}"{did_you_mean(config.library, LIBRARIES)}'
        )
    return LIBRARIES[config.library]


def build_vision_encoder(config: VisionEncoderConfig) -> VisionEncoder:
    """Builds one encoder, with fresh weights.

    Raises:
        ConfigError: Its library is unknown.
    """
    return encoder_class(config)(config)


def feature_shape(config: VisionEncoderConfig) -> FeatureShape:
    """Finds width and grid of the chosen levels without computing anything (meta device).

    Raises:
        ConfigError: The model refuses this resolution, or its features lie on no square grid.
    """
    try:
        with torch.device("meta"):
            encoder = build_vision_encoder(config).eval()
        # Outside of that context: a library that keeps an index for the next call must not keep one without numbers.
        with torch.no_grad():
            levels = encoder.encode(torch.zeros(1, 3, config.image_side, config.image_side, device="meta"))
    except ConfigError:
        raise
    except (AssertionError, RuntimeError, TypeError, IndexError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ConfigError(
            f'{config.library} model "{config.name}" gives no feature layer {config.feature_layer} of '
            f"{config.image_side} x {config.image_side} pixels: {reason}. Change image_side or feature_layer"
        ) from error
    sides = [_side(config, level.shape[1]) for level in levels]
    return FeatureShape(sum(level.shape[2] for level in levels), sides[-1])


def _side(config: VisionEncoderConfig, num_tokens: int) -> int:
    side = round(num_tokens**0.5)
    if side * side != num_tokens:
        raise ConfigError(
            f'{config.library} model "{config.name}" returns {num_tokens} tokens, which form no square grid'
        )
    return side


def fit(config: VisionEncoderConfig) -> tuple[VisionEncoderConfig, FeatureShape]:
    """Returns the configuration with what its library needs for `image_side`, and the shape of its features.

    Raises:
        ConfigError: The model does not take this resolution or has no such level; the plainest way's reason.
    """
    refusal: ConfigError | None = None
    for candidate in encoder_class(config).fits(config):
        try:
            return candidate, feature_shape(candidate)
        except ConfigError as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal
