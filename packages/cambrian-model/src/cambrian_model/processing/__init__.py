"""From conversations and images to model inputs: one processor for training and for inference."""

from cambrian_model.processing.image_source import ImageSource, load_image, read_image_size
from cambrian_model.processing.images import CambrianImageProcessor
from cambrian_model.processing.processor import CambrianProcessor
from cambrian_model.processing.sample import IGNORED_LABEL, Sample

__all__ = [
    "IGNORED_LABEL",
    "CambrianImageProcessor",
    "CambrianProcessor",
    "ImageSource",
    "Sample",
    "load_image",
    "read_image_size",
]
