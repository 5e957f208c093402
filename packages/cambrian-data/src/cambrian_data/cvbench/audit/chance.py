"""What luck gives: exact distributions of sums, tails and intervals, and the correction for many tests.

Nothing but Wilson's interval is an approximation: sums over questions are convolved, not taken for normal.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Points = Mapping[int, float]
"""The distribution of what one question adds to a sum: probability by value."""

ALPHA = 0.05
"""How likely an audit of a benchmark without any bias may be to find one."""
POWER = 0.8
NEGLIGIBLE = 1e-200
"""Probabilities below are cut off: no test looks so far."""


class Interval(NamedTuple):
    """Both ends included."""

    low: float
    high: float


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A test of "no more than luck".

    Attributes:
        p: how likely luck gives as much as was found, or more.
        least_p: the smallest p that the test could have given, whatever was found.
        p_holm: p corrected for all tests of the audit; None if the test could not have found anything.
    """

    p: float
    least_p: float
    p_holm: float | None = None

    @property
    def finds(self) -> bool:
        """Whether it is more than luck."""
        return self.p_holm is not None and self.p_holm <= ALPHA


def wilson(right: float, total: int, level: float = 0.95) -> Interval:
    """Wilson's interval of a share; everything from 0 to 1 where there is nothing to count."""
    if total == 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, squared = right / total, z * z
    middle = (share + squared / (2 * total)) / (1 + squared / total)
    half = z / (1 + squared / total) * math.sqrt(share * (1 - share) / total + squared / (4 * total * total))
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


class Sums(NamedTuple):
    """The distribution of a sum of whole numbers: the probabilities of `first`, `first + 1` and so on."""

    first: int
    mass: Floats

    def at_least(self, observed: int) -> float:
        """The probability of the observed sum or a larger one."""
        return min(1.0, float(self.mass[max(0, observed - self.first) :].sum()))

    def at_most(self, observed: int) -> float:
        """The probability of the observed sum or a smaller one."""
        return min(1.0, float(self.mass[: max(0, observed - self.first + 1)].sum()))

    def central(self, level: float = 0.95) -> Interval:
        """The sums between which luck stays with at least this probability."""
        below, rest = np.cumsum(self.mass), (1 - level) / 2
        low = int(np.searchsorted(below, rest, side="right"))
        high = min(int(np.searchsorted(below, 1 - rest)), len(below) - 1)
        return Interval(float(self.first + low), float(self.first + high))


def sum_of(questions: Iterable[Points]) -> Sums:
    """The distribution of the sum over independent questions."""
    total = Sums(0, np.ones(1))
    for points, count in Counter(tuple(sorted(points.items())) for points in questions).items():
        total = add(total, times(points, count))
    return total


def times(points: Sequence[tuple[int, float]], count: int) -> Sums:
    """The distribution of the sum over `count` questions that are alike."""
    square = Sums(0, np.zeros(1 + points[-1][0]))
    for value, probability in points:
        square.mass[value] = probability
    total = Sums(0, np.ones(1))
    while count:
        if count % 2:
            total = add(total, square)
        square, count = add(square, square), count // 2
    return total


def add(one: Sums, other: Sums) -> Sums:
    """The distribution of the sum of two sums."""
    mass = np.convolve(one.mass, other.mass)
    kept = np.flatnonzero(mass > NEGLIGIBLE)
    return Sums(one.first + other.first + int(kept[0]), mass[kept[0] : kept[-1] + 1])


def hits(chances: Iterable[float]) -> Sums:
    """The distribution of how many of independent questions are hit, each with its own chance below 1."""
    return sum_of({0: 1 - chance, 1: chance} for chance in chances)


def excess(questions: Sequence[Points], observed: int) -> Trial:
    """The test that a sum is no larger than luck makes it."""
    least = math.prod(points[max(points)] for points in questions)
    return Trial(p=sum_of(questions).at_least(observed), least_p=least)


def departure(questions: Sequence[Points], observed: int) -> Trial:
    """The test that a sum is neither larger nor smaller than luck makes it."""
    luck = sum_of(questions)
    most = math.prod(points[max(points)] for points in questions)
    fewest = math.prod(points[min(points)] for points in questions)
    p, least = min(luck.at_least(observed), luck.at_most(observed)), min(most, fewest)
    return Trial(p=min(1.0, 2 * p), least_p=min(1.0, 2 * least))


def correct(trials: Sequence[Trial], part: float = 1.0) -> list[Trial]:
    """The same tests with Holm's correction over all that could have found something.

    A test of three questions cannot give a small p, so it can raise no false alarm and need not be paid for. Which
    tests those are depends on numbers of questions only, never on what was found, so that the error of the whole
    family stays where it was put.

    Args:
        trials: a family.
        part: of ALPHA that is spent on it; p is corrected such that ALPHA decides all the same.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (1979); Tarone, "A modified Bonferroni
    method for discrete data" (1990).
    """
    alpha, least = ALPHA * part, sorted(trial.least_p for trial in trials)
    size = next((count for count in range(1, len(least) + 1) if bisect_right(least, alpha / count) <= count), 1)
    able = [number for number, trial in enumerate(trials) if trial.least_p <= alpha / size]
    corrected: dict[int, float] = {}
    highest = 0.0
    for rank, number in enumerate(sorted(able, key=lambda number: trials[number].p)):
        highest = max(highest, min(1.0, (len(able) - rank) * trials[number].p / part))
        corrected[number] = highest
    return [msgspec.structs.replace(trial, p_holm=corrected.get(number)) for number, trial in enumerate(trials)]


def detectable(chances: Sequence[float], alpha: float) -> float | None:
    """The share of questions that must give themselves away for a test at alpha to find it with a power of 80 %.

    A question that gives itself away is hit for sure, the others by luck; None if not even all of them would do.
    """
    luck = hits(chances)
    tails = np.cumsum(luck.mass[::-1])[::-1]
    if tails[-1] > alpha:
        return None
    needed = luck.first + int(np.argmax(tails <= alpha))
    low, high = 0.0, 1.0
    while high - low > 0.001:
        share = (low + high) / 2
        found = hits(chance + share * (1 - chance) for chance in chances).at_least(needed)
        low, high = (low, share) if found >= POWER else (share, high)
    return high
