"""The numbers that a page works on: made by a recipe, from a small net, from photographs, or a visitor's own."""

import streamlit as st

from explorer import controls, uploads
from normcore.core import LAYOUTS, LETTERS, NormcoreError
from normcore.lab import inputs
from normcore.lab.inputs import Input

NET, PHOTOGRAPHS, OWN = "trained net", "photographs", "my own file"
SOURCES = (*inputs.MADE, NET, PHOTOGRAPHS, OWN)
USUAL = {"n": 4, "c": 6, "t": 10, "l": 32, "d": 3, "h": 8, "w": 8}
LARGEST = {"n": 64, "c": 64, "t": 64, "l": 128, "d": 4, "h": 32, "w": 32}
# Some methods for weights work on the square of all that an output unit sees, and their gradients on more.
USUAL_WEIGHT = {"o": 6, "i": 6, "l": 5, "d": 2, "h": 3, "w": 3}
LARGEST_WEIGHT = {"o": 32, "i": 8, "l": 9, "d": 2, "h": 3, "w": 3}


def choose() -> tuple[Input, str]:
    """The controls for an input, the input, and a sentence where it is not what was asked for."""
    source = controls.pick("Numbers", SOURCES, "input", "channel offsets")
    if source == NET:
        stage = controls.choose("Layer", list(inputs.STAGES), "stage")
        state = controls.choose("The net is", ("trained", "fresh"), "net")
        return inputs.activations(stage, state == "trained"), ""
    if source == PHOTOGRAPHS:
        return inputs.photographs(controls.choose("Photograph", inputs.PHOTOGRAPHS, "photograph", "both")), ""
    if source == OWN:
        return _own()
    layouts = inputs.MADE[source][1]
    usual = "image" if "image" in layouts else layouts[0]
    layout = controls.pick("Layout", layouts, "layout", usual) if len(layouts) > 1 else usual
    activation = layout in LAYOUTS["activation"]
    sizes = (USUAL, LARGEST) if activation else (USUAL_WEIGHT, LARGEST_WEIGHT)
    asked = controls.sizes(layout, *sizes)
    seed = controls.select("Random draw", range(10), "seed", 0)
    shape = inputs.fitted(asked)
    short = f"{asked} are too many values to compute with at once; shown are {shape}." if shape != asked else ""
    return inputs.made(source, shape, layout, seed), short


def _own() -> tuple[Input, str]:
    """A visitor's file; without one that can be read, other numbers stand in and the page stays as it is."""
    file = controls.upload("A file of numbers", uploads.TYPES, uploads.MEGABYTES, "file")
    st.caption("A .npy array, a picture, or a CSV table with a sample a line. Only you see it, until you leave.")
    stand_in = inputs.made("normal", (4, 6, 8, 8), "image")
    if file is None:
        return stand_in, "Choose a file in the sidebar. Until then, normal values stand in."
    try:
        found = _read(*file)
        layout = found.layouts[0]
        if len(found.layouts) > 1:
            words = {f"{name} ({' '.join(LETTERS[name])})": name for name in found.layouts}
            layout = words[controls.pick("Its axes", list(words), "axes", next(iter(words)))]
        return inputs.own(found.values, layout, found.name), ""
    except NormcoreError as error:
        return stand_in, f"{error}. Until then, normal values stand in."


@st.cache_data(max_entries=1, show_spinner=False, scope="session")
def _read(data: bytes, name: str) -> uploads.Upload:
    """A file is read once, and kept for its own visitor only."""
    return uploads.read(data, name)
