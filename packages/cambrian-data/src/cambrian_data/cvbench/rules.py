"""Which questions may be asked: every threshold of the makers, with its reason.

CV-Bench's own margins, sizes and caps were never published; only the kinds of rule were (arXiv 2406.16860, section
3.2). The values here are ours. Raising a margin, a minimum size or a minimum visibility only removes questions.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cambrian_data.cvbench.annotations import Cuboid, Instance, Picture, Thing
from cambrian_data.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRules:
    """When a thing can be seen well enough to be asked about.

    Attributes:
        min_area: part of the picture that it covers; less is tiny, which CV-Bench's reviewers dropped.
        min_side: pixels of the shorter edge of its box; below that not even its colour is sure.
        min_visibility: part of it that nothing hides, where that was measured; less and its kind is a guess.
        max_truncation: part of it outside the picture, where that was measured; more and its place is a guess.
    """

    min_area: float = 0.002
    min_side: float = 4.0
    min_visibility: float = 0.3
    max_truncation: float = 0.3

    def __post_init__(self) -> None:
        check("min_area", self.min_area, 0, 1)
        check("min_visibility", self.min_visibility, 0, 1)
        check("max_truncation", self.max_truncation, 0, 1)

    def allow(self, thing: Instance | Cuboid, picture: Picture[Thing]) -> bool:
        """Whether the thing can be asked about."""
        truncation = thing.truncation if isinstance(thing, Cuboid) else None
        return (
            thing.area >= self.min_area * picture.area
            and min(thing.box.width, thing.box.height) >= self.min_side
            and (thing.visibility is None or thing.visibility >= self.min_visibility)
            and (truncation is None or truncation <= self.max_truncation)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CountRules:
    """For "How many balls are in the image?".

    Attributes:
        seen: every counted thing must hold these; one that does not makes the count a matter of opinion, and the
            category is not asked about in that picture.
        num_choices: neighbouring numbers to choose from, the truth at every place among them equally often; CV-Bench
            has 4 to 6, mostly 4.
        max_count: largest truth; people do not count reliably beyond.
        absent_per_picture: categories that are not there, asked about so that 0 is an answer too.
        per_picture: questions about one picture at most; pictures with few questions come first.
    """

    seen: SeenRules = field(default_factory=lambda: SeenRules(min_area=0.001))
    num_choices: int = 4
    max_count: int = 10
    absent_per_picture: int = 2
    per_picture: int = 2

    def __post_init__(self) -> None:
        check("num_choices", self.num_choices, 2, 6)
        check("max_count", self.max_count, 1, 1000)
        check("absent_per_picture", self.absent_per_picture, 0, 1000)
        check("per_picture", self.per_picture, 1, 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class RelationRules:
    """For "where is the book located with respect to the couch?".

    Attributes:
        seen: both things must hold these.
        margin: between the centres along the axis asked about, in sides of the picture.
        max_overlap: part of the shorter extent along that axis that the other may share; more, and neither is
            plainly left of, or above, the other.
        draw_boxes: also ask about a thing whose category has several, with a box drawn around it (red for the thing
            located, blue for the reference); otherwise only about things that are the only ones of their category.
        per_picture: questions about one picture at most; pictures with few questions come first.
    """

    seen: SeenRules = field(default_factory=SeenRules)
    margin: float = 0.1
    max_overlap: float = 0.25
    draw_boxes: bool = True
    per_picture: int = 2

    def __post_init__(self) -> None:
        check("margin", self.margin, 0, float("inf"))
        check("max_overlap", self.max_overlap, 0, 1)
        check("per_picture", self.per_picture, 1, 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceRules:
    """For questions about distances in space: Depth (from the camera) and Distance (from a reference object).

    Attributes:
        seen: every thing must hold these.
        margin: the further thing's nearest vertex must be this much further than the nearer thing's farthest, as a
            part of the latter: judgements of distance err in proportion to the distance, so metres would not do.
        max_overlap: part of the smaller box in the picture that another may cover; more, and the drawn boxes do not
            tell which thing is meant (half was too much on a sheet of rendered questions).
        only_unique: ask only about things that are the only ones of their category, so that names alone tell them
            apart; CV-Bench does not ask for that, it has the boxes.
        per_picture: questions about one picture at most; pictures with few questions come first.
    """

    seen: SeenRules = field(default_factory=lambda: SeenRules(min_visibility=0.5))
    margin: float = 0.1
    max_overlap: float = 0.3
    only_unique: bool = False
    per_picture: int = 2

    def __post_init__(self) -> None:
        check("margin", self.margin, 0, float("inf"))
        check("max_overlap", self.max_overlap, 0, 1)
        check("per_picture", self.per_picture, 1, 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules of a benchmark.

    Attributes:
        count: of Count.
        relation: of Relation.
        depth: of Depth.
        distance: of Distance; six a picture, as few pictures hold three categories.
        shuffle_choices: list the choices in a drawn order, so that the letter says nothing of the answer. Without it
            they stand as in CV-Bench (left before right, above before below, red before blue before green), and
            letters are balanced because the answers are; numbers are shuffled in both.
    """

    count: CountRules = field(default_factory=CountRules)
    relation: RelationRules = field(default_factory=RelationRules)
    depth: SpaceRules = field(default_factory=SpaceRules)
    distance: SpaceRules = field(default_factory=lambda: SpaceRules(per_picture=6))
    shuffle_choices: bool = True


def check(name: str, value: float, low: float, high: float) -> None:
    """Raises DataError unless low <= value <= high."""
    if not low <= value <= high:
        raise DataError(f"rule {name} is {value}; expected {low} to {high}.")
