"""Which methods are there? All of them, with a picture each, and the tree that they form."""

import streamlit as st

from explorer import controls, gallery
from explorer.gallery import card, checks, found, listing
from explorer.plot import plot
from normcore import METHODS
from normcore.describe import KINDS, kind
from normcore.figures.tree import Entry, family_tree

controls.begin()
gallery.come_back()
st.title("Which methods are there?")
st.markdown(f"{len(METHODS)} methods, each a few lines with a source: {checks()}. **Equal colors share a statistic.**")
with st.container(horizontal=True, vertical_alignment="top", key="filters"):
    words = controls.text("Search", "find", "a name, a year, …, then Enter")
    shown = controls.choose("Kind", ("All", *KINDS), "kind")
    view = controls.choose("As", ("Cards", "Family tree"), "as")
gallery.leave()
for sentence in controls.notices():
    st.warning(sentence, icon=":material/info:")

kinds = KINDS if shown == "All" else (shown,)
methods = found(words, kinds)
lanes = {name: members for name in kinds if (members := [method for method in methods if kind(method) == name])}
if not methods:
    st.info(
        f"No method here matches {controls.quoted(words)}. Try a shorter word, or another kind.",
        icon=":material/search_off:",
    )
elif view == "Family tree":
    entries = [Entry(m.key, m.name, m.paper.year, kind(m), m.builds_on, m.why) for m in methods]
    figure, keys = family_tree(entries, list(lanes))
    with st.container(key="family"):  # which of the two is shown, the room that it has decides
        with st.container(key="family_tree"):
            st.caption("An arrow leads from a method to one that answers its shortcoming, in the color of its kind.")
            click = plot(
                figure,
                key="tree",
                alt=f"{len(entries)} methods from {min(e.year for e in entries)} to {max(e.year for e in entries)}, "
                "by kind.",
                height=max(320, 24 * len(entries)),
            )
        with st.container(key="family_list"):
            for name, members in lanes.items():
                st.subheader(name)
                listing(members)
    if click and click.trace == len(figure.data) - 1:
        st.switch_page("../pages/method.py", query_params={"key": keys[click.point]})
else:
    with st.container(key="cards"):
        for name, members in lanes.items():
            st.subheader(f"{name} :gray[{len(members)}]")
            for first in range(0, len(members), 4):
                for method, place in zip(members[first : first + 4], st.columns(4, gap="small"), strict=False):
                    with place:
                        card(method)
