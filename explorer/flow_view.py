"""The Gradient flow page at the first weights: every layer's gradient, the Jacobian, a diagnosis, and every switch."""

from functools import partial
from typing import Any

import numpy as np
import streamlit as st

from explorer import flow_words
from explorer.flow_setup import Setup, called, flip
from explorer.flow_words import said
from explorer.plot import plot
from explorer.table import table
from normcore import NormcoreError
from normcore.figures import flow as figures
from normcore.lab.flow import FEW, Profile, profile
from normcore.lab.flow_nets import Wiring
from normcore.lab.flow_remedies import AS_IT_IS, Remedy, switches


@st.cache_data(max_entries=256, show_spinner=False)
def measured(wiring: Wiring, seed: int) -> Profile:
    """A net at its first weights."""
    return profile(wiring, seed)


@st.cache_data(max_entries=256, show_spinner=False)
def switched(wiring: Wiring, seed: int) -> tuple[tuple[Remedy, float], ...]:
    """Every single switch from here."""
    return switches(wiring, seed)


def diagnosed(setup: Setup) -> Profile | None:
    """The diagnosis in a sentence, from the measured numbers; None where the net cannot be built."""
    if setup.problem:
        st.warning(setup.problem, icon=":material/block:")
        return None
    try:
        found = measured(setup.wiring, setup.seed)
    except NormcoreError as error:
        st.warning(f"{error}.", icon=":material/block:")
        return None
    st.markdown(flow_words.diagnosis(setup.wiring, found))
    return found


def at_the_start(setup: Setup, found: Profile) -> None:
    """All layers and the Jacobian, drawn as soon as they are measured; then every switch, which takes longer."""
    left, right = st.columns([7, 5], gap="large")
    with left:
        _layers(setup, found)
    with right:
        st.markdown("**Every single switch from here**")
        place = st.container()
        st.markdown("**Singular values of the Jacobian**, from the first layer's output to the last one's")
        _singular(setup, found)
    below = st.container()
    with place:
        tried = _switches(setup, found)
    with below.expander("The numbers as tables", key="numbers", on_change="rerun", bind="query-params") as numbers:
        if numbers.open:
            _tables(setup, found, tried)


def advise(setup: Setup, found: Profile) -> None:
    """The switch to try next, and a button that flips it."""
    sentence, remedy = flow_words.next_switch(found, switched(setup.wiring, setup.seed), setup.seed)
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        st.markdown(sentence)
        if remedy is not None:
            st.button(
                "Flip it", on_click=partial(flip, remedy, setup.wiring), key="flip", icon=":material/switch_right:"
            )


def _layers(setup: Setup, found: Profile) -> None:
    layers, unit = found.layers, setup.unit
    st.markdown(f"**Every {unit} at its first weights**, one pass there and back")
    alt = (
        f"{called(setup.wiring)}: the gradient's length goes from {said(float(layers.gradient[-1]))} at the last "
        f"{unit} to {said(float(layers.gradient[0]))} at the first, the spread of the outputs from "
        f"{said(float(layers.spread[0]))} to {said(float(layers.spread[-1]))}; "
        f"{layers.flat.mean():.0%} of the activation functions' inputs are saturated."
    )
    figure = figures.layers(layers.gradient, layers.weights, layers.spread, layers.flat, unit)
    plot(figure, key="layers", alt=alt, height=620)
    shared = "" if layers.weights.size else " All time steps share their weights, so that these have no gradient each."
    st.caption(
        f"{called(setup.wiring)}; batch of {setup.wiring.batch}, loss {said(layers.loss)}, float64. Saturated: where "
        f"the slope is at most a tenth of the function's steepest; half of a centered ReLU's inputs are.{shared}"
    )


def _singular(setup: Setup, found: Profile) -> None:
    values = found.singular
    if not np.isfinite(values).all():
        st.caption("The Jacobian holds something that is no finite number.")
        return
    if values[0] == 0:
        st.caption("All singular values are exactly 0: the first layer no longer moves the last one.")
        return
    sure = values[values >= found.floor]
    told = f"from {said(float(values[0]))} down to {said(float(sure[-1]))}"
    lost = len(values) - len(sure)
    alt = f"Singular values of the end-to-end Jacobian, {told}" + (f", {lost} below rounding." if lost else ".")
    plot(figures.singular(values, found.floor), key="singular", alt=alt, height=270)
    hidden = f" {lost} more lie below the rounding error of the largest, {said(found.floor)}." if lost else ""
    among = min(setup.wiring.batch, FEW)
    st.caption(f"Of one example in a batch of {among}, {told}; all 1 would keep every gradient's length.{hidden}")


def _switches(setup: Setup, found: Profile) -> tuple[tuple[Remedy, float], ...]:
    tried = switched(setup.wiring, setup.seed)
    names = [AS_IT_IS, *(remedy.name for remedy, _ in tried)]
    ratios = np.array([found.layers.ratio, *(ratio for _, ratio in tried)])
    told = "; ".join(f"{name} {said(float(ratio))}" for name, ratio in zip(names, ratios, strict=True))
    plot(
        figures.switches(names, ratios, AS_IT_IS),
        key="switches",
        alt=f"First over last layer's gradient for every switch: {told}.",
        height=70 + 23 * len(names),
    )
    return tried


def _tables(setup: Setup, found: Profile, tried: tuple[tuple[Remedy, float], ...]) -> None:
    """What is drawn here, from the same arrays."""
    layers = found.layers
    columns: dict[str, np.ndarray] = {
        setup.unit: np.arange(1, len(layers.gradient) + 1),
        "gradient at the output": layers.gradient,
        "spread of the outputs": layers.spread,
        "saturated share": layers.flat,
        "slope, root mean square": layers.slope,
    }
    if layers.weights.size:
        columns["gradient of the weights"] = layers.weights
    table(columns, key="layer_numbers", file="gradient-flow", height=260)
    places = np.arange(1, len(found.singular) + 1)
    table({"place": places, "singular value": found.singular}, key="singular_numbers", file="jacobian", height=260)
    rows = [(AS_IT_IS, found.layers.ratio), *((remedy.name, ratio) for remedy, ratio in tried)]
    switch: dict[str, list[Any]] = {
        "switch": [name for name, _ in rows],
        "first over last gradient": [float(ratio) for _, ratio in rows],
    }
    table(switch, key="switch_numbers", file="switches", height=260)
