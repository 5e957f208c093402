"""What Depth and Distance share: which cuboids may be asked about, and when one of them is plainly closer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cambrian_data.cvbench.annotations import Cuboid, Picture
from cambrian_data.cvbench.makers.categories import by_category
from cambrian_data.cvbench.names import is_nameless
from cambrian_data.cvbench.rejections import Rejections
from cambrian_data.cvbench.rules import SpaceRules

CAMERA = np.zeros(3)
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Spans(NamedTuple):
    """The distances of the vertices of each of several cuboids from a point, metres."""

    nearest: Floats
    farthest: Floats

    def before(self, margin: float) -> Flags:
        """Whether the farthest of cuboid i is nearer than the nearest of cuboid j, by the margin, as [i, j]."""
        far, near = self.farthest[:, None], self.nearest[None, :]
        if math.isinf(margin):  # times no distance, it is no number
            return np.zeros((far.size, near.size), dtype=np.bool_)
        return (far < near) & (far * (1 + margin) <= near)


def askable_cuboids(
    picture: Picture[Cuboid], rules: SpaceRules, num_categories: int, rejected: Rejections
) -> list[Cuboid]:
    """The cuboids that can be seen and, if the rules want it, are the only ones of their category.

    Args:
        picture: that holds them.
        rules: of the task.
        num_categories: that a question needs; there are no cuboids if fewer are to be seen.
        rejected: counts the things refused, by rule.
    """
    things = [thing for of_category in by_category(picture.things).values() for thing in of_category]
    several = Counter(thing.category for thing in things)
    hidden = maybe_hidden(things, rules)
    askable = []
    for thing, is_hidden in zip(things, hidden, strict=True):
        refusal = "nameless" if is_nameless(thing.category) else None
        if rules.only_unique and several[thing.category] > 1:
            refusal = refusal or "only_unique"
        refusal = refusal or rules.seen.refusal(thing, picture) or ("max_covered" if is_hidden else None)
        if refusal is None:
            askable.append(thing)
        else:
            rejected[f"thing: {refusal}"] += 1
    if len({thing.category for thing in askable}) >= num_categories:
        return askable
    rejected["thing: other_categories"] += len(askable)
    return []


def maybe_hidden(things: Sequence[Cuboid], rules: SpaceRules) -> list[bool]:
    """For each thing, whether something nearer covers too much of it, where its visibility was not measured."""
    if rules.max_covered is None or not things:
        return [False] * len(things)
    edges = np.array([thing.box for thing in things], dtype=np.float64)
    low = np.maximum(edges[:, None, :2], edges[None, :, :2])
    high = np.minimum(edges[:, None, 2:], edges[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    nearest = spans(vertices(things), CAMERA).nearest
    covered = np.where(nearest[None, :] < nearest[:, None], shared, 0).max(axis=1)
    too_much: list[bool] = (covered > rules.max_covered * shared.diagonal()).tolist()
    return [thing.visibility is None and is_covered for thing, is_covered in zip(things, too_much, strict=True)]


def vertices(cuboids: Sequence[Cuboid]) -> Floats:
    """Their corners (cuboids, 8, 3), metres in the camera frame."""
    return np.array([cuboid.vertices for cuboid in cuboids], dtype=np.float64).reshape(-1, 8, 3)


def spans(corners: Floats, origin: Floats) -> Spans:
    """How far the corners (cuboids, 8, 3) of each cuboid are from a point (3,), metres."""
    distances = np.linalg.norm(corners - origin, axis=2)
    return Spans(distances.min(axis=1), distances.max(axis=1))


def of_other_categories(cuboids: Sequence[Cuboid]) -> Flags:
    """Whether cuboids i and j are of different categories, as [i, j]."""
    numbers: dict[str, int] = {}
    kinds = np.array([numbers.setdefault(cuboid.category, len(numbers)) for cuboid in cuboids], dtype=np.int64)
    return kinds[:, None] != kinds[None, :]


def boxes_apart(cuboids: Sequence[Cuboid], rules: SpaceRules) -> Flags:
    """Whether the boxes of cuboids i and j overlap little in the picture, as [i, j]."""
    apart = np.ones((len(cuboids), len(cuboids)), dtype=np.bool_)
    for (i, first), (j, second) in combinations(enumerate(cuboids), 2):
        apart[i, j] = apart[j, i] = first.box.overlap(second.box) <= rules.max_overlap
    return apart
