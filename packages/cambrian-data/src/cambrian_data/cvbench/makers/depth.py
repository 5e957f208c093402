"""Depth: which of two things is closer to the camera."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from cambrian_data.cvbench.annotations import Cuboid, Picture
from cambrian_data.cvbench.candidates import Candidate, Task
from cambrian_data.cvbench.makers.space import (
    CAMERA,
    askable_cuboids,
    boxes_apart,
    of_other_categories,
    spans,
    vertices,
)
from cambrian_data.cvbench.rejections import Rejections
from cambrian_data.cvbench.rules import SpaceRules

COLOURS = ("red", "blue")


def depth_candidates(
    picture: Picture[Cuboid], rules: SpaceRules, rejected: Rejections | None = None
) -> Iterator[Candidate[Cuboid]]:
    """Pairs of things of different categories of which one lies before the other, whole and by the margin.

    Args:
        picture: asked about.
        rules: of the task.
        rejected: counts the things and the pairs refused, by rule.

    Yields:
        Every such pair twice: the nearer thing in the red box, and in the blue one.
    """
    rejected = Counter() if rejected is None else rejected
    cuboids = askable_cuboids(picture, rules, num_categories=2, rejected=rejected)
    if not cuboids:
        return
    others = of_other_categories(cuboids)
    before = spans(vertices(cuboids), CAMERA).before(rules.margin) & others
    plain = before & boxes_apart(cuboids, rules)
    num_before = int(np.count_nonzero(before))
    rejected["pair: margin"] += int(np.count_nonzero(others)) // 2 - num_before
    rejected["pair: max_overlap"] += num_before - int(np.count_nonzero(plain))
    for near, far in np.argwhere(plain).tolist():
        pair = cuboids[near], cuboids[far]
        yield candidate(picture, pair, "red")
        yield candidate(picture, pair[::-1], "blue")


def candidate(picture: Picture[Cuboid], pair: tuple[Cuboid, Cuboid], answer: str) -> Candidate[Cuboid]:
    """The question with the first of the pair in the red box."""
    names = pair[0].category, pair[1].category
    return Candidate(Task.DEPTH, picture, names, pair, (COLOURS,), answer, (True, True))
