"""evaluation/intervals.py: the formulas, and how often an interval holds the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation.intervals import RESAMPLES, bootstrap_ratio, wilson


@pytest.mark.parametrize("right", [0, 3, 100, 200])
def test_wilson_holds_the_shares_that_the_score_test_does_not_reject(right: int) -> None:
    """By its definition: |p^ - p| = 1.96 sqrt(p (1 - p) / n) at both ends."""
    found, n = wilson(right / 200, 200), 200
    for p in (found.low, found.high):
        assert abs(right / n - p) == pytest.approx(1.959964 * math.sqrt(p * (1 - p) / n), rel=1e-5, abs=1e-9)
    assert 0 <= found.low <= found.value <= found.high <= 1 and found.low < found.high


def test_the_bootstrap_is_a_plain_loop_over_documents() -> None:
    rng = np.random.default_rng(5)
    nats, n_bytes = rng.exponential(100, 40), rng.integers(20, 400, 40)
    found, draw = bootstrap_ratio(nats, n_bytes, seed=3), np.random.default_rng(3)
    ratios = []
    for _ in range(RESAMPLES):
        documents = draw.integers(40, size=40).tolist()
        ratios.append(sum(nats[d] for d in documents) / sum(n_bytes[d] for d in documents))
    ratios.sort()
    assert found.value == pytest.approx(nats.sum() / n_bytes.sum())
    assert ratios[round(0.025 * RESAMPLES) - 1] <= found.low <= ratios[round(0.025 * RESAMPLES)]
    assert ratios[round(0.975 * RESAMPLES) - 1] <= found.high <= ratios[round(0.975 * RESAMPLES)]
    assert bootstrap_ratio(nats, n_bytes, seed=3) == found != bootstrap_ratio(nats, n_bytes, seed=4)


@pytest.mark.parametrize(("n", "least", "most"), [(8, 0.82, 0.93), (100, 0.91, 0.98)])
def test_of_100_intervals_94_hold_the_truth_but_fewer_with_few_documents(
    n: int, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.intervals.RESAMPLES", 400)
    rng, held = np.random.default_rng(0), 0
    for seed in range(400):
        n_bytes = rng.lognormal(6, 0.7, n).astype(int) + 10
        found = bootstrap_ratio(n_bytes * rng.gamma(25, 1 / 25, n), n_bytes, seed)  # one bit per byte on average
        held += found.low <= 1 <= found.high
    assert least < held / 400 < most


def test_one_document_has_no_interval() -> None:
    found = bootstrap_ratio(np.array([3.0]), np.array([2]), seed=0)
    assert found.value == 1.5 and found.interval is None
