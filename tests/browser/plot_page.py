"""The page behind plot_app.py: every ability of the plot component, with switches that change what is drawn."""

import math

import plotly.graph_objects as go
import streamlit as st
from block_samples import SAMPLES

from explorer.plot import Live, missing, picked, plot

st.set_page_config(layout="wide")
first = st.segmented_control("first", list(SAMPLES), default="batch", key="first", bind="query-params")
second = st.toggle("second plot", key="second", bind="query-params")
height = st.select_slider("height", [240, 300, 360, 440, 560], value=300, key="height", bind="query-params")
state = st.session_state
state.setdefault("clicks", [])
state.setdefault("called", [])

left, right = st.columns(2)
with left:
    pick = plot(
        SAMPLES[first],
        key="left",
        alt=f"The {first} picture",
        height=height,
        camera_group="pair",
        on_pick=lambda: state.called.append(picked("left").cell),
    )
    if pick:
        state.clicks.append(pick.cell)
if second:
    with right:
        plot(SAMPLES["group lit"], key="right", alt="A second picture", height=height, camera_group="pair")
st.text(f"clicks: {state.clicks} called: {state.called}")

count = st.slider("points", 0, 40, 10, key="points")
waves = go.Figure(
    [
        go.Scatter(x=list(range(count)), y=[math.sin(phase + i / 4) for i in range(count)], name=f"wave {phase}")
        for phase in range(3)
    ]
)
waves.update_layout(xaxis_title="step", yaxis_title="loss", meta={"points": count})
plot(waves, key="flat", alt=f"{count} points", height=240)

# A live run: "append" sends three points, "drop" lets three points get lost on the way, "restart" begins a new run.
state.setdefault("run", 0)
state.setdefault("sent", 0)
state.setdefault("made", 0)
row = st.columns(3)
if row[0].button("append", key="append"):
    state.made += 3
if row[1].button("drop", key="drop"):
    state.made += 3
    state.sent += 3
if row[2].button("restart", key="restart"):
    state.run, state.sent, state.made = state.run + 1, 0, 0
run = f"run {state.run}"
asked = missing("live", run)
start = state.sent if asked is None else asked
steps = list(range(start, state.made))
curves = go.Figure([go.Scatter(x=[], y=[], name=name, mode="lines+markers") for name in ("one", "two")])
values = [[math.nan if step == 4 else step * factor for step in steps] for factor in (1, 2)]
plot(curves, key="live", alt="a live run", height=200, live=Live(run, start, [steps, steps], values))
state.sent = state.made
st.text(f"asked: {asked} made: {state.made}")
