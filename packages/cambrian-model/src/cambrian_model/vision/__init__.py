"""Vision encoders: pixels to visual features on a square grid."""

from cambrian_model.config import VisionEncoderConfig
from cambrian_model.errors import ConfigError, did_you_mean
from cambrian_model.vision.base import VisionEncoder
from cambrian_model.vision.precomputed import PrecomputedEncoder
from cambrian_model.vision.timm_encoder import TimmEncoder

LIBRARIES: dict[str, type[VisionEncoder]] = {"timm": TimmEncoder, "precomputed": PrecomputedEncoder}


def build_vision_encoder(config: VisionEncoderConfig) -> VisionEncoder:
    """Builds one encoder, with fresh weights.

    Raises:
        ConfigError: Its library is unknown.
    """
    if config.library not in LIBRARIES:
        raise ConfigError(
            f'vision encoder {config.name}: unknown library "{config.library}"{did_you_mean(config.library, LIBRARIES)}'
        )
    return LIBRARIES[config.library](config)


__all__ = ["PrecomputedEncoder", "TimmEncoder", "VisionEncoder", "build_vision_encoder"]
