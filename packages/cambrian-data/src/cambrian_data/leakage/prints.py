"""The fingerprint of a picture: its perceptual hash, the SHA-256 of its bytes, its size, and how flat it is.

Fingerprints are rows of a numpy table, so that ten million of them fit into memory and into a file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from cambrian_data.errors import ImageError
from cambrian_data.images import load_image
from cambrian_data.leakage.methods import Method, hash_bits, library_versions
from cambrian_data.leakage.pictures import LeftOut, Picture, Reason, read_contents

FORMAT_VERSION = 1  # raised whenever the same picture gives another fingerprint
SPREAD_SIDE = 16
FLAT_SPREAD = 4
"""Grey levels of 255: a picture whose 16 x 16 cells differ by less shows nothing that a hash could see."""


class Batch(NamedTuple):
    """Pictures with their fingerprints.

    Attributes:
        pictures: that were looked at.
        prints: a row for each, of `print_type`; all zeros where `usable` is false.
        problems: what is wrong, by the index of the picture.
    """

    pictures: Sequence[Picture]
    prints: np.ndarray
    problems: dict[int, LeftOut]


def print_type(method: Method) -> np.dtype:
    """The row of a fingerprint. `key` and `check` are made of place, size and time of the file, and of the method."""
    fields = [("key", "<u8"), ("check", "<u4"), ("usable", "?"), ("spread", "u1"), ("width", "<u4"), ("height", "<u4")]
    return np.dtype([*fields, ("sha256", "u1", (32,)), ("hash", "<u8", (method.num_words,))])


def identity_of(method: Method) -> bytes:
    """What a fingerprint depends on beside the picture."""
    return f"{FORMAT_VERSION}, {method.name} {method.side}, {library_versions()}".encode()


def fill_keys(prints: np.ndarray, pictures: Sequence[Picture], identity: bytes) -> None:
    """Writes the keys of pictures: the same for the same file, as far as size and time tell, and the same method."""
    for index, picture in enumerate(pictures):
        cell = f"{picture.cell[:4]}" if picture.cell else ""
        told = (identity, os.fsencode(picture.file), f"{picture.stamp.size} {picture.stamp.mtime_ns} {cell}".encode())
        digest = hashlib.blake2b(b"\0".join(told), digest_size=12).digest()
        prints["key"][index] = int.from_bytes(digest[:8], "little")
        prints["check"][index] = int.from_bytes(digest[8:], "little")


def make_prints(pictures: Sequence[Picture], method: Method) -> Batch:
    """Reads, decodes and hashes."""
    prints = np.zeros(len(pictures), print_type(method))
    fill_keys(prints, pictures, identity_of(method))
    problems: dict[int, LeftOut] = {}
    for index, (picture, content) in enumerate(zip(pictures, read_contents(pictures), strict=True)):
        if isinstance(content, LeftOut):
            problems[index] = content
            continue
        try:
            fill_print(prints[index], content, method)
        except ImageError as error:
            problems[index] = LeftOut(picture.name, Reason.BROKEN, str(error))
    return Batch(pictures, prints, problems)


def fill_print(row: np.void, content: bytes, method: Method) -> None:
    """Writes the fingerprint of an encoded picture.

    Raises:
        ImageError: if it is broken, no picture, empty or too large.
    """
    picture = load_image(Path("picture"), content)
    grey = picture.convert("L")
    cells = np.asarray(grey.resize((SPREAD_SIDE, SPREAD_SIDE), Image.Resampling.BOX))
    row["hash"] = hash_bits(grey, method)
    row["sha256"] = np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
    row["spread"] = int(cells.max()) - int(cells.min())
    row["width"], row["height"] = picture.size
    row["usable"] = True


def has_information(prints: np.ndarray, method: Method, threshold: int) -> np.ndarray:
    """Whether a match of this picture would say anything.

    It says nothing of a flat picture, nor of one whose hash is so near to all zeros or all ones that any two such
    hashes lie within the threshold of each other, whatever the pictures show.
    """
    ones = np.bitwise_count(prints["hash"]).sum(axis=1, dtype=np.int64)
    fewer = np.minimum(ones, method.num_bits - ones)
    return (prints["spread"] >= FLAT_SPREAD) & (2 * fewer > threshold)
