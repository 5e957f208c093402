"""Every statistic against scipy's, or against an example worked out by hand."""

import math

import numpy as np
import pytest
from scipy import optimize, stats  # type: ignore[import-untyped]

from cambrian_eval import DataError
from cambrian_eval.statistics import (
    Interval,
    Stratum,
    bootstrap,
    chance_level,
    cluster_variance,
    clustered_mean,
    combine,
    constant_levels,
    detectable,
    holm,
    mcnemar,
    paired_difference,
    sign_flip,
    weighted_interval,
    weighted_mean,
    wilson,
)

BINARY = [1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 1, 0, 0]
GRADED = [0.3, 0.9, 1.0, 0.0, 0.6, 0.6, 1.0, 0.2, 0.7]
CHANGES = [0.5, -0.25, 0.0, 1.0, -0.5, 0.75, 0.3, -0.1]


@pytest.mark.parametrize(("right", "total"), [(0, 1), (1, 1), (3, 7), (50, 100), (100, 100)])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_wilson_is_scipys(right, total, level):
    expected = stats.binomtest(right, total).proportion_ci(level, method="wilson")
    assert wilson(right, total, level) == (expected.low, expected.high)


def test_of_no_questions_nothing_is_known():
    assert wilson(0, 0) == (0, 1)
    with pytest.raises(DataError, match="no scored answers"):
        clustered_mean([], [])
    with pytest.raises(DataError, match="no shared questions"):
        paired_difference([], [])


def test_one_stratum_has_wilsons_interval():
    assert weighted_interval([Stratum(1.0, 13, 40)]) == pytest.approx(wilson(13, 40))


def test_composite_agrees_with_the_normal_formula_on_large_strata():
    strata = [Stratum(0.25, 3500, 5000), Stratum(0.25, 4000, 5000), Stratum(0.5, 6000, 10000)]
    variance = sum(s.weight**2 * s.share * (1 - s.share) / s.num_total for s in strata)
    low, high = weighted_interval(strata)
    # Normal and Wilson ends differ by terms of order 1/n, here below 1e-3.
    assert (low, high) == pytest.approx(
        (weighted_mean(strata) - 1.96 * math.sqrt(variance), weighted_mean(strata) + 1.96 * math.sqrt(variance)),
        abs=1e-3,
    )


def test_a_stratum_that_is_all_right_still_widens_the_interval():
    low, high = weighted_interval([Stratum(0.5, 5, 5), Stratum(0.5, 5, 5)])
    assert low < 0.9
    assert high == 1.0


def test_combined_intervals_of_normal_scores_add_their_variances():
    parts = [(0.25, 60.0, 60 - 2.0, 60 + 2.0), (0.75, 40.0, 40 - 3.0, 40 + 3.0)]
    margin = math.hypot(0.25 * 2, 0.75 * 3)
    assert combine(parts) == pytest.approx((45 - margin, 45 + margin))


def test_right_and_wrong_answers_that_stand_alone_have_wilsons_interval():
    found = clustered_mean(BINARY, range(len(BINARY)))
    assert (found.low, found.high) == wilson(sum(BINARY), len(BINARY))
    assert (found.num_units, found.design_effect) == (len(BINARY), 1.0)


def test_graded_answers_that_stand_alone_have_the_t_interval():
    found = clustered_mean(GRADED, range(len(GRADED)))
    expected = stats.ttest_1samp(GRADED, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.design_effect == pytest.approx(1)


def test_a_t_interval_ends_where_scores_end():
    found = clustered_mean([0.9, 1.0, 1.0, 0.8, 0.5], range(5))
    assert stats.ttest_1samp([0.9, 1.0, 1.0, 0.8, 0.5], 0).confidence_interval(0.95).high > 1
    assert found.high == 1


def test_cluster_variance_of_values_that_stand_alone_is_that_of_the_mean():
    assert cluster_variance(GRADED, range(len(GRADED))) == pytest.approx(stats.sem(GRADED) ** 2)


def test_cluster_variance_by_hand():
    # Mean 0.5; deviations sum to 1.0 in group a, -0.5 in b and -0.5 in c. 3/2 * (1 + 0.25 + 0.25) / 36.
    values, groups = [1, 1, 0, 0.5, 0, 0.5], ["a", "a", "b", "b", "c", "c"]
    assert cluster_variance(values, groups) == pytest.approx(1.5 * 1.5 / 36)


def test_questions_doubled_in_groups_weigh_as_the_groups_do():
    """Each graded answer twice, in one group: the interval is that of the answers once, and the effect is about two."""
    doubled = [value for value in GRADED for _ in range(2)]
    groups = [place for place in range(len(GRADED)) for _ in range(2)]
    once, twice = clustered_mean(GRADED, range(len(GRADED))), clustered_mean(doubled, groups)
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))
    assert twice.num_units == len(GRADED)
    assert twice.design_effect == pytest.approx((2 * 9 - 1) / (9 - 1))


def test_right_and_wrong_answers_doubled_in_groups_have_an_interval_as_wide_as_the_groups_alone():
    doubled = [value for value in BINARY for _ in range(2)]
    groups = [place for place in range(len(BINARY)) for _ in range(2)]
    found, alone = clustered_mean(doubled, groups), wilson(sum(BINARY), len(BINARY))
    # Korn and Graubard's effective number is 26 / deff * (t25 / t12)^2 = 11.2 of 13 groups: a little wider, not equal.
    assert alone.high - alone.low < found.high - found.low < 1.1 * (alone.high - alone.low)


def test_groups_that_balance_never_give_less_than_wilsons_width():
    """One right and one wrong in every pair: the groups do not differ, but questions still are a sample."""
    found = clustered_mean([1, 0] * 10, [place // 2 for place in range(20)])
    assert found.design_effect == 0
    assert (found.low, found.high) == pytest.approx(wilson(10, 20))


@pytest.mark.parametrize("value", [0, 1])
def test_answers_that_do_not_differ_get_the_interval_of_their_groups(value):
    found = clustered_mean([value] * 12, [place // 3 for place in range(12)])
    assert (found.low, found.high) == pytest.approx(wilson(4 * value, 4))
    assert found.design_effect == 1


def test_graded_groups_that_do_not_differ_are_not_taken_for_certain():
    """Four pictures of MME with one of two questions right each, by luck: 50 of 200, and not 50 to 50."""
    found = clustered_mean([0.5, 0.0] * 4, [place // 2 for place in range(8)])
    assert (found.mean, found.design_effect) == (0.25, 0)
    assert (found.low, found.high) == pytest.approx(stats.binomtest(1, 4).proportion_ci(method="wilson"))


def test_a_single_group_counts_as_one_question():
    found = clustered_mean([1, 0, 1, 1], ["a"] * 4)
    assert found.num_units == 1
    assert found.high - found.low > wilson(3, 4).high - wilson(3, 4).low
    single = clustered_mean([0.4], ["a"])
    assert 0 <= single.low < 0.1
    assert 0.9 < single.high <= 1


def test_paired_difference_is_the_paired_t_test():
    first, second = GRADED[:8], [value + change for value, change in zip(GRADED, CHANGES, strict=False)]
    found = paired_difference(CHANGES, range(8))
    expected = stats.ttest_rel(second, first).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.dof, found.num_units, found.design_effect) == (pytest.approx(7), 8, pytest.approx(1))


def test_strata_of_opposite_weights_are_welchs_t_test():
    one, other = [0.2, 0.5, 0.9, 0.4], [0.1, 0.8, 0.3, 0.35, 0.6, 0.2]
    found = paired_difference([*one, *other], range(10), ["one"] * 4 + ["other"] * 6, {"one": 1.0, "other": -1.0})
    welch = stats.ttest_ind(one, other, equal_var=False)
    expected = welch.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.dof == pytest.approx(welch.df)


def test_groups_within_strata_add_their_cluster_variances():
    values, groups = [1, 0, 0.5, -1, 0, 0, 1, 1, 0, -1], [0, 0, 1, 1, 2, 3, 3, 4, 4, 5]
    strata, weights = ["a"] * 5 + ["b"] * 5, {"a": 0.25, "b": 0.75}
    found = paired_difference(values, groups, strata, weights)
    variance = 0.25**2 * cluster_variance(values[:5], groups[:5]) + 0.75**2 * cluster_variance(values[5:], groups[5:])
    assert found.standard_error == pytest.approx(math.sqrt(variance))
    assert found.mean == pytest.approx(0.25 * np.mean(values[:5]) + 0.75 * np.mean(values[5:]))


def test_a_group_in_two_strata_counts_once():
    """The same two groups in both strata, and opposite changes: they cancel within a group."""
    values, strata = [0.5, -0.5, -0.5, 0.5], ["a", "a", "b", "b"]
    weights = {"a": 0.5, "b": 0.5}
    assert paired_difference(values, ["x", "y", "x", "y"], strata, weights).standard_error == 0
    assert paired_difference(values, ["x", "y", "z", "w"], strata, weights).standard_error > 0.3


def test_groups_in_several_strata_leave_no_more_freedom_than_there_are_groups():
    """Three pictures with a question in each of four strata: the t interval of three values, and not of twelve."""
    effects = [0.1, 0.4, 0.7]
    values, groups, strata = zip(*((v, v, s) for s in range(4) for v in effects), strict=True)
    found = paired_difference(values, groups, strata, dict.fromkeys(range(4), 0.25))
    expected = stats.ttest_1samp(effects, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.dof == 2


def test_a_stratum_of_one_group_leaves_the_interval_open():
    found = paired_difference([0.5, 1.0, 0.0], ["a", "b", "c"], ["s", "t", "t"], {"s": 0.5, "t": 0.5})
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert paired_difference([1.0], ["a"]).high == math.inf


def tango(gained, lost, num, z):
    """Ends of Tango's interval: the differences at which his score statistic is z from 0, by root finding."""

    def score(difference):
        slope = -gained - lost + (2 * num - gained + lost) * difference
        root = math.sqrt(max(0.0, slope**2 + 8 * num * lost * difference * (1 - difference)))
        lost_share = (root - slope) / (4 * num)
        spread = max(num * (2 * lost_share + difference * (1 - difference)), 1e-300)
        return (gained - lost - num * difference) / math.sqrt(spread)

    mean, edge = (gained - lost) / num, 1e-9
    low = optimize.brentq(lambda at: score(at) - z, -1 + edge, mean - edge) if mean > -1 else -1
    high = optimize.brentq(lambda at: score(at) + z, mean + edge, 1 - edge) if mean < 1 else 1
    return low, high


@pytest.mark.parametrize(("gained", "lost", "num"), [(0, 0, 5), (0, 0, 200), (6, 0, 6), (0, 30, 30)])
def test_questions_that_all_change_alike_have_tangos_interval(gained, lost, num):
    """Root finding is good to about 1e-9."""
    found = paired_difference([float(gained > 0) - float(lost > 0)] * num, range(num))
    z = stats.norm.ppf(0.975)
    assert (found.low, found.high) == pytest.approx(tango(gained, lost, num, z), abs=1e-7)
    assert found.standard_error == pytest.approx((found.high - found.low) / 2 / z)
    assert (found.mean, found.design_effect) == ((gained - lost) / num, 1)


def test_a_stratum_without_a_flip_adds_what_may_be_hidden_in_it():
    values, strata = [0.0] * 10 + [1.0, 0.0, -1.0, 1.0], ["still"] * 10 + ["moving"] * 4
    both = paired_difference(values, range(14), strata, {"still": 0.5, "moving": 0.5})
    still, moving = paired_difference(values[:10], range(10)), paired_difference(values[10:], range(4))
    assert both.mean == pytest.approx((still.mean + moving.mean) / 2)
    assert both.high - both.mean == pytest.approx(math.hypot(still.high, moving.high - moving.mean) / 2)
    assert both.standard_error == pytest.approx(math.hypot(still.standard_error, moving.standard_error) / 2)


def test_a_still_stratum_of_negative_weight_turns_its_interval_round():
    plus, minus = (paired_difference([1.0] * 4, range(4), weights={"": weight}) for weight in (1.0, -1.0))
    assert (minus.low, minus.high) == (-plus.high, -plus.low)


def test_pictures_whose_changes_cancel_are_not_taken_for_certain():
    found = paired_difference([1.0, -1.0] * 5, [place // 2 for place in range(10)])
    assert (found.low, found.high) == paired_difference([0.0] * 5, range(5))[1:3]


def test_the_interval_of_rare_flips_holds_what_it_promises():
    """Of 400 pairs of runs on 50 questions, one question in 50 flipping, 95 % or more; a bare t interval holds 64 %."""
    draws = np.random.default_rng(0).random((400, 50)) < 0.02
    ends = [paired_difference(draw.astype(float).tolist(), range(50)) for draw in draws]
    assert sum(found.low <= 0.02 <= found.high for found in ends) >= 0.95 * 400


@pytest.mark.parametrize(("gained", "lost"), [(0, 1), (3, 9), (7, 7), (40, 21)])
def test_mcnemar_is_the_exact_binomial_test(gained, lost):
    assert mcnemar(gained, lost) == stats.binomtest(gained, gained + lost, 0.5).pvalue
    assert mcnemar(lost, gained) == mcnemar(gained, lost)


def test_nothing_changed_proves_nothing():
    assert mcnemar(0, 0) == 1
    assert sign_flip([0, 0, 0], range(3)) == 1


def test_sign_flips_are_scipys_permutation_test():
    expected = stats.permutation_test((CHANGES,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(CHANGES, range(8)) == pytest.approx(expected.pvalue)


def test_signs_of_a_group_flip_together():
    sums = [0.25, 1.0, 0.25, 0.2]
    expected = stats.permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(CHANGES, [0, 0, 1, 1, 2, 2, 3, 3]) == pytest.approx(expected.pvalue)


def test_weighted_signs_flip_what_enters_the_score():
    weights = [1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1]
    pulls = [change * weight for change, weight in zip(CHANGES, weights, strict=True)]
    expected = stats.permutation_test((pulls,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(CHANGES, range(8), weights) == pytest.approx(expected.pvalue)


def test_drawn_signs_agree_with_scipys_draw():
    changes = np.random.default_rng(3).normal(0.12, 0.5, 60).tolist()
    expected = stats.permutation_test(
        (changes,), np.mean, permutation_type="samples", n_resamples=9999, rng=np.random.default_rng(1)
    )
    # Two draws of 9999 around p = 0.07: six standard errors of their difference are 0.022.
    assert sign_flip(changes, range(60)) == pytest.approx(expected.pvalue, abs=0.022)
    assert sign_flip(changes, range(60)) == sign_flip(changes, range(60))


def test_drawn_signs_never_give_zero():
    assert sign_flip([1.0] * 40, range(40)) == 1 / 10_000


def test_a_detectable_difference_is_rejected_as_often_as_it_says():
    smallest = detectable(0.5)
    assert smallest == pytest.approx(0.5 * (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)))
    assert stats.norm.sf(stats.norm.ppf(0.975) - smallest / 0.5) == pytest.approx(0.8)


def test_holm_by_hand():
    # 0.01 * 4; 0.03 * 3; 0.035 * 2 = 0.07, not below its predecessor; 0.3 * 1.
    assert holm([0.03, 0.3, 0.01, 0.035]) == pytest.approx([0.09, 0.3, 0.04, 0.09])
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_bootstrap_is_scipys():
    def mean(drawn):
        return float(np.mean([GRADED[place] for place in drawn]))

    expected = stats.bootstrap(
        (np.array(GRADED),), np.mean, method="percentile", n_resamples=500, rng=np.random.default_rng(5)
    ).confidence_interval
    found = bootstrap(len(GRADED), mean, num_resamples=500, seed=5)
    assert found == pytest.approx((expected.low, expected.high))


def test_one_unit_cannot_be_resampled():
    assert bootstrap(1, lambda drawn: 0.5) == Interval(-math.inf, math.inf)


def test_chance_is_the_mean_of_one_over_the_choices():
    assert chance_level([2, 4, 5]) == pytest.approx((1 / 2 + 1 / 4 + 1 / 5) / 3)


def test_constant_levels_are_shares_of_the_truth():
    assert constant_levels(["B", "A", "B", "C"]) == {"A": 0.25, "B": 0.5, "C": 0.25}
