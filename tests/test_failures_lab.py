"""The failure gallery: each failure runs, its numbers are those of numpy, its code works, its answer is borne out."""

import contextlib
import io

import numpy as np
import pytest
import torch
from torch.nn import functional

from normcore.figures.failures import curves
from normcore.lab.failures import FAILURES, Failure, audited
from normcore.lab.failures.digits import kernel_errors

every_failure = pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)

ANSWERS = {
    "one_value": "The same number, whatever the value",
    "batch_of_two": "+1 and −1: only which one is larger",
    "constant": "About 0.03",
    "epsilon_place": "With ε outside the root",
    "cancelling": "Anything, even a negative number",
    "kernels": "By several hundredths or more",
    "half": "0 everywhere",
    "padding": "1.5 and 2.75",
    "unlike_scale": "Next to nothing",
    "singular": "Some directions come out a hundred times too large",
    "too_early": "Mean 5 and deviation 3",
    "complement": "About 1",
}

SILENT = {"cancelling", "half", "too_early"}
"""Failures of code by hand, and of a model: not of a method on a tensor."""


@every_failure
def test_a_failure_comes_to_what_theory_says(failure: Failure) -> None:
    shown = failure.show()
    assert failure.answers[shown.answer] == ANSWERS[failure.key]
    assert shown.said.endswith(".") and failure.question.endswith("?") and failure.remedy.endswith(".")
    assert len(set(failure.answers)) == 3
    for name, values in shown.series.items():
        assert values.shape == shown.x.shape
        assert name in shown.points or np.isfinite(values).all()
        if "y" in failure.log and name not in shown.points:
            assert (values > 0).all()
    assert set(shown.points) <= set(shown.series)


@every_failure
def test_a_failure_is_the_same_every_time(failure: Failure) -> None:
    first, second = failure.show(), failure.show()
    assert first.said == second.said
    for name, values in first.series.items():
        np.testing.assert_array_equal(values, second.series[name])


@every_failure
def test_the_code_runs_and_says_something(failure: Failure) -> None:
    printed = io.StringIO()
    with torch.random.fork_rng([]), contextlib.redirect_stdout(printed):
        torch.manual_seed(0)
        exec(failure.code, {})
    assert printed.getvalue().strip()
    assert max(map(len, failure.code.splitlines())) <= 100


@every_failure
def test_the_detector_speaks_of_it(failure: Failure) -> None:
    assert bool(failure.found()) == (failure.key not in SILENT)


@every_failure
def test_the_figure_draws_the_very_numbers(failure: Failure) -> None:
    shown = failure.show()
    figure = curves(shown.x, shown.series, failure.axes, failure.log, shown.points)
    assert [trace.name for trace in figure.data] == list(shown.series)
    for trace in figure.data:
        np.testing.assert_array_equal(trace.y, shown.series[trace.name])
    assert (figure.layout.xaxis.type == "log") == ("x" in failure.log)
    assert len({(trace.line.color, trace.line.dash) for trace in figure.data}) == len(figure.data)


def test_one_value_and_two_values_by_numpy() -> None:
    one = FAILURES["one_value"].show()
    np.testing.assert_array_equal(one.series["InstanceNorm on 1 × 1 pixel"], 0)
    row = np.array([one.x[50], -1.0, 0.5, 2.0, -0.3, 1.0])
    expected = (row[0] - row.mean()) / np.sqrt(row.var() + 1e-5)
    assert one.series["LayerNorm on six channels"][50] == pytest.approx(expected)
    two = FAILURES["batch_of_two"].show()
    half = two.x / 2
    np.testing.assert_allclose(two.series["larger of two"], half / np.sqrt(half**2 + 1e-5), rtol=1e-9)
    np.testing.assert_allclose(two.series["smaller of two"], -two.series["larger of two"], rtol=1e-6, atol=1e-12)


def test_epsilon_by_formula() -> None:
    constant = FAILURES["constant"].show()
    for eps in (1e-3, 1e-5, 1e-8):
        expected = constant.x / np.sqrt(constant.x**2 + eps)
        np.testing.assert_allclose(constant.series[f"ε = {eps:g}"], expected, rtol=1e-6)
    place = FAILURES["epsilon_place"].show()
    np.testing.assert_allclose(place.series["ε outside the root"], place.x / (place.x + 1e-5), rtol=1e-6)
    np.testing.assert_allclose(place.series["ε inside the root"], place.x / np.sqrt(place.x**2 + 1e-5), rtol=1e-6)


def test_kernels_lose_digits_and_the_shift_saves_them() -> None:
    alone, first = kernel_errors(torch.tensor([1.0, 1e4], dtype=torch.float64))
    for key in ("layer_norm", "group_norm", "batch_norm", "instance_norm"):
        assert alone[key][0] < 1e-3 and 0.01 < alone[key][1] < 1
        assert (first[key] < 1e-5).all()


def test_half_precision_ends_where_the_sum_does() -> None:
    half = FAILURES["half"].show()
    sums = 1024 * half.x**2
    size = half.series["float16 throughout"]
    assert (size[sums > 66000] == 0).all()
    np.testing.assert_allclose(size[sums < 64000], 1, atol=0.02)
    np.testing.assert_allclose(half.series["float16 in, statistics in float32"], 1, atol=0.02)


def test_which_of_torchs_norms_stand_squares_beyond_float16() -> None:
    wide = 1000 * torch.randn(4, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    narrow = wide.half()
    for norm in (
        lambda x: functional.layer_norm(x, x.shape[1:]),
        lambda x: functional.rms_norm(x, x.shape[1:]),
        lambda x: functional.group_norm(x, 2),
        lambda x: functional.batch_norm(x, None, None, training=True),
        functional.instance_norm,
    ):
        torch.testing.assert_close(norm(narrow).float(), norm(narrow.float()), rtol=0, atol=0.01)
    assert torch.nn.CrossMapLRN2d(5)(narrow).isnan().any()


def test_padding_by_theory() -> None:
    padding = FAILURES["padding"].show()
    share = padding.x / 100
    mean, var = 3 * (1 - share), (1 - share) * 10 - (3 * (1 - share)) ** 2
    np.testing.assert_allclose(padding.series["mean, padding counted"], (3 - mean) / np.sqrt(var), atol=0.1)
    np.testing.assert_allclose(padding.series["deviation, padding counted"], 1 / np.sqrt(var), atol=0.1)
    np.testing.assert_allclose(padding.series["mean, with a mask"], 0, atol=1e-6)
    np.testing.assert_allclose(padding.series["deviation, with a mask"], 1, atol=1e-4)


def test_running_statistics_by_theory() -> None:
    early = FAILURES["too_early"].show()
    np.testing.assert_allclose(early.series["mean of the output"][[0, 60]], [5, 0], atol=0.15)
    np.testing.assert_allclose(early.series["deviation of the output"][[0, 60]], [3, 1], atol=0.1)
    complement = FAILURES["complement"].show()
    assert "1.2" in complement.said or "1.3" in complement.said  # (2 - m) / m of 0.9 is 1.22
    assert "of 19." in complement.said or "of 18." in complement.said or "of 20." in complement.said


def test_directions_that_a_batch_does_not_show_are_blown_up_by_epsilon() -> None:
    singular = FAILURES["singular"].show()
    few, many = singular.x <= 16, singular.x >= 256
    exact = singular.series["Decorrelated BN"]
    assert (exact[few] > 0.9 / np.sqrt(1e-5)).all() and (exact[many] < 1.5).all()
    assert (singular.series["BatchNorm"] < 5).all()


def test_the_planted_faults_are_all_found() -> None:
    kinds = [finding.kind for _, finding in audited().findings]
    assert sorted(set(kinds)) == ["bias before", "few samples", "momentum", "one value"]
