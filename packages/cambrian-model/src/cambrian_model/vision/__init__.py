"""Vision encoders: pixels to visual features on a square grid."""

from cambrian_model.vision.base import VisionEncoder
from cambrian_model.vision.build import LIBRARIES, build_vision_encoder, feature_shape
from cambrian_model.vision.diffusion_encoder import DiffusionEncoder
from cambrian_model.vision.hf_encoder import HfEncoder
from cambrian_model.vision.precomputed import PrecomputedEncoder
from cambrian_model.vision.source import EncoderSource, describe, find_facts, load_encoder
from cambrian_model.vision.timm_encoder import TimmEncoder

__all__ = [
    "LIBRARIES",
    "DiffusionEncoder",
    "EncoderSource",
    "HfEncoder",
    "PrecomputedEncoder",
    "TimmEncoder",
    "VisionEncoder",
    "build_vision_encoder",
    "describe",
    "feature_shape",
    "find_facts",
    "load_encoder",
]
