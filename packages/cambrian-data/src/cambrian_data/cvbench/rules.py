"""Which questions may be asked: every threshold of the makers, with its reason.

CV-Bench's own margins, sizes and caps were never published; only the kinds of rule were (arXiv 2406.16860, section
3.2). The values here are ours. Raising a margin, a minimum size or a minimum visibility only removes questions.

The defaults are those of rendered scenes, whose annotations are exact; `Rules.photographs` holds those of photographs,
which people have annotated. A rule that is None is not applied.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypeVar

from cambrian_data.cvbench.annotations import Cuboid, Instance, Picture, Thing
from cambrian_data.cvbench.names import are_people
from cambrian_data.errors import DataError

Value = TypeVar("Value")


def rule(value: Value, reason: str, *, low: float = 0, high: float = float("inf")) -> Value:
    """A rule with its default, what it means and why, and the values that make sense."""
    return field(default=value, metadata={"reason": reason, "low": low, "high": high})


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRules:
    """When a thing can be seen well enough to be asked about."""

    min_area: float = rule(
        0.002, "part of the picture that a thing covers; less is tiny, which CV-Bench's reviewers dropped", high=1
    )
    min_side: float = rule(4.0, "pixels of the shorter edge of its box; below that not even its colour is sure")
    min_visibility: float = rule(
        0.3, "part of it that nothing hides, where that was measured; less and its kind is a guess", high=1
    )
    max_truncation: float = rule(
        0.3, "part of it outside the picture, where that was measured; more and its place is a guess", high=1
    )
    max_area: float | None = rule(
        None, "part of the picture that its box covers; more and it is the place rather than a thing in it", high=1
    )
    inside: float | None = rule(
        None,
        "pixels from its box to the nearest edge of the picture; half a bowl is counted by some and not by others "
        "(with enough pictures, 1 makes a cleaner Count)",
    )
    people_inside: float | None = rule(
        None,
        "pixels from the box of a person to the nearest edge of the picture; a hand that reaches into it is annotated "
        "as a person, and nobody takes it for one",
    )

    def __post_init__(self) -> None:
        check(self)

    def refusal(self, thing: Instance | Cuboid, picture: Picture[Thing]) -> str | None:
        """The name of the rule that forbids to ask about the thing, the first of them; None if it may be asked."""
        if thing.area < self.min_area * picture.area:
            return "min_area"
        if min(thing.box.width, thing.box.height) < self.min_side:
            return "min_side"
        if thing.visibility is not None and thing.visibility < self.min_visibility:
            return "min_visibility"
        if isinstance(thing, Cuboid) and thing.truncation is not None and thing.truncation > self.max_truncation:
            return "max_truncation"
        if self.max_area is not None and thing.box.area > self.max_area * picture.area:
            return "max_area"
        gap = thing.box.gap(picture.width, picture.height)
        if self.inside is not None and gap < self.inside:
            return "inside"
        if self.people_inside is not None and gap < self.people_inside and are_people(thing.category):
            return "people_inside"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class CountRules:
    """For "How many balls are in the image?".

    Never asked about, whatever these say: a category with a crowd, or one that the picture is not fully annotated for;
    one whose name does not stand for single things (water, books); one that may be taken for another that is in the
    picture as well (chairs beside armchairs), whether it is there itself or not.

    Attributes:
        seen: every counted thing must hold these; one that does not makes the count a matter of opinion, and the
            category is not asked about in that picture.
    """

    seen: SeenRules = field(default_factory=lambda: SeenRules(min_area=0.001))
    num_choices: int = rule(
        4,
        "neighbouring numbers to choose from, the truth at every place among them equally often, so that distractors "
        "are near it; CV-Bench has 4 to 6, mostly 4",
        low=2,
        high=6,
    )
    max_count: int = rule(10, "largest truth; people do not count reliably beyond", low=1, high=1000)
    absent_per_picture: int = rule(
        2, "categories that are not there, asked about so that 0 is an answer too", high=1000
    )
    per_picture: int = rule(
        2,
        "questions about one picture at most, for they hang together; each comes once before any comes again",
        low=1,
        high=1000,
    )
    per_category: int | None = rule(None, "questions about one category at most", low=1)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class RelationRules:
    """For "where is the book located with respect to the couch?".

    Asked by name alone only about a thing that is the only one of its name, in a picture that is fully annotated for
    it and holds nothing that may be taken for it; otherwise a box is drawn. Crowds and backgrounds (road, sky) are
    never asked about.

    Attributes:
        seen: both things must hold these.
    """

    seen: SeenRules = field(default_factory=SeenRules)
    margin: float = rule(
        0.1, "between the centres along the axis asked about, in sides of the picture; less, and people disagree"
    )
    max_overlap: float = rule(
        0.25,
        "part of the shorter extent along that axis that the other may share; more, and neither is plainly left of, or "
        "above, the other",
        high=1,
    )
    draw_boxes: bool = rule(
        True,
        "also ask about a thing that its name does not tell apart, with a box drawn around it (red for the thing "
        "located, blue for the reference)",
    )
    per_picture: int = rule(
        2,
        "questions about one picture at most, for they hang together; each comes once before any comes again",
        low=1,
        high=1000,
    )
    per_category: int | None = rule(None, "questions whose thing located is of one category at most", low=1)
    pool_per_picture: int | None = rule(
        None,
        "candidates of one picture that the choice is made among, by lot; a hundred things make thousands of pairs, "
        "which would outweigh all other pictures, and fill the memory",
        low=1,
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceRules:
    """For questions about distances in space: Depth (from the camera) and Distance (from a reference object).

    A thing is closer if its farthest vertex is nearer than the nearest vertex of the other, by the margin. Distances
    are Euclidean, of the 8 vertices, from the camera (Depth) or from the centre of the reference (Distance).

    Attributes:
        seen: every thing must hold these.
    """

    seen: SeenRules = field(default_factory=lambda: SeenRules(min_visibility=0.5))
    margin: float = rule(
        0.1,
        "by which the further thing's nearest vertex must be further than the nearer thing's farthest, as a part of "
        "the latter: judgements of distance err in proportion to the distance, so metres would not do",
    )
    max_overlap: float = rule(
        0.3,
        "part of the smaller box in the picture that another may cover; more, and the drawn boxes do not tell which "
        "thing is meant (half was too much on a sheet of rendered questions)",
        high=1,
    )
    max_covered: float | None = rule(
        None,
        "part of a thing's box in the picture that the box of one nearer thing may cover, where its visibility was not "
        "measured; more, and it may be hidden (a man behind a truck has a cuboid too)",
        high=1,
    )
    only_unique: bool = rule(
        False,
        "ask only about things that are the only ones of their category, so that names alone tell them apart; "
        "CV-Bench does not ask for that, it has the boxes",
    )
    per_picture: int = rule(
        2,
        "questions about one picture at most, for they hang together; each comes once before any comes again",
        low=1,
        high=1000,
    )
    per_category: int | None = rule(None, "questions whose thing in the red box is of one category at most", low=1)
    pool_per_picture: int | None = rule(
        None,
        "candidates of one picture that the choice is made among, by lot; thirty things make thousands of triples, "
        "which would outweigh all other pictures, and fill the memory",
        low=1,
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules of a benchmark.

    Attributes:
        count: of Count.
        relation: of Relation.
        depth: of Depth.
        distance: of Distance; six a picture, as few pictures hold three categories.
    """

    count: CountRules = field(default_factory=CountRules)
    relation: RelationRules = field(default_factory=RelationRules)
    depth: SpaceRules = field(default_factory=SpaceRules)
    distance: SpaceRules = field(default_factory=lambda: SpaceRules(per_picture=6))
    shuffle_choices: bool = rule(
        True,
        "list the choices in a drawn order, so that the letter says nothing of the answer; without it they stand as in "
        "CV-Bench (left before right, above before below, red before blue before green), and letters are balanced "
        "because the answers are; numbers are shuffled in both",
    )

    @classmethod
    def photographs(cls) -> Rules:
        """The defaults for photographs, where they differ from those of scenes, and why.

        - Sizes are larger: people outline carelessly what is small, a model sees a photograph scaled down, and a
          thing under 16 pixels has no shape there. A count only has to notice a thing, so it allows smaller ones than
          a question about a place (on sheets of rendered questions a bicycle of half a percent, behind a crowd, was
          not to be found, and of twelve counts of things down to a fifth of a percent ten were wrong or doubtful).
          What covers more than nine tenths of the picture has no place in it.
        - Nobody counted or located in the picture may reach its edge: a hand is annotated as a person.
        - Counts end at 6: outlines of many alike things (books on a shelf, fruit on a stall) are rarely complete, and
          people count up to some six at a glance. One absent category a picture: absence is what annotators check
          least.
        - Relation shares at most a tenth of the shorter extent: drawn outlines are looser than rendered ones. Half of
          a thing has to be seen: the box of a building behind trees was mostly trees.
        - In space nothing may be covered by half by something nearer: most data sets of Omni3D measured no visibility.
          Distance has a margin of a fifth: nobody saw 11.5 from 12.9 metres between things far away.
        - Two questions a picture in all tasks but Distance, three there: photographs are many, and questions about
          one picture are not independent.
        - A pool of 24 candidates a picture, for memory's sake and so that crowded pictures do not outweigh others.
        """
        counted = SeenRules(min_area=0.005, min_side=12.0, people_inside=1.0)
        related = SeenRules(min_area=0.01, min_side=16.0, min_visibility=0.5, max_area=0.9, people_inside=1.0)
        in_space = SeenRules(min_area=0.003, min_side=16.0, min_visibility=0.5, max_area=0.9)
        space = SpaceRules(seen=in_space, max_covered=0.5, pool_per_picture=24)
        return cls(
            count=CountRules(seen=counted, max_count=6, absent_per_picture=1),
            relation=RelationRules(seen=related, max_overlap=0.1, pool_per_picture=24),
            depth=space,
            distance=replace(space, margin=0.2, per_picture=3),
        )


def check(rules: Any) -> None:
    """Raises DataError unless every rule lies within its bounds."""
    for one in fields(rules):
        value, bounds = getattr(rules, one.name), one.metadata
        if value is not None and "low" in bounds and not bounds["low"] <= value <= bounds["high"]:
            raise DataError(f"rule {one.name} is {value}; expected {bounds['low']} to {bounds['high']}.")


def stated(rules: Rules) -> dict[str, Any]:
    """The rules that are applied, by name, as a manifest holds them.

    A rule that is None is left out, so a set of rules has the same manifest as before that rule existed.
    """
    return without_none(asdict(rules))


def without_none(tree: dict[str, Any]) -> dict[str, Any]:
    """The same dictionary of dictionaries without keys whose value is None."""
    return {
        key: without_none(value) if isinstance(value, dict) else value
        for key, value in tree.items()
        if value is not None
    }
