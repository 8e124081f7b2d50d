"""An empty page: what Streamlit itself takes for a rerun."""

import streamlit as st

st.write("value", st.slider("N", 1, 64, 4, key="N"))
