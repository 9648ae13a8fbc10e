"""Paired comparisons: the t-test, its confidence interval, and a rule to stop as soon as the answer is clear.

Two runs with the same seed read the same data in the same order, so their difference varies less than each result does. The
paired t-test takes the mean of these differences. Five seeds are enough for it to find a clear difference; a test by sign flips
could never reach p = 0.05 with five.

Who looks after 5 seeds, again after 10 and after 20, and stops when p < 0.05, finds a difference in 12 % of the cases where
there is no difference. So `Looks` adjusts p: it is the probability that any of the planned looks would give so small a p-value
without a difference (Pocock 1977, "Group sequential methods"; here by simulation, which is exact for few seeds too).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SIMULATIONS = 100_000  # comparisons without a difference, for Looks: p = 0.05 has an error of 0.0007


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences, with its 95 % confidence interval and its p-value (two-sided)."""

    mean: float
    low: float
    high: float
    p: float

    @property
    def identical(self) -> bool:
        """Whether all differences are zero."""
        return self.mean == self.low == self.high == 0


def paired(differences: Sequence[float]) -> Difference:
    """The paired t-test (Student 1908) of two differences or more. If all are zero, p is 1."""
    values = np.asarray(differences, dtype=np.float64)
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    half = t_quantile(0.95, len(values) - 1) * error
    return Difference(mean, mean - half, mean + half, float(p_values(t_statistics(values), len(values) - 1)))


def t_statistics(differences: np.ndarray) -> np.ndarray:
    """|mean| / standard error over the last dimension, (..., n) to (...); 0 if all differences are zero."""
    mean = np.abs(differences.mean(-1))
    error = differences.std(-1, ddof=1) / math.sqrt(differences.shape[-1])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(mean == 0, 0.0, mean / error)


def p_values(t: np.ndarray, df: int) -> np.ndarray:
    """The probability that |T| > t for Student's t with `df` degrees of freedom (Abramowitz & Stegun 1964, 26.7.3 and 26.7.4)."""
    angle = np.arctan(t / math.sqrt(df))
    sine, square = np.sin(angle), np.cos(angle) ** 2
    term = np.cos(angle) if df % 2 else np.ones_like(angle)
    total = np.zeros_like(angle)
    for k in range(2 + df % 2, df + 1, 2):  # the factors 1/2, 3/4, ... if df is even, 2/3, 4/5, ... if it is odd
        total += term
        term = term * square * (k - 1) / k
    inside = 2 / math.pi * (angle + sine * total) if df % 2 else sine * total
    return np.clip(1 - inside, 0, 1)


def t_quantile(confidence: float, df: int) -> float:
    """The t for which |T| < t with this probability."""
    low, high = 0.0, 1e9
    for _ in range(100):
        middle = (low + high) / 2
        if p_values(np.float64(middle), df) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


class Looks:
    """The p-values of a comparison that is looked at after each of these numbers of seeds."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = tuple(seeds)
        self._smallest: np.ndarray | None = None  # p-values of simulated comparisons, sorted

    def adjusted(self, p: float) -> float:
        """The probability of a p-value as small as this at any look, if there is no difference."""
        if len(self.seeds) == 1:
            return p
        if self._smallest is None:
            self._smallest = np.sort(smallest_p_values(self.seeds, np.random.default_rng(0)))
        return max(p, int(np.searchsorted(self._smallest, p, side="right")) / len(self._smallest))


def smallest_p_values(seeds: Sequence[int], generator: np.random.Generator) -> np.ndarray:
    """For SIMULATIONS comparisons of equal things: the smallest of the p-values after these numbers of seeds."""
    draws = generator.standard_normal((SIMULATIONS, max(seeds)))
    return np.min([p_values(t_statistics(draws[:, :n]), n - 1) for n in seeds], axis=0)
