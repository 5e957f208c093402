"""Places in words: `at x3 y12`, or `at x3 y12 z17` where the depth is known.

Coordinates let a language model compare places as it compares words, for any picture and any distance: x and y are
sixteenths of the picture from its upper left corner, z counts steps of 12 percent of depth, from z0 at one metre.
"""

from __future__ import annotations

import math

from cambrian_data.boxes import Box

NUM_STEPS = 16  # along either side of the picture
DEPTH_RATIO = 1.12  # judgements of distance err in proportion to the distance
MAX_DEPTH_STEP = 63  # 1,261 m


def place_words(box: Box, width: float, height: float, depth: float | None = None) -> tuple[str, ...]:
    """Words for the middle of a box in a picture of this size.

    Args:
        box: of the thing, pixels.
        width: of the picture, pixels.
        height: of the picture, pixels.
        depth: of the thing's middle along the camera's axis, metres; None where it is not known.

    >>> place_words(Box(0, 48, 8, 64), 64, 64, 7.0)
    ('at x1', 'y14', 'z17')
    """
    x, y = box.centre
    words = (f"at x{step(x / width)}", f"y{step(y / height)}")
    return words if depth is None else (*words, f"z{depth_step(depth)}")


def left_to_right(box: Box, width: float, height: float) -> tuple[int, int]:
    """Sorts things as their places read: by x, and by y where that is equal."""
    x, y = box.centre
    return step(x / width), step(y / height)


def step(part: float) -> int:
    """The sixteenth of the picture that a point lies in, 0 to 15; `part` is its place along the side, 0 to 1."""
    return min(NUM_STEPS - 1, max(0, int(part * NUM_STEPS)))


def depth_step(depth: float) -> int:
    """How many steps of 12 percent a depth in metres is beyond one metre, 0 to 63."""
    return min(MAX_DEPTH_STEP, max(0, int(math.log(max(depth, 1.0)) / math.log(DEPTH_RATIO))))
