"""When are two norms the same? Every two methods compared by their outputs, their regions, and what they learn."""

import streamlit as st

from explorer import controls, detector
from explorer.equality_setup import STARTERS, setup
from explorer.equality_view import which_are_equal
from explorer.invariance_view import what_moves_it

PLAIN = {
    "layout": "image",
    "set": STARTERS,
    "mode": "training",
    **{"N": 4, "C": 6, "H": 4, "W": 4, "num_groups": 2, "ghost_batch_size": 2, "unbiased": controls.PUBLISHED},
}
PRESETS = {
    "One group": {"num_groups": 1, "one": "layer_norm", "other": "group_norm"},
    "A group for each channel": {"num_groups": 6, "one": "instance_norm", "other": "group_norm"},
    "Ghost batches of one": {"ghost_batch_size": 1, "one": "ghost_batch_norm", "other": "instance_norm"},
    "One sample": {"N": 1, "ghost_batch_size": 1, "one": "batch_norm", "other": "instance_norm"},
    "Images of one pixel": {"H": 1, "W": 1, "unbiased": False, "one": "layer_norm", "other": "positional_norm"},
    "Tokens": {"layout": "tokens", "unbiased": False, "T": 6, "one": "layer_norm", "other": "positional_norm"},
}

controls.begin()
st.title("When are two norms the same?")
st.markdown(
    "Two norms are the same **when the same elements share a statistic and the same is done with it**; two layers, "
    "only when they also learn parameters of the same shape. Move the sliders, and watch edges snap to “equal”."
)
controls.presets(PRESETS, PLAIN)
with st.sidebar:
    here = setup()
told = st.container()
detector.tell([(key, detector.at_shape(key, *here.asked(key))) for key in here.keys], folded=True)
equal, moved = st.tabs(
    ["Which are equal?", "What moves their output?"], key="tab", on_change="rerun", bind="query-params"
)
if not here.keys:
    st.warning(" ".join(here.left_out), icon=":material/block:")
elif equal.open:
    with equal:
        which_are_equal(here)
elif moved.open:
    with moved:
        what_moves_it(here)
for sentence in controls.notices():
    told.warning(sentence, icon=":material/info:")
