"""Which methods are there? All of them, with a picture each, and the tree that they form."""

import streamlit as st

from explorer import controls
from explorer.plot import plot
from explorer.reference import card, found
from normcore import METHODS
from normcore.describe import KINDS, kind
from normcore.figures.tree import Entry, family_tree

controls.begin()
st.title("Which methods are there?")
st.markdown(
    f"{len(METHODS)} methods, each a few lines with a source and a check against somebody else's answer. "
    "**Equal colors share a statistic.**"
)
with st.container(horizontal=True, vertical_alignment="bottom"):
    words = controls.text("Search", "find", "a name, an author, a year, a purpose")
    shown = controls.choose("Kind", ("All", *KINDS), "kind")
    view = controls.choose("As", ("Cards", "Family tree"), "as")
for sentence in controls.notices():
    st.warning(sentence, icon=":material/info:")

kinds = KINDS if shown == "All" else (shown,)
methods = found(words, kinds)
if not methods:
    st.info(f"No method here matches “{words}”. Try a shorter word, or another kind.", icon=":material/search_off:")
elif view == "Family tree":
    entries = [Entry(m.key, m.name, m.paper.year, kind(m), m.builds_on, m.why) for m in methods]
    lanes = [name for name in kinds if any(entry.lane == name for entry in entries)]
    figure, keys = family_tree(entries, lanes)
    st.caption("A line leads from a method to one that answers its shortcoming. Point at a name for what it answered.")
    click = plot(
        figure,
        key="tree",
        alt=f"{len(entries)} methods from {min(e.year for e in entries)} to {max(e.year for e in entries)}, by kind.",
        height=max(320, 24 * sum(1 for _ in entries)),
    )
    if click and click.trace == 1:
        st.switch_page("../pages/method.py", query_params={"key": keys[click.point]})
else:
    for name in kinds:
        members = [method for method in methods if kind(method) == name]
        if members:
            st.subheader(f"{name} :gray[{len(members)}]")
        for first in range(0, len(members), 4):
            for method, place in zip(members[first : first + 4], st.columns(4, gap="small"), strict=False):
                with place:
                    card(method)
