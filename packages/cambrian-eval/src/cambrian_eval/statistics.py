"""Intervals and reference levels. Everything here is a share between 0 and 1; percent is made in `metrics`."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Interval(NamedTuple):
    """A confidence interval, both ends included."""

    low: float
    high: float


class Stratum(NamedTuple):
    """One group of a weighted mean: its weight, how many were right, and of how many."""

    weight: float
    num_right: int
    num_total: int

    @property
    def share(self) -> float:
        """Share that was right."""
        return self.num_right / self.num_total


def wilson(num_right: int, num_total: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion."""
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    ends = binomtest(num_right, num_total).proportion_ci(confidence_level=level, method="wilson")
    return Interval(float(ends.low), float(ends.high))


def weighted_mean(strata: Sequence[Stratum]) -> float:
    """Mean of the strata's shares by weight; the weights sum to 1."""
    return math.fsum(stratum.weight * stratum.share for stratum in strata)


def weighted_interval(strata: Sequence[Stratum], level: float = 0.95) -> Interval:
    """Interval of a weighted mean of independent proportions.

    Each end adds the squared distances to the strata's own Wilson ends, so the variance of every stratum counts with
    its weight, one stratum gives Wilson's interval itself, and a stratum that is all right still has a width.

    Source: Zou and Donner, "Construction of confidence limits about effect measures: a general approach" (2008).
    """
    mean = weighted_mean(strata)
    ends = [wilson(stratum.num_right, stratum.num_total, level) for stratum in strata]
    pairs = list(zip(strata, ends, strict=True))
    below = math.hypot(*(stratum.weight * (stratum.share - end.low) for stratum, end in pairs))
    above = math.hypot(*(stratum.weight * (end.high - stratum.share) for stratum, end in pairs))
    return Interval(max(0.0, mean - below), min(1.0, mean + above))


def chance_level(num_choices: Sequence[int]) -> float:
    """What a uniform guess scores on average: the mean of one over the number of choices."""
    return math.fsum(1 / count for count in num_choices) / len(num_choices)


def constant_levels(truths: Sequence[str]) -> dict[str, float]:
    """What always giving one answer would score, for every answer that is right at least once."""
    return {answer: count / len(truths) for answer, count in sorted(Counter(truths).items())}
