"""Depth: which of two things is closer to the camera."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import numpy as np

from cambrian_data.cvbench.annotations import Cuboid, Picture
from cambrian_data.cvbench.candidates import Candidate, Task
from cambrian_data.cvbench.makers.space import are_told_apart, askable_cuboids, spans, vertices
from cambrian_data.cvbench.rules import SpaceRules

CAMERA = np.zeros(3)
COLOURS = ("red", "blue")


def depth_candidates(picture: Picture[Cuboid], rules: SpaceRules) -> Iterator[Candidate[Cuboid]]:
    """Pairs of things of different categories of which one lies before the other, whole and by the margin.

    Yields:
        Every such pair twice: the nearer thing in the red box, and in the blue one.
    """
    cuboids = askable_cuboids(picture, rules, num_categories=2)
    distances = spans(vertices(cuboids), CAMERA)
    for near, far in permutations(range(len(cuboids)), 2):
        pair = cuboids[near], cuboids[far]
        if distances[near].is_before(distances[far], rules.margin) and are_told_apart(pair, rules):
            yield candidate(picture, pair, "red")
            yield candidate(picture, pair[::-1], "blue")


def candidate(picture: Picture[Cuboid], pair: tuple[Cuboid, Cuboid], answer: str) -> Candidate[Cuboid]:
    """The question with the first of the pair in the red box."""
    names = pair[0].category, pair[1].category
    return Candidate(Task.DEPTH, picture, names, pair, (COLOURS,), answer, (True, True))
