"""What surrounds every page: its name, its navigation, its logo."""

from collections import defaultdict
from pathlib import Path

import streamlit as st

from explorer.contents import PAGES
from explorer.courtesy import COURTESY

HERE = Path(__file__).parent

st.set_page_config(page_icon=str(HERE / "icon.svg"), layout="wide")
st.logo(str(HERE / "icon.svg"), size="large")
st.html(HERE / "frame.css")

questions, sections = {}, defaultdict(list)
for section, file, name, question, icon, address, purpose in PAGES:
    one = st.Page(f"../pages/{file}", title=name, icon=icon, url_path=address, default=not address, help=purpose)
    sections[section].append(one)
    questions[one] = question
page = st.navigation(sections, position="top")
st.set_page_config(page_title=questions[page])
with COURTESY.answering():
    page.run()
