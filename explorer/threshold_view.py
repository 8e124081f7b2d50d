"""A threshold held against recorded norms: the histogram to click on, the slider, and what would have happened."""

from functools import partial

import numpy as np

from explorer import controls
from explorer.plot import picked, plot
from normcore.figures import threshold as figures
from normcore.lab.gradient_log import Histogram, WhatIf, histogram, what_if


def nearest(thresholds: tuple[float, ...], value: float) -> float:
    """The threshold on the slider that is closest, by ratio."""
    return min(thresholds, key=lambda one: abs(np.log(one / value)))


def threshold_slider(label: str, thresholds: tuple[float, ...], key: str, default: float) -> float:
    """The slider; it can also be set by a click on the histogram with this key and "_histogram"."""
    value: float = controls.select(label, thresholds, key, nearest(thresholds, default), controls.words)
    return value


def show(norms: np.ndarray, threshold: float, thresholds: tuple[float, ...], key: str, whose: str) -> WhatIf:
    """The histogram with the threshold in it; a click on a bar moves the threshold there."""
    found, told = histogram(norms), what_if(norms, threshold)
    share = f"{told.share:.1%}".replace("%", " %")
    figure = figures.histogram(found.edges, found.counts, threshold, f"{threshold:g}: {share} above")
    plot(
        figure,
        key=f"{key}_histogram",
        alt=f"Histogram of {whose}: {told.steps:,} norms from {found.edges[0]:.3g} to {found.edges[-1]:.3g}, "
        f"{told.above:,} above the threshold {threshold:g}.",
        height=330,
        on_pick=partial(_clicked, key, thresholds, tuple(found.edges.tolist())),
    )
    return told


def bars(found: Histogram) -> dict[str, np.ndarray]:
    """The histogram as columns of a table."""
    return {"norm from": found.edges[:-1], "norm to": found.edges[1:], "steps": found.counts}


def _clicked(key: str, thresholds: tuple[float, ...], edges: tuple[float, ...]) -> None:
    hit = picked(f"{key}_histogram")
    if hit is not None and 0 <= hit.point < len(edges) - 1:
        controls.put(**{key: nearest(thresholds, float(np.sqrt(edges[hit.point] * edges[hit.point + 1])))})
