"""Perceptual hashes, computed by the library ImageHash: pictures that look alike differ in few bits.

A hash is a square of bits, kept in words of 64: bit number k, row by row, is bit k % 64 of word k // 64.
"""

from __future__ import annotations

import difflib
import functools
from importlib.metadata import version
from types import ModuleType
from typing import NamedTuple

import numpy as np
from PIL import Image

from cambrian_data.errors import DataError

FUNCTIONS = {"dhash": "dhash", "phash": "phash", "ahash": "average_hash", "whash": "whash"}
"""What our names are called in ImageHash: difference, DCT, average and wavelet hash."""

WORD_BITS = 64
MIN_SIDE, MAX_SIDE = 2, 32
BITS_PER_DEFAULT_THRESHOLD = 16
BITS_PER_LARGEST_THRESHOLD = 4


class Method(NamedTuple):
    """A perceptual hash.

    Attributes:
        name: one of `FUNCTIONS`.
        side: of the square of bits; the hash has side x side.
    """

    name: str
    side: int

    @property
    def num_bits(self) -> int:
        """Bits of a hash."""
        return self.side**2

    @property
    def num_words(self) -> int:
        """Words of 64 bits that hold a hash; what is beyond its bits is 0."""
        return -(-self.num_bits // WORD_BITS)

    @property
    def default_threshold(self) -> int:
        """A sixteenth of the bits: 4 of 64.

        Of hashes of unrelated pictures half of the bits would differ if bits were independent. Then 50 thousand
        pictures against 10 million would give about 0.02 chance pairs within 4 of 64 bits, and 5,000 within 10.
        """
        return self.num_bits // BITS_PER_DEFAULT_THRESHOLD


def to_method(name: str, side: int) -> Method:
    """The method, checked.

    Raises:
        DataError: if there is none of this name, or none of this size.
    """
    if name not in FUNCTIONS:
        close = difflib.get_close_matches(name, FUNCTIONS, 1)
        hint = f'did you mean "{close[0]}"?' if close else f"expected one of {', '.join(FUNCTIONS)}."
        raise DataError(f'unknown perceptual hash "{name}"; {hint}')
    if not MIN_SIDE <= side <= MAX_SIDE:
        raise DataError(f"hash size is {side}; expected {MIN_SIDE} to {MAX_SIDE} (8 gives 64 bits).")
    if name == "whash" and side & (side - 1):
        raise DataError(f"hash size is {side}; the wavelet hash needs a power of two: 4, 8, 16.")
    return Method(name, side)


def check_threshold(method: Method, threshold: int) -> None:
    """Raises DataError for a number of bits within which unrelated pictures match by the thousand, or below 0."""
    largest = method.num_bits // BITS_PER_LARGEST_THRESHOLD
    if not 0 <= threshold <= largest:
        raise DataError(
            f"threshold is {threshold} bits; expected 0 to {largest}, a quarter of the {method.num_bits} bits of "
            f"{method.name} of size {method.side}: beyond that, pictures that have nothing in common match."
        )


def hash_bits(picture: Image.Image, method: Method) -> np.ndarray:
    """The hash of a picture, as words of 64 bits."""
    square = getattr(imagehash(), FUNCTIONS[method.name])(picture, hash_size=method.side).hash
    packed = np.packbits(square.ravel(), bitorder="little")
    return np.pad(packed, (0, method.num_words * 8 - len(packed))).view("<u8")


@functools.cache
def library_versions() -> str:
    """What decodes and hashes: other versions may give other bits.

    Raises:
        DataError: if ImageHash is not installed.
    """
    imagehash()
    return f"ImageHash {version('ImageHash')}, Pillow {version('pillow')}"


def imagehash() -> ModuleType:
    """The library.

    Raises:
        DataError: if it is not installed.
    """
    try:
        import imagehash as library
    except ModuleNotFoundError as error:
        raise DataError('the leakage audit needs ImageHash: pip install "cambrian-data[leakage]".') from error
    return library
