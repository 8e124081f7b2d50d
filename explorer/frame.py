"""What surrounds every page: its name, its navigation, its logo."""

from pathlib import Path

import streamlit as st

HERE = Path(__file__).parent

# file, title, icon, address, what it is for
PAGES = (
    ("home.py", "normcore", ":material/deployed_code:", "", "What normalization does, and where to look at it."),
    (
        "regions.py",
        "Who shares a statistic?",
        ":material/view_in_ar:",
        "regions",
        "See which elements of a tensor every method normalizes together.",
    ),
    (
        "catalogue.py",
        "Which methods are there?",
        ":material/grid_view:",
        "catalogue",
        "Every normalization and clipping method, with a picture and a line each.",
    ),
    (
        "method.py",
        "What is this method?",
        ":material/menu_book:",
        "method",
        "Formula, settings, equalities, checks, cost and code of one method.",
    ),
)

st.set_page_config(page_icon=str(HERE / "icon.svg"), layout="wide")
st.logo(str(HERE / "icon.svg"), size="large")
st.html(HERE / "frame.css")

pages = [
    st.Page(f"../pages/{file}", title=title, icon=icon, url_path=address, default=not address, help=purpose)
    for file, title, icon, address, purpose in PAGES
]
st.navigation(pages, position="top").run()
