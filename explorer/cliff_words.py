"""The descents of the Clipping page as tracks to draw, as sentences, and as tables."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import streamlit as st

from explorer.table import table
from explorer.vector_view import number, point
from normcore.figures.cliff import Track
from normcore.lab import cliff as lab
from normcore.lab.cliff import Descent, Surface


def track(path: Descent, paint: str, land: Surface) -> Track:
    """A descent as a figure wants it."""
    way = lab.route(path, land)
    points = np.column_stack([path.w, path.b, path.loss, path.length, path.used])
    inside = land.holds(path.w, path.b)
    return Track(path.label, paint, points, inside, np.column_stack([way.w, way.b, way.loss]))


def happened(path: Descent, land: Surface, until: int) -> str:
    """What a descent did so far, in sentences made from its numbers."""
    name = f"**{path.label}**"
    done = len(path.moved)
    if not done:
        return f"{name} starts at {point((path.w[0], path.b[0]))} with a loss of {number(path.loss[0])}."
    jump = path.jump
    origin, target = (point((path.w[i], path.b[i])) for i in (jump, jump + 1))
    gradient = f"the gradient there was {number(path.length[jump])} long"
    if not np.isclose(path.used[jump], path.length[jump], rtol=1e-5):
        gradient += f", of which {number(path.used[jump])} was used"
    said = (
        f"{name}: its longest step, number {jump + 1}, went {number(path.moved[jump])} far, from {origin} to {target}, "
        f"for {gradient}; the loss went from {number(path.loss[jump])} to {number(path.loss[jump + 1])}. "
        f"After {done} {'step' if done == 1 else 'steps'}, {path.clipped} of them clipped, it is "
        f"{number(path.loss[-1])} (at best {number(path.loss.min())})."
    )
    beyond = path.outside(land)
    if beyond:
        said += f" After step {beyond} it was beyond the borders of the picture."
    if path.left is not None and path.left < until:
        said += f" Step {path.left + 1} led out of all bounds, and the descent ended."
    return said


def numbers(paths: Sequence[Descent], land: Surface) -> None:
    """Every point of every path, and the land, as tables."""
    every = st.expander("The paths and the land as tables", key="path_table", on_change="rerun", bind="query-params")
    if not every.open:
        return
    rows: dict[str, list[Any]] = {name: [] for name in ("path", "step", "w", "b", "loss", "gradient", "used", "moved")}
    for path in paths:
        moved = [*path.moved.tolist(), None]
        columns = [
            [path.label] * len(path.w),
            range(len(path.w)),
            *(getattr(path, name).tolist() for name in ("w", "b", "loss", "length", "used")),
            moved,
        ]
        for name, values in zip(rows, columns, strict=True):
            rows[name].extend(values)
    with every:
        table(rows, key="paths", file="descents", height=320)
        w, b = np.meshgrid(land.w, land.b)
        table({"w": w.ravel(), "b": b.ravel(), "loss": land.loss.ravel()}, key="land_table", file="land", height=200)
