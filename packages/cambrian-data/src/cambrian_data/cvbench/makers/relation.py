"""Relation: on which side of a reference a thing of another category lies, in the picture."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import NamedTuple

from cambrian_data.boxes import Box
from cambrian_data.cvbench.annotations import Instance, Picture
from cambrian_data.cvbench.candidates import Candidate, Task
from cambrian_data.cvbench.makers.categories import by_category
from cambrian_data.cvbench.rules import RelationRules

LEFT_RIGHT = ("left", "right")
ABOVE_BELOW = ("above", "below")


class Interval(NamedTuple):
    """The extent of a box along one axis, pixels."""

    low: float
    high: float

    def is_before(self, other: Interval, side: int, rules: RelationRules) -> bool:
        """Whether it lies plainly before the other: centres apart by the margin of the side, overlapping little."""
        apart = (other.low + other.high - self.low - self.high) / 2
        shared = min(self.high, other.high) - max(self.low, other.low)
        shorter = min(self.high - self.low, other.high - other.low)
        return apart > 0 and apart >= rules.margin * side and shared <= rules.max_overlap * shorter


def relation_candidates(picture: Picture[Instance], rules: RelationRules) -> Iterator[Candidate[Instance]]:
    """Ordered pairs of things of different categories, each told apart from its like, with a plain relation.

    Yields:
        For each such pair and each axis along which it is plain: where the first lies with respect to the second.
    """
    named = by_category(picture.things)
    unique = {category for category, things in named.items() if len(things) == 1}
    askable = [
        thing
        for category, things in named.items()
        for thing in things
        if not thing.is_crowd and (rules.draw_boxes or category in unique) and rules.seen.allow(thing, picture)
    ]
    for located, reference in permutations(askable, 2):
        if located.category == reference.category:
            continue
        for sides, side in relations(located.box, reference.box, picture, rules):
            yield Candidate(
                Task.RELATION,
                picture,
                (located.category, reference.category),
                (located, reference),
                (sides,),
                side,
                (located.category not in unique, reference.category not in unique),
            )


def relations(
    located: Box, reference: Box, picture: Picture[Instance], rules: RelationRules
) -> Iterator[tuple[tuple[str, str], str]]:
    """(the two sides, the right one) for each axis along which the boxes lie plainly apart."""
    across = LEFT_RIGHT, (located.left, located.right), (reference.left, reference.right), picture.width
    down = ABOVE_BELOW, (located.top, located.bottom), (reference.top, reference.bottom), picture.height
    for sides, extent, other_extent, side in (across, down):
        thing, other = Interval(*extent), Interval(*other_extent)
        if thing.is_before(other, side, rules):
            yield sides, sides[0]
        elif other.is_before(thing, side, rules):
            yield sides, sides[1]
