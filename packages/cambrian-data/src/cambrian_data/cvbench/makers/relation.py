"""Relation: on which side of a reference a thing of another category lies, in the picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

from cambrian_data.cvbench.annotations import Instance, Picture
from cambrian_data.cvbench.candidates import Candidate, Task
from cambrian_data.cvbench.makers.categories import by_category, doubt
from cambrian_data.cvbench.names import is_background, is_nameless
from cambrian_data.cvbench.rejections import Rejections
from cambrian_data.cvbench.rules import RelationRules

LEFT_RIGHT = ("left", "right")
ABOVE_BELOW = ("above", "below")


class Interval(NamedTuple):
    """The extent of a box along one axis, pixels."""

    low: float
    high: float

    def refusal(self, other: Interval, side: int, rules: RelationRules) -> str | None:
        """The name of the rule by which it does not lie plainly before the other, None if it does.

        Plainly is: centres apart by the margin of the picture's side, overlapping little.
        """
        apart = (other.low + other.high - self.low - self.high) / 2
        if not (apart > 0 and apart >= rules.margin * side):
            return "margin"
        shared = min(self.high, other.high) - max(self.low, other.low)
        shorter = min(self.high - self.low, other.high - other.low)
        return None if shared <= rules.max_overlap * shorter else "max_overlap"


class Subject(NamedTuple):
    """A thing that may be asked about, its extents across and down, and whether it needs a box."""

    thing: Instance
    extents: tuple[Interval, Interval]
    boxed: bool


def relation_candidates(
    picture: Picture[Instance], rules: RelationRules, rejected: Rejections | None = None
) -> Iterator[Candidate[Instance]]:
    """Ordered pairs of things of different categories, each told apart from its like, with a plain relation.

    Args:
        picture: asked about.
        rules: of the task.
        rejected: counts the things and the pairs refused, by rule; a pair once for each axis.

    Yields:
        For each such pair and each axis along which it is plain: where the first lies with respect to the second.
    """
    rejected = Counter() if rejected is None else rejected
    axes = (LEFT_RIGHT, picture.width), (ABOVE_BELOW, picture.height)
    for one, other in combinations(subjects(picture, rules, rejected), 2):
        if one.thing.category == other.thing.category:
            continue
        for (sides, side), extent, other_extent in zip(axes, one.extents, other.extents, strict=True):
            forwards = extent.refusal(other_extent, side, rules)
            backwards = other_extent.refusal(extent, side, rules) if forwards else "margin"
            if forwards is None or backwards is None:
                first, second = (one, other) if forwards is None else (other, one)
                yield candidate(picture, first, second, sides, sides[0])
                yield candidate(picture, second, first, sides, sides[1])
            else:
                rejected["pair: max_overlap" if "max_overlap" in (forwards, backwards) else "pair: margin"] += 1


def subjects(picture: Picture[Instance], rules: RelationRules, rejected: Rejections) -> list[Subject]:
    """The things that can be seen, and told apart by name or by a box."""
    named = by_category(picture.things)
    found = []
    for category, things in named.items():
        boxed = len(things) > 1 or doubt(category, picture, named) is not None
        for thing in things:
            refusal = refusal_to_ask(thing, boxed, picture, rules)
            if refusal is None:
                left, top, right, bottom = thing.box
                found.append(Subject(thing, (Interval(left, right), Interval(top, bottom)), boxed))
            else:
                rejected[f"thing: {refusal}"] += 1
    return found


def refusal_to_ask(thing: Instance, boxed: bool, picture: Picture[Instance], rules: RelationRules) -> str | None:
    """The name of the rule by which the thing must not be asked about; None if it may."""
    if thing.is_crowd:
        return "crowd"
    if is_background(thing.category):
        return "background"
    if is_nameless(thing.category):
        return "nameless"
    if boxed and not rules.draw_boxes:
        return "draw_boxes"
    return rules.seen.refusal(thing, picture)


def candidate(
    picture: Picture[Instance], located: Subject, reference: Subject, sides: tuple[str, str], side: str
) -> Candidate[Instance]:
    """The question where the first lies with respect to the second."""
    things = located.thing, reference.thing
    categories = located.thing.category, reference.thing.category
    return Candidate(Task.RELATION, picture, categories, things, (sides,), side, (located.boxed, reference.boxed))
