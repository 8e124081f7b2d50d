"""A door like app.py that opens on a page made for trying the plot component."""

import streamlit as st

from explorer.errors import on_script_error
from explorer.serving import MIDDLEWARE, ROUTES
from explorer.warm import lifespan

app = st.App("plot_page.py", lifespan=lifespan, routes=ROUTES, middleware=MIDDLEWARE, on_script_error=on_script_error)
