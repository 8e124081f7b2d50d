"""The Statistics page, forward: values before and after, means and deviations by region, all of it as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from explorer import controls
from explorer.plot import plot
from explorer.table import as_csv, download, table
from normcore import METHODS
from normcore.core import AXIS_WORDS, LETTERS
from normcore.figures import distributions, theme
from normcore.figures.heat import SPOKEN, heat, number, stacked
from normcore.lab.inputs import Input
from normcore.lab.numbers import Groups, Numbers, Summary
from normcore.lab.spread import densities, quantiles

CELLS = 20_000
"""The most regions that a heat map shows all of."""
ROUNDING = 1e-9
"""Below this a mean or a deviation is taken for 0."""
NAMES = {
    "size": "Values",
    "mean": "Mean",
    "std": "Standard deviation",
    "low": "Minimum",
    "high": "Maximum",
    "kurtosis": "Kurtosis (normal: 3)",
    "dead": "Dead share (ReLU)",
    "saturated": "Saturated share",
}


@dataclass(frozen=True)
class Scene:
    """What all parts of the page look at."""

    given: Input
    found: Sequence[Numbers]
    settings: Mapping[str, dict[str, Any]]
    activation: str

    @property
    def colors(self) -> dict[str, str]:
        return theme.method_colors([numbers.key for numbers in self.found])


def elsewhere(where: str, offered: Sequence[str]) -> list[str]:
    """A sentence for each method that a link asks for and that exists for other layouts; the link forgets it."""
    asked = [] if where in st.session_state else st.query_params.get_all(where)
    others = [key for key in asked if key in METHODS and key not in offered]
    if others:
        st.query_params[where] = [key for key in asked if key not in others]
    return [
        f"{METHODS[key].name} is for {METHODS[key].family} layouts: {', '.join(METHODS[key].layouts)}. "
        "Choose one of them to see it."
        for key in others
    ]


TITLES = {"mean": "mean", "std": "deviation"}
"""The statistics that have a heat map, and what they are called there."""


def before_and_after(scene: Scene, numbers: Numbers, height: int) -> None:
    """The distributions of one method, in the axes that all methods share, and what was measured in words."""
    x, ys = scene.found[0].x, [other.y for other in scene.found]
    spans = [distributions.span(values.min(), values.max()) for values in (x, np.stack(ys))]
    groups = numbers.groups
    names = [groups.name(group) for group in groups.chosen]
    sides = ((numbers.before, False), (numbers.after, True))
    if groups.count <= distributions.FEW:
        before, after = (
            [
                distributions.Ridge(d.start, d.step, d.height, float(s.low[i]), float(s.high[i]), _words(name, s, i))
                for i, (name, d) in enumerate(zip(names, densities(numbers, side), strict=True))
            ]
            for s, side in sides
        )
        few = [" ".join(str(int(i)) for i in np.unravel_index(g, groups.shape)) for g in groups.chosen]
        title = ", ".join(AXIS_WORDS[letter] for letter in groups.letters) or "everything"
        figure = distributions.ridges(before, after, few, title, spans)
    else:
        figure = distributions.bands(
            quantiles(numbers, after=False),
            quantiles(numbers, after=True),
            [str(group) for group in groups.chosen],
            [_words(name, numbers.before, i) for name, i in zip(names, groups.chosen, strict=True)],
            [_words(name, numbers.after, i) for name, i in zip(names, groups.chosen, strict=True)],
            spans,
            scene.colors[numbers.key],
        )
    said = measured(numbers)
    plot(figure, key=f"numbers_{numbers.key}", alt=f"{METHODS[numbers.key].name}. {said}", height=height)
    st.markdown(said)
    thinned = f"{len(names)} of {groups.count:,} regions are drawn." if len(names) < groups.count else ""
    read = "A band: all values, nine of ten, the middle half, the median." if groups.count > distributions.FEW else ""
    for note in filter(None, (groups.note, f"{read} {thinned}".strip())):
        st.caption(note)


def measured(numbers: Numbers) -> str:
    """What came out, region by region, in words."""
    known = numbers.after.size > 0
    count, sizes = int(known.sum()), numbers.after.size[known]
    each = f"{int(sizes.min()):,}" if sizes.min() == sizes.max() else f"{int(sizes.min()):,} to {int(sizes.max()):,}"
    plural = "" if count == 1 else "s"
    before, after = (_ends(side.mean[known], side.std[known]) for side in (numbers.before, numbers.after))
    return (
        f"**{count:,} region{plural} of {each} value{'' if each == '1' else 's'}**  \n"
        f"before: {before}  \nafter: {after}"
    )


def _ends(mean: np.ndarray, std: np.ndarray) -> str:
    return f"mean {in_words(mean)}, deviation {in_words(std)}"


def in_words(values: np.ndarray) -> str:
    """The least and the largest of some numbers, or the one that all of them come to."""
    low, high = (rounded(float(value)) for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def rounded(value: float) -> str:
    """A number for a sentence."""
    return f"{float(_without_rounding(value)):.4g}".replace("-", "−")


def _without_rounding(values: np.ndarray | float) -> np.ndarray:
    """Numbers with 0 for what is only rounding."""
    return np.where(np.abs(values) < ROUNDING, 0.0, values)


def _words(name: str, summary: Summary, at: int) -> str:
    values = (float(part[at]) for part in (summary.mean, summary.std, summary.low, summary.high))
    return distributions.words(name, int(summary.size[at]), *values)


def by_region(scene: Scene) -> None:
    """The means and the deviations of all regions as heat maps, on one scale for all methods."""
    side = controls.choose("Measured", ("before", "after"), "measured")
    tables = [(numbers, numbers.after if side == "after" else numbers.before) for numbers in scene.found]
    limits = {
        name: _limits([_without_rounding(getattr(summary, name)) for _, summary in tables], from_zero=name == "std")
        for name in TITLES
    }
    height = 2 * (130 + min(190, 18 * max(_rows(numbers.groups) for numbers in scene.found)))
    for (numbers, summary), place in zip(tables, st.columns(len(tables), gap="medium"), strict=True):
        name, maps, said = METHODS[numbers.key].name, [], []
        for statistic, title in TITLES.items():
            values = _without_rounding(getattr(summary, statistic))
            known = values[np.isfinite(values)]
            maps.append(_map(numbers.groups, values, title, statistic == "mean", limits[statistic]))
            said.append(f"the {title} of each region {side}: {in_words(known) if known.size else 'not defined'}")
        with place:
            st.caption(name)
            plot(stacked(maps), key=f"heat_{numbers.key}", alt=f"{name}: {'; '.join(said)}.", height=height)


def _limits(every: Sequence[np.ndarray], from_zero: bool) -> tuple[float, float] | None:
    """The ends of the one scale that all methods share."""
    known = np.concatenate(every)
    known = known[np.isfinite(known)]
    return (0.0 if from_zero else float(known.min()), float(known.max())) if known.size else None


def _rows(groups: Groups) -> int:
    """How many rows a heat map of all regions has: the last of their axes lies across."""
    return 1 if groups.count > CELLS or not groups.shape else groups.count // groups.shape[-1]


def _map(
    groups: Groups, values: np.ndarray, title: str, diverging: bool, limits: tuple[float, float] | None
) -> go.Figure:
    """A statistic of all regions as a heat map, or of some in a row where there are very many."""
    down = _rows(groups)
    some = groups.chosen if groups.count > CELLS else np.arange(groups.count)
    table = values[some].reshape(down, -1)
    words = [AXIS_WORDS[letter] for letter in groups.letters] if groups.count <= CELLS else ["region"]
    rows = [" ".join(str(int(i)) for i in np.unravel_index(row, groups.shape[:-1])) for row in range(down)]
    hover = None
    if table.size <= SPOKEN:
        spoken = [f"{groups.name(i)}<br>{title} {number(float(values[i]))}" for i in some.tolist()]
        hover = np.array(spoken).reshape(table.shape)
    return heat(
        table if hover is not None else table.astype(np.float32),
        rows if len(words) > 1 else [""],
        [str(i) for i in range(table.shape[1])],
        title=title,
        row_title=", ".join(words[:-1]),
        column_title=words[-1] if words else "everything",
        hover=hover,
        diverging=diverging,
        limits=limits,
    )


def as_table(scene: Scene) -> None:
    """All statistics of all methods and regions, and a download of the values that they were measured on."""
    columns: dict[str, list[Any]] = {name: [] for name in ("Method", "Region", "Side", *NAMES.values())}
    for numbers in scene.found:
        regions = numbers.groups
        parts = (
            ("before", numbers.before, numbers.whole_before),
            ("after", numbers.after, numbers.whole_after),
        )
        for side, own, whole in parts:
            names = [regions.name(group) for group in regions.chosen]
            alone = names == ["everything"]
            columns["Method"] += [METHODS[numbers.key].name] * (len(names) + (not alone))
            columns["Region"] += names + ["everything"] * (not alone)
            columns["Side"] += [side] * (len(names) + (not alone))
            for field in fields(Summary):
                values = getattr(own, field.name)[regions.chosen].tolist()
                values += [] if alone else getattr(whole, field.name).tolist()
                columns[NAMES[field.name]] += [value if np.isfinite(value) else None for value in values]
    table(columns, key="statistics", file="statistics")
    download("Download the values as CSV", partial(as_csv, _values(scene)), "values.csv", "values")
    st.caption(
        f"Dead: at most 0, so that ReLU passes nothing. Saturated: the slope of {scene.activation} is at most a tenth "
        "of its steepest."
    )


def _values(scene: Scene) -> dict[str, np.ndarray]:
    """Every element that counts: its place, its value before, and for each method its region and its value after."""
    counted = scene.found[0].counted
    places = np.indices(scene.given.shape)
    columns = {letter: place[counted] for letter, place in zip(LETTERS[scene.given.layout], places, strict=True)}
    columns["before"] = scene.found[0].x[counted]
    for numbers in scene.found:
        columns[f"{numbers.key} region"] = numbers.groups.labels[counted]
        columns[numbers.key] = numbers.y[counted]
    return columns
