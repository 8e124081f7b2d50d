"""The idea in one live picture, and the questions that lead on from it."""

import streamlit as st

from explorer import controls
from explorer.contents import PAGES
from explorer.region_view import View, hero
from normcore import METHODS

QUESTIONS: dict[str, dict[str, str | list[str]]] = {
    "Is LayerNorm GroupNorm with one group?": {"method": ["layer_norm", "group_norm"], "num_groups": "1"},
    "What is left of a batch of two?": {"layout": "vector", "N": "2", "method": ["batch_norm", "layer_norm"]},
    "What does LayerNorm mean for tokens?": {"layout": "tokens", "method": ["layer_norm", "instance_norm", "rms_norm"]},
    "Which inputs really move an output?": {"show": "measured", "n": "1", "c": "2", "h": "1", "w": "1"},
    "How does a real ResNet layer look?": {"N": "32", "C": "256", "H": "56", "W": "56", "num_groups": "32"},
    "What is normalized in weight space?": {
        "layout": "conv2d",
        "weight_method": ["weight_norm", "weight_standardization"],
    },
}
SHOWN = ("batch_norm", "layer_norm", "instance_norm", "group_norm")

controls.begin()
words, picture = st.columns([5, 6], gap="large", vertical_alignment="center")
with words:
    st.title("See what normalization does")
    st.markdown(
        "Every normalization method says three things: **who shares a statistic**, which statistic, and what is done "
        "with it. The first is a shape in your tensor. Turn it, and the methods stop looking alike."
    )
    key = controls.choose("Method", SHOWN, "picture", label_visibility="collapsed")
    st.markdown(f"**{METHODS[key].name}**, {METHODS[key].paper.year}. {METHODS[key].why}")
    st.page_link("../pages/regions.py", label="Choose your own tensor", icon=":material/arrow_forward:")
with picture:
    hero(METHODS[key], View((4, 6, 4, 4), "image", True, None, False, False))

st.subheader("Questions to start from")
for row in (list(QUESTIONS)[:3], list(QUESTIONS)[3:]):
    for question, place in zip(row, st.columns(3, gap="medium"), strict=True):
        with place, st.container(border=True, height="stretch"):
            st.page_link(
                "../pages/regions.py", label=question, icon=":material/view_in_ar:", query_params=QUESTIONS[question]
            )

st.subheader("What each page answers")
pages = [page for page in PAGES if page[1] != "home.py"]
for first in range(0, len(pages), 4):
    for (_, file, _, question, icon, _, purpose), place in zip(
        pages[first : first + 4], st.columns(4, gap="medium"), strict=False
    ):
        with place, st.container(border=True, height="stretch"):
            st.page_link(f"../pages/{file}", label=f"**{question}**", icon=icon)
            st.caption(purpose)

st.caption(
    f"{len(METHODS)} methods, each checked against another package or a literal formula, and each drawn region "
    "against the derivatives that autograd measures."
)
