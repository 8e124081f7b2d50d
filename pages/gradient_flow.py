"""Where does the gradient die or explode? Every remedy of the classic list as a switch, measured layer by layer."""

from typing import Any

import streamlit as st

from explorer import controls
from explorer.flow_runs import cells_and_rates, every_remedy, learning
from explorer.flow_setup import setup
from explorer.flow_view import advise, at_the_start, diagnosed

PLAIN: dict[str, Any] = {
    **{"net": "MLP", "depth": 20, "width": 32, "activation": "sigmoid", "start": "Xavier", "norm": "none"},
    **{"weights": "none", "residual": "off"},
}
PRESETS: dict[str, dict[str, Any]] = {
    "Sigmoids": {},
    "Weights too large": {"activation": "tanh", "start": "large"},
    "ReLU with He": {"activation": "relu", "start": "He"},
    "Norm, no skips": {"activation": "relu", "start": "He", "norm": "batch_norm", "depth": 50},
    "Skips, no norm": {"activation": "relu", "start": "He", "residual": "on", "depth": 50},
    "Orthogonal, linear": {"activation": "linear", "start": "orthogonal", "depth": 50},
    "RNN": {"net": "RNN", "activation": "tanh", "depth": 50},
    "LSTM with LayerNorm": {"net": "LSTM", "norm": "layer_norm"},
}

controls.begin()
st.title("Where does the gradient die or explode?")
st.markdown(
    "On its way back, a gradient is **multiplied once a layer**, by the weights and by the slope of the activation "
    "function: 0.7 a layer leaves a thousandth of it after twenty layers, 1.4 makes it eight hundred times as large. "
    "Flip the switches on the left, and look where it goes."
)
controls.presets(PRESETS, PLAIN)
with st.sidebar:
    chosen = setup()
told = st.container()
found = diagnosed(chosen)
advice = st.container()
start, course, remedies, rates = st.tabs(
    ["At the first weights", "While it learns", "Every remedy, every depth", "Cells and learning rates"],
    key="tab",
    on_change="rerun",
    bind="query-params",
)
if start.open and found is not None:
    with start:
        at_the_start(chosen, found)
if course.open:
    with course:
        learning(chosen)
if remedies.open:
    with remedies:
        every_remedy(chosen)
if rates.open:
    with rates:
        cells_and_rates()
if found is not None:
    with advice:
        advise(chosen, found)
for sentence in controls.notices():
    told.warning(sentence, icon=":material/info:")
