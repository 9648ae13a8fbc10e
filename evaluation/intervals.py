"""95 % intervals: how far a number may be off because only so many questions or documents were used.

They say nothing about another seed of training or another kind of text. Nothing here imports torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Z = 1.959963984540054  # the normal distribution has 95 % of its mass within this many standard deviations
RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A measured number and its 95 % interval. `low` and `high` are NaN if there is none."""

    value: float
    low: float
    high: float

    @property
    def interval(self) -> list[float] | None:
        """Low and high, or None."""
        return None if math.isnan(self.low) else [self.low, self.high]


def wilson(share: float, n: int) -> Estimate:
    """The share of n questions that were right, with Wilson's score interval (Wilson 1927, JASA 22, 209-212).

    Unlike share ± 2 standard errors, it stays inside [0, 1] and is not empty at 0 and 1. Questions that count in part because
    of a tie only make it wider than needed.
    """
    center = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    return Estimate(share, min(share, max(0.0, center - half)), max(share, min(1.0, center + half)))


def bootstrap_ratio(numerators: np.ndarray, denominators: np.ndarray, seed: int) -> Estimate:
    """sum(numerators) / sum(denominators), with a percentile bootstrap interval (Efron & Tibshirani 1993, chapter 13).

    Both arrays have one entry per document, (n,). Each resample draws n documents with replacement and takes the ratio of
    their sums, because a mean of ratios would count a short document as much as a long one. The same seed gives the same
    interval. One document has none.
    """
    rng, n = np.random.default_rng(seed), len(numerators)
    ratios = np.full(RESAMPLES, math.nan)
    for resample in range(RESAMPLES if n > 1 else 0):
        drawn = rng.integers(n, size=n)
        ratios[resample] = numerators[drawn].sum() / denominators[drawn].sum()
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Estimate(float(numerators.sum() / denominators.sum()), float(low), float(high))


def ratio_error(x: float, y: float, xx: float, xy: float, yy: float, n: float) -> float:
    """The standard error of x / y, where both are sums over n rows; xx, xy and yy are the sums of the rows' products.

    Cochran 1977, Sampling Techniques, section 6.4. NaN for fewer than two rows.
    """
    if n < 2:
        return math.nan
    ratio = x / y
    return math.sqrt(max(0.0, xx - 2 * ratio * xy + ratio**2 * yy) * n / (n - 1)) / y
