"""Thumbnails, the family tree, and measured invariances: what the reference pages are made of."""

import re

import numpy as np
import pytest
from cases import every_method, shape_of

from normcore import METHODS, Method
from normcore.core import LETTERS
from normcore.describe import KINDS, kind
from normcore.figures import theme
from normcore.figures.blocks import figure
from normcore.figures.regions import region_blocks
from normcore.figures.routes import Name, route
from normcore.figures.thumbnail import thumbnail
from normcore.figures.tree import Entry, family_tree
from normcore.lab.invariance import changes

COLOR = re.compile(r'color="(#[0-9a-f]{6})"')


def drawn(key: str, layout: str = "image", **settings: object) -> str:
    method, shape = METHODS[key], shape_of(layout)
    return thumbnail(region_blocks(shape, LETTERS[layout], method.bound(shape, layout, **settings)))


def fronts(svg: str) -> set[str]:
    """The region colors on the fronts, hidden or not, where nothing is shaded."""
    return set(COLOR.findall(svg)) & set(theme.REGION_COLORS)


def test_a_thumbnail_has_a_color_for_each_region() -> None:
    assert len(fronts(drawn("batch_norm"))) == 4  # the channels
    assert len(fronts(drawn("layer_norm"))) == 4  # the samples
    assert len(fronts(drawn("group_norm", num_groups=2))) == 8


def test_a_thumbnail_stays_within_its_frame_and_is_small() -> None:
    svg = drawn("instance_norm")
    corners = np.array(re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", svg), dtype=float)
    assert (corners >= -0.1).all() and (corners <= [132.1, 110.1]).all()
    spread = np.ptp(corners, axis=0) / [132, 110]
    assert spread.max() == pytest.approx(1.0, abs=0.01)
    assert len(svg) < 12_000


def test_what_is_nearer_is_painted_later() -> None:
    svg = drawn("layer_norm")
    order = COLOR.findall(svg)
    first, last = theme.REGION_COLORS[0], order[0]
    assert order.index(first) > order.index(last)
    assert first in order[-32:]


@every_method
def test_every_method_can_be_drawn_small(method: Method, layout: str) -> None:
    shape = shape_of(layout, h=2, w=2)
    blocks = region_blocks(shape, LETTERS[layout], method.bound(shape, layout), stored=bool(method.state))
    assert "<path" in thumbnail(blocks)
    assert figure(blocks).data


def test_the_tree_keeps_names_apart_and_joins_what_builds_on_what() -> None:
    entries = [
        Entry("a", "Alpha Norm", 2015, "one", (), "first"),
        Entry("b", "Beta Norm", 2015, "one", ("a",), "second"),
        Entry("c", "Gamma", 2020, "two", ("b", "unknown"), "third " * 30),
    ]
    tree, keys = family_tree(entries, ["one", "two"])
    *lines, arrows, points = tree.data
    assert keys == ["a", "b", "c"]
    places = dict(zip(keys, zip(points.x, points.y, strict=True), strict=True))
    assert places["a"][0] == places["b"][0] == 2015
    assert places["a"][1] > places["b"][1] > places["c"][1]
    ends = [[(line.x[i], line.y[i]) for i in (0, -2)] for line in lines]
    assert ends == [[pytest.approx(places[key], abs=1e-3) for key in pair] for pair in (("a", "b"), ("b", "c"))]
    assert [line.line.color for line in lines] == list(theme.REGION_COLORS[:2])
    assert list(arrows.y) == [places["b"][1], places["c"][1]] and max(arrows.x) < 2020
    low, high = tree.layout.xaxis.range
    assert low < 2015 and high > 2020
    assert all(len(line) <= 61 for line in points.hovertext[2].split("<br>")[1:])


def test_the_tree_holds_every_year() -> None:
    tree, keys = family_tree(
        [Entry(m.key, m.name, m.paper.year, kind(m), m.builds_on, "") for m in METHODS.values()], KINDS
    )
    low, high = tree.layout.xaxis.range
    assert low < min(m.paper.year for m in METHODS.values()) and high > max(m.paper.year for m in METHODS.values())
    assert sorted(keys) == sorted(METHODS)
    lines = sum(len([x for x in line.x if x is None]) for line in tree.data[:-2])
    assert lines == sum(len(m.builds_on) for m in METHODS.values())


def test_a_line_goes_around_a_name_that_is_in_the_way() -> None:
    """From 2010 down to 2014: the name between covers all but the last column, where the line goes through."""
    blocked = [Name(-2.0, 2009.5, 2013.5)]
    x, y = route((2010, 0), (2014, -4), blocked)
    assert (x[0], y[0], x[-1], y[-1]) == (2010, 0, 2014, -4)
    inside = [a for a, b in zip(x, y, strict=True) if abs(b + 2) < 0.4]
    crossing = [a for a, b, c in zip(x, y, y[1:], strict=False) if b > -2 >= c]
    assert not inside and crossing and all(2013.5 < at < 2014 for at in crossing)


@every_method
def test_measured_invariances_are_those_declared(method: Method, layout: str) -> None:
    found = {change.what: change.nothing for change in changes(method.key, layout)}
    if not method.regions or method.family == "gradient" or method.sizes:
        assert found
        return
    for kind_of, what in (("scale", "everything × 3"), ("shift", "everything + 3")):
        if kind_of in method.invariances():
            assert found[what], (method.key, layout, what)


def test_measured_invariances_tell_the_classics_apart() -> None:
    group, batch, rms = (
        {c.what: c.nothing for c in changes(key, "image")} for key in ("group_norm", "batch_norm", "rms_norm")
    )
    assert group["other samples replaced"] and not batch["other samples replaced"]
    assert batch["each channel × a factor of its own"] and not group["each channel × a factor of its own"]
    assert rms["everything × 3"] and not rms["everything + 3"]


@pytest.mark.parametrize(
    ("key", "layout", "what"),
    [
        ("clip_by_global_norm", "linear", "everything × 3"),
        ("max_norm_constraint", "linear", "everything × 3"),
        ("max_norm_constraint", "conv2d", "each output unit × a factor of its own"),
        ("batch_renorm", "image", "other samples replaced"),
    ],
)
def test_what_stays_on_one_side_of_a_threshold_alone_moves(key: str, layout: str, what: str) -> None:
    assert {change.what: change.nothing for change in changes(key, layout)}[what] is False


def test_every_method_is_of_one_kind() -> None:
    assert {kind(method) for method in METHODS.values()} <= set(KINDS)
    assert kind(METHODS["batch_norm"]) == "Across the batch"
    assert kind(METHODS["group_norm"]) == "Within a sample"
    assert kind(METHODS["local_response_norm"]) == "In a neighborhood"


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_what_a_method_builds_on_came_before_it(method: Method) -> None:
    assert all(METHODS[key].paper.year <= method.paper.year and key != method.key for key in method.builds_on)
