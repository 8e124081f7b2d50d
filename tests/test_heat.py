"""The heat map: its numbers, its scales, its words."""

import numpy as np
import pytest

from normcore.figures.heat import CROWD, SPOKEN, heat, number

VALUES = np.array([[0.0, 1e-6], [1.0, np.nan]])


def test_numbers_stay_and_what_is_not_finite_is_a_hole() -> None:
    trace = heat(VALUES, ["a", "b"], ["c", "d"], unit="volts").data[0]
    assert np.array_equal(trace.z, VALUES, equal_nan=True)
    assert (trace.zmin, trace.zmax) == (0, 1)
    assert trace.hovertext[1][0] == "b, c<br>1 volts"
    assert "not defined" in trace.hovertext[1][1]


def test_a_logarithmic_scale_gives_zero_the_color_of_the_smallest_number() -> None:
    figure = heat(VALUES, ["a", "b"], ["c", "d"], log=True)
    assert np.allclose(figure.data[0].z, [[-6, -6], [0, np.nan]], equal_nan=True)
    assert figure.data[0].hovertext[0][0] == "a, c<br>0"
    assert figure.data[0].colorbar.ticktext[0] == "10<sup>−6</sup>"


@pytest.mark.parametrize(("limits", "ends"), [(None, (-3, 3)), ((-1, 5), (-5, 5))])
def test_a_diverging_scale_has_its_middle_at_zero(
    limits: tuple[float, float] | None, ends: tuple[float, float]
) -> None:
    trace = heat(np.array([[1.0, -3.0]]), ["a"], ["b", "c"], diverging=True, limits=limits).data[0]
    assert (trace.zmin, trace.zmax) == ends


def test_a_large_map_names_few_and_carries_no_words() -> None:
    side = int(SPOKEN**0.5) + 1
    figure = heat(np.zeros((side, side)), [f"row {i}" for i in range(side)], [str(i) for i in range(side)])
    assert figure.data[0].hovertext is None
    assert len(figure.layout.yaxis.ticktext) <= CROWD
    assert figure.layout.yaxis.ticktext[1] == f"row {figure.layout.yaxis.tickvals[1]}"
    assert figure.data[0].zmin < 0 < figure.data[0].zmax


def test_words_in_cells_and_numbers_in_words() -> None:
    trace = heat(VALUES, ["a", "b"], ["c", "d"], text=np.array([["=", "≈"], ["≠", ""]])).data[0]
    assert trace.text[0][1] == "≈"
    assert trace.texttemplate == "%{text}"
    assert [number(x) for x in (-1.5, 1e-9, np.inf)] == ["−1.5", "1 × 10<sup>−9</sup>", "not defined"]
