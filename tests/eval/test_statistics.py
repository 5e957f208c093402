import math

import pytest
from scipy.stats import binomtest  # type: ignore[import-untyped]

from cambrian_eval.statistics import (
    Stratum,
    chance_level,
    constant_levels,
    weighted_interval,
    weighted_mean,
    wilson,
)


@pytest.mark.parametrize(("right", "total"), [(0, 1), (3, 7), (50, 100), (100, 100)])
def test_wilson_is_scipys(right, total):
    expected = binomtest(right, total).proportion_ci(0.95, method="wilson")
    assert wilson(right, total) == (expected.low, expected.high)


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


def test_chance_is_the_mean_of_one_over_the_choices():
    assert chance_level([2, 4, 5]) == pytest.approx((1 / 2 + 1 / 4 + 1 / 5) / 3)


def test_constant_levels_are_shares_of_the_truth():
    assert constant_levels(["B", "A", "B", "C"]) == {"A": 0.25, "B": 0.5, "C": 0.25}
