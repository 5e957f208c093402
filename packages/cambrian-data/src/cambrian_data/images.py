"""Pictures on disk: where a record's path leads, whether the file is a whole picture, how large, and its pixels.

Nothing here replaces or repairs: a picture that cannot be used is an ImageError that names it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from PIL import ExifTags, Image, UnidentifiedImageError

from cambrian_data.errors import ImageError

MAX_PIXELS = 89_478_485
"""More is taken for a decompression bomb; the bound of Pillow's own warning."""

TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What shows a picture upright, by its EXIF orientation."""


class ImageSize(NamedTuple):
    """Pixels of a picture as it is seen, upright."""

    width: int
    height: int


def locate(root: Path, relative: str) -> Path:
    """The file that a record's image path names, which lies inside the folder whatever the path says.

    Whether the file exists is for `verify` and `load_image` to say.

    Raises:
        ImageError: if the path is empty or absolute, holds a NUL or "..", or a link leads out of the folder.
    """
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
def opened(path: Path) -> Iterator[Image.Image]:
    """The picture, its header read and its size checked; whatever fails inside becomes an ImageError."""
    try:
        with Image.open(path) as image:
            check_size(path, *image.size)
            yield image
    except FileNotFoundError as error:
        raise ImageError(f"{path}: there is no such file; check the path and the images' folder.") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: is not a picture of a known format; replace the file.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{path}: has more than {MAX_PIXELS:,} pixels; scale it down.") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise ImageError(f"{path}: cannot be read as a picture ({error}); replace the file.") from error


def check_size(path: Path, width: int, height: int) -> None:
    """Raises ImageError for no pixels, or too many."""
    if width < 1 or height < 1:
        raise ImageError(f"{path}: is {width} x {height} pixels; expected at least one. Replace the file.")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{path}: is {width} x {height} pixels; expected at most {MAX_PIXELS:,} in all. Scale it down."
        )


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; from the header alone, so a PNG that states it after its pixels counts as 1."""
    if image.format == "PNG" and "exif" not in image.info:  # Pillow would decode the whole picture to look further
        return 1
    found = image.getexif().get(ExifTags.Base.Orientation, 1)
    return found if found in TRANSPOSITIONS else 1


def image_size(path: Path) -> ImageSize:
    """Width and height as seen, from the header: nothing is decoded.

    Raises:
        ImageError: if the file is missing, no picture, empty, or too large.
    """
    with opened(path) as image:
        width, height = image.size
        return ImageSize(height, width) if orientation(image) >= 5 else ImageSize(width, height)


def verify(path: Path) -> ImageSize:
    """Decodes the whole picture to be sure of it; gives its size as seen.

    Raises:
        ImageError: if the file is missing, truncated, no picture, empty, or too large.
    """
    width, height = load_image(path).size
    return ImageSize(width, height)


def load_image(path: Path) -> Image.Image:
    """The picture, upright, in RGB; what is transparent keeps the colour stored under it.

    Raises:
        ImageError: if the file is missing, truncated, no picture, empty, or too large.
    """
    with opened(path) as image:
        turn = TRANSPOSITIONS.get(orientation(image))
        image.load()
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        upright = image.convert("RGB")
        return upright if turn is None else upright.transpose(turn)
