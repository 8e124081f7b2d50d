"""Which one trains better? The same net with different norms, trained side by side while you look."""

import streamlit as st

from explorer import controls
from explorer.race_setup import setup
from explorer.race_view import live

controls.begin()
st.title("Which one trains better?")
st.markdown(
    "That depends on **the batch, the net and the learning rate**, and one run proves little. Here all "
    "contestants start from the same weights and see the same batches in the same order, over several seeds: "
    "what differs is the norm."
)
told = st.container()
with st.sidebar:
    race = setup()
live(race)
for sentence in [*race.notes, *controls.notices()]:
    told.warning(sentence, icon=":material/info:")
