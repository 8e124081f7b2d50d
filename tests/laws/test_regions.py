"""A bound region answers every question about itself alike, and as a loop over the pattern would."""

import math
from dataclasses import dataclass
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from normcore import Bound, NormcoreError, Region, Window
from normcore.core import LETTERS

LETTERS_FOR_FACTORS = "abefgpqrsuxyz"


@dataclass(frozen=True)
class Pattern:
    """A pattern with its sizes, spelled out: for each axis its factors, as (letter, size, kept)."""

    axes: tuple[tuple[tuple[str, int, bool], ...], ...]

    @property
    def text(self) -> str:
        left = " ".join(
            f"({' '.join(letter for letter, _, _ in axis)})" if len(axis) > 1 else axis[0][0] for axis in self.axes
        )
        return f"{left} -> {' '.join(letter for axis in self.axes for letter, _, kept in axis if kept)}"

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(math.prod(size for _, size, _ in axis) for axis in self.axes)

    @property
    def bound(self) -> Bound:
        given_sizes = {letter: size for axis in self.axes for letter, size, _ in axis[1:]}
        return Region(self.text).bind(self.shape, **given_sizes)

    def regions(self) -> dict[tuple[int, ...], list[tuple[int, ...]]]:
        """By brute force: every index under the coordinates of its kept factors, in counting order of these."""
        found: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for index in product(*(range(size) for size in self.shape)):
            key = []
            for position, axis in zip(index, self.axes, strict=True):
                digits = []
                for _, size, kept in reversed(axis):
                    position, digit = divmod(position, size)  # noqa: PLW2901
                    digits += [digit] if kept else []
                key += reversed(digits)
            found.setdefault(tuple(key), []).append(index)
        return dict(sorted(found.items()))


@st.composite
def patterns(draw: st.DrawFn) -> Pattern:
    letters = iter(LETTERS_FOR_FACTORS)
    axes = []
    for _ in range(draw(st.integers(1, 3))):
        count = draw(st.sampled_from([1, 1, 2, 3]))
        axes.append(tuple((next(letters), draw(st.integers(1, 3)), draw(st.booleans())) for _ in range(count)))
    return Pattern(tuple(axes))


@given(patterns())
def test_labels_count_and_size_are_those_of_a_loop_over_the_pattern(pattern: Pattern) -> None:
    bound, regions = pattern.bound, pattern.regions()
    labels = bound.ids()
    assert labels.shape == pattern.shape == bound.shape
    assert bound.count == len(regions)
    assert {len(members) for members in regions.values()} == {bound.size}
    for label, members in enumerate(regions.values()):
        assert {int(labels[index]) for index in members} == {label}
        assert bound.label(members[0]) == label


@given(patterns())
def test_members_are_all_that_share_the_label(pattern: Pattern) -> None:
    bound = pattern.bound
    for members in pattern.regions().values():
        assert bound.members(members[-1]).shape == (bound.size, len(bound.shape))
        assert [tuple(index) for index in bound.members(members[-1]).tolist()] == members


@given(patterns())
def test_boxes_are_a_partition_and_carry_the_labels(pattern: Pattern) -> None:
    bound = pattern.bound
    boxes, filled = bound.boxes(), torch.full(pattern.shape, -1)
    assert len(boxes) == bound.count
    for label, of_region in enumerate(boxes.tolist()):
        for box in of_region:
            inside = filled[tuple(slice(start, stop) for start, stop in box)]
            assert inside.numel() > 0 and bool((inside == -1).all())
            inside[...] = label
    assert torch.equal(filled, bound.ids())


@given(patterns())
def test_boxes_are_few(pattern: Pattern) -> None:
    runs = []
    for axis in range(len(pattern.shape)):
        line = pattern.bound.ids().movedim(axis, 0).reshape(pattern.shape[axis], -1)[:, 0]
        runs.append((1 + int((line.diff() != 0).sum())) / len(line.unique()))
    assert pattern.bound.boxes().shape[1] == math.prod(runs)


@given(patterns())
def test_mean_is_that_of_the_members_and_spread_puts_it_back(pattern: Pattern) -> None:
    bound = pattern.bound
    x = torch.randn(pattern.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean = bound.mean(x)
    spread = bound.spread(mean)
    assert mean.shape == bound.region_shape and len(bound.letters) == mean.ndim
    assert all(size in (1, full) for size, full in zip(spread.shape, pattern.shape, strict=True))
    for key, members in pattern.regions().items():
        expected = sum(float(x[index]) for index in members) / len(members)
        assert float(mean[key]) == pytest.approx(expected, abs=1e-12)
        assert float(spread.expand(pattern.shape)[members[-1]]) == float(mean[key])
    assert torch.equal(bound.gather(spread), mean)


@given(patterns())
def test_parts_add_up_to_the_label(pattern: Pattern) -> None:
    bound = pattern.bound
    assert [len(part) for part in bound.parts] == list(pattern.shape)
    for index in product(*(range(size) for size in pattern.shape)):
        assert sum(int(part[i]) for part, i in zip(bound.parts, index, strict=True)) == int(bound.ids()[index])


def test_interleaved_and_neighboring_parts_are_told_apart() -> None:
    assert Region("(m v) c ... -> v c").bind((6, 1, 1), m=3).ids().flatten().tolist() == [0, 1, 0, 1, 0, 1]
    assert Region("(v m) c ... -> v c").bind((6, 1, 1), m=3).ids().flatten().tolist() == [0, 0, 0, 1, 1, 1]


def test_a_real_layer_is_drawn_from_few_boxes() -> None:
    shape = (32, 256, 56, 56)
    assert Region("n (g k) ... -> n g").bind(shape, g=32).boxes().shape == (1024, 1, 4, 2)
    assert Region("n c ... -> c").bind(shape).boxes()[3].tolist() == [[[0, 32], [3, 4], [0, 56], [0, 56]]]


@pytest.mark.parametrize(
    ("pattern", "layout", "fits"),
    [
        ("n c ... -> n", "image", True),
        ("n c ... -> n", "vector", True),
        ("n c ... -> n", "tokens", False),
        ("n t c -> n t", "tokens", True),
        ("n t c -> n t", "signal", False),
        ("n (g k) ... -> n g", "volume", True),
        ("(v m) t c -> v c", "tokens", True),
        ("o i ... -> o", "conv2d", True),
        ("o i ... -> o", "image", False),
    ],
)
def test_a_pattern_fits_the_layouts_whose_axes_it_names(pattern: str, layout: str, fits: bool) -> None:
    assert Region(pattern).fits(layout) is fits


@given(st.integers(1, 7), st.integers(1, 9), st.sampled_from(["vector", "signal", "image"]))
def test_a_window_reaches_as_far_as_its_extent_and_stops_at_the_borders(channels: int, size: int, layout: str) -> None:
    shape = (2, channels, *(2,) * (len(LETTERS[layout]) - 2))
    window = Window("n c ...", {"c": "size"}).bind(shape, size=size)
    back, ahead = size // 2, (size - 1) // 2
    for channel in range(channels):
        index = (1, channel, *(0,) * (len(shape) - 2))
        near = [j for j in range(channels) if channel - back <= j <= channel + ahead]
        assert window.members(index).tolist() == [[1, j, *index[2:]] for j in near]
        assert window.box(index)[1] == (near[0], near[-1] + 1)
    assert window.size == min(size, channels)


@pytest.mark.parametrize(
    ("pattern", "shape", "sizes", "message"),
    [
        ("n c -> n", (2, 3, 4), {}, r"shape \(2, 3, 4\) has 3 axes, but 'n c -> n' names 2"),
        ("n (g k) -> n g", (2, 6), {"g": 4}, r"g=4 does not divide the axis \(g k\) of 6"),
        ("n (g k) -> n g", (2, 6), {"g": 2, "k": 2}, r"g=2, k=2 does not divide the axis \(g k\) of 6"),
        ("n (g k) -> n g", (2, 6), {}, r"the axis \(g k\) needs the size of g"),
        ("n (g k) -> n g", (2, 6), {"g": 0}, "g=0 does not divide"),
        ("n (g k) -> n g", (2, 6), {"g": 1.5}, "must be whole numbers"),
        ("n c -> n", (2, 3), {"c": 5}, r"c=5 does not divide the axis \(c\) of 3"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(
    pattern: str, shape: tuple[int, ...], sizes: dict[str, int], message: str
) -> None:
    with pytest.raises(NormcoreError, match=message):
        Region(pattern).bind(shape, **sizes)


@pytest.mark.parametrize("pattern", ["n c", "n c -> x", "n n -> n"])
def test_a_pattern_that_says_nothing_sensible_is_refused(pattern: str) -> None:
    with pytest.raises(NormcoreError, match="left of the arrow"):
        Region(pattern)


@pytest.mark.parametrize("index", [(2, 0), (0, -1), (0,), (0, 0, 0), "ab", 3, (0.5, 0), None])
def test_an_index_outside_the_shape_is_refused(index: object) -> None:
    bound = Region("n c -> n").bind((2, 3))
    for question in (bound.members, bound.label, Window("n c", {"c": None}).bind((2, 3)).members):
        with pytest.raises(NormcoreError, match=r"index .* shape \(2, 3\)"):
            question(index)
