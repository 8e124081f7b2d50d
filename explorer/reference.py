"""What the page of a method says of it, all of it read off its spec or measured: words, tables, citations."""

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import streamlit as st

from explorer import ways
from explorer.compute import changed
from normcore import METHODS, describe, formula, legend, snippet
from normcore.core import LETTERS, Divides, Method, Param, axis_sizes
from normcore.lab.used import statistics

MEASURED = Path(__file__).parent / "measured"
SIZES = {"n": 4, "c": 6, "t": 5, "l": 6, "d": 3, "h": 3, "w": 3, "o": 6, "i": 4}
PREFERRED = ("image", "tokens", "conv2d", "vector")
PACKAGES = (
    "chainer equinox flax haiku jax keras numpy onnx onnxruntime opacus optax pytorch_optimizer scipy tensorflow timm "
    "torch torch_geometric torchvision transformers"
)
"""How the names of oracles begin that are somebody else's code; the others are formulas and loops written out."""


def layout_of(method: Method) -> str:
    """The layout in which a method is shown when nobody says otherwise."""
    return next((layout for layout in PREFERRED if layout in method.layouts), method.layouts[0])


def fitting(method: Method, shape: Sequence[int], layout: str) -> dict[str, Any]:
    """Settings for a shape: the defaults, but for those that have to divide an axis and do not."""
    sizes = axis_sizes(shape, layout)
    splits = [param for param in method.params if isinstance(param.domain, Divides)]
    return {p.name: p.domain.samples(sizes)[-1] for p in splits if p.default not in p.domain.samples(sizes)}


def used(method: Method, layout: str) -> tuple[str, ...]:
    """The names of the statistics that a method uses in training, as it is shown."""
    shape = tuple(describe_sizes(layout).values())
    return statistics(method, shape, layout, fitting(method, shape, layout))


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
    settings = {param.name: param.default for param in method.params}
    rows = [
        (
            f"`{name}`",
            kind,
            f"`({slot.axes.strip()})`",
            legend.start(slot, settings) if slots is not method.context else "",
        )
        for kind, slots in words.items()
        for name, slot in slots.items()
    ]
    if rows:
        st.markdown(_table(("Tensor", "", "Shape", "Starts as"), rows))


def modes(method: Method) -> str:
    """Whether training and evaluation differ, in a sentence."""
    if method.family == "gradient":
        kept = legend.listed(list(method.remembers.values()))
        return f"From step to step it remembers {kept}." if kept else "Every step stands for itself."
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


def equalities(method: Method) -> None:
    """When the method equals another one, a sentence each, and links to the others."""
    for sentence in describe.equalities(method) or ["No identity with another method is declared."]:
        st.markdown(sentence)
    ways.links("See", [METHODS[key] for key in dict.fromkeys(identity.other for identity in method.equals)])


def invariances(method: Method, layout: str) -> None:
    """What moves the output, measured."""
    shape = tuple(describe_sizes(layout).values())
    rows = [
        (change.what, "stays" if change.nothing else "moves", f"{change.difference:.1g}")
        for change in changed(method.key, layout, tuple(fitting(method, shape, layout).items()))
    ]
    st.markdown(_table(("What is done to the input", "The output", "Largest change, of the largest value"), rows))
    how = ["in float64"]
    how += ["in training, on a new layer's first batch"] if method.state and method.family == "activation" else []
    how += ["with gain 1 and bias 0"] if method.affine else []
    left = (
        " What is left where it stays is ε." if method.default("eps") and any(row[1] == "stays" for row in rows) else ""
    )
    st.caption(f"Measured just now, {', '.join(how)}, on inputs of several sizes where that could matter.{left}")


def describe_sizes(layout: str) -> dict[str, int]:
    """The axis sizes of the tensors on which a page shows a method."""
    return {letter: SIZES[letter] for letter in LETTERS[layout]}


@cache
def measured(name: str) -> Mapping[str, Any]:
    """What a command of the repository has measured and left in a file; empty where it has not been run."""
    path = MEASURED / f"{name}.json"
    content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content


def by_package(oracle: str) -> bool:
    """Whether an oracle is code of another package, and not a formula or a loop written out for the purpose."""
    return bool(re.match(rf"({PACKAGES.replace(' ', '|')})\b", oracle)) and "formula" not in oracle


def oracles(method: Method) -> None:
    """Who checked the method, and the largest difference found."""
    checked = measured("oracles").get(method.key, {})
    if not checked:
        st.markdown("Laws only: it is held against its own declarations alone.")
        return
    if not any(map(by_package, checked)):
        st.markdown(
            "Formula only: no other package was at hand, so it is held against what its source says, written out."
        )
    rows = [(w, f"{d:.1g}") for w, d in sorted(checked.items(), key=lambda item: (not by_package(item[0]), item[0]))]
    st.markdown(_table(("Checked against", "Largest difference"), rows))
    st.caption("Values and gradients, in float64 unless the other side computes in float32. From `make oracles`.")


def has_cost(method: Method) -> bool:
    """Whether the cost of the method has been measured."""
    return bool(measured("costs").get(method.key))


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
    if "momentum" in code:
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
    """The formula in symbols, with what a layer learns, for the default settings and the statistics that they use."""
    return rf"y = {formula.learned(method, complete(method, layout), used(method, layout))}"


def symbols(method: Method, layout: str) -> str:
    """What the symbols of that formula stand for, and what a new layer is."""
    shape = tuple(describe_sizes(layout).values())
    said = legend.legend(method, complete(method, layout), used(method, layout))
    first = legend.beginning(method, shape, layout, **fitting(method, shape, layout))
    return " ".join(part for part in (f"{'; '.join(said)}." if said else "", first) if part)


def complete(method: Method, layout: str) -> dict[str, Any]:
    """All settings of a method as it is shown."""
    sizes = describe_sizes(layout)
    return method.settings(fitting(method, tuple(sizes.values()), layout), sizes)


def _range(param: Param) -> str:
    return escape(param.domain.words())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"

    return "\n".join([line(head), line(["---"] * len(head)), *(line(row) for row in rows)])
