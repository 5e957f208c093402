"""Distance: which of two things is closer to a third."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from cambrian_data.cvbench.annotations import Cuboid, Picture
from cambrian_data.cvbench.candidates import Candidate, Task
from cambrian_data.cvbench.makers.space import askable_cuboids, boxes_apart, of_other_categories, spans, vertices
from cambrian_data.cvbench.rejections import Rejections
from cambrian_data.cvbench.rules import SpaceRules

COLOURS = ("blue", "green")


def distance_candidates(
    picture: Picture[Cuboid], rules: SpaceRules, rejected: Rejections | None = None
) -> Iterator[Candidate[Cuboid]]:
    """Triples of things of three categories of which the second lies closer to the first than the third does.

    Distances are those of vertices from the centre of the reference, as in Depth from the camera.

    Args:
        picture: asked about.
        rules: of the task.
        rejected: counts the things and the triples refused, by rule; two candidates and a reference are one triple.

    Yields:
        Every such triple twice: the closer thing in the blue box, and in the green one.
    """
    rejected = Counter() if rejected is None else rejected
    cuboids = askable_cuboids(picture, rules, num_categories=3, rejected=rejected)
    if not cuboids:
        return
    corners = vertices(cuboids)
    others, apart = of_other_categories(cuboids), boxes_apart(cuboids, rules)
    for reference, centre in enumerate(corners.mean(axis=1)):
        three_kinds = others & np.logical_and.outer(others[reference], others[reference])
        before = spans(corners, centre).before(rules.margin) & three_kinds
        plain = before & apart & np.logical_and.outer(apart[reference], apart[reference])
        num_before = int(np.count_nonzero(before))
        rejected["triple: margin"] += int(np.count_nonzero(three_kinds)) // 2 - num_before
        rejected["triple: max_overlap"] += num_before - int(np.count_nonzero(plain))
        for close, far in np.argwhere(plain).tolist():
            triple = cuboids[reference], cuboids[close], cuboids[far]
            yield candidate(picture, triple, "blue")
            yield candidate(picture, (triple[0], triple[2], triple[1]), "green")


def candidate(picture: Picture[Cuboid], triple: tuple[Cuboid, Cuboid, Cuboid], answer: str) -> Candidate[Cuboid]:
    """The question with the first in the red box, the second in the blue, the third in the green one."""
    names = tuple(cuboid.category for cuboid in triple)
    return Candidate(Task.DISTANCE, picture, names, triple, (COLOURS,), answer, (True, True, True))
