"""What a record of gradient norms says about a threshold: how often it fires, what stands out, what to choose."""

from dataclasses import dataclass

import numpy as np

from normcore.core import NormcoreError, plural

PERCENTS = (5, 50, 95, 99)
"""The rolling percentiles."""
WARM_UP = 0.1
"""The share of the first steps that the advice leaves out: there the norm is not yet what it will be."""
FEWEST = 20
"""So many norms say something about a threshold."""
RARE, OFTEN = 0.05, 0.5
"""Up to the first share of steps a threshold is a safety net; from the second on it limits nearly every step."""
FLAT, CLOSE = 0.03, 1e-3
"""A plateau: this share of all norms lies within this distance, relative, of the largest."""
SPIKE = 3.0
"""A spike is so many times the median of the steps around it."""


@dataclass(frozen=True)
class WhatIf:
    """What a threshold would have met in recorded norms; with it, the later norms would have been others.

    `share` is the part of the steps above it, `scale` the median factor that those would have been cut to; `role` is
    "never", "safety net", "in between" or "step-size limiter".
    """

    threshold: float
    steps: int
    above: int
    share: float
    scale: float
    role: str
    sentence: str


def what_if(norms: np.ndarray, threshold: float) -> WhatIf:
    """How many of these norms lie above a threshold; norms that are infinite do, and those that are no number do not.

    Raises:
        NormcoreError: There are no norms, or the threshold is not a positive number.
    """
    norms = np.asarray(norms, dtype=float)
    norms = norms[~np.isnan(norms)]
    if not norms.size:
        raise NormcoreError("gradient log: no norm to compare with; record some steps first")
    if not 0 < threshold < np.inf:
        raise NormcoreError(f"gradient log: threshold={threshold!r} must be a positive number")
    over = norms[norms > threshold]
    share = len(over) / len(norms)
    scale = float(np.median(threshold / over)) if len(over) else 1.0
    role = _role(share)
    start = f"At {threshold:g} you would have clipped {percent(share)} of the steps ({len(over):,} of {len(norms):,})"
    told = {
        "never": "it never fires, so it costs nothing and has protected from nothing so far",
        "safety net": "a safety net: it leaves the usual step alone and catches the rare one",
        "in between": f"more than a safety net: a clipped step keeps {percent(scale)} of its length in the median",
        "step-size limiter": "a step-size limiter: most steps have the length that it allows, so it acts like a "
        f"smaller learning rate ({percent(scale)} of it in the median of the clipped steps)",
    }
    return WhatIf(threshold, len(norms), len(over), share, scale, role, f"{start}: {told[role]}.")


def _role(share: float) -> str:
    if share == 0:
        return "never"
    return "safety net" if share <= RARE else "in between" if share < OFTEN else "step-size limiter"


def percent(share: float) -> str:
    """A share in words: two figures, never 0 % or 100 % where it is not."""
    if 0 < share < 0.001:
        return "less than 0.1 %"
    if 0.999 < share < 1:
        return "more than 99.9 %"
    value = 100 * share
    return f"{value:.2g} %" if value < 10 else f"{value:.0f} %" if value < 99.5 or share == 1 else f"{value:.1f} %"


@dataclass(frozen=True)
class Histogram:
    """Counts of norms between logarithmic `edges`; norms of 0, and those that are not finite, are only counted."""

    edges: np.ndarray
    counts: np.ndarray
    zeros: int
    lost: int


def histogram(norms: np.ndarray, bins: int = 48) -> Histogram:
    """How norms are spread, in bins of equal ratio."""
    norms = np.asarray(norms, dtype=float).ravel()
    known = norms[np.isfinite(norms) & (norms > 0)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.1, 10.0)
    if high <= low * 1.001:
        low, high = low / 2, high * 2
    edges = np.geomspace(low, high, bins + 1)
    edges[0], edges[-1] = low, high
    counts, _ = np.histogram(known, edges)
    return Histogram(edges, counts, int((norms == 0).sum()), int((~np.isfinite(norms)).sum()))


@dataclass(frozen=True)
class Rolling:
    """Percentiles (`PERCENTS`, points) of the last `width` norms at each of some steps; each point ends its window."""

    step: np.ndarray
    values: np.ndarray
    width: int


def rolling(steps: np.ndarray, norms: np.ndarray, most: int = 240) -> Rolling:
    """Percentiles over a window that moves along, a twentieth of the record but at least ten norms wide."""
    width = max(min(10, len(norms)), len(norms) // 20)
    ends = np.unique(np.linspace(width, len(norms), min(most, len(norms) - width + 1)).round().astype(int))
    known = np.where(np.isfinite(norms), norms, np.nan)
    found = np.full((len(PERCENTS), len(ends)), np.nan)
    for place, end in enumerate(ends.tolist()):
        part = known[end - width : end]
        part = part[~np.isnan(part)]
        if part.size:
            found[:, place] = np.percentile(part, PERCENTS)
    return Rolling(np.asarray(steps)[ends - 1], found, width)


@dataclass(frozen=True)
class Spikes:
    """Norms that stand out: where, how long, and how many times the median of the steps around them."""

    step: np.ndarray
    norm: np.ndarray
    ratio: np.ndarray


def spikes(steps: np.ndarray, norms: np.ndarray, times: float = SPIKE, around: int = 25) -> Spikes:
    """Every norm of at least so many times the median of the `around` norms on each side, the largest ratio first."""
    norms = np.asarray(norms, dtype=float)
    known = np.where(np.isfinite(norms), norms, np.nan)
    padded = np.pad(known, around, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * around + 1)
    middle = np.empty(len(norms))
    for start in range(0, len(norms), 10_000):  # a window for each of many steps would not fit into memory at once
        part = windows[start : start + 10_000]
        middle[start : start + 10_000] = _medians(part)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(np.isnan(norms) | (middle == 0), np.nan, norms / middle)
    found = np.flatnonzero(ratio >= times)
    found = found[np.argsort(-ratio[found], kind="stable")]
    return Spikes(np.asarray(steps)[found], norms[found], ratio[found])


def _medians(windows: np.ndarray) -> np.ndarray:
    """The median of each row, leaving out what is missing; nan where all is. Sorting puts nan last."""
    ordered = np.sort(windows, axis=1)
    count = (~np.isnan(ordered)).sum(1)
    rows = np.arange(len(ordered))
    found: np.ndarray = (ordered[rows, np.maximum(count - 1, 0) // 2] + ordered[rows, count // 2]) / 2
    return found


@dataclass(frozen=True)
class Advice:
    """A threshold with its reasons, a sentence each. `threshold` is None where the record cannot say."""

    threshold: float | None
    reasons: tuple[str, ...]
    percentiles: dict[int, float]
    plateau: float | None
    lost: int


def advise(norms: np.ndarray, warm_up: float = WARM_UP) -> Advice:
    """Recommends a threshold for the global norm from the norms of a run, in the order of its steps.

    Raises:
        NormcoreError: Fewer than `FEWEST` norms are finite.
    """
    norms = np.asarray(norms, dtype=float).ravel()
    begun = int(warm_up * len(norms))
    settled = norms[begun:]
    known = settled[np.isfinite(settled)]
    lost = int((~np.isfinite(norms)).sum())
    if len(known) < FEWEST:
        raise NormcoreError(
            f"gradient log: {plural(len(known), 'finite norm')} after the warm-up; at least {FEWEST} say something"
        )
    values = {p: float(np.percentile(known, p)) for p in (50, 90, 95, 99)}
    largest = float(known.max())
    left_out = f"After the first {percent(begun / len(norms))} of the steps, taken for the warm-up," if begun else ""
    reasons = [
        f"{left_out or 'Over all steps'} the median norm is {values[50]:.3g}, "
        f"the 90th percentile {values[90]:.3g}, the 95th {values[95]:.3g}, the 99th {values[99]:.3g}, "
        f"the largest {largest:.3g}."
    ]
    if lost:
        first = int(np.flatnonzero(~np.isfinite(norms))[0])
        reasons.append(
            f"{plural(lost, 'norm')} of {len(norms):,} {'is' if lost == 1 else 'are'} not finite, the first in row "
            f"{first + 1:,}: no threshold mends such a step, it has to be skipped."
        )
    plateau = _plateau(known)
    if plateau is not None:
        reasons.append(
            f"{percent(float((known >= plateau * (1 - CLOSE)).mean()))} of the norms lie at {plateau:.4g} and none "
            "above: this looks like the norm after clipping. What the spikes were is not in this record; log the norm "
            "that clip_grad_norm_ returns, which is the one before."
        )
        return Advice(None, tuple(reasons), values, plateau, lost)
    chosen, why = _chosen(values, known)
    reasons += [why, *_drift(known)]
    return Advice(chosen, tuple(reasons), values, None, lost)


def _chosen(values: dict[int, float], known: np.ndarray) -> tuple[float | None, str]:
    largest = float(known.max())
    if values[50] <= 0 or largest <= 0:
        return None, "Most norms are 0: nothing is learned there, and there is nothing to clip."
    if largest < 1.5 * values[50]:
        chosen = rounded(2 * values[50])
        return chosen, (
            f"Nothing stands out: the largest is {largest / values[50]:.2g} times the median. Clipping has nothing to "
            f"do here; {chosen:g}, twice the median, would be insurance that never fires."
        )
    which = _below_the_gap(values, largest)
    if which is not None:
        chosen = _above(values[which])
        return chosen, (
            f"A few steps are far longer than the others (the largest is {largest / values[50]:.3g} times the median): "
            f"{chosen:g}, just above the {which}th percentile, cuts {percent(float((known > chosen).mean()))} of the "
            "steps and leaves the usual one alone."
        )
    chosen = rounded(values[95])
    return chosen, (
        f"The long steps come gradually, without a gap: {chosen:g}, near the 95th percentile, shortens "
        f"{percent(float((known > chosen).mean()))} of the steps, the longest to {percent(chosen / largest)} of "
        "its length."
    )


def _below_the_gap(values: dict[int, float], largest: float) -> int | None:
    """The highest percentile that lies below a gap of a factor of three, where the long steps are a kind of their own.

    Between two percentiles the gap may be interpolated away, so that the last two are held against the 90th as well.
    """
    if values[99] >= 3 * values[95]:
        return 95
    if values[99] >= 3 * values[90]:
        return 90
    return 99 if largest >= 3 * values[99] else None


def rounded(value: float) -> float:
    """The nearest of twenty round numbers a decade: 1, 1.1, 1.3, 1.4, 1.6, 1.8, 2, …"""
    return _rung(round(20 * np.log10(value)))


def _above(value: float) -> float:
    """The first of these numbers that is not below a value."""
    rung = int(np.floor(20 * np.log10(value)))
    return next(number for number in map(_rung, range(rung, rung + 3)) if number >= value)


def _rung(number: int) -> float:
    return float(f"{10 ** (number / 20):.2g}")


def _plateau(known: np.ndarray) -> float | None:
    """The value that many norms reach and none passes, as behind a clipping; None if there is none."""
    top = float(known.max())
    at_top = (known >= top * (1 - CLOSE)).mean()
    all_alike = known.min() >= top * (1 - CLOSE)
    return top if at_top >= FLAT and not all_alike and top > 0 else None


def _drift(known: np.ndarray) -> list[str]:
    """Whether the norm has wandered off since the warm-up."""
    quarter = max(1, len(known) // 4)
    first, last = float(np.median(known[:quarter])), float(np.median(known[-quarter:]))
    if not first or not last or 0.5 < last / first < 2:
        return []
    way, times = ("grown", last / first) if last > first else ("fallen", first / last)
    return [
        f"From the first to the last quarter the median norm has {way} by a factor of {times:.2g}: a fixed threshold "
        "means something else at the end than at the start; one that follows the past (AutoClip, ZClip) would not."
    ]
