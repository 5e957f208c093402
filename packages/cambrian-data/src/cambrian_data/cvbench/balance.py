"""Which candidates are asked, and under which letter the right answer stands: what makes answers worthless unseen.

Candidates are chosen in rounds. In a round every answer of a group is right once: of (left, right) one question whose
answer is left and one whose answer is right; of the numbers (1, 2, 3, 4) four questions. So within a group no answer is
more likely than another, whatever the data prefer, and one cannot do better than chance by knowing what is frequent.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from cambrian_data.cvbench.candidates import Candidate
from cambrian_data.cvbench.lots import lot, shuffled
from cambrian_data.cvbench.rejections import Rejections

Group = tuple[str, ...]


class Chosen(NamedTuple):
    """A candidate that is asked, and the group among whose answers it was balanced."""

    candidate: Candidate[Any]
    group: Group


class Cell(NamedTuple):
    """A group and the answer that is right."""

    group: Group
    answer: str


def choose(
    candidates: Iterable[Candidate[Any]],
    count: int | None,
    per_picture: int,
    seed: int,
    per_category: int | None = None,
) -> list[Chosen]:
    """Chooses what is asked, groups taking turns, until there are enough or no round can be completed.

    Args:
        candidates: of one task, in any order.
        count: wanted; the last round is left incomplete if it is no multiple. None for as many as can be balanced.
        per_picture: at most.
        seed: of the choice.
        per_category: questions whose first subject is of one category, at most; None for any number.

    Returns:
        At most count, in a drawn order.
    """
    pool = Pool(candidates, seed, per_category)
    chosen: list[Chosen] = []
    for cap in range(1, min(per_picture, pool.most_in_picture) + 1):  # every picture once, before any comes again
        pool.refill(cap)
        chosen += take_rounds(pool, None if count is None else count - len(chosen), seed)
    return sorted(chosen, key=lambda one: lot(seed, "order", one.candidate.task, one.candidate.fact))


def take_rounds(pool: Pool, count: int | None, seed: int) -> list[Chosen]:
    """Rounds from all groups in turn, until there are `count` candidates or no round can be completed."""
    chosen: list[Chosen] = []
    groups = shuffled(pool.groups, seed, "groups")
    while groups and (count is None or len(chosen) < count):
        for group in list(groups):
            found = pool.take_round(group)
            if not found:
                groups.remove(group)
            chosen += found
            if count is not None and len(chosen) >= count:
                break
    return chosen[:count]


class Pool:
    """The candidates that are left, by group and answer, best first."""

    def __init__(self, candidates: Iterable[Candidate[Any]], seed: int, per_category: int | None) -> None:
        self._seed = seed
        self._cap = 0
        self._per_category = per_category
        self._used_facts: set[tuple[object, ...]] = set()
        self._in_picture: Counter[str] = Counter()
        self._in_category: Counter[str] = Counter()
        self._rounds: Counter[Group] = Counter()
        cells: dict[Cell, list[Candidate[Any]]] = defaultdict(list)
        available: Counter[str] = Counter()
        for candidate in candidates:
            available[candidate.picture.file_name] += 1
            for group in candidate.groups:
                cells[Cell(group, candidate.answer)].append(candidate)
        self._cells = {cell: spread(found, cell, seed) for cell, found in cells.items()}
        self._waiting: dict[Cell, Iterator[Candidate[Any]]] = {}
        self.groups = sorted({cell.group for cell in cells})
        self.most_in_picture = max(available.values(), default=0)

    def refill(self, cap: int) -> None:
        """Makes all candidates available again that were not taken, with a new cap for a picture."""
        self._cap = cap
        self._waiting = {cell: iter(found) for cell, found in self._cells.items()}

    def take_round(self, group: Group) -> list[Chosen]:
        """One candidate for every answer of the group, in a drawn order; none if an answer has none left."""
        found: list[Chosen] = []
        self._rounds[group] += 1
        for answer in shuffled(group, self._seed, "round", group, self._rounds[group]):
            candidate = self._take(Cell(group, answer))
            if candidate is None:
                for one in found:  # what was taken goes back, for other groups
                    self._used_facts.discard(one.candidate.fact)
                    self._in_picture[one.candidate.picture.file_name] -= 1
                    self._in_category[one.candidate.category[0]] -= 1
                return []
            found.append(Chosen(candidate, group))
        return found

    def _take(self, cell: Cell) -> Candidate[Any] | None:
        for candidate in self._waiting.get(cell, ()):
            fact, picture, category = candidate.fact, candidate.picture.file_name, candidate.category[0]
            is_full = self._per_category is not None and self._in_category[category] >= self._per_category
            if fact not in self._used_facts and self._in_picture[picture] < self._cap and not is_full:
                self._used_facts.add(fact)
                self._in_picture[picture] += 1
                self._in_category[category] += 1
                return candidate
        return None


def left_over(
    candidates: Iterable[Candidate[Any]],
    chosen: Sequence[Chosen],
    count: int | None,
    per_picture: int,
    per_category: int | None = None,
) -> Rejections:
    """Why the candidates that were not chosen were not, counted by rule; count and caps are those of `choose`."""
    otherwise = "candidate: enough" if len(chosen) == count else "candidate: balance"
    asked = [one.candidate for one in chosen]
    identities, facts = {id(one) for one in asked}, {one.fact for one in asked}
    in_picture = Counter(one.picture.file_name for one in asked)
    in_category = Counter(one.category[0] for one in asked)
    rejected: Rejections = Counter()
    for candidate in candidates:
        if id(candidate) in identities:
            continue
        if candidate.fact in facts:
            rejected["candidate: fact"] += 1
        elif in_picture[candidate.picture.file_name] >= per_picture:
            rejected["candidate: per_picture"] += 1
        elif per_category is not None and in_category[candidate.category[0]] >= per_category:
            rejected["candidate: per_category"] += 1
        else:
            rejected[otherwise] += 1
    return rejected


def spread(candidates: Sequence[Candidate[Any]], cell: Cell, seed: int) -> list[Candidate[Any]]:
    """In a drawn order in which every category comes once before any comes again."""
    of_category: Counter[tuple[str, ...]] = Counter()
    ranked = []
    for place, candidate in enumerate(sorted(candidates, key=lambda one: lot(seed, "candidate", cell, one.fact))):
        of_category[candidate.category] += 1
        ranked.append((of_category[candidate.category], place, candidate))
    return [candidate for _, _, candidate in sorted(ranked, key=lambda entry: entry[:2])]


def places(chosen: Sequence[Chosen], seed: int) -> list[int]:
    """The place of each right answer among its choices, from 0: all places equally often, overall and for an answer.

    Returns:
        One place for each chosen candidate; among those with equally many choices the counts differ by one at most.
    """
    found = [0] * len(chosen)
    for size in sorted({len(one.group) for one in chosen}):
        numbers = sorted(
            (number for number, one in enumerate(chosen) if len(one.group) == size),
            key=lambda number: (chosen[number].candidate.answer, number),
        )
        for number, place in zip(numbers, turns(size, seed), strict=False):
            found[number] = place
    return found


def turns(size: int, seed: int) -> Iterator[int]:
    """Endless permutations of range(size), one after another."""
    number = 0
    while True:
        yield from shuffled(range(size), seed, "letters", size, number)
        number += 1


def arrange(one: Chosen, place: int, seed: int) -> list[str]:
    """The group's answers in a drawn order, the right one at its place."""
    others = shuffled(
        (answer for answer in one.group if answer != one.candidate.answer), seed, "choices", one.candidate.fact
    )
    return [*others[:place], one.candidate.answer, *others[place:]]
