"""The size of a picture from its header: enough to know what a prompt will cost, without decoding anything."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from cambrian_eval.errors import DataError

if TYPE_CHECKING:
    from cambrian_eval.picture import Picture

_ORIENTATION = 0x0112  # EXIF
_QUARTER_TURNS = (5, 6, 7, 8)


def read_size(picture: Picture) -> tuple[int, int]:
    """Height and width of a picture as a model sees it.

    Raises:
        DataError: The bytes do not begin as a picture does.
    """
    from PIL import Image

    try:
        with Image.open(picture.path or io.BytesIO(picture.read())) as image:
            width, height = image.size
            # Only an orientation that was met on the way: asking Pillow for it would decode a PNG.
            turned = "exif" in image.info and image.getexif().get(_ORIENTATION) in _QUARTER_TURNS
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{picture.name}: cannot be decoded as a picture ({error}). Replace the file.") from error
    return (width, height) if turned else (height, width)
