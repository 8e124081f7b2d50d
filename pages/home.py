"""The idea in one live picture."""

import streamlit as st

st.title("normcore")
