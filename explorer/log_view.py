"""A visitor's own log: what the gradient norms of a run say about a threshold, and which to choose."""

from pathlib import Path

import numpy as np
import streamlit as st

from explorer import controls, uploads
from explorer.observatory_setup import THRESHOLDS
from explorer.plot import plot
from explorer.table import table
from explorer.threshold_view import bars, nearest, show, threshold_slider
from normcore import NormcoreError
from normcore.core import plural
from normcore.figures import threshold as figures
from normcore.lab import gradient_log as lab
from normcore.lab import log_file
from normcore.lab.curves import thinned
from normcore.lab.log_file import Log

SAMPLE, FILE, PASTE = "a sample", "my file", "pasted text"
THE_SAMPLE = "the sample"
RECORDED = Path(__file__).parent / "measured" / "gradients.jsonl"
LISTED = 20
"""The most spikes in the list."""
POINTS = 800
PASTED = 200_000
"""The most characters that are pasted; a file may be longer."""
TYPES = ("csv", "tsv", "txt", "json", "jsonl", "ndjson")


def own_log() -> None:
    """Reads a log, and says what a threshold would have done with its gradients."""
    st.markdown(
        "**The right threshold is in your own log**: look at the norms that your run had, not at what others use. "
        "Any table or JSON with a gradient-norm column will do."
    )
    source = controls.choose("Log", (SAMPLE, FILE, PASTE), "log")
    try:
        given = _given(source)
        if given is not None:
            _answer(*_chosen(*given))
    except NormcoreError as error:
        st.warning(f"{error}.", icon=":material/info:")


def _given(source: str) -> tuple[bytes | str, str] | None:
    """The log that was asked for and what to call it; None while there is none."""
    if source == FILE:
        file = controls.upload("A CSV or JSON lines file", TYPES, log_file.MEGABYTES, "log_file")
        st.caption(
            "A Weights & Biases, TensorBoard or trackio export, or trainer_state.json of Hugging Face. "
            "Only you see it, until you leave."
        )
        return None if file is None else (file[0], uploads.short(file[1]))
    if source == PASTE:
        hint = 'step,grad_norm\n0,1.21\n1,0.94\n…\n\nor {"step": 0, "grad_norm": 1.21}, one a line'
        text = controls.paste("Lines of a table or of JSON", "log_text", hint, PASTED)
        return (text, "the text") if text.strip() else None
    return RECORDED.read_bytes(), THE_SAMPLE


def _chosen(data: bytes | str, name: str) -> tuple[Log, float]:
    """The log with the column that was found or is chosen, and the share of its steps that is left out."""
    left, right = st.columns(2, gap="large")
    log: Log | None = None
    try:
        log = _read(data, name, None)
        columns, usual = log.columns, log.column
    except log_file.NoNormError as error:
        st.caption(f"{error}.")
        columns, usual = error.columns, error.columns[0]
    with left:
        column = controls.pick("Column of the norms", columns, "column", usual) if len(columns) > 1 else usual
    with right:
        shares = (0.0, 0.05, 0.1, 0.2, 0.5)
        share = controls.select("Warm-up that is left out", shares, "warm_up", lab.WARM_UP, "{:.0%}".format)
    return log if log is not None and column == log.column else _read(data, name, column), share


@st.cache_data(max_entries=2, show_spinner=False, scope="session")
def _read(data: bytes | str, name: str, column: str | None) -> Log:
    """A log is read once, and kept for its own visitor only."""
    return log_file.read(data, name, column)


def _answer(log: Log, share: float) -> None:
    """The recommendation first, then the threshold picture, then the course of the run."""
    gone = f"; {plural(log.skipped, 'row')} without a number there" if log.skipped else ""
    origin = ". Recorded by `python -m normcore.lab.observatory`: digits with bad batches, without clipping"
    origin = origin if log.name == THE_SAMPLE else ""
    st.caption(
        f"{log.name[0].upper()}{log.name[1:]}: {log.format}, column {log.column}, "
        f"{len(log.norm):,} norms{gone}{origin}."
    )
    advice = lab.advise(log.norm, share)
    left, right = st.columns([7, 4], gap="large")
    with right:
        _advice(advice)
        usual = nearest(THRESHOLDS, advice.threshold or max(advice.percentiles[95], THRESHOLDS[0]))
        value = threshold_slider("Threshold", THRESHOLDS, "log_threshold", usual)
    with left:
        told = show(log.norm, value, THRESHOLDS, "log_threshold", f"{log.column} in {log.name}")
    with right:
        st.markdown(f"**What if?** {told.sentence}")
        st.caption("A what-if on the norms as they were: clipping would have changed the later ones too.")
    rolling, spikes = lab.rolling(log.step, log.norm), lab.spikes(log.step, log.norm)
    _course(log, rolling, spikes, value)
    _tables(log, rolling, spikes)


def _advice(advice: lab.Advice) -> None:
    if advice.threshold is None:
        st.markdown("##### No threshold can be read off this log")
    else:
        st.markdown(f"##### Recommended: clip the global norm at {advice.threshold:g}")
    for reason in advice.reasons:
        st.markdown(f"- {reason}")


def _course(log: Log, rolling: lab.Rolling, spikes: lab.Spikes, threshold: float) -> None:
    """The norms over the steps: thinned, but no spike is lost, for each has a mark of its own."""
    kept = np.unique(
        np.concatenate([thinned(len(log.step), POINTS), np.flatnonzero(np.isin(log.step, spikes.step[:POINTS]))])
    )
    lost = log.step[~np.isfinite(log.norm)]
    figure = figures.course(
        log.step[kept],
        log.norm[kept],
        rolling.step,
        rolling.values,
        (spikes.step[:POINTS], spikes.norm[:POINTS]),
        lost[:POINTS],
        threshold,
    )
    known = log.norm[np.isfinite(log.norm)]
    plot(
        figure,
        key="log_course",
        alt=f"{log.column} over {len(log.step):,} steps from {known.min():.3g} to {known.max():.3g}, with percentiles "
        f"of the last {rolling.width} steps; {plural(len(spikes.step), 'spike')}.",
        height=380,
    )
    st.caption(f"Percentiles are those of the last {rolling.width} norms.")


def _tables(log: Log, rolling: lab.Rolling, spikes: lab.Spikes) -> None:
    """The spikes as a list, and all that was drawn."""
    with st.expander("Spikes and numbers", icon=":material/table:", key="log_numbers"):
        if len(spikes.step):
            st.caption(
                f"{plural(len(spikes.step), 'norm')} of at least {lab.SPIKE:g} times the median of the steps around; "
                f"the {min(LISTED, len(spikes.step))} that stand out most:"
            )
            first = {
                "step": spikes.step[:LISTED],
                "norm": spikes.norm[:LISTED],
                "times the median": spikes.ratio[:LISTED],
            }
            table(first, key="spikes", file="gradient-spikes", height=240)
        else:
            st.caption(f"No norm is {lab.SPIKE:g} times the median of the steps around it.")
        st.caption("The histogram:")
        table(bars(lab.histogram(log.norm)), key="log_bars", file="gradient-histogram", height=240)
        st.caption("The rolling percentiles:")
        percents = {f"{p}th percentile": row for p, row in zip(lab.PERCENTS, rolling.values, strict=True)}
        table({"step": rolling.step, **percents}, key="log_rolling", file="gradient-percentiles", height=240)
