"""The Statistics page, beyond the norm: the activation function behind it, and the way back through it."""

from typing import Any

import numpy as np
import streamlit as st
import torch

from explorer import controls
from explorer.plot import plot
from explorer.statistics_view import Scene, in_words, rounded
from explorer.table import table
from normcore import METHODS
from normcore.core import LETTERS, NormcoreError
from normcore.figures import affine, theme
from normcore.figures import backward as figures
from normcore.figures.heat import heat, number
from normcore.lab.backward import Backward, backward, epsilons
from normcore.lab.functions import ACTIVATIONS
from normcore.lab.numbers import given_back
from normcore.lab.spread import density

GAINS = (0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
BIASES = tuple(step / 2 for step in range(-8, 9))

POINTS = 80
"""How many elements a gradient is drawn at."""

NEAR = 8.0
"""How far from 0 an activation function is drawn."""


def behind(scene: Scene) -> None:
    """What an activation function does with the values before, after, and after γ and β."""
    with st.container(horizontal=True):
        gain = controls.select("Gain γ", GAINS, "gain", 1.0)
        bias = controls.select("Bias β", BIASES, "bias", 0.0)
    function = ACTIVATIONS[scene.activation]
    counted = scene.found[0].counted
    x = scene.found[0].x[counted]
    outputs = {METHODS[n.key].name: (n.y[counted], scene.colors[n.key]) for n in scene.found}
    rows = [("before", function.shares(x))]
    lines = [("before", x, theme.NEUTRAL["$muted"], True)]
    moved = (gain, bias) != (1.0, 0.0)
    for name, (y, color) in outputs.items():
        rows.append((f"{name}", function.shares(y)))
        if moved:
            rows.append((f"{name}, γ and β", function.shares(gain * y + bias)))
        lines.append((name, gain * y + bias, color, False))
    places = np.linspace(-NEAR, NEAR, 161)
    drawn = []
    for name, values, color, dashed in lines:
        d = density(values[np.abs(values) <= NEAR])
        drawn.append((name, d.start + d.step * np.arange(len(d.height)), d.height, color, dashed))
    left, right = st.columns([5, 6], gap="large")
    with left:
        points = function.value(torch.as_tensor(places)).numpy()
        figure = affine.curves(places, points, function.name, _zones(function, places), drawn)
        named = ", ".join(outputs)
        alt = f"{function.name} with its saturated and linear part, and where the values lie: before, {named}."
        plot(figure, key="function", alt=alt, height=400)
    with right:
        alt = "; ".join(f"{name}: {flat:.0%} saturated, {line:.0%} linear" for name, (flat, _, line) in rows)
        plot(affine.shares(rows), key="shares", alt=alt, height=max(200, 90 + 44 * len(rows)))
    st.caption(
        f"Linear part: where the slope of {function.name} is at least nine tenths of "
        f"{'its steepest' if function.steepest <= 1 else '1'}; saturated: at most a tenth of its steepest."
    )
    with st.expander("The shares as a table"):
        columns: dict[str, list[Any]] = {"Values": [name for name, _ in rows]}
        kinds = ("Saturated share", "Share between", "Linear share")
        columns |= {kind: [found[i] for _, found in rows] for i, kind in enumerate(kinds)}
        with_both = [name.endswith("γ and β") for name, _ in rows]
        columns |= {
            "Gain γ": [gain if m else 1.0 for m in with_both],
            "Bias β": [bias if m else 0.0 for m in with_both],
        }
        table(columns, key="shares_numbers", file="shares")
    back = [
        f"{METHODS[n.key].name} **{share:.0%}**"
        for n in scene.found
        if np.isfinite(share := given_back(n, scene.given.layout))
    ]
    if back:
        st.markdown(
            "**What γ and β can give back.** With the best γ and β of its own, a channel gets back this share of its "
            f"variance, on average: {', '.join(back)}. What happened to the whole channel alike can be undone; "
            "what differed within the channel is gone."
        )


def _zones(function: Any, places: np.ndarray) -> list[tuple[float, float, str]]:
    """The stretches of the axis where the function is saturated or linear."""
    fine = np.linspace(places[0], places[-1], 1601)
    kinds = np.where(function.flat(fine), 1, np.where(function.linear(fine), 2, 0))
    edges = np.flatnonzero(np.diff(kinds)) + 1
    starts, stops = np.concatenate([[0], edges]), np.concatenate([edges, [len(fine)]]) - 1
    named = {1: "flat", 2: "linear"}
    return [
        (float(fine[a]), float(fine[b]), named[int(kinds[a])])
        for a, b in zip(starts, stops, strict=True)
        if kinds[a] in named
    ]


def way_back(scene: Scene) -> None:
    """The Jacobian of one region, what a gradient loses, and what ε does."""
    by_name = {METHODS[numbers.key].name: numbers for numbers in scene.found}
    with st.container(horizontal=True):
        name = controls.choose("Of", list(by_name), "of") if len(by_name) > 1 else next(iter(by_name))
        numbers = by_name[name]
        groups = numbers.groups
        choice = [int(group) for group in groups.chosen if numbers.before.size[group]]
        region = controls.select("Region", choice, "region", choice[0], groups.name)
    settings = scene.settings[numbers.key]
    try:
        found = backward(scene.given, numbers, region, **settings)
    except NormcoreError as error:
        st.warning(str(error), icon=":material/info:")
        return
    left, right = st.columns([5, 6], gap="large")
    with left:
        jacobian(name, groups.name(region), found)
    with right:
        gradient(name, groups.name(region), found)
    lines = []
    for other in scene.found:
        tried = epsilons(scene.given, other, **scene.settings[other.key])
        if tried is not None and tried.eps.size:
            color = scene.colors[other.key]
            lines.append((METHODS[other.key].name, tried.eps, tried.std, tried.current, color))
    if lines:
        st.markdown("**What ε does**: it keeps the division safe, and takes from the deviation where it is not small")
        alt = "; ".join(f"{label}: deviation {in_words(std)}" for label, _, std, _, _ in lines)
        plot(figures.epsilon_lines(lines), key="epsilon", alt=alt, height=300)
    numbers_behind = st.expander("The numbers as tables", key="way_back", on_change="rerun", bind="query-params")
    if numbers_behind.open:
        with numbers_behind:
            _tables(scene, found, lines)


def _tables(scene: Scene, found: Backward, lines: list[Any]) -> None:
    """What is drawn here, from the same arrays; the gradients at every element of the region."""
    st.markdown("**The Jacobian**")
    many = len(found.names)
    jacobian = {
        "Output at": np.repeat(found.names, many),
        "Input at": np.tile(found.names, many),
        "Input x there": np.tile(found.inputs, many),
        "∂y/∂x": found.jacobian.reshape(-1),
    }
    table(jacobian, key="jacobian_numbers", file="jacobian", height=260)
    st.markdown("**The gradients**")
    places = np.unravel_index(found.members, scene.given.shape)
    columns: dict[str, Any] = dict(zip(LETTERS[scene.given.layout], places, strict=True))
    columns |= {"Output y": found.outputs, **dict(_series(found))}
    table(columns, key="gradient_numbers", file="gradients", height=260)
    if lines:
        st.markdown("**What ε does**")
        columns = {
            "Method": [name for name, eps, _, _, _ in lines for _ in eps],
            "ε": np.concatenate([eps for _, eps, _, _, _ in lines]),
            "Mean deviation after": np.concatenate([std for _, _, std, _, _ in lines]),
        }
        table(columns, key="epsilon_numbers", file="epsilon", height=260)


def _series(found: Backward) -> tuple[tuple[str, np.ndarray], ...]:
    return (
        ("arriving", found.arriving),
        ("without its mean", found.centered),
        ("and without its part along y", found.orthogonal),
        (f"leaving, by autograd, × {found.factor:.3g}", found.leaving),
    )


def jacobian(name: str, region: str, found: Backward) -> None:
    """How much each output moves with each input, on a scale that shows the small numbers beside the diagonal."""
    st.markdown("**The Jacobian**: how each output moves with each input")
    diagonal = found.jacobian.diagonal()
    others = found.jacobian[~np.eye(len(diagonal), dtype=bool)]
    reach = float(np.abs(others).max()) if np.any(others) else float(np.abs(diagonal).max())
    every = 1 if len(found.inputs) <= 8 else 3
    values = [f"{x:.2g}".replace("-", "−") if i % every == 0 else "" for i, x in enumerate(found.inputs.tolist())]
    hover = [
        [
            f"output at {row}, input at {column}<br>∂y/∂x = {number(float(slope))}"
            for column, slope in zip(found.names, line, strict=True)
        ]
        for row, line in zip(found.names, found.jacobian, strict=True)
    ]
    figure = heat(
        found.jacobian,
        values,
        values,
        title="∂y/∂x",
        row_title="output at the element of input x",
        column_title="input x",
        diverging=True,
        limits=(-reach, reach),
        hover=np.array(hover),
        square=True,
    )
    alt = f"{name}, {region}: ∂y/∂x among {len(values)} elements; diagonal {in_words(diagonal)}."
    plot(figure, key="jacobian", alt=alt, height=420)
    part = f"{len(values)} of the {len(found.outputs):,}" if len(values) < len(found.outputs) else f"All {len(values)}"
    beyond = ", beyond the scale" if np.any(others) and np.abs(diagonal).max() > reach else ""
    beside = f" Beside it: {in_words(others)}." if others.size else ""
    st.caption(f"{part} elements of {region}, by their value. Diagonal: {in_words(diagonal)}{beyond}.{beside}")


def gradient(name: str, region: str, found: Backward) -> None:
    """What a gradient with a mean and a part along the output loses on its way back."""
    st.markdown("**A gradient on its way back**: what it loses")
    shown = np.unique(np.linspace(0, len(found.outputs) - 1, min(len(found.outputs), POINTS)).round().astype(int))
    told = (
        f"Its mean goes from {rounded(found.mean[0])} to {rounded(found.mean[1])}, the cosine of its angle with the "
        f"output less its mean from {rounded(found.along[0])} to {rounded(found.along[1])}."
    )
    figure = figures.gradients(found.outputs, _series(found), shown)
    plot(figure, key="gradient", alt=f"{name}, {region}: {told}", height=420)
    gap = float(np.abs(found.leaving - found.orthogonal).max())
    st.caption(
        f"{told} Autograd's gradient, times {found.factor:.3g} (the region's deviation before over that after), "
        f"differs from the arriving one without mean and part along y by at most {_power(gap)}; "
        f"at elements outside the region autograd's is at most {_power(found.outside)}."
    )


def _power(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}".replace("-", "−")
