"""What is this method? Everything about one of them, generated from its spec and measured."""

import streamlit as st

from explorer import controls, reference, ways
from explorer.region_view import View, hero
from normcore import diagnose, snippet
from normcore.core import LETTERS

controls.begin()
with st.sidebar:
    method, wrong = ways.chosen()
    layout = controls.pick("Layout", list(method.layouts), "layout", reference.layout_of(method))
    st.caption(f"axes ({' '.join(LETTERS[layout])})")
    st.page_link("../pages/catalogue.py", label="All methods", icon=":material/grid_view:")
    if method.family != "gradient":
        chosen = {"layout": layout, "method" if method.family == "activation" else "weight_method": [method.key]}
        st.page_link(
            "../pages/regions.py", label="On a tensor of your own", icon=":material/view_in_ar:", query_params=chosen
        )
for sentence in [*([wrong] if wrong else []), *controls.notices()]:
    st.warning(sentence, icon=":material/info:")

paper = method.paper
shape = tuple(reference.describe_sizes(layout).values())
settings = reference.fitting(method, shape, layout)
words, picture = st.columns([6, 5], gap="large")
with words:
    st.title(method.name)
    link = f"[arXiv:{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})" if paper.arxiv else ""
    st.caption(f"{paper.authors}, {paper.year}. *{paper.title}*. {link}")
    st.markdown(f"**What it does.** {reference.first_sentence(method)}")
    st.markdown(f"**Why.** {method.why}")
    st.latex(reference.written(method, layout))
    st.caption(reference.symbols(method, layout))
    if reference.explanation(method):
        st.markdown(reference.explanation(method))
    st.markdown(reference.modes(method))
with picture:
    hero(method, View(shape, layout, True, None, False, False), settings)
    for finding in diagnose(method.key, shape, layout, **settings):
        st.warning(f"{finding.sentence} {finding.remedy}", icon=":material/warning:")
    for title, others in zip(("It answers", "Answered by"), ways.relatives(method), strict=True):
        ways.links(title, others)

st.subheader("Settings and tensors")
left, right = st.columns(2, gap="large")
with left:
    reference.parameters(method)
with right:
    reference.layer_tensors(method)

left, right = st.columns(2, gap="large")
with left:
    st.subheader("What it equals")
    reference.equalities(method)
    st.subheader("Who checked it")
    reference.oracles(method)
    if reference.has_cost(method):
        st.subheader("What it costs")
        reference.cost(method)
with right:
    st.subheader("What moves it, and what does not")
    reference.invariances(method, layout)

st.subheader("Code")
names = ["normcore", "PyTorch", "Keras", "JAX (Flax)", "Source", "Citation"]
ours, plain, keras, flax, file, cite = st.tabs(names, key="code", bind="query-params")
with ours:
    st.code(snippet.in_normcore(method, shape, layout, **settings), language="python")
with plain:
    st.code(snippet.in_pytorch(method, shape, layout, **settings), language="python")
for tab, library in ((keras, "keras"), (flax, "flax")):
    with tab:
        reference.equivalent(method, library, shape, layout, settings)
with file:
    st.code(reference.source(method), language="python")
with cite:
    st.code(reference.citation(method), language="bibtex")

with st.container(horizontal=True, horizontal_alignment="distribute"):
    for other, icon in zip(ways.neighbors(method), ("back", "forward"), strict=True):
        if other:
            ways.page_link(other, icon=f":material/arrow_{icon}:")
