"""Thin and smooth the curves of runs for a screen."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Indices = NDArray[np.intp]


def downsample(y: Floats, most: int) -> Indices:
    """Choose the values that show the shape of a curve.

    Args:
        y: the values; NaN is a gap.
        most: how many to choose, at least 4.

    Returns:
        Indices in ascending order: all of them if there are at most `most`; else the first, the last, and the lowest and
        highest of every bucket of neighbours, so that no peak is lost.
    """
    if len(y) <= most:
        return np.arange(len(y))
    buckets = (most - 2) // 2
    size = -(-len(y) // buckets)
    padded = np.full(buckets * size, np.nan)
    padded[: len(y)] = y
    grid = padded.reshape(buckets, size)
    gap, starts = np.isnan(grid), np.arange(buckets) * size
    lowest = starts + np.where(gap, np.inf, grid).argmin(axis=1)
    highest = starts + np.where(gap, -np.inf, grid).argmax(axis=1)
    chosen = np.unique(np.concatenate([[0, len(y) - 1], lowest, highest]))
    return chosen[chosen < len(y)]


def smooth(y: Floats, window: int, at: Indices) -> Floats:
    """Means over the `window` values around each index of `at` (ascending), fewer at the ends; NaN is left out."""
    low, high = np.maximum(at - window // 2, 0), np.minimum(at + window // 2 + 1, len(y))
    there = np.isfinite(y)
    pairs = np.stack(
        [low, high], axis=1
    ).ravel()  # reduceat sums from each index to the next; every second sum is not needed
    total = np.add.reduceat(np.append(np.where(there, y, 0.0), 0.0), pairs)[::2]
    count = np.add.reduceat(np.append(there, False).astype(np.int64), pairs)[::2]
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def in_order(x: Floats) -> tuple[Floats, Indices | slice]:
    """Values in ascending order without NaN, and the index that sorts other values in the same way."""
    if np.isfinite(x).all() and (x[1:] >= x[:-1]).all():
        return x, slice(None)
    order = np.argsort(x, kind="stable")[: np.isfinite(x).sum()]  # NaN comes last
    return x[order], order


def visible(x: Floats, low: float, high: float) -> tuple[int, int]:
    """Where the values between `low` and `high` begin and end in an ascending array, with one more on both sides."""
    first, end = int(np.searchsorted(x, low)) - 1, int(np.searchsorted(x, high, side="right")) + 1
    return max(first, 0), min(end, len(x))


def as_curve(x: Floats, y: Floats, keep: Indices | slice) -> dict[str, list[float | None]]:
    """The chosen points for the page; an empty curve if no point has a value."""
    values = [as_json(value) for value in y[keep].tolist()]
    return {"x": x[keep].tolist(), "y": values} if values.count(None) < len(values) else {"x": [], "y": []}


def as_json(value: float, digits: int = 6) -> float | None:
    """A number with as many digits as a screen shows; None for NaN, which JSON does not have."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def last(values: Floats) -> float:
    """The last value; NaN if there is none."""
    return float(values[-1]) if len(values) else math.nan
