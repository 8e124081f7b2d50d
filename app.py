"""The front door: `streamlit run app.py` finds `app`. The pages start in explorer/frame.py."""

import streamlit as st

from explorer.errors import on_script_error
from explorer.serving import MIDDLEWARE, ROUTES
from explorer.warm import lifespan

app = st.App(
    "explorer/frame.py",
    lifespan=lifespan,
    routes=ROUTES,
    middleware=MIDDLEWARE,
    on_script_error=on_script_error,
)
