"""A visitor's own numbers as a task to race on: a CSV table with the answer in a column, or an .npz with x and y."""

import hashlib
from dataclasses import dataclass

import streamlit as st

from explorer import controls, uploads
from explorer.archive import arrays
from normcore.core import NormcoreError
from normcore.lab.tasks import Data, Task, table

OWN = Task(
    "own", "My own data", "A table or arrays of yours: what is to be predicted, and from what.", "", lambda _: _STAND_IN
)
_STAND_IN: Data = table([[0.0], [1.0]] * 5, [0, 1] * 5)
"""Two numbers that stand in until there is a file."""


@dataclass(frozen=True)
class Own:
    """Data from a file, a name for just these data, and why there are none."""

    data: Data
    digest: str
    problem: str


def own() -> Own:
    """Asks for a file, and what in it is to be predicted."""
    file = controls.upload("A table of numbers", ("csv", "npz"), uploads.MEGABYTES, "file")
    st.caption(
        "A CSV table with one example a line, or an .npz with x (examples first) and y. A fifth is held out. "
        "Only you see it, until you leave."
    )
    if file is None:
        return Own(_STAND_IN, "", "Choose a file in the sidebar, and there is something to race on.")
    try:
        if file[1].lower().endswith(".npz"):
            return _own(*file, None)
        width = _columns(*file)
        return _own(*file, controls.select("Column to predict", range(1, width + 1), "target", width))
    except NormcoreError as error:
        return Own(_STAND_IN, "", f"{error}.")


@st.cache_data(max_entries=1, show_spinner=False, scope="session")
def _columns(data: bytes, name: str) -> int:
    """How many columns a table has: two at least, to predict one from the others."""
    found = uploads.read(data, name)
    width = int(found.values.shape[1])
    if found.layouts != ("vector",) or width < 2:
        raise NormcoreError(f"{found.name}: {width} column; a table needs one to predict and one to predict it from")
    return width


@st.cache_data(max_entries=1, show_spinner=False, scope="session")
def _own(data: bytes, name: str, target: int | None) -> Own:
    """The data of a file, read once."""
    digest = hashlib.sha256(data).hexdigest()[:16]
    if target is None:
        found = arrays(data, name)
        if not {"x", "y"} <= set(found):
            there = ", ".join(found)
            raise NormcoreError(f"{uploads.short(name)}: there is {there}; an .npz needs arrays called x and y")
        y = found["y"]
        return Own(table(found["x"], y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y), digest, "")
    values = uploads.read(data, name).values
    rest = [column for column in range(values.shape[1]) if column != target - 1]
    return Own(table(values[:, rest], values[:, target - 1]), f"{digest}:{target}", "")
