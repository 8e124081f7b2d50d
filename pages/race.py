"""Which one trains better? The same net with different norms, trained side by side while you look."""

from typing import Any

import streamlit as st

from explorer import controls
from explorer.race_setup import setup
from explorer.race_view import live

CLASSIC = ["batch_norm", "layer_norm", "group_norm"]
PLAIN: dict[str, Any] = {
    **{"task": "Threshold of a sum", "model": "MLP", "vary": "methods alone", "batch": 64, "rate": 1e-3},
    **{"steps": 800, "seeds": 4, "width": 50, "depth": 1, "activation": "relu", "optimizer": "adam", "clip": "none"},
}
PRESETS: dict[str, dict[str, Any]] = {
    "The classic comparison": {"racer": CLASSIC, "num_groups": 5, "seeds": 12},
    "Does a larger batch calm it?": {
        **{"racer": CLASSIC[:2], "vary": "batch sizes", "batch_sizes": ["64", "512"], "seeds": 12},
    },
    "Ever smaller batches": {
        **{"task": "Digits", "model": "CNN", "racer": ["batch_norm", "group_norm"], "num_groups": 4},
        **{"vary": "strip of batch sizes", "steps": 100, "seeds": 2, "width": 16, "depth": 2},
    },
    "Who takes which learning rate?": {
        **{"racer": ["none", *CLASSIC], "vary": "strip of learning rates", "steps": 200, "depth": 4},
        **{"optimizer": "sgd"},
    },
}

controls.begin()
st.title("Which one trains better?")
st.markdown("That depends on **the batch, the net and the learning rate**, and one run proves little.")
controls.presets(PRESETS, PLAIN)
told = st.container()
with st.sidebar:
    race = setup()
told.markdown(f"Here all contestants {race.fair}.")
live(race)
for sentence in [*race.notes, *controls.notices()]:
    told.warning(sentence, icon=":material/info:")
