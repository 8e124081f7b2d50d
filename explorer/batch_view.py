"""The Batch page, what a batch is worth: over the steps, by its size, and cut into micro-batches."""

import numpy as np
import streamlit as st

from explorer import controls
from explorer.plot import plot
from explorer.table import table
from normcore import METHODS, snippet
from normcore.core import plural
from normcore.figures import theme
from normcore.figures.curves import by_parts, errors
from normcore.figures.timeline import Curve, Panel, timeline
from normcore.lab import neighbors, running, sampling

CUMULATIVE = "cumulative average"
MOMENTA = ("0.01", "0.03", "0.1", "0.3", "0.5", "0.7", "0.9", "0.97", "0.99", "1", CUMULATIVE)
OTHER = "the other convention"


@st.cache_data(max_entries=128, show_spinner=False)
def _timeline(key: str, momentum: float | None, batch: int, data: str, switch: int, ghost: int) -> running.Timeline:
    settings = neighbors.fitting(METHODS[key], (batch, 1), "vector", {"ghost_batch_size": ghost})
    return running.timeline(key, momentum, batch, data, switch, **settings)


@st.cache_data(max_entries=64, show_spinner=False)
def _errors(source: str, statistic: str) -> sampling.Errors:
    return sampling.errors(source, statistic)


@st.cache_data(max_entries=128, show_spinner=False)
def _ways(source: str, statistic: str, batch: int, ghost: int, micro: int) -> sampling.Ways:
    return sampling.ways(source, statistic, batch, ghost, micro)


@st.cache_data(max_entries=256, show_spinner=False)
def _accumulated(key: str, batch: int, ghost: int) -> sampling.Accumulated:
    return sampling.accumulated(key, batch, ghost_batch_size=ghost)


def over_time() -> None:
    """What a layer remembers, step by step, and how far evaluation is from training."""
    asked, shown = st.columns([2, 5], gap="large")
    with asked:
        key = controls.pick("Method", running.remembering(), "layer", "batch_norm")
        said = controls.select("Momentum, the weight of the new value", MOMENTA, "momentum", "0.1")
        momentum = None if said == CUMULATIVE else float(said)
        conventions = st.container()
        beside = controls.choose("Also draw", (OTHER, CUMULATIVE, "nothing"), "beside")
        batch = controls.select("Samples in a batch", (2, 4, 8, 16, 32, 64), "batch", 4)
        ghost = _ghost(batch, "ghost") if METHODS[key].default("ghost_batch_size") else 2
        data = controls.choose("The population", list(running.POPULATIONS), "population", "drifts")
        switch = controls.select("Evaluation after step", range(10, running.STEPS + 1, 10), "switch", 70)
    settings = neighbors.fitting(METHODS[key], (batch, 1), "vector", {"ghost_batch_size": ghost})
    habit = running.habit(key, momentum, batch, **settings)
    conventions.markdown(habit.conventions(momentum))
    seen = _timeline(key, momentum, batch, data, switch, ghost)
    second = {CUMULATIVE: None, OTHER: None if momentum is None else round(1 - momentum, 12)}.get(beside, momentum)
    name = CUMULATIVE if second is None else f"momentum {second:g}"
    other = _timeline(key, second, batch, data, switch, ghost) if second != momentum else None
    last, lag = seen.running_mean[-1], seen.running_mean[-1] - seen.population_mean[-1]
    with shown:
        with st.container(horizontal=True, gap="medium"):
            learned = seen.training
            for divisor, variance in ((batch, seen.batch_var), (batch - 1, seen.batch_var_unbiased)):
                st.metric(habit.role(divisor, batch), f"{variance[learned].mean():.3g}", width="content")
            st.metric("Variance of the population", f"{seen.population_var[learned].mean():.3g}", width="content")
        steps = plural(int(learned.sum()), "step")
        st.caption(f"Averages over {steps} of training, of the whole batches. {habit.words(batch)}")
        plot(
            timeline(seen.step, _panels(seen, other, name, batch), switch),
            key="timeline",
            alt=f"{METHODS[key].name} over {len(seen.step)} steps, in evaluation after step {switch}. The running mean "
            f"ends at {last:.2f}, {abs(lag):.2f} {'above' if lag > 0 else 'below'} the population's. Training and "
            f"evaluation differ by {seen.gap[0]:.2f} at the first step and by {seen.gap[-1]:.2f} at the last.",
            height=600,
        )
        st.caption(
            f"At the last step the running mean is {abs(lag):.2f} {'above' if lag > 0 else 'below'} the population's. "
            f"For the same batch, training and evaluation give outputs {seen.gap[-1]:.2f} apart (root mean square). "
            f"Over the last ten steps before the "
            f"switch it was {seen.gap[max(0, switch - 10) : switch].mean():.2f}."
        )
    columns = {
        "step": seen.step,
        "mode": np.where(seen.training, "training", "evaluation"),
        "population mean": seen.population_mean,
        "batch mean": seen.batch_mean,
        "running mean": seen.running_mean,
        "population variance": seen.population_var,
        f"batch variance ÷ {batch}": seen.batch_var,
        f"batch variance ÷ {batch - 1}": seen.batch_var_unbiased,
        "running variance": seen.running_var,
        "gap of the outputs": seen.gap,
        "output mean": seen.output_mean,
        "output standard deviation": seen.output_std,
    }
    if other is not None:
        columns |= {f"running mean, {name}": other.running_mean, f"running variance, {name}": other.running_var}
    table(columns, key="timeline", file=f"normcore-{key}-over-time", height=260)
    _code(key, momentum, batch)


def _code(key: str, momentum: float | None, batch: int) -> None:
    """The layer in PyTorch and in Keras, each with its own number."""
    method, shape = METHODS[key], (batch, 1)
    settings = {"momentum": momentum, **neighbors.fitting(method, shape, "vector", {})}
    keras = snippet.in_other(method, "keras", shape, "vector", **settings)
    if keras is None or momentum is None:
        keras = f"# Keras has no {'such layer' if keras is None else CUMULATIVE}."
    left, right = st.columns(2, gap="medium")
    with left:
        st.caption("PyTorch: momentum is the weight of the new value")
        st.code(snippet.in_pytorch(method, shape, "vector", **settings), language="python")
    with right:
        st.caption("Keras: momentum is the weight of the old value")
        st.code(keras, language="python")


def _panels(seen: running.Timeline, other: running.Timeline | None, name: str, batch: int) -> list[Panel]:
    mean = [
        Curve("mean of the batch", seen.batch_mean, "dots", 1),
        Curve("population", seen.population_mean, "truth", -1),
    ]
    variance = [
        Curve(f"variance of the batch ÷ {batch}", seen.batch_var, "diamonds", 2),
        Curve(f"variance of the batch ÷ {batch - 1}", seen.batch_var_unbiased, "rings", 1),
        Curve("population", seen.population_var, "truth", -1),
    ]
    gap = [Curve("gap, training to evaluation", seen.gap, "curve", 8)]
    if other is not None:
        mean.append(Curve(f"running, {name}", other.running_mean, "beside", 6))
        variance.append(Curve(f"running, {name}", other.running_var, "beside", 6))
    mean.append(Curve("running", seen.running_mean, "curve", 0))
    variance.append(Curve("running", seen.running_var, "curve", 0))
    return [Panel("mean", mean), Panel("variance", variance), Panel("gap of outputs", gap, floor=True)]


def batch_size() -> None:
    """How wrong the statistic of a batch is, whole and in parts."""
    asked, shown = st.columns([2, 5], gap="large")
    with asked:
        statistic = controls.choose("Statistic", sampling.STATISTICS, "statistic")
        source = controls.choose("Values", list(sampling.SOURCES), "values")
        st.caption(sampling.WORDS[source])
        batch = controls.select("Samples in a batch", (8, 16, 32, 64, 128, 256), "samples", 128)
        ghost = _ghost(batch, "ghosts", 32)
        parts = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= batch]
        micro = controls.select("Micro-batches", parts, "micro", 16 if 16 in parts else parts[-1])
    curve, points = _errors(source, statistic), _ways(source, statistic, batch, ghost, micro)
    names = (
        f"the batch of {batch} whole",
        f"ghost batches of {ghost}",
        f"{plural(micro, 'micro-batch')} of {batch // micro}",
    )
    rooted = points.error[0] * points.values[0] ** 0.5
    spent = f"{plural(micro, 'micro-batch')} of {plural(batch // micro, 'sample')}"
    words = (
        f"In the whole batch the {statistic} is off by {points.error[0]:.3f} population standard deviations (root mean "
        f"square of {sampling.DRAWS} draws), which is {rooted:.2f} times 1/√m for m = {points.values[0]}."
    )
    if micro > 1:
        words += (
            f" In {spent} it is off by {points.error[2]:.3f}, {points.error[2] / points.error[0]:.1f} times as much. "
            f"The average over the micro-batches is off by {points.averaged:.3f}, but no sample is normalized with it."
        )
    with shown:
        plot(
            errors(
                curve.values,
                {"measured error": curve.error, "19 of 20 batches stay below": curve.most},
                {"1/√m": curve.expected},
                list(zip(names, points.values.tolist(), points.error.tolist(), strict=True)),
                ("values m that share a statistic", "error, in standard deviations"),
            ),
            key="errors",
            alt=f"Error of the {statistic} over the number of values, from {curve.error[0]:.2f} at {curve.values[0]} "
            f"to {curve.error[-1]:.3f} at {curve.values[-1]}, beside 1/√m. {words}",
            height=460,
        )
        st.caption(words)
    table(
        {
            "what": ["BatchNorm"] * len(curve.values) + list(names),
            "samples that share": np.concatenate([curve.samples, points.samples]),
            "values that share, m": np.concatenate([curve.values, points.values]),
            "error, root mean square": np.concatenate([curve.error, points.error]),
            "19 of 20 stay below": np.concatenate([curve.most, points.most]),
            "1/√m": np.concatenate([curve.expected, points.values**-0.5]),
        },
        key="errors",
        file="normcore-batch-size",
    )


def accumulation() -> None:
    """What accumulating gradients over micro-batches does not mend."""
    asked, shown = st.columns([2, 5], gap="large")
    with asked:
        offered = [
            key for key, method in METHODS.items() if method.family == "activation" and "vector" in method.layouts
        ]
        first = ("batch_norm", "ghost_batch_norm", "batch_renorm", "layer_norm")
        keys = controls.several("Methods", offered, "accumulate", first, 6)
        batch = controls.select("Samples in the whole batch", (8, 16, 32), "whole", 32)
        ghost = _ghost(batch, "part", 8)
    found = {key: _accumulated(key, batch, ghost) for key in keys}
    parts, colors = next(iter(found.values())).parts, theme.method_colors(keys)
    apart = [METHODS[key].name for key in keys if found[key].gradient[1] > neighbors.ROUNDING]
    words = "All of these give the gradient of the whole batch with two micro-batches."
    if apart:
        words = f"With two micro-batches the accumulated gradient is already another one for {', '.join(apart)}."
    with shown:
        plot(
            by_parts(
                parts,
                {METHODS[key].name: found[key].gradient for key in keys},
                [colors[key] for key in keys],
                ("micro-batches that the batch is fed in", "difference of the gradient"),
            ),
            key="accumulated",
            alt=f"Difference of the accumulated gradient to that of the whole batch of {batch}. {words}",
            height=440,
        )
        st.caption(
            f"{words} The gradient of a linear map in front of the norm, averaged over the micro-batches, against that "
            f"of the batch of {batch} taken whole, as a share of its size; computed by autograd in float64."
        )
    table(
        {
            "method": [METHODS[key].name for key in keys for _ in parts],
            "micro-batches": np.concatenate([found[key].parts for key in keys]),
            "difference of the gradient": np.concatenate([found[key].gradient for key in keys]),
            "difference of the output": np.concatenate([found[key].output for key in keys]),
        },
        key="accumulated",
        file="normcore-accumulation",
        height=260,
    )


def _ghost(batch: int, key: str, default: int = 2) -> int:
    """A ghost batch size that divides the batch."""
    sizes = [n for n in (1, 2, 4, 8, 16, 32, 64, 128, 256) if n <= batch]
    size: int = controls.select("Ghost batch size", sizes, key, default if default in sizes else sizes[-1])
    return size
