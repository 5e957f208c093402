"""Questions that a model answers without their picture, and how many of them luck explains.

A question is flagged when the model picks its right choice in every order of the choices. That alone proves nothing:
who always says "left" is right in half of the questions about left and right, in every order. So the number flagged is
compared with what luck gives *this* model: of the questions in which it picks the same choice throughout, one in as
many as there are choices is flagged by luck. The comparison takes its picks as given and draws the right answers by
lot, so that no preference of the model, for letters or for choices, looks like knowledge; only picks that go with the
right answers do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from cambrian_data.cvbench.audit.chance import Interval, Points, Trial, departure, excess, sum_of, wilson
from cambrian_data.cvbench.audit.items import Item
from cambrian_data.cvbench.audit.orders import Picks

Level = Literal["all", "task", "source", "category"]
LEVELS: tuple[Level, ...] = ("all", "task", "source", "category")


@dataclass(frozen=True, slots=True)
class Guess:
    """What a model picked in one question, in all orders.

    Attributes:
        item: the question.
        picks: one for each order.
    """

    item: Item
    picks: Picks

    @property
    def settled(self) -> bool:
        """Whether the same choice was picked in every order."""
        return self.picks[0] is not None and len(set(self.picks)) == 1

    @property
    def num_right(self) -> int:
        """Orders in which the right choice was picked."""
        return self.picks.count(self.item.place)

    @property
    def flagged(self) -> bool:
        """Whether the right choice was picked in every order."""
        return self.num_right == len(self.picks)

    @property
    def luck(self) -> Points:
        """The distribution of `num_right` if the right choice is drawn by lot."""
        size = len(self.item.choices)
        picked = Counter(self.picks.count(place) for place in range(size))
        return {num_right: places / size for num_right, places in picked.items()}


class BlindResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a model did in one group of questions. Shares are 0 to 1, counts are of questions where not said otherwise.

    Attributes:
        level: what the group is: all, a task, a source in a task, or a category in a task.
        group: its name.
        questions: in it.
        readable: share of replies that gave a letter.
        accuracy: share that was right in the published order.
        accuracy_low: lower end of its 95 % interval.
        accuracy_high: upper end.
        chance: of a uniform guess.
        accuracy_all: share of replies that were right, over all orders; a question counts as often as it was asked.
        luck: what luck gives in its place, on average; less than chance where replies cannot be read.
        luck_low: 95 %, lower end.
        luck_high: upper end.
        accuracy_trial: of "accuracy_all is what luck gives", neither more nor less: who is wrong too often knows the
            answers as well. Exact. None for a category, of which there may be hundreds.
        settled: questions in which the same choice was picked in every order.
        flagged: questions in which that was the right one.
        expected: what luck gives in place of flagged, on average.
        expected_low: 95 %, lower end.
        expected_high: upper end.
        flagged_trial: of "flagged is no more than luck gives"; exact.
        detectable: share of the settled questions that must give themselves away for four of five audits to find it;
            None if not even all of them would do, and for a category.
    """

    level: Level
    group: str
    questions: int
    readable: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    chance: float
    accuracy_all: float
    luck: float
    luck_low: float
    luck_high: float
    accuracy_trial: Trial | None
    settled: int
    flagged: int
    expected: float
    expected_low: float
    expected_high: float
    flagged_trial: Trial
    detectable: float | None = None


def groups(guesses: Sequence[Guess]) -> Iterator[tuple[Level, str, list[Guess]]]:
    """All questions, those of each task, and within it of each source and category; no group twice.

    A source or category that is a whole task, and a task that is everything, are left to the larger group.
    """
    yield "all", "all", list(guesses)
    names: Mapping[Level, Callable[[Item], str | None]] = {
        "task": lambda item: item.task,
        "source": lambda item: f"{item.task}, {item.source}",
        "category": lambda item: f"{item.task}, {item.categories[0]}" if item.categories else None,
    }
    seen = {tuple(guess.item.idx for guess in guesses)}
    for level, name_of in names.items():
        for name, found in by_name(guesses, name_of).items():
            members = tuple(guess.item.idx for guess in found)
            if members not in seen:
                seen.add(members)
                yield level, name, found


def by_name(guesses: Sequence[Guess], name_of: Callable[[Item], str | None]) -> dict[str, list[Guess]]:
    """The guesses of each name, names in alphabetical order; those without a name are left out."""
    found: dict[str, list[Guess]] = {}
    for guess in guesses:
        name = name_of(guess.item)
        if name is not None:
            found.setdefault(name, []).append(guess)
    return dict(sorted(found.items()))


def measure(level: Level, group: str, guesses: Sequence[Guess]) -> BlindResult:
    """What a model did in a group, and what luck explains."""
    count = len(guesses)
    replies = [pick for guess in guesses for pick in guess.picks]
    first_right = sum(guess.picks[0] == guess.item.place for guess in guesses)
    right = sum(guess.num_right for guess in guesses)
    lucks = [guess.luck for guess in guesses]
    interval, luck = wilson(first_right, count), sum_of(lucks).central()
    settled = [guess.item.chance for guess in guesses if guess.settled]
    flagged = sum(guess.flagged for guess in guesses)
    hit: list[Points] = [{0: 1 - chance, 1: chance} for chance in settled]
    expected: Interval = sum_of(hit).central()
    return BlindResult(
        level=level,
        group=group,
        questions=count,
        readable=sum(pick is not None for pick in replies) / len(replies),
        accuracy=first_right / count,
        accuracy_low=interval.low,
        accuracy_high=interval.high,
        chance=sum(guess.item.chance for guess in guesses) / count,
        accuracy_all=right / len(replies),
        luck=sum(value * probability for points in lucks for value, probability in points.items()) / len(replies),
        luck_low=luck.low / len(replies),
        luck_high=luck.high / len(replies),
        accuracy_trial=None if level == "category" else departure(lucks, right),
        settled=len(settled),
        flagged=flagged,
        expected=sum(settled),
        expected_low=expected.low,
        expected_high=expected.high,
        flagged_trial=excess(hit, flagged),
    )
