"""Pictures on disk: where a record's path leads, whether the file is a whole picture, how large, and its pixels.

Nothing here replaces or repairs: a picture that cannot be used is an ImageError that names it.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from cambrian_data.errors import ImageError

MAX_PIXELS = 89_478_485
"""More is taken for a decompression bomb; the bound of Pillow's own warning."""

READ_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    RuntimeError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    struct.error,
    zlib.error,
)
"""What Pillow's readers raise for a damaged file, apart from what has a message of its own."""

QUARTER_TURNS = (5, 6, 7, 8)
"""The EXIF orientations that swap width and height."""


class ImageSize(NamedTuple):
    """Pixels of a picture as it is seen, upright."""

    width: int
    height: int


def locate(root: Path, relative: str) -> Path:
    """The file that a record's image path names, which lies inside the folder whatever the path says.

    Whether the file exists is for `verify` and `load_image` to say.

    Raises:
        ImageError: if the path is empty, absolute or a URL, holds a NUL or "..", or a link leads out of the folder.
    """
    if relative.startswith("data:") or "://" in relative:
        raise ImageError(f"image path {relative[:80]!r} is a URL; images are local files. Save it and give its path.")
    hint = f"image paths are relative to {root} and stay inside it."
    if not relative or "\0" in relative:
        raise ImageError(f"image path {relative!r} is {'empty' if not relative else 'broken by a NUL'}; {hint}")
    if PurePosixPath(relative).is_absolute() or PureWindowsPath(relative).anchor or PureWindowsPath(relative).drive:
        raise ImageError(f"image path {relative!r} is absolute; {hint}")
    if ".." in PureWindowsPath(relative).parts:
        raise ImageError(f'image path {relative!r} leaves its folder through ".."; {hint}')
    try:
        folder = root.resolve()
        path = (folder / relative).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name too long, a lone surrogate
        raise ImageError(f"image path {relative!r} leads nowhere: {error}.") from error
    if not path.is_relative_to(folder):
        raise ImageError(f"image path {relative!r} leaves its folder through a link to {path}; {hint}")
    return path


@contextmanager
def opened(path: Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """The picture, its header read and its size checked; whatever fails inside becomes an ImageError.

    Args:
        path: of the file; where the content is given, what messages call it.
        content: the encoded picture.
    """
    try:
        # By its path, Pillow garbles a turned TIFF.
        with path.open("rb") if content is None else io.BytesIO(content) as file, Image.open(file) as image:
            check_format(path, image)
            check_size(path, *image.size)
            yield image
    except FileNotFoundError as error:
        raise ImageError(f"{path}: there is no such file; check the path and the images' folder.") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: is not a picture of a known format; replace the file.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{path}: has more than {MAX_PIXELS:,} pixels; scale it down.") from error
    except READ_ERRORS as error:
        raise ImageError(f"{path}: cannot be read as a picture ({error}); replace the file.") from error


def check_format(path: Path, image: Image.Image) -> None:
    """Raises ImageError for EPS, which Pillow would hand to another program to run."""
    if image.format == "EPS":
        raise ImageError(f"{path}: is EPS, a program that another program would have to run; save it as PNG or JPEG.")


def check_size(path: Path, width: int, height: int) -> None:
    """Raises ImageError for no pixels, or too many."""
    if width < 1 or height < 1:
        raise ImageError(f"{path}: is {width} x {height} pixels; expected at least one. Replace the file.")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{path}: is {width} x {height} pixels; expected at most {MAX_PIXELS:,} in all. Scale it down."
        )


def image_size(path: Path) -> ImageSize:
    """Width and height as seen, from the header: nothing is decoded.

    A PNG that states its orientation after its pixels counts as upright.

    Raises:
        ImageError: if the file is missing, no picture, empty, or too large.
    """
    with opened(path) as image:
        width, height = image.size
        exif = Image.Image.getexif(image)  # a PNG's own would decode the whole picture to look further
        turned = image.format != "TIFF" and exif.get(ExifTags.Base.Orientation) in QUARTER_TURNS  # a TIFF's is as seen
        return ImageSize(height, width) if turned else ImageSize(width, height)


def verify(path: Path) -> ImageSize:
    """Decodes the whole picture to be sure of it; gives its size as seen.

    Raises:
        ImageError: if the file is missing, truncated, no picture, empty, or too large.
    """
    width, height = load_image(path).size
    return ImageSize(width, height)


def load_image(path: Path, content: bytes | None = None) -> Image.Image:
    """The picture, upright, in 8-bit RGB: what is transparent lies over white, 16-bit greys are scaled.

    Args:
        path: of the file; where the content is given, what messages call it.
        content: the encoded picture, of one that is no file of its own.

    Raises:
        ImageError: if the file is missing, truncated, no picture, empty, too large, or of floating-point pixels.
    """
    with opened(path, content) as image:
        image.load()
        return to_rgb(path, ImageOps.exif_transpose(image))


def to_rgb(path: Path, image: Image.Image) -> Image.Image:
    """The same pixels as cambrian_model's `load_image` gives: what is verified here is what a model is shown."""
    if image.mode == "F":
        raise ImageError(f"{path}: floating-point pixels have no agreed range; save it with 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return scale_grey(path, np.asarray(image).astype(np.int64))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def scale_grey(path: Path, grey: np.ndarray) -> Image.Image:
    """Greys from 0 to 65535 as RGB from 0 to 255, rounded; Pillow would clip what is above 255."""
    low, high = grey.min(), grey.max()
    if low < 0 or high > 65535:
        raise ImageError(f"{path}: grey values {low} to {high} exceed 16 bits; save it with 8 or 16 bits")
    return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
