"""Which one trains better? The same net with different norms, trained side by side while you look."""

import streamlit as st

from explorer import controls
from explorer.race_setup import setup
from explorer.race_view import live

controls.begin()
st.title("Which one trains better?")
st.markdown("That depends on **the batch, the net and the learning rate**, and one run proves little.")
told = st.container()
with st.sidebar:
    race = setup()
told.markdown(f"Here all contestants {race.fair}.")
live(race)
for sentence in [*race.notes, *controls.notices()]:
    told.warning(sentence, icon=":material/info:")
