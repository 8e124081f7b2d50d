"""What does clipping do to a gradient? On two numbers, on a cliff, on a real network, and on a visitor's own log."""

import streamlit as st

from explorer import controls
from explorer.cliff_view import cliff
from explorer.log_view import own_log
from explorer.observatory_view import observatory
from explorer.vector_view import two_numbers

controls.begin()
st.title("What does clipping do to a gradient?")
st.markdown(
    "Clipping **bounds how far one step can go**: cut number by number it also turns the step, scaled as a whole it "
    "keeps its direction. Below a threshold it changes nothing."
)
told = st.container()
answers = {"Two numbers": two_numbers, "The cliff": cliff, "A real network": observatory, "Your own log": own_log}
tabs = st.tabs(list(answers), key="tab", on_change="rerun", bind="query-params")
for tab, draw in zip(tabs, answers.values(), strict=True):
    if tab.open:
        with tab:
            draw()
for sentence in controls.notices():
    told.warning(sentence, icon=":material/info:")
