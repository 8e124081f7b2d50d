"""Who shares a statistic? Any method, any shape, up to four side by side."""

import time

import streamlit as st

from explorer import controls
from explorer.courtesy import COURTESY
from explorer.region_view import View, code, flat_views, numbers, picture
from normcore import METHODS
from normcore.core import LAYOUTS, axis_sizes

CLASSICS = ["batch_norm", "layer_norm", "instance_norm", "group_norm"]
PRESETS = {
    "GroupNorm paper": {"layout": "image", "N": 4, "C": 6, "H": 4, "W": 4, "num_groups": 2, "method": CLASSICS},
    "ResNet stage": {"layout": "image", "N": 32, "C": 256, "H": 56, "W": 56, "num_groups": 32, "method": CLASSICS},
    "BERT-base": {"layout": "tokens", "N": 8, "T": 128, "C": 768, "method": ["layer_norm", "rms_norm", "batch_norm"]},
    "One sample": {"layout": "image", "N": 1, "C": 6, "H": 4, "W": 4, "num_groups": 2, "method": CLASSICS},
    "Batch of two": {"layout": "vector", "N": 2, "C": 6, "method": ["batch_norm", "layer_norm"]},
}
FIRST = {"activation": CLASSICS, "weight": ["weight_norm"]}
TWO_IN_A_LINE = """
@media (min-width: 641px) {
  .st-key-pictures .stHorizontalBlock:has(> .stColumn) { flex-wrap: wrap; }
  .st-key-pictures .stHorizontalBlock > .stColumn:not(:only-child) { flex: 0 0 calc(50% - 1rem); }
}"""

controls.begin()
st.title("Who shares a statistic?")
st.markdown(
    "A normalization method computes statistics, and **touching elements of one color share them**. "
    "Choose a tensor, and turn it; click an element to see whom it depends on."
)
controls.presets(PRESETS)

with st.sidebar:
    layouts = {layout: family for family in ("activation", "weight") for layout in LAYOUTS[family]}
    layout = controls.pick("Layout", list(layouts), "layout", "image")
    family = layouts[layout]
    st.caption(f"axes ({LAYOUTS[family][layout]})")
    offered = [key for key, method in METHODS.items() if (method.family == "activation") == (family == "activation")]
    keys = controls.several(
        "Methods", offered, "method" if family == "activation" else "weight_method", FIRST[family], 4
    )
    shape = controls.sizes(layout)
    chosen = [METHODS[key] for key in keys]
    settings = controls.settings(chosen, axis_sizes(shape, layout))

with st.container(horizontal=True, key="view"):
    shown = controls.choose("Show", ("declared", "measured"), "show")
    light = (
        controls.ONE if shown == "measured" else controls.choose("Light up", (controls.EVERY, controls.ONE), "light")
    )
    arrangement = controls.choose("Arrange", ("flattened", "samples apart"), "arrange")
    mode = controls.choose("Mode", ("training", "evaluation"), "mode")

# What comes and goes has a place of its own: what stands below it would be taken down and put up again.
element, told = st.container(horizontal=True), st.container()
index = None
if light == controls.ONE:
    with element:
        index = controls.position(layout, shape)
view = View(shape, layout, mode == "training", index, arrangement == "samples apart", shown == "measured")

for sentence in controls.notices():
    told.warning(sentence, icon=":material/info:")
# Pulled apart, pictures are wide. Where they stand is left to a style: in other columns they would be mounted anew.
wide = view.apart or len(chosen) < 3
below = []
st.html(f"<style>{TWO_IN_A_LINE if view.apart else ''}</style>")
with st.container(key="pictures"):
    for method, place in zip(chosen, st.columns(len(chosen), gap="medium"), strict=True):
        with place:
            below.append(picture(method, settings[method.key], view, height=440 if wide else 340))
    for write in below:
        write()
# Formulas take the browser longer than anything else here: it gets to draw the pictures before it hears of them.
with COURTESY.resting():
    time.sleep(0.2)

defined = [method for method in chosen if layout in method.layouts]
# No tabs: whenever anything changes, a browser looks through all of an open tab for something to focus.
below = controls.choose("Below", ("With its numbers", "Flat view", "Code"), "below", label_visibility="collapsed")
with st.container(key="details"):
    if below == "Flat view":
        flat_views(defined, settings, view)
    else:
        for method in defined:
            st.markdown(f"### {method.name}")
            (numbers if below == "With its numbers" else code)(method, settings[method.key], view)
