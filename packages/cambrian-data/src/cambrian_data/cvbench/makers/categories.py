"""Things by their categories, in an order that does not depend on the annotations' own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from cambrian_data.cvbench.annotations import Picture, Thing
from cambrian_data.cvbench.kinship import stands_alone


def by_category(things: Sequence[Thing]) -> dict[str, list[Thing]]:
    """The things of each category by rising id, categories in alphabetical order."""
    found: dict[str, list[Thing]] = defaultdict(list)
    for thing in sorted(things, key=lambda thing: thing.id):
        found[thing.category].append(thing)
    return dict(sorted(found.items()))


def doubt(category: str, picture: Picture[Thing], present: Collection[str]) -> str | None:
    """The name of the rule by which one cannot be sure what of a category is in a picture, None if one can.

    Args:
        category: there or not.
        picture: that says what it is fully annotated for.
        present: all categories of the picture.
    """
    if picture.complete is not None and category not in picture.complete:
        return "complete"
    return None if stands_alone(category, present) else "kin"
