"""What the catalogue says of a method, all of it read off its spec or measured: cards, tables, citations."""

import inspect
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import streamlit as st

from explorer.compute import changed
from normcore import METHODS, describe, formula, snippet
from normcore.core import LETTERS, Divides, Method, Param, axis_sizes
from normcore.figures.regions import region_blocks
from normcore.figures.thumbnail import thumbnail

MEASURED = Path(__file__).parent / "measured"
SMALL = {"n": 4, "c": 4, "t": 3, "l": 3, "d": 2, "h": 2, "w": 2, "o": 4, "i": 3}
SIZES = {"n": 4, "c": 6, "t": 5, "l": 6, "d": 3, "h": 3, "w": 3, "o": 6, "i": 4}
PREFERRED = ("image", "tokens", "conv2d", "vector")


def layout_of(method: Method) -> str:
    """The layout in which a method is shown when nobody says otherwise."""
    return next((layout for layout in PREFERRED if layout in method.layouts), method.layouts[0])


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


def fitting(method: Method, shape: Sequence[int], layout: str) -> dict[str, Any]:
    """Settings for a shape: the defaults, but for those that have to divide an axis and do not."""
    sizes = axis_sizes(shape, layout)
    splits = [param for param in method.params if isinstance(param.domain, Divides)]
    return {p.name: p.domain.samples(sizes)[-1] for p in splits if p.default not in p.domain.samples(sizes)}


def card(method: Method) -> None:
    """A method as a picture, a link and a line."""
    with st.container(border=True, height="stretch", gap="small"):
        # As an image, for Streamlit takes drawings out of HTML.
        st.html(f'<img class="thumbnail" alt="" src="data:image/svg+xml;base64,{drawing(method.key)}">')
        st.page_link("../pages/method.py", label=f"**{method.name}**", query_params={"key": method.key})
        st.caption(f"{method.paper.year} · {first_sentence(method)}")


def first_sentence(method: Method) -> str:
    """What a method does, in the first sentence of its docstring."""
    return " ".join(inspect.cleandoc(method.fn.__doc__ or "").split("\n\n")[0].split())


def explanation(method: Method) -> str:
    """The rest of the docstring, up to the shapes."""
    paragraphs = inspect.cleandoc(method.fn.__doc__ or "").split("\n\n")[1:]
    return "\n\n".join(" ".join(p.replace("``", "`").split()) for p in paragraphs if not p.startswith("Shapes:"))


def parameters(method: Method) -> None:
    """The settings with their defaults and ranges."""
    if not method.params:
        st.caption("It has no settings.")
        return
    rows = [(f"`{p.name}`", f"`{p.default!r}`", _range(p)) for p in method.params]
    st.markdown(_table(("Setting", "Default", "May be"), rows))


def layer_tensors(method: Method) -> None:
    """What a layer learns, remembers, and takes beside its input."""
    words = {"learned": method.affine, "remembered": method.state, "comes with the input": method.context}
    rows = [
        (f"`{name}`", kind, f"`({slot.axes.strip()})`", "" if callable(slot.init) else f"{slot.init}")
        for kind, slots in words.items()
        for name, slot in slots.items()
    ]
    if rows:
        st.markdown(_table(("Tensor", "", "Shape", "Starts as"), rows))


def modes(method: Method) -> str:
    """Whether training and evaluation differ, in a sentence."""
    if not method.state:
        return "The same in training and evaluation."
    tracked = method.default("track_running_stats")
    default = (
        "" if tracked in (True, None) else " (only with `track_running_stats=True`; the default is the same in both)"
    )
    return (
        f"In training it uses the statistics of the tensor at hand and moves what it remembers; "
        f"in evaluation it uses what it remembers{default}."
    )


def equalities(method: Method) -> list[str]:
    """When the method equals another one, a sentence each."""
    said = []
    for identity in method.equals:
        sizes = [f"{axis}={size}" for axis, size in identity.sizes.items()]
        here = ", ".join([*sizes, *(f"{name}={value}" for name, value in identity.settings.items())])
        there = ", ".join(f"{name}={value}" for name, value in identity.other_settings.items())
        other = METHODS[identity.other]
        where = f" on {', '.join(identity.layouts)} tensors" if identity.layouts else ""
        start, end = f"With `{here}` it" if here else "It", f" with `{there}`" if there else ""
        said.append(f"{start} equals **{other.name}**{end}{where}.")
    return said


def invariances(method: Method, layout: str) -> None:
    """What moves the output, measured."""
    shape = tuple(describe_sizes(layout).values())
    rows = [
        (change.what, "stays" if change.nothing else "moves", f"{change.difference:.1g}")
        for change in changed(method.key, layout, tuple(fitting(method, shape, layout).items()))
    ]
    st.markdown(_table(("What is done to the input", "The output", "Largest change, of the largest value"), rows))
    st.caption("Measured just now, in float64, in training, with gain 1 and bias 0. What is left where it stays is ε.")


def describe_sizes(layout: str) -> dict[str, int]:
    """The axis sizes of the tensors on which a page shows a method."""
    return {letter: SIZES[letter] for letter in LETTERS[layout]}


@cache
def measured(name: str) -> Mapping[str, Any]:
    """What a command of the repository has measured and left in a file; empty where it has not been run."""
    path = MEASURED / f"{name}.json"
    content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content


def oracles(method: Method) -> None:
    """Who checked the method, and the largest difference found."""
    checked = measured("oracles").get(method.key, {})
    if not checked:
        st.markdown("Laws only: nobody else has it, so that it is held against its own declarations alone.")
        return
    st.markdown(
        _table(("Checked against", "Largest difference"), [(w, f"{d:.1g}") for w, d in sorted(checked.items())])
    )
    st.caption("Values and gradients, in float64 unless the other side computes in float32. From `make oracles`.")


def cost(method: Method) -> None:
    """What the method costs relative to a copy of the same tensor."""
    costs = measured("costs").get(method.key, {})
    if costs:
        rows = [(where, f"{c['forward']:.1f}", f"{c['backward']:.1f}") for where, c in costs.items()]
        st.markdown(_table(("Tensor", "Forward, in copies", "Forward and backward"), rows))
        st.caption("Time in units of one copy of the same tensor, from `make bench`.")


def equivalent(method: Method, library: str, shape: Sequence[int], layout: str, settings: Mapping[str, Any]) -> None:
    """The same in another library, with momentum and axes converted."""
    code = snippet.in_other(method, library, shape, layout, **settings)
    if code is None:
        st.caption("Not known to be there; the PyTorch form translates line by line.")
        return
    st.code(code, language="python")
    if method.state:
        st.caption("Momentum is the weight of the old value there, and of the new one in PyTorch and here.")


def citation(method: Method) -> str:
    """The paper as BibTeX."""
    paper = method.paper
    surname = paper.authors.split(",")[0].split()[-1].lower()
    authors = " and ".join(name.strip() for name in paper.authors.replace(" et al.", ", others").split(","))
    eprint = f",\n  eprint = {{{paper.arxiv}}},\n  archivePrefix = {{arXiv}}" if paper.arxiv else ""
    return (
        f"@misc{{{surname}{paper.year},\n  author = {{{authors}}},\n  title = {{{paper.title}}},\n"
        f"  year = {{{paper.year}}}{eprint}\n}}"
    )


def source(method: Method) -> str:
    """The method's whole file."""
    return inspect.getsource(inspect.getmodule(method.fn))  # type: ignore[arg-type]


def written(method: Method, layout: str) -> str:
    """The formula in symbols, for the default settings."""
    sizes = describe_sizes(layout)
    complete = method.settings(fitting(method, tuple(sizes.values()), layout), sizes)
    return rf"y = {formula.symbolic(method, complete)}"


def _range(param: Param) -> str:
    return escape(param.domain.words())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"

    return "\n".join([line(head), line(["---"] * len(head)), *(line(row) for row in rows)])
