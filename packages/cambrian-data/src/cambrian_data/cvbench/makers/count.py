"""Count: how many things of a category there are, none included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cambrian_data.cvbench.annotations import Instance, Picture
from cambrian_data.cvbench.candidates import Candidate, Task
from cambrian_data.cvbench.lots import shuffled
from cambrian_data.cvbench.makers.categories import by_category
from cambrian_data.cvbench.rules import CountRules


def count_candidates(
    picture: Picture[Instance], categories: Sequence[str], rules: CountRules
) -> Iterator[Candidate[Instance]]:
    """The categories of which everybody would count the same number.

    Args:
        picture: whose annotations are complete for the categories.
        categories: those that the file annotates.
        rules: of the task.

    Yields:
        One candidate for each countable category, and for some of those that are not there.
    """
    present = by_category(picture.things)
    for category, things in present.items():
        if len(things) <= rules.max_count and is_countable(things, picture, rules):
            yield candidate(picture, category, things, rules)
    absent = shuffled((name for name in categories if name not in present), 0, "absent", picture.file_name)
    for category in absent[: rules.absent_per_picture]:
        yield candidate(picture, category, (), rules)


def is_countable(things: Sequence[Instance], picture: Picture[Instance], rules: CountRules) -> bool:
    """Whether each is one thing that can be seen."""
    return all(not thing.is_crowd and rules.seen.allow(thing, picture) for thing in things)


def candidate(
    picture: Picture[Instance], category: str, things: Sequence[Instance], rules: CountRules
) -> Candidate[Instance]:
    """The question for one category."""
    return Candidate(
        Task.COUNT,
        picture,
        (category,),
        tuple(things),
        windows(len(things), rules.num_choices),
        str(len(things)),
        (False,) * len(things),
    )


def windows(truth: int, size: int) -> tuple[tuple[str, ...], ...]:
    """The rows of `size` neighbouring numbers that hold the truth.

    >>> windows(1, 3)
    (('0', '1', '2'), ('1', '2', '3'))
    """
    first = range(max(0, truth - size + 1), truth + 1)
    return tuple(tuple(str(number) for number in range(start, start + size)) for start in first)
