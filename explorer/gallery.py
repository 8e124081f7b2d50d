"""What the catalogue page is made of: cards with pictures, the list of the family, and who checked how many."""

import re
from base64 import b64encode
from collections.abc import Sequence

import streamlit as st

from explorer.reference import by_package, first_sentence, fitting, layout_of, measured, used
from explorer.ways import AWAY, page_link
from normcore import METHODS, describe, legend
from normcore.core import LETTERS, Method
from normcore.figures.regions import region_blocks
from normcore.figures.thumbnail import thumbnail

FILTER = ("find", "kind", "as")
SMALL = {"n": 4, "c": 4, "t": 3, "l": 3, "d": 2, "h": 2, "w": 2, "o": 4, "i": 3}


def come_back() -> None:
    """On the way back from a method's page: the catalogue as it was left.

    Before Streamlit goes to another page it drops what this one's controls wrote into the address, and writes the other
    page's parameters in their place; there the browser's "back" leads, with a `key` that the catalogue never has.
    """
    away = st.session_state.pop(AWAY, False)
    left = st.session_state.get("_catalogue", {})
    if away and left and "key" in st.query_params and not any(name in st.query_params for name in FILTER):
        st.switch_page("../pages/catalogue.py", query_params=left)


def leave() -> None:
    """Remembers what the catalogue was asked for, for those who come back."""
    st.session_state["_catalogue"] = {name: st.query_params[name] for name in FILTER if name in st.query_params}


def found(words: str, kinds: Sequence[str]) -> list[Method]:
    """The methods of these kinds in whose name, key, authors, title or purpose every word occurs."""
    wanted = words.lower().split()

    def fits(method: Method) -> bool:
        text = " ".join((method.key, method.name, method.paper.authors, method.paper.title, method.why)).lower()
        return all(word in f"{text} {method.paper.year} {method.paper.arxiv}" for word in wanted)

    return [method for method in METHODS.values() if describe.kind(method) in kinds and fits(method)]


@st.cache_data(max_entries=256, show_spinner=False)
def drawing(key: str) -> str:
    """A method's regions as a small SVG, in base 64."""
    method = METHODS[key]
    layout = layout_of(method)
    shape = tuple(SMALL[letter] for letter in LETTERS[layout])
    bounds = method.bound(shape, layout, **fitting(method, shape, layout))
    drawn = thumbnail(region_blocks(shape, LETTERS[layout], bounds, stored=bool(method.state)))
    return b64encode(drawn.encode()).decode()


def card(method: Method) -> None:
    """A method as a picture, a link and a line."""
    with st.container(border=True, height="stretch", gap="small"):
        # As an image, for Streamlit takes drawings out of HTML.
        st.html(f'<img class="thumbnail" alt="" src="data:image/svg+xml;base64,{drawing(method.key)}">')
        page_link(method, f"**{method.name}**")
        st.caption(f"{method.paper.year} · {first_sentence(method)}")
        if facts := distinguishing(method.key):
            st.markdown(" ".join(f":gray-badge[{fact}]" for fact in facts))


@st.cache_data(max_entries=256, show_spinner=False)
def distinguishing(key: str) -> list[str]:
    """What a method measures, and what comes with its input: what tells methods of the same picture apart."""
    method = METHODS[key]
    measured = [name for name in used(method, layout_of(method)) if name not in {*method.context, *legend.NEUTRAL}]
    words = [re.sub(r"\bvar\b", "variance", name.replace("_", " ")) for name in measured]
    return words + [f"given: {name}" for name in method.context]


def listing(methods: Sequence[Method]) -> None:
    """The family tree as a list: by year, and after each method what it answers."""
    with st.container(gap="xsmall"):
        for method in sorted(methods, key=lambda method: method.paper.year):
            before = legend.listed([METHODS[key].name for key in method.builds_on])
            page_link(method, f"{method.paper.year} **{method.name}**" + (f", after {before}" if before else ""))


def checks() -> str:
    """By whom the methods are checked, counted."""
    found = {key: measured("oracles").get(key, {}) for key in METHODS}
    packages = sum(any(map(by_package, oracles)) for oracles in found.values())
    alone = sum(not oracles for oracles in found.values())
    said = [f"{packages} checked against another package"] * bool(packages)
    written = len(found) - packages - alone
    said += [f"{written} against formulas and loops written out from their sources"] * bool(written)
    said += [f"{alone} by laws alone"] * bool(alone)
    return legend.listed(said)
