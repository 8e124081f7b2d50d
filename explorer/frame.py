"""What surrounds every page: its name, its navigation, its logo."""

from pathlib import Path

import streamlit as st

from explorer.contents import PAGES

HERE = Path(__file__).parent

st.set_page_config(page_icon=str(HERE / "icon.svg"), layout="wide")
st.logo(str(HERE / "icon.svg"), size="large")
st.html(HERE / "frame.css")

pages = {
    st.Page(f"../pages/{file}", title=name, icon=icon, url_path=address, default=not address, help=purpose): question
    for file, name, question, icon, address, purpose in PAGES
}
page = st.navigation(list(pages), position="top")
st.set_page_config(page_title=pages[page])
page.run()
