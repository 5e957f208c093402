"""Count: how many things of a category there are, none included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import cache

from cambrian_data.cvbench.annotations import Instance, Picture
from cambrian_data.cvbench.candidates import Candidate, Task
from cambrian_data.cvbench.lots import shuffled
from cambrian_data.cvbench.makers.categories import by_category, doubt
from cambrian_data.cvbench.names import is_countable
from cambrian_data.cvbench.rejections import Rejections
from cambrian_data.cvbench.rules import CountRules


def count_candidates(
    picture: Picture[Instance], categories: Sequence[str], rules: CountRules, rejected: Rejections | None = None
) -> Iterator[Candidate[Instance]]:
    """The categories of which everybody would count the same number.

    Args:
        picture: asked about; what it is fully annotated for is its own to say.
        categories: those that the file annotates.
        rules: of the task.
        rejected: counts the categories refused, by rule.

    Yields:
        One candidate for each countable category, and for some of those that are not there.
    """
    rejected = Counter() if rejected is None else rejected
    present = by_category(picture.things)
    for category, things in present.items():
        refusal = refusal_to_count(category, things, picture, present, rules)
        if refusal is None:
            yield candidate(picture, category, things, rules)
        else:
            rejected[f"category: {refusal}"] += 1
    for category in absent_categories(picture, categories, present, rules, rejected):
        yield candidate(picture, category, (), rules)


def refusal_to_count(
    category: str, things: Sequence[Instance], picture: Picture[Instance], present: Collection[str], rules: CountRules
) -> str | None:
    """The name of the rule by which the things cannot be counted; None if each is one thing that can be seen."""
    if any(thing.is_crowd for thing in things):
        return "crowd"
    if not is_countable(category):
        return "countable"
    if len(things) > rules.max_count:
        return "max_count"
    unsure = doubt(category, picture, present)
    if unsure is not None:
        return unsure
    return next(filter(None, (rules.seen.refusal(thing, picture) for thing in things)), None)


def absent_categories(
    picture: Picture[Instance],
    categories: Sequence[str],
    present: Collection[str],
    rules: CountRules,
    rejected: Rejections,
) -> Iterator[str]:
    """Some of the categories that are surely not in the picture, drawn by lot."""
    wanted = rules.absent_per_picture
    for category in shuffled((name for name in categories if name not in present), 0, "absent", picture.file_name):
        if wanted == 0:
            return
        refusal = doubt(category, picture, present) if is_countable(category) else "countable"
        if refusal is None:
            wanted -= 1
            yield category
        else:
            rejected[f"absent category: {refusal}"] += 1


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


@cache
def windows(truth: int, size: int) -> tuple[tuple[str, ...], ...]:
    """The rows of `size` neighbouring numbers that hold the truth.

    >>> windows(1, 3)
    (('0', '1', '2'), ('1', '2', '3'))
    """
    first = range(max(0, truth - size + 1), truth + 1)
    return tuple(tuple(str(number) for number in range(start, start + size)) for start in first)
