"""The pixels that a COCO segmentation covers: polygons, run lengths, compressed run lengths.

Only needed where a file states no area, so nothing is drawn: a polygon's area is that of its corners, as in COCO's own
`area`, and a mask's the sum of its runs, as pycocotools counts them.

Source: COCO data format (cocodataset.org/#format-data); the compressed form as in pycocotools' maskApi.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import mul
from typing import Any

CHARACTERS = range(48, 112)
"""Codes of a compressed run: five bits of it a character, a sixth for "more follows"."""


class Area(float):
    """Pixels that a segmentation covers."""


def area_of(form: type[Area], segmentation: Any) -> Area:
    """A parsed segmentation's area; form is always Area, as msgspec's decoders want.

    Raises:
        ValueError: if it is none of the three forms, or broken.
    """
    if isinstance(segmentation, dict):
        return form(mask_area(segmentation))
    if isinstance(segmentation, list):
        return form(sum(polygon_area(polygon) for polygon in segmentation))
    raise ValueError("a segmentation is a list of polygons, or an object with counts and size")


def polygon_area(corners: Any) -> float:
    """Of one polygon x1, y1, x2, y2, ..., square pixels.

    Raises:
        ValueError: if it is no list of at least three pairs of numbers.
    """
    if not isinstance(corners, list) or len(corners) < 6 or len(corners) % 2:
        raise ValueError("a polygon is a list of at least three x, y pairs")
    across, down = corners[0::2], corners[1::2]
    try:
        clockwise = sum(map(mul, across, [*down[1:], down[0]]))
        return abs(clockwise - sum(map(mul, [*across[1:], across[0]], down))) / 2
    except TypeError as error:
        raise ValueError("a polygon holds something that is no number") from error


def mask_area(mask: dict[str, Any]) -> int:
    """Of run lengths, compressed or not, pixels.

    Raises:
        ValueError: if they do not fill the stated size.
    """
    counts, size = mask.get("counts"), mask.get("size")
    runs = decompressed(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(run, int) and run >= 0 for run in runs):
        raise ValueError("the counts of a mask are whole numbers of pixels, or compressed in a string")
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) for side in size):
        raise ValueError("the size of a mask is its height and its width")
    if sum(runs) != size[0] * size[1]:
        raise ValueError(f"the counts of a mask sum to {sum(runs)} pixels, its size is {size[0]} x {size[1]}")
    return sum(runs[1::2])  # background comes first


def decompressed(text: str) -> list[int]:
    """The runs in a string of compressed ones; from the fourth on, each is the difference to the one before the last.

    Raises:
        ValueError: if it holds another character, or ends within a run.
    """
    runs: list[int] = []
    run = shift = 0
    for character in text:
        code = ord(character)
        if code not in CHARACTERS:
            raise ValueError(f"compressed counts hold the character {character!r}")
        bits = code - CHARACTERS.start
        run |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            signed = run - (1 << shift) if bits & 16 else run
            runs.append(signed + before_last(runs))
            run = shift = 0
    if shift:
        raise ValueError("compressed counts end within a run")
    return runs


def before_last(runs: Sequence[int]) -> int:
    """What the next run is the difference to."""
    return runs[-2] if len(runs) > 2 else 0
