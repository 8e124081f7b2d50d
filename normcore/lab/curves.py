"""What of a race is drawn: curves with their bands, thinned to what a screen shows, and layers over the steps."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from normcore.core import NormcoreError
from normcore.lab.results import Results, quantile

BANDS = ("95 % confidence", "standard deviation", "least to greatest", "none")
ACROSS = {"step": "step", "epoch": "epoch", "examples": "examples seen", "time": "seconds of training, one thread"}
"""What a curve can run over, with the words for the axis."""
MOST = 600


@dataclass(frozen=True)
class Curve:
    """One contestant over the race: arrays of (points), and of each seed (seeds points).

    `seeds` says over how many the mean goes at each point: those that have not diverged by then. `lost` has a row for
    each that did: seed, x, and the last loss before it.
    """

    label: str
    x: np.ndarray
    step: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seeds: np.ndarray
    singles: np.ndarray
    lost: tuple[tuple[int, float, float], ...]


def losses(
    results: Results, across: str = "step", band: str = BANDS[0], smoothing: float = 0.0, most: int = MOST
) -> tuple[Curve, ...]:
    """The training losses; where a seed diverged its curve ends.

    Args:
        results: What a race measured.
        across: One of `ACROSS`.
        band: One of `BANDS`, over seeds.
        smoothing: The weight of the past in a moving average, 0 for none; taken of all steps, then thinned.
        most: How many points a curve has at most.
    """
    steps = np.arange(results.loss.shape[-1])
    kept = thinned(len(steps), most)
    smooth = smoothed(_alive(results, results.loss), smoothing)
    return tuple(
        _curve(results, i, smooth[i][:, kept], steps[kept], across, band, smooth[i]) for i in range(len(results.labels))
    )


def differences(
    results: Results,
    baseline: int,
    across: str = "step",
    band: str = BANDS[0],
    smoothing: float = 0.0,
    most: int = MOST,
) -> tuple[Curve, ...]:
    """Each contestant's loss less the baseline's, seed by seed; the baseline itself is left out."""
    steps = np.arange(results.loss.shape[-1])
    kept = thinned(len(steps), most)
    alive = _alive(results, results.loss)
    apart = smoothed(alive - alive[baseline], smoothing)
    return tuple(
        _curve(results, i, apart[i][:, kept], steps[kept], across, band)
        for i in range(len(results.labels))
        if i != baseline
    )


def held(results: Results, what: str, across: str = "step", band: str = BANDS[0]) -> tuple[Curve, ...]:
    """How the contestants stood on the held-out examples: `what` is "loss" or "accuracy"."""
    steps = np.array([one.step for one in results.held])
    values = np.stack([getattr(one, what) for one in results.held], -1) if len(steps) else np.zeros((0, 0, 0))
    if len(steps):
        since = results.diverged[:, :, None]
        values = np.where((since >= 0) & (steps > since) | ~np.isfinite(values), np.nan, values)
    return tuple(
        _curve(results, i, values[i], steps, across, band) for i in range(len(results.labels) * bool(len(steps)))
    )


@dataclass(frozen=True)
class Layers:
    """A number for each layer and step: `values` (rows points), the mean over seeds; `rows` are (contestant, layer)."""

    rows: tuple[tuple[str, str], ...]
    step: np.ndarray
    values: np.ndarray


def gradients(results: Results, most: int = 120) -> Layers:
    """The length of the gradient of each weight."""
    step = thinned(results.loss.shape[-1], most)
    rows = [
        (label, spoken(name)) for label, names in zip(results.labels, results.layers, strict=True) for name in names
    ]
    since = results.diverged[:, :, None, None]
    values = [
        _mean(np.where((gone < 0) | (step < gone), each[:, :, step].astype(float), np.nan), 0)
        for each, gone in zip(results.gradients, since, strict=True)
    ]
    return Layers(tuple(rows), step, np.concatenate(values))


def activations(results: Results, what: str, most: int = 120) -> Layers:
    """The "mean" or "deviation" of what each activation function gives on the held-out examples."""
    if not results.held:
        raise NormcoreError("race: the held-out examples were not looked at yet; a few more steps")
    step = np.array([one.step for one in results.held])
    kept = thinned(len(step), most)
    values = []
    for i, gone in enumerate(results.diverged[:, :, None]):
        each = [np.where((gone < 0) | (one.step <= gone), getattr(one, what)[i], np.nan) for one in results.held]
        values.append(np.stack([_mean(one, 0) for one in each], -1)[:, kept])
    rows = [
        (label, f"activation {j + 1}") for label, v in zip(results.labels, values, strict=True) for j in range(len(v))
    ]
    return Layers(tuple(rows), step[kept], np.concatenate(values))


def columns(curves: tuple[Curve, ...], what: str, across: str) -> dict[str, Any]:
    """The very numbers of curves as columns of a table."""
    axis = {} if across == "step" else {ACROSS[across]: np.concatenate([c.x for c in curves])}
    return {
        "contestant": [c.label for c in curves for _ in c.x],
        "step": np.concatenate([c.step for c in curves]),
        **axis,
        f"mean {what}": np.concatenate([c.mean for c in curves]),
        "band from": np.concatenate([c.low for c in curves]),
        "band to": np.concatenate([c.high for c in curves]),
        "seeds": np.concatenate([c.seeds for c in curves]),
    }


def spoken(layer: str) -> str:
    """A weight by its place in the net: "hidden.0.weight" is hidden 1, and what a method adds to it is named."""
    words = [part for part in layer.split(".") if part not in ("parametrizations", "original", "weight")]
    first = " ".join(str(int(word) + 1) if word.isdigit() else word.replace("_", " ") for word in words[:2])
    return " ".join([first, *(word.replace("_", " ") for word in words[2:] if not word.isdigit())])


def thinned(count: int, most: int) -> np.ndarray:
    """Which of so many points are kept: evenly spaced, the first and the last among them."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, most).round().astype(int))


def smoothed(values: np.ndarray, past: float) -> np.ndarray:
    """A moving average along the last axis in which the past weighs `past`, free of the pull towards its start."""
    if past <= 0 or not values.shape[-1]:
        return values
    found, average = np.empty_like(values), np.zeros(values.shape[:-1])
    weight = 0.0
    for i in range(values.shape[-1]):
        average = past * average + (1 - past) * values[..., i]
        weight = past * weight + (1 - past)
        found[..., i] = average / weight
    return found


def spread(values: np.ndarray, band: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean, lower and upper end of a band, and number, over the seeds (seeds points) that are there."""
    count = np.isfinite(values).sum(0)
    mean = _mean(values, 0)
    if band == "none" or len(values) < 2:
        return mean, mean, mean, count
    if band == "least to greatest":
        low = np.where(np.isfinite(values), values, np.inf).min(0)
        high = np.where(np.isfinite(values), values, -np.inf).max(0)
        return mean, np.where(count > 0, low, np.nan), np.where(count > 0, high, np.nan), count
    squares = np.where(np.isfinite(values), (values - mean) ** 2, 0.0).sum(0)
    deviation = np.sqrt(squares / np.maximum(1, count - 1))
    half = np.where(count > 1, deviation, 0.0)
    if band == BANDS[0]:
        known = np.unique(count)
        factor = {int(n): quantile(int(n) - 1) / np.sqrt(n) if n > 1 else 0.0 for n in known}
        half = half * np.array([factor[int(n)] for n in count])
    return mean, mean - half, mean + half, count


def _curve(
    results: Results,
    i: int,
    values: np.ndarray,
    steps: np.ndarray,
    across: str,
    band: str,
    whole: np.ndarray | None = None,
) -> Curve:
    mean, low, high, count = spread(values, band)
    lost = []
    for j, at in enumerate(results.diverged[i].tolist() if whole is not None else []):
        if at >= 0 and whole is not None:
            last = float(whole[j, at - 1]) if at else np.nan
            lost.append((results.seeds[j], float(_across(results, i, np.array([max(0, at - 1)]), across)[0]), last))
    return Curve(
        results.labels[i], _across(results, i, steps, across), steps, mean, low, high, count, values, tuple(lost)
    )


def _across(results: Results, i: int, steps: np.ndarray, across: str) -> np.ndarray:
    """Where steps lie on the axis, for a contestant."""
    factor = {
        "step": 1.0,
        "epoch": results.batch_sizes[i] / results.examples if results.examples else np.nan,
        "examples": float(results.batch_sizes[i]) if results.batch_sizes else np.nan,
        "time": float(results.seconds[i]),
    }
    return steps if across == "step" else steps * factor[across]


def _alive(results: Results, values: np.ndarray) -> np.ndarray:
    """Values (contestants seeds steps) up to where a seed diverged; none from there on."""
    since = results.diverged[:, :, None]
    return np.where((since >= 0) & (np.arange(values.shape[-1]) >= since), np.nan, values)


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean of what is finite; nan where nothing is."""
    there = np.isfinite(values)
    count = there.sum(axis)
    total = np.where(there, values, 0.0).sum(axis)
    return np.where(count > 0, total / np.maximum(1, count), np.nan)
