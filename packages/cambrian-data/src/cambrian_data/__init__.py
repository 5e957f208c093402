"""Records, images and rendered scenes for vision-centric multimodal language models. Never imports torch."""

from cambrian_data.errors import DataError, ImageError, RecordError
from cambrian_data.formats import read_records
from cambrian_data.images import ImageSize, image_size, load_image, locate, verify
from cambrian_data.records import Record

__all__ = [
    "DataError",
    "ImageError",
    "ImageSize",
    "Record",
    "RecordError",
    "image_size",
    "load_image",
    "locate",
    "read_records",
    "verify",
]
