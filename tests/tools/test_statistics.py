"""Tests of the paired t-test and of the adjustment for several looks."""

from __future__ import annotations

import mpmath  # comes with torch
import numpy as np
import pytest

from tools.parts.statistics import Looks, p_values, paired, smallest_p_values, t_quantile, t_statistics


@pytest.mark.parametrize("df", [1, 2, 3, 4, 9, 10, 19])
def test_p_values_are_the_regularized_incomplete_beta_function(df: int) -> None:
    t = np.array([0.0, 0.3, 1.0, 2.5, 7.0, 40.0])
    expected = [float(mpmath.betainc(df / 2, 0.5, 0, df / (df + x * x), regularized=True)) for x in t]
    np.testing.assert_allclose(p_values(t, df), expected, rtol=1e-9, atol=1e-12)
    assert p_values(np.float64(t_quantile(0.95, df)), df) == pytest.approx(0.05, rel=1e-9)


def test_a_paired_comparison_is_students_example() -> None:
    """Ten patients' hours of extra sleep with two drugs (Student 1908): t = 4.0621, p = 0.00283, interval 0.70 to 2.46."""
    sleep = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    difference = paired(sleep)
    assert difference.mean == pytest.approx(1.58) and difference.p == pytest.approx(0.00283, abs=5e-6)
    assert (difference.low, difference.high) == pytest.approx((0.7001, 2.4599), abs=5e-5)


def test_equal_runs_are_identical_and_a_constant_difference_is_certain() -> None:
    assert paired([0.0, 0.0, 0.0]).identical and paired([0.0, 0.0, 0.0]).p == 1
    assert not paired([0.5, 0.5, 0.5]).identical and paired([0.5, 0.5, 0.5]).p == 0


def test_without_a_difference_one_comparison_in_twenty_finds_one() -> None:
    generator = np.random.default_rng(1)
    draws = generator.normal(size=(10_000, 5))
    assert 0.045 < np.mean(p_values(t_statistics(draws), 4) < 0.05) < 0.055


def test_so_it_is_when_a_comparison_stops_as_soon_as_the_answer_is_clear() -> None:
    looks, generator = Looks((5, 10, 20)), np.random.default_rng(2)
    smallest = smallest_p_values(looks.seeds, generator)[:10_000]
    assert np.mean(smallest < 0.05) > 0.1  # without an adjustment
    assert 0.045 < np.mean([looks.adjusted(p) < 0.05 for p in smallest]) < 0.055


def test_a_gain_of_one_percent_is_found_with_five_seeds() -> None:
    """Their differences vary by 0.4 %."""
    draws = np.random.default_rng(3).normal(-0.01, 0.004, size=(1000, 5))
    assert np.mean([paired(differences).p < 0.05 for differences in draws]) > 0.9


def test_one_look_needs_no_adjustment() -> None:
    assert Looks((5,)).adjusted(0.03) == 0.03
