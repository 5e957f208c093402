"""Where pixels come from: a path, bytes, PIL, numpy or a tensor, always made an upright 8-bit RGB picture.

Every failure is an `ImageError` that names the file or the position; no other image ever takes a bad one's place.
"""

import io
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from cambrian_model.errors import ImageError
from cambrian_model.processing.image_header import header_size

ImageSource: TypeAlias = str | Path | bytes | Image.Image | np.ndarray | Tensor

# What Pillow's readers raise for a damaged file; "truncated" is an OSError.
_READ_ERRORS = (
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
_EXIF_ORIENTATION = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)
_LONGEST_NAME = 200
# What may stand beside height and width, so that no doubt is left which axis is which: nothing, grey, RGB, RGBA.
_CHANNELS = ((), (1,), (3,), (4,))


def load_image(source: ImageSource, name: str = "image") -> Image.Image:
    """Loads a picture, turned upright by its EXIF tag, as 8-bit RGB.

    An animation gives its first frame (a PIL image its current one), 16-bit greys are scaled to 8 bits, a transparent
    picture is laid over white, a colour profile is not applied (as in the original).

    Args:
        source: A local path, an encoded file's bytes, a PIL image, a numpy array (height, width, channels) of uint8,
            or a tensor (channels, height, width) of uint8 or of floats in [0, 1]. The channels are 1 (grey), 3 (RGB)
            or 4 (RGBA); a grey picture may lack their axis.
        name: What an error calls a picture that has no path.

    Raises:
        ImageError: The file is missing, damaged, no image or too large, or the array has another shape or range.
    """
    with _opened(source, name) as image:
        # Differs from the reference: it drops transparency, which leaves whatever colour the file keeps below it.
        return _to_rgb(ImageOps.exif_transpose(image))


def read_image_size(source: ImageSource, name: str = "image") -> tuple[int, int]:
    """Returns the (height, width) that `load_image` will give, from the file's header where the format allows it.

    Raises:
        ImageError: The file is missing, no image or too large.
    """
    if isinstance(source, (str, Path, bytes)) and (size := header_size(source)) and _is_usual(size):
        return size
    with _opened(source, name) as image:
        width, height = image.size
        # Pillow gives a TIFF's size as it will be seen, any other's as it is stored.
        turned = image.format != "TIFF" and image.getexif().get(_EXIF_ORIENTATION) in _QUARTER_TURNS
        return (width, height) if turned else (height, width)


def _is_usual(size: tuple[int, int]) -> bool:
    """Whether a picture has pixels, and not too many."""
    height, width = size
    return 0 < height * width <= (Image.MAX_IMAGE_PIXELS or sys.maxsize)


@contextmanager
def _opened(source: ImageSource, name: str) -> Iterator[Image.Image]:
    """Opens a picture without decoding it, and names it in whatever goes wrong until it is closed."""
    name = _shortened(str(source)) if isinstance(source, (str, Path)) else name
    try:
        if isinstance(source, (str, Path, bytes)):
            with _stream(source) as stream, _identified(stream) as image:
                yield _check_area(image)
        else:
            yield _check_area(_from_memory(source))
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file") from error
    except IsADirectoryError as error:
        raise ImageError(f"{name}: is a folder, not an image") from error
    except PermissionError as error:
        raise ImageError(f"{name}: may not be read; give this user the permission") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name}: more than {Image.MAX_IMAGE_PIXELS} pixels; scale it down first") from error
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    except _READ_ERRORS as error:
        raise ImageError(
            f"{name}: cannot be read as an image ({error}); replace the file or drop its record"
        ) from error


def _stream(source: str | Path | bytes) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if str(source).startswith(("http://", "https://")):
        raise ImageError("nothing is downloaded here; save the file and give its local path")
    if str(source).startswith(("data:", "file:")):
        raise ImageError("is a URL; give a local path, or the file's bytes")
    return Path(source).open("rb")


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."


def _identified(stream: BinaryIO) -> Image.Image:
    try:
        image = Image.open(stream)
    except UnidentifiedImageError as error:  # most often a web page or an empty file under a picture's name
        stream.seek(0)
        start = stream.read(30)
        found = f"is no image of a known format (it begins with {start!r})" if start else "is empty"
        raise ImageError(f"{found}; replace the file or drop its record") from error
    if image.format == "EPS":
        raise ImageError("is EPS, a program that another program would have to run; save it as PNG or JPEG")
    return image


def _check_area(image: Image.Image) -> Image.Image:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{width}x{height} pixels have no area; give at least one pixel per side")
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        raise ImageError(f"{width}x{height} pixels exceed the limit of {Image.MAX_IMAGE_PIXELS}; scale it down first")
    return image


def _from_memory(source: object) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, Tensor):
        return _from_tensor(source)
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim < 2 or source.shape[2:] not in _CHANNELS:
            raise ImageError(
                f"array is {source.dtype} {source.shape}; expected uint8 (height, width, channels) with 1, 3 or 4 "
                "channels, or (height, width)"
            )
        return _from_array(source)
    raise ImageError(f"{type(source).__name__} is no image; give a path, bytes, a PIL image, an array or a tensor")


def _from_tensor(tensor: Tensor) -> Image.Image:
    shape = tuple(tensor.shape)
    found = f"tensor is {str(tensor.dtype).removeprefix('torch.')} {shape}"
    is_number = tensor.dtype == torch.uint8 or tensor.is_floating_point()
    if not is_number or tensor.ndim < 2 or shape[:-2] not in _CHANNELS:
        raise ImageError(
            f"{found}; expected (channels, height, width) with 1, 3 or 4 channels, or (height, width), of uint8, or of "
            "floats in [0, 1]"
        )
    pixels = tensor.detach().cpu()
    if pixels.is_floating_point() and pixels.numel():
        pixels = pixels.float()
        if not (pixels.min() >= 0 and pixels.max() <= 1):  # also false for NaN
            raise ImageError(f"{found} with values {pixels.min():g} to {pixels.max():g}; expected floats in [0, 1]")
        pixels = (pixels * 255).round()
    pixels = pixels.to(torch.uint8)
    return _from_array((pixels if pixels.ndim == 2 else pixels.permute(1, 2, 0)).numpy())  # height, width, channels


def _from_array(pixels: np.ndarray) -> Image.Image:
    if 0 in pixels.shape:  # Pillow cannot represent every empty array
        return Image.new("RGB", (pixels.shape[1], pixels.shape[0]))
    is_grey = pixels.shape[2:] == (1,)
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if is_grey else pixels))


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode == "F":
        raise ImageError("floating-point pixels have no agreed range; save it with 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bit(image)
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Scales 0 to 65535 down to 0 to 255; Pillow's own conversion clips at 255."""
    grey = np.asarray(image).astype(np.int64)
    if grey.min() < 0 or grey.max() > 65535:
        raise ImageError(f"grey values {grey.min()} to {grey.max()} exceed 16 bits; save it with 8 or 16 bits")
    return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
