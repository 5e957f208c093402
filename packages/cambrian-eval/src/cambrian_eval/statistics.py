"""Intervals, tests and reference levels. Everything here is a share between 0 and 1; percent is made in `metrics`.

Questions about one picture, of one pair or of one circular group are not independent. They share a group, groups are
what is counted as independent, and the price of that is told as the design effect. Every function says what it returns
where there is too little to say anything.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from cambrian_eval.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

EXACT_FLIPS = 2**14
"""Up to so many sign patterns are all tried; beyond, as many as `NUM_RESAMPLES` are drawn."""

NUM_RESAMPLES = 9999

NO_SPREAD = 1e-20
"""Variances below are those of groups that do not differ, and what rounding leaves of them."""


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


class Estimate(NamedTuple):
    """A mean, its interval, and on how much it rests.

    Attributes:
        mean: The mean over values.
        low: Lower end of the interval.
        high: Upper end.
        num_units: Number of independent groups.
        design_effect: Variance of the mean over what it would be if the values were independent; 1 where they are, and
            where the values do not differ.
    """

    mean: float
    low: float
    high: float
    num_units: int
    design_effect: float


class Difference(NamedTuple):
    """How much one run scores above another on the same questions.

    Attributes:
        mean: Weighted mean of the differences.
        low: Lower end of its interval.
        high: Upper end.
        standard_error: Its standard error.
        dof: Degrees of freedom of the interval's t distribution.
        num_units: Number of independent groups.
        design_effect: As in `Estimate`.
    """

    mean: float
    low: float
    high: float
    standard_error: float
    dof: float
    num_units: int
    design_effect: float


# Intervals of one score.


def wilson(num_right: int, num_total: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion; from 0 to 1 where nothing was asked."""
    if num_total == 0:
        return Interval(0.0, 1.0)
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    ends = binomtest(num_right, num_total).proportion_ci(confidence_level=level, method="wilson")
    return Interval(float(ends.low), float(ends.high))


def clustered_mean(values: Sequence[float], groups: Sequence[Hashable], level: float = 0.95) -> Estimate:
    """The mean of values from 0 to 1, and an interval that counts groups as independent and not values.

    Shares of right answers get Wilson's interval at the effective number of questions: their number over the design
    effect, corrected for few groups by the squared ratio of the t quantiles, never more than their number, so that
    questions that stand alone have Wilson's interval itself. Graded values get the t interval of the cluster-robust
    standard error. Values that do not differ, graded ones of groups that do not, and values of a single group have no
    spread to go by: they get Wilson's interval at the number of groups, the widest that a mean of values from 0 to 1
    can need.

    Raises:
        DataError: There are no values.

    Source: Miller, "Adding Error Bars to Evals" (arXiv 2411.00640), section 2.2; Korn and Graubard, "Confidence
    intervals for proportions with small expected number of positive counts estimated from survey data" (1998).
    """
    if not values:
        raise DataError("found no scored answers to take a mean of, expected at least one.")
    num_units, mean = len(set(groups)), math.fsum(values) / len(values)
    if all(value in (0, 1) for value in values) and num_units == len(values):
        return Estimate(mean, *wilson(round(math.fsum(values)), len(values), level), num_units, 1.0)
    variance = cluster_variance(values, groups)
    alone = cluster_variance(values, range(len(values)))
    if num_units == 1 or alone == 0:
        return Estimate(mean, *_wilson(mean, num_units, level), num_units, 1.0 if alone == 0 else float(len(values)))
    effect = variance / alone
    if all(value in (0, 1) for value in values):
        few = (_t_quantile(len(values) - 1, level) / _t_quantile(num_units - 1, level)) ** 2
        effective = len(values) * min(1.0, few / effect if effect else 1.0)
        return Estimate(mean, *_wilson(mean, effective, level), num_units, effect)
    if variance < NO_SPREAD:
        return Estimate(mean, *_wilson(mean, num_units, level), num_units, effect)
    margin = _t_quantile(num_units - 1, level) * math.sqrt(variance)
    return Estimate(mean, max(0.0, mean - margin), min(1.0, mean + margin), num_units, effect)


def cluster_variance(values: Sequence[float], groups: Sequence[Hashable]) -> float:
    """Variance of the mean of values of which those of one group go together; infinite for a single group.

    Sums of deviations by group, squared, with the correction G / (G - 1) for few groups. Where every value is its own
    group this is the sample variance over n.
    """
    mean = math.fsum(values) / len(values)
    sums = _sums((value - mean for value in values), groups)
    if len(sums) == 1:
        return math.inf
    return len(sums) / (len(sums) - 1) * math.fsum(total**2 for total in sums) / len(values) ** 2


def weighted_mean(strata: Sequence[Stratum]) -> float:
    """Mean of the strata's shares by weight; the weights sum to 1."""
    return math.fsum(stratum.weight * stratum.share for stratum in strata)


def weighted_interval(strata: Sequence[Stratum], level: float = 0.95) -> Interval:
    """Interval of a weighted mean of independent proportions, from their Wilson intervals; see `combine`."""
    ends = [wilson(stratum.num_right, stratum.num_total, level) for stratum in strata]
    parts = [(stratum.weight, stratum.share, end.low, end.high) for stratum, end in zip(strata, ends, strict=True)]
    interval = combine(parts)
    return Interval(max(0.0, interval.low), min(1.0, interval.high))


def combine(parts: Sequence[tuple[float, float, float, float]]) -> Interval:
    """Interval of a weighted sum of independent scores, each given as (weight, score, low, high); weights from 0 on.

    Each end adds the squared distances to the scores' own ends, so the variance of every part counts with its weight,
    one part of weight 1 gives its own interval, and a part that is all right still has a width.

    Source: Zou and Donner, "Construction of confidence limits about effect measures: a general approach" (2008).
    """
    mean = math.fsum(weight * score for weight, score, _, _ in parts)
    below = math.hypot(*(weight * (score - low) for weight, score, low, _ in parts))
    above = math.hypot(*(weight * (high - score) for weight, score, _, high in parts))
    return Interval(mean - below, mean + above)


# Two runs on the same questions.


def paired_difference(
    differences: Sequence[float],
    groups: Sequence[Hashable],
    strata: Sequence[Hashable] | None = None,
    weights: Mapping[Any, float] | None = None,
    level: float = 0.95,
) -> Difference:
    """The mean of paired differences, weighted by stratum, with a t interval that counts groups as independent.

    Variances are those of `cluster_variance`, added over strata with their weights squared; a group that reaches into
    several strata counts once. Degrees of freedom are Welch's and Satterthwaite's, and fewer than there are groups. One
    stratum of questions that stand alone gives the interval of the paired t test; two strata of weights 1 and -1 give
    Welch's. Where a stratum has a single group, nothing is known of its spread and the interval is infinite.

    A stratum whose groups do not differ, such as one in which no question flips, has no variance, and yet may hide a
    difference that is too rare to have been seen. It adds the ends of Tango's interval at the number of groups, as
    `combine` does, and to the standard error half that interval over the normal quantile.

    Args:
        differences: Score of the second run minus that of the first, by question, from -1 to 1.
        groups: Of every question: what it is not independent of.
        strata: Of every question: the part of the score it belongs to; one if None.
        weights: Of every stratum; 1 where there is one.
        level: Of the interval.

    Raises:
        DataError: There are no questions.

    Source: Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design" (1998), of which `_unseen` is the case without spread.
    """
    if not differences:
        raise DataError("found no shared questions to compare on, expected at least one.")
    strata = strata or [""] * len(differences)
    weights = weights or {strata[0]: 1.0}
    parts = _by_stratum(differences, groups, strata)
    means = {name: math.fsum(values) / len(values) for name, (values, _) in parts.items()}
    mean = math.fsum(weights[name] * means[name] for name in parts)
    counts = {name: len(set(members)) for name, (_, members) in parts.items()}
    num_units = len(set(groups))
    if min(counts.values()) == 1:
        return Difference(mean, -math.inf, math.inf, math.inf, 0.0, num_units, 1.0)
    variances = {name: cluster_variance(values, members) for name, (values, members) in parts.items()}
    scales = {
        name: weights[name] / len(values) * math.sqrt(counts[name] / (counts[name] - 1))
        for name, (values, _) in parts.items()
    }
    pulls = [(d - means[name]) * scales[name] for d, name in zip(differences, strata, strict=True)]
    variance = math.fsum(total**2 for total in _sums(pulls, groups))
    dof = min(_welch([(weights[name] ** 2 * variances[name], counts[name]) for name in parts]), num_units - 1.0)
    margin = _t_quantile(dof, level) * math.sqrt(variance)
    unseen = [_unseen(weights[name], means[name], counts[name], level) for name in parts if variances[name] < NO_SPREAD]
    below, above = (math.hypot(margin, *(part[side] for part in unseen)) for side in (0, 1))
    halves = [(part[0] + part[1]) / 2 / _normal_quantile(level) for part in unseen]
    alone = math.fsum(
        weights[name] ** 2 * cluster_variance(values, range(len(values))) for name, (values, _) in parts.items()
    )
    effect = variance / alone if alone and num_units < len(differences) else 1.0
    error = math.hypot(math.sqrt(variance), *halves)
    return Difference(mean, mean - below, mean + above, error, dof, num_units, effect)


def detectable(standard_error: float, level: float = 0.95, power: float = 0.8) -> float:
    """The smallest true difference that a comparison of this standard error shows in a `power` share of cases."""
    from scipy.special import ndtri  # type: ignore[import-untyped]

    return (_normal_quantile(level) + float(ndtri(power))) * standard_error


def mcnemar(num_gained: int, num_lost: int) -> float:
    """Exact two-sided p-value that gains and losses are equally likely; 1 where nothing changed."""
    changed = num_gained + num_lost
    if changed == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(min(num_gained, num_lost), changed, 0.5).pvalue)


def sign_flip(
    differences: Sequence[float],
    groups: Sequence[Hashable],
    weights: Sequence[float] | None = None,
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> float:
    """Two-sided p-value that the sign of every group's difference is a coin's; 1 where nothing changed.

    All sign patterns are tried where there are at most `EXACT_FLIPS`; otherwise `num_resamples` are drawn, and the one
    that was observed counts as one more.

    Args:
        differences: By question.
        groups: Of every question; all of a group flip together.
        weights: Of every question in the score; equal if None.
        num_resamples: Sign patterns drawn.
        seed: Of the draw.
    """
    import numpy as np

    weights = weights or [1.0] * len(differences)
    sums = _sums((d * w for d, w in zip(differences, weights, strict=True)), groups)
    pulls = np.array([total for total in sums if total])
    if not pulls.size:
        return 1.0
    observed = abs(pulls.sum()) * (1 - 1e-12)  # sums that are equal but for their order of adding count as equal
    if 2**pulls.size <= EXACT_FLIPS:
        signs = 1 - 2 * ((np.arange(2**pulls.size)[:, None] >> np.arange(pulls.size)) & 1)
        return float(np.mean(np.abs(signs @ pulls) >= observed))
    generator = np.random.default_rng(seed)
    rows = max(1, 2**22 // pulls.size)
    reached = 0
    for start in range(0, num_resamples, rows):
        shape = (min(rows, num_resamples - start), pulls.size)
        signs = 1 - 2 * generator.integers(0, 2, shape, dtype=np.int8)
        reached += int(np.count_nonzero(np.abs(signs @ pulls) >= observed))
    return (reached + 1) / (num_resamples + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, adjusted so that calling those below 5 % real errs in 5 % of such families at most.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def bootstrap(
    num_units: int,
    statistic: Callable[[Sequence[int]], float],
    *,
    level: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of any score of units that are independent, such as one that is not a mean.

    Args:
        num_units: How many there are.
        statistic: Numbers of the units drawn, with repetitions -> score.
        level: Of the interval.
        num_resamples: Samples drawn.
        seed: Of the draw.

    Returns:
        The interval; infinite where there are fewer than two units.
    """
    if num_units < 2:
        return Interval(-math.inf, math.inf)
    import numpy as np
    from scipy.stats import bootstrap as resample

    found = resample(
        (np.arange(num_units),),
        lambda drawn: statistic(drawn.tolist()),
        vectorized=False,
        confidence_level=level,
        n_resamples=num_resamples,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


# Levels that a score has to beat.


def chance_level(num_choices: Sequence[int]) -> float:
    """What a uniform guess scores on average: the mean of one over the number of choices."""
    return math.fsum(1 / count for count in num_choices) / len(num_choices)


def constant_levels(truths: Sequence[str]) -> dict[str, float]:
    """What always giving one answer would score, for every answer that is right at least once."""
    return {answer: count / len(truths) for answer, count in sorted(Counter(truths).items())}


def _wilson(mean: float, num: float, level: float) -> Interval:
    """Wilson's interval at any effective number of questions."""
    z = _normal_quantile(level)
    centre = (mean + z**2 / (2 * num)) / (1 + z**2 / num)
    margin = z / (1 + z**2 / num) * math.sqrt(mean * (1 - mean) / num + z**2 / (4 * num**2))
    return Interval(max(0.0, centre - margin), min(1.0, centre + margin))


def _unseen(weight: float, mean: float, num: int, level: float) -> tuple[float, float]:
    """How far below and above a weighted mean of differences that are all alike the true one may lie.

    Tango's interval: as if z squared further groups had all gone to one extreme, or all to the other.
    """
    share = abs(weight) / (1 + num / _normal_quantile(level) ** 2)
    below, above = share * (1 + mean), share * (1 - mean)
    return (below, above) if weight > 0 else (above, below)


def _normal_quantile(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(0.5 + level / 2))


def _t_quantile(dof: float, level: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(dof, 0.5 + level / 2))


def _welch(variances: Sequence[tuple[float, int]]) -> float:
    """Degrees of freedom of a sum of variances, each with its number of groups."""
    total = math.fsum(variance for variance, _ in variances)
    if total == 0:
        return float(sum(count - 1 for _, count in variances))
    return total**2 / math.fsum(variance**2 / (count - 1) for variance, count in variances)


def _sums(values: Iterable[float], groups: Iterable[Hashable]) -> list[float]:
    members: dict[Hashable, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        members.setdefault(group, []).append(value)
    return [math.fsum(parts) for parts in members.values()]


def _by_stratum(
    values: Sequence[float], groups: Sequence[Hashable], strata: Sequence[Hashable]
) -> dict[Hashable, tuple[list[float], list[Hashable]]]:
    parts: dict[Hashable, tuple[list[float], list[Hashable]]] = {}
    for value, group, stratum in zip(values, groups, strata, strict=True):
        held = parts.setdefault(stratum, ([], []))
        held[0].append(value)
        held[1].append(group)
    return parts
