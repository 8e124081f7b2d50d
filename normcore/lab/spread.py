"""How values are spread within regions: smooth densities for a few, quantiles for many."""

from dataclasses import dataclass

import numpy as np

from normcore.lab.numbers import Numbers

GRID = 96
"""At how many places a density is known."""
LEVELS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""The quantiles that sum up a region."""


@dataclass(frozen=True)
class Density:
    """How densely values lie, at evenly spaced places from `start` on; the peak is 1."""

    start: float
    step: float
    height: np.ndarray


def density(values: np.ndarray) -> Density:
    """A smooth density with Silverman's width; a single value, however often, is one peak."""
    values = values[np.isfinite(values)]
    if not values.size:
        return Density(0.0, 1.0, np.zeros(1, dtype=np.float32))
    low, high = float(values.min()), float(values.max())
    quarters = np.quantile(values, [0.25, 0.75])
    spreads = [spread for spread in (float(values.std()), float(np.diff(quarters)[0]) / 1.34) if spread > 0]
    if not spreads or high - low <= 1e-12 * max(abs(low), abs(high)):
        return Density(low, 1.0, np.ones(1, dtype=np.float32))
    width = 0.9 * min(spreads) * values.size**-0.2
    step = (high - low + 6 * width) / (GRID - 1)
    width = max(width, 0.8 * step)
    start = low - (GRID - 1) * step / 2 + (high - low) / 2
    places = (values - start) / step
    cell = np.clip(places.astype(np.int64), 0, GRID - 2)
    share = places - cell
    counts = np.bincount(cell, 1 - share, GRID) + np.bincount(cell + 1, share, GRID)
    reach = np.arange(-(GRID - 1), GRID) * step / width
    height = np.convolve(np.exp(-(reach**2) / 2), counts, mode="valid")
    return Density(start, step, (height / height.max()).astype(np.float32))


def densities(numbers: Numbers, after: bool) -> list[Density]:
    """The density of each shown group's values that count."""
    rows = numbers.groups.table(numbers.y if after else numbers.x)
    within = numbers.groups.table(numbers.counted)
    return [density(rows[group][within[group]]) for group in numbers.groups.chosen]


def quantiles(numbers: Numbers, after: bool) -> np.ndarray:
    """The quantiles of each shown group, shape (groups, levels)."""
    chosen = numbers.groups.chosen
    rows = numbers.groups.table(numbers.y if after else numbers.x)[chosen]
    within = numbers.groups.table(numbers.counted)[chosen]
    if within.all():
        return np.quantile(rows, LEVELS, axis=1).T
    missing = np.full(len(LEVELS), np.nan)
    kept = [row[keep] for row, keep in zip(rows, within, strict=True)]
    return np.stack([np.quantile(row, LEVELS) if row.size else missing for row in kept])
