"""The drawn picture says what the engine's regions say, for small tensors and for real layers alike."""

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from cases import every_method, shape_of, structures

from normcore import METHODS, Bound, Method
from normcore.core import AXIS_WORDS, LETTERS, axis_sizes
from normcore.figures.blocks import FADED, Blocks, share, wire
from normcore.figures.regions import element, region_blocks
from normcore.figures.sides import CAPS, CAPS_APART, WORDS

RESNET = (32, 256, 56, 56)
PARTITIONS = [
    (k, s)
    for k, s in (("batch_norm", {}), ("layer_norm", {}), ("group_norm", {"num_groups": 32}), ("positional_norm", {}))
]


def cells(blocks: Blocks) -> list[tuple[int, int, int]]:
    return list(np.ndindex(blocks.colors.shape))


def label(blocks: Blocks, cell: tuple[int, int, int]) -> int:
    return sum(axis.parts[i] for axis, i in zip(blocks.axes, cell, strict=True))


@pytest.mark.parametrize("apart", [False, True])
@every_method
def test_every_cell_is_labeled_and_lit_as_its_element(method: Method, layout: str, apart: bool) -> None:
    shape, letters = shape_of(layout), LETTERS[layout]
    for settings in structures(method, axis_sizes(shape, layout)):
        bounds = method.bound(shape, layout, **settings)
        index = tuple(size - 1 for size in shape)
        picture = region_blocks(shape, letters, bounds, index=index, apart=apart)
        members = {index} | {tuple(m) for bound in bounds for m in bound.members(index).tolist()}
        seen = set()
        for cell in cells(picture):
            at = element(cell, shape, letters, apart, bounds, index)
            seen.add(at)
            assert (picture.colors[cell] != FADED) == (at in members)
            if bounds and isinstance(bounds[0], Bound):
                assert label(picture, cell) == bounds[0].label(at)
        assert len(seen) == len(cells(picture)) == np.prod(shape)
        assert picture.picked is not None
        assert element(picture.picked, shape, letters, apart, bounds, index) == index


@pytest.mark.parametrize(("key", "settings"), PARTITIONS)
def test_a_real_layer_is_drawn_true(key: str, settings: dict[str, Any]) -> None:
    (bound,) = METHODS[key].bound(RESNET, "image", **settings)
    assert isinstance(bound, Bound)
    index = (7, 100, 30, 31)
    picture = region_blocks(RESNET, LETTERS["image"], (bound,), index=index)
    mine = bound.label(index)
    for cell in cells(picture):
        at = element(cell, RESNET, LETTERS["image"], False, (bound,), index)
        assert label(picture, cell) == bound.label(at)
        assert (picture.colors[cell] != FADED) == (bound.label(at) == mine)
    assert picture.note
    assert picture.picked is not None
    assert label(picture, picture.picked) == mine


@pytest.mark.parametrize("apart", [False, True])
def test_neighbors_of_different_regions_have_different_colors(apart: bool) -> None:
    for key, method in METHODS.items():
        if "image" not in method.layouts:
            continue
        for shape in ((4, 6, 4, 4), RESNET):
            picture = region_blocks(shape, LETTERS["image"], method.bound(shape, "image"), apart=apart)
            if FADED in picture.colors:
                continue
            labels = np.array([label(picture, cell) for cell in cells(picture)]).reshape(picture.colors.shape)
            for axis in range(3):
                other = np.diff(labels, axis=axis) != 0
                assert (np.diff(picture.colors.astype(int), axis=axis) != 0)[other].all(), (key, shape, axis)


def test_the_same_partition_has_the_same_colors() -> None:
    shape = (4, 6, 4, 4)
    pairs = [
        (("group_norm", {"num_groups": 6}), ("instance_norm", {})),
        (("group_norm", {"num_groups": 1}), ("layer_norm", {})),
        (("ghost_batch_norm", {"ghost_batch_size": 4}), ("batch_norm", {})),
    ]
    for pair in pairs:
        one, two = (
            region_blocks(shape, LETTERS["image"], METHODS[k].bound(shape, "image", **s)).colors for k, s in pair
        )
        np.testing.assert_array_equal(one, two)


def test_drawing_costs_nothing_of_the_size_of_the_tensor() -> None:
    peaks, bytes_sent = [], []
    for shape in ((4, 6, 4, 4), RESNET, (64, 1024, 224, 224)):
        bounds = METHODS["group_norm"].bound(shape, "image", num_groups=2)
        region_blocks(shape, LETTERS["image"], bounds)
        tracemalloc.start()
        sent = json.dumps(wire(region_blocks(shape, LETTERS["image"], bounds)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        bytes_sent.append(len(sent))
    assert max(peaks) < 8_000_000  # the largest has 3.3 billion elements
    assert max(bytes_sent) < 2 * bytes_sent[0]


@every_method
def test_a_change_sends_at_most_20_kilobytes(method: Method, layout: str) -> None:
    shape = tuple({"n": 64, "d": 64, "h": 224, "w": 224}.get(letter, 1024) for letter in LETTERS[layout])
    for apart in (False, True):
        picture = region_blocks(shape, LETTERS[layout], method.bound(shape, layout), apart=apart)
        assert 4 * len(json.dumps(wire(picture))) < 20_000  # four side by side


def test_measured_influence_is_drawn_where_it_was_measured() -> None:
    shape, index = (2, 3, 2, 2), (1, 2, 0, 1)
    strengths = np.zeros(shape)
    strengths[1, 2] = [[1.0, 50.0], [0.25, 0.0]]  # its own influence is the largest, and sets no scale
    bounds = METHODS["instance_norm"].bound(shape, "image")
    picture = region_blocks(shape, LETTERS["image"], bounds, index=index, influence=strengths)
    for cell in cells(picture):
        at = element(cell, shape, LETTERS["image"], False, bounds, index)
        assert (picture.colors[cell] != FADED) == (strengths[at] > 0)
    assert [share(int(picture.colors[2, 1, space])) for space in (0, 2)] == [100, 25]


def test_merged_cells_show_their_strongest_element() -> None:
    shape = (1, 1, 1, 100)
    strengths = np.zeros(shape)
    strengths[..., 42] = 1.0
    picture = region_blocks(shape, LETTERS["image"], METHODS["layer_norm"].bound(shape, "image"), influence=strengths)
    assert picture.colors.shape[2] == 8 < CAPS["space"] < 100
    assert (picture.colors != FADED).sum() == 1


def test_caps_bound_the_number_of_cells() -> None:
    assert np.prod(list(CAPS.values())) <= 800
    assert CAPS_APART["sample"] * CAPS_APART["along"] * CAPS_APART["across"] * CAPS_APART["channel"] <= 800


def test_figures_and_engine_call_the_axes_alike() -> None:
    assert {letter: AXIS_WORDS[letter] for letter in WORDS} == WORDS
    assert {letter for axes in LETTERS.values() for letter in axes} <= set(WORDS)
