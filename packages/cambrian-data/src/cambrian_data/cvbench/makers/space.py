"""What Depth and Distance share: which cuboids may be asked about, and when one of them is plainly closer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cambrian_data.cvbench.annotations import Cuboid, Picture
from cambrian_data.cvbench.makers.categories import by_category
from cambrian_data.cvbench.rules import SpaceRules

Floats = NDArray[np.float64]


class Span(NamedTuple):
    """The distances of a cuboid's vertices, metres."""

    nearest: float
    farthest: float

    def is_before(self, other: Span, margin: float) -> bool:
        """Whether its farthest is nearer than the other's nearest, by the margin."""
        return self.farthest < other.nearest and self.farthest * (1 + margin) <= other.nearest


def askable_cuboids(picture: Picture[Cuboid], rules: SpaceRules, num_categories: int) -> list[Cuboid]:
    """The cuboids that can be seen and, if the rules want it, are the only ones of their category.

    Args:
        picture: that holds them.
        rules: of the task.
        num_categories: that a question needs; there are no cuboids if fewer are to be seen.
    """
    named = by_category(picture.things)
    askable = [
        thing
        for things in named.values()
        for thing in things
        if (len(things) == 1 or not rules.only_unique) and rules.seen.allow(thing, picture)
    ]
    return askable if len({thing.category for thing in askable}) >= num_categories else []


def vertices(cuboids: Sequence[Cuboid]) -> Floats:
    """Their corners (cuboids, 8, 3), metres in the camera frame."""
    return np.array([cuboid.vertices for cuboid in cuboids], dtype=np.float64).reshape(-1, 8, 3)


def spans(corners: Floats, origin: Floats) -> list[Span]:
    """How far the corners (cuboids, 8, 3) of each cuboid are from a point (3,), metres."""
    distances = np.linalg.norm(corners - origin, axis=2)
    return [Span(*pair) for pair in zip(distances.min(axis=1).tolist(), distances.max(axis=1).tolist(), strict=True)]


def are_told_apart(cuboids: Sequence[Cuboid], rules: SpaceRules) -> bool:
    """Whether they are of different categories and their boxes overlap little."""
    return len({cuboid.category for cuboid in cuboids}) == len(cuboids) and all(
        first.box.overlap(second.box) <= rules.max_overlap for first, second in combinations(cuboids, 2)
    )
