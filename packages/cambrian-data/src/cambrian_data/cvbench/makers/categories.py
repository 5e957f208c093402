"""Things by their categories, in an order that does not depend on the annotations' own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from cambrian_data.cvbench.annotations import Thing


def by_category(things: Sequence[Thing]) -> dict[str, list[Thing]]:
    """The things of each category by rising id, categories in alphabetical order."""
    found: dict[str, list[Thing]] = defaultdict(list)
    for thing in sorted(things, key=lambda thing: thing.id):
        found[thing.category].append(thing)
    return dict(sorted(found.items()))
