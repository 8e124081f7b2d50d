"""A strip on the Race page: final losses over learning rates or batch sizes, one column after the other."""

from collections.abc import Sequence

import numpy as np
import streamlit as st

from explorer import controls
from explorer.plot import plot
from explorer.runner import State
from explorer.table import table
from normcore.figures.race import strip
from normcore.lab.strips import StripResults


def show(results: StripResults | None, state: State) -> None:
    """The picture, who gets furthest, and the numbers."""
    if results is None or not results.done:
        st.caption("The first column comes when its races are over.")
        return
    mean = np.array([[_mean(cell) for cell in row] for row in results.final])
    lost = results.lost.sum(-1)
    knob, names = results.knob.replace("_", " "), [controls.words(value) for value in results.values]
    best = [
        f"{label} {_best(row, gone, names, len(results.seeds))}"
        for label, row, gone in zip(results.labels, mean, lost, strict=True)
        if np.isfinite(row).any()
    ]
    said = f"Best by {knob}: {'; '.join(best)}." if best else "All diverged."
    picture, beside = st.columns([8, 5], gap="medium")
    with beside:
        _costs(results)
    with picture:
        plot(
            strip(mean, lost, len(results.seeds), results.done, results.labels, names, knob),
            key="strip",
            alt=f"Final training loss by method and {knob}, {results.done} of {len(names)} done. {said}",
            height=130 + 56 * len(results.labels),
        )
    st.markdown(f"**{said}**")
    st.caption(
        f"Mean training loss of the last tenth of the steps, over those of the {len(results.seeds)} seeds that did not "
        "diverge; ✕ says how many did."
    )
    if not state.going:
        table(results.columns(), key="strip", file=f"race-{results.knob.replace('_', '-')}-strip", height=240)


def _costs(results: StripResults) -> None:
    """What each method costs: time, numbers to learn, statistics; from the least to the most over the strip."""
    rows = ["| What it costs | ms a step | numbers to learn | statistics of a batch |", "|---|---|---|---|"]
    for i, label in enumerate(results.labels):
        costs = [row[i] for row in results.costs]
        seconds = (1e3 * results.seconds[i, : results.done]).tolist()
        counts = _spread([cost.parameters for cost in costs]), _spread([cost.statistics for cost in costs])
        rows.append(f"| {label} | {_spread(seconds)} | {counts[0]} | {counts[1]} |")
    st.markdown("\n".join(rows))
    count = len(results.seeds)
    st.caption(f"A step of {'the one seed' if count == 1 else f'all {count} seeds together'}, on one thread.")


def _spread(values: Sequence[float]) -> str:
    """The least and the greatest, or the one that all are."""
    ends = list(dict.fromkeys(f"{v:,}" if isinstance(v, int) else f"{v:.3g}" for v in (min(values), max(values))))
    return "–".join(ends)


def _best(means: np.ndarray, lost: np.ndarray, names: Sequence[str], seeds: int) -> str:
    """The lowest mean and where; those that lost a seed only compete where all did."""
    whole = np.isfinite(means) & (lost == 0)
    at = int(np.nanargmin(np.where(whole, means, np.nan) if whole.any() else means))
    gone = f", with {lost[at]} of {seeds} seeds diverged" if lost[at] else ""
    return f"{means[at]:.4g} at {names[at]}{gone}"


def _mean(cell: np.ndarray) -> float:
    known = cell[np.isfinite(cell)]
    return float(known.mean()) if known.size else float("nan")
