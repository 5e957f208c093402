"""Distance: which of two things is closer to a third."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

from cambrian_data.cvbench.annotations import Cuboid, Picture
from cambrian_data.cvbench.candidates import Candidate, Task
from cambrian_data.cvbench.makers.space import are_told_apart, askable_cuboids, spans, vertices
from cambrian_data.cvbench.rules import SpaceRules

COLOURS = ("blue", "green")


def distance_candidates(picture: Picture[Cuboid], rules: SpaceRules) -> Iterator[Candidate[Cuboid]]:
    """Triples of things of three categories of which the second lies closer to the first than the third does.

    Distances are those of vertices from the centre of the reference, as in Depth from the camera.

    Yields:
        Every such triple twice: the closer thing in the blue box, and in the green one.
    """
    cuboids = askable_cuboids(picture, rules, num_categories=3)
    corners = vertices(cuboids)
    for reference, centre in enumerate(corners.mean(axis=1)):
        distances = spans(corners, centre)
        others = [number for number in range(len(cuboids)) if number != reference]
        for close, far in permutations(others, 2):
            if not distances[close].is_before(distances[far], rules.margin):
                continue
            triple = cuboids[reference], cuboids[close], cuboids[far]
            if are_told_apart(triple, rules):
                yield candidate(picture, triple, "blue")
                yield candidate(picture, (triple[0], triple[2], triple[1]), "green")


def candidate(picture: Picture[Cuboid], triple: tuple[Cuboid, Cuboid, Cuboid], answer: str) -> Candidate[Cuboid]:
    """The question with the first in the red box, the second in the blue, the third in the green one."""
    names = tuple(cuboid.category for cuboid in triple)
    return Candidate(Task.DISTANCE, picture, names, triple, (COLOURS,), answer, (True, True, True))
