"""What does it do to my numbers? Before and after, region by region, up to four methods side by side."""

import streamlit as st

from explorer import controls, detector, source
from explorer.backward_view import behind, way_back
from explorer.statistics_view import Scene, as_table, before_and_after, by_region, elsewhere
from normcore import METHODS
from normcore.core import AXIS_WORDS, LAYOUTS, LETTERS, NormcoreError, axis_sizes
from normcore.lab.functions import ACTIVATIONS
from normcore.lab.numbers import OWN, WHOLE, measure

CLASSICS = ["batch_norm", "layer_norm", "instance_norm"]
FIRST = {"activation": CLASSICS, "weight": ["weight_norm", "weight_standardization"]}
PRESETS = {
    "Offsets between channels": {"input": "channel offsets", "layout": "image", "method": CLASSICS},
    "Features of unlike scale": {"input": "mixed scales", "layout": "image", "method": ["batch_norm", "layer_norm"]},
    "Padding": {"input": "padded sentences", "method": ["batch_norm", "masked_batch_norm", "layer_norm"]},
    "Outliers": {"input": "outliers", "layout": "image", "method": ["batch_norm", "l1_batch_norm", "dynamic_tanh"]},
    "A trained net": {"input": "trained net", "method": CLASSICS},
    "Photographs": {"input": "photographs", "method": ["instance_norm", "layer_norm", "local_contrast_norm"]},
}

controls.begin()
st.title("What does it do to my numbers?")
st.markdown(
    "Most methods **measure a mean and a deviation in each region and take both out**: what made regions differ is "
    "gone, what differs within a region stays. Choose numbers, and see them before and after."
)
controls.presets(PRESETS)

with st.sidebar:
    given, short = source.choose()
    family = "activation" if given.layout in LAYOUTS["activation"] else "weight"
    offered = [key for key, method in METHODS.items() if (method.family == "activation") == (family == "activation")]
    where = "method" if family == "activation" else "weight_method"
    others = elsewhere(where, offered)
    keys = controls.several("Methods", offered, where, FIRST[family], 4)
    by = controls.choose("Look at", (OWN, *(AXIS_WORDS[letter] for letter in LETTERS[given.layout]), WHOLE), "by")
    whole = (
        given.mask is not None and controls.choose("Count", ("real tokens", "padding too"), "count") != "real tokens"
    )
    activation = controls.choose("Activation function behind", list(ACTIVATIONS), "activation")
    chosen = [METHODS[key] for key in keys]
    settings = controls.settings(chosen, axis_sizes(given.shape, given.layout))

alerts = st.container()
found = []
for method in chosen:
    try:
        found.append(measure(method.key, given, by, activation, whole, **settings[method.key]))
    except NormcoreError as error:
        st.warning(f"{error}.", icon=":material/block:")
st.caption(given.note)
if found:
    scene = Scene(given, found, settings, activation)
    with st.container(key="pictures"):
        for numbers, place in zip(found, st.columns(len(found), gap="medium"), strict=True):
            with place:
                st.markdown(f"## {METHODS[numbers.key].name}")
                before_and_after(scene, numbers, height=460)
                detector.warn(numbers.key, given.x, given.layout, settings[numbers.key])
    names = ("Mean and deviation by region", "γ, β and the activation function", "Backward", "Table")
    parts = zip(st.tabs(names, key="part", bind="query-params"), (by_region, behind, way_back, as_table), strict=True)
    for tab, show in parts:
        if tab.open:
            with tab:
                show(scene)
# The controls in the tabs have their say too.
with alerts:
    for sentence in filter(None, [short, *others, *controls.notices()]):
        st.warning(sentence, icon=":material/info:")
