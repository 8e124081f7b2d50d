"""What is measured, against literal loops and numpy: regions, moments, shares, densities, Jacobians, gradients."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from normcore import METHODS, NormcoreError
from normcore.core import LETTERS, Bound, Part
from normcore.lab.backward import backward, epsilons
from normcore.lab.functions import ACTIVATIONS
from normcore.lab.inputs import Input, made
from normcore.lab.numbers import OWN, WHOLE, Groups, Numbers, given_back, grouped, measure, run, summarize
from normcore.lab.spread import LEVELS, densities, density, quantiles

SIZES = {"n": 4, "c": 6, "t": 8, "l": 10, "d": 3, "h": 5, "w": 5, "o": 6, "i": 4}
CASES = [(key, layout) for key, method in METHODS.items() if method.family != "gradient" for layout in method.layouts]


def given_for(layout: str, source: str = "channel offsets") -> Input:
    return made(source, tuple(SIZES[letter] for letter in LETTERS[layout]), layout)


@pytest.mark.parametrize(("key", "layout"), CASES)
def test_every_method_is_measured_in_every_layout_in_its_own_regions(key: str, layout: str) -> None:
    given = given_for(layout)
    numbers = measure(key, given)
    bounds = METHODS[key].bound(given.shape, layout)
    first = next((b for b in bounds if isinstance(b, Bound | Part) and b.count), None)
    if isinstance(first, Bound):
        assert np.array_equal(numbers.groups.labels, first.ids().numpy())
    assert numbers.groups.order.size == (numbers.groups.labels >= 0).sum()
    assert_allclose(numbers.y, run(key, given, given.x).numpy(), rtol=0, atol=0)
    some = numbers.groups.chosen[:: max(1, len(numbers.groups.chosen) // 4)]
    for group in some:
        for values, summary in ((numbers.x, numbers.before), (numbers.y, numbers.after)):
            inside = values[numbers.groups.labels == group]
            assert summary.size[group] == len(inside)
            assert_allclose(summary.mean[group], inside.mean(), atol=1e-12)
            assert_allclose(summary.std[group], inside.std(), atol=1e-12)
            assert summary.low[group] == inside.min()
            assert summary.high[group] == inside.max()


@pytest.mark.parametrize("key", ["batch_norm", "layer_norm", "instance_norm", "group_norm"])
def test_mean_0_and_deviation_1_are_measured(key: str) -> None:
    numbers = measure(key, given_for("image"))
    assert_allclose(numbers.after.mean, 0, atol=1e-12)
    assert_allclose(numbers.after.std, 1, atol=1e-3)
    assert np.abs(numbers.before.mean).max() > 0.05


def test_the_summary_is_that_of_a_literal_loop() -> None:
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=(3, 4, 5)), rng.permutation(np.repeat(np.arange(6), 10)).reshape(3, 4, 5)
    counted = rng.random((3, 4, 5)) < 0.6
    counted[labels == 2] = False
    found = summarize(Groups(labels, ("c",), (6,)), values, counted, "tanh")
    for group in range(6):
        inside = [v for v, at, keep in zip(values.flat, labels.flat, counted.flat, strict=True) if at == group and keep]
        assert found.size[group] == len(inside)
        if not inside:
            assert all(
                math.isnan(getattr(found, name)[group]) for name in ("mean", "std", "low", "high", "kurtosis", "dead")
            )
            continue
        mean = math.fsum(inside) / len(inside)
        var = math.fsum((v - mean) ** 2 for v in inside) / len(inside)
        assert_allclose(found.mean[group], mean)
        assert_allclose(found.std[group], math.sqrt(var))
        assert (found.low[group], found.high[group]) == (min(inside), max(inside))
        assert_allclose(found.kurtosis[group], math.fsum((v - mean) ** 4 for v in inside) / len(inside) / var**2)
        assert_allclose(found.dead[group], sum(v <= 0 for v in inside) / len(inside))
        assert_allclose(found.saturated[group], sum(1 - math.tanh(v) ** 2 <= 0.1 for v in inside) / len(inside))


def test_a_large_mean_does_not_spoil_the_deviation() -> None:
    values = 1e8 + np.array([[0.0, 1.0, 2.0, 3.0]])
    found = summarize(Groups(np.zeros((1, 4), dtype=int), (), ()), values, np.ones((1, 4), dtype=bool), "tanh")
    assert_allclose(found.std, np.sqrt(1.25))


def test_constant_regions_have_no_kurtosis() -> None:
    values = np.full((2, 3), 5.0)
    found = summarize(Groups(np.zeros((2, 3), dtype=int), (), ()), values, np.ones((2, 3), dtype=bool), "ReLU")
    assert found.std[0] == 0
    assert math.isnan(found.kurtosis[0])


def test_groups_by_axis_and_everything_have_names() -> None:
    given = given_for("image")
    by_channel = grouped("layer_norm", given, "channel")
    assert np.array_equal(by_channel.labels, np.indices(given.shape)[1])
    assert by_channel.name(2) == "channel 2"
    assert grouped("layer_norm", given, WHOLE).count == 1
    assert grouped("layer_norm", given, WHOLE).name(0) == "everything"
    assert grouped("instance_norm", given, OWN).name(8) == "sample 1, channel 2"
    assert grouped("group_norm", given, OWN, num_groups=3).name(4) == "sample 1, group 1"
    assert "overlap" in grouped("local_response_norm", given).note
    assert "no statistic" in grouped("dynamic_tanh", given).note
    with pytest.raises(NormcoreError, match="token"):
        grouped("layer_norm", given, "token")


def test_the_mask_reaches_masked_methods_and_is_counted() -> None:
    given = made("padded sentences", (6, 12, 4), "tokens")
    plain, masked = measure("batch_norm", given), measure("masked_batch_norm", given)
    assert_allclose(masked.after.mean, 0, atol=1e-12)
    assert_allclose(masked.after.std, 1, atol=1e-3)
    assert np.abs(plain.after.mean).min() > 0.1
    everything = measure("batch_norm", given, everything=True)
    assert_allclose(everything.after.mean, 0, atol=1e-12)
    assert everything.after.size.tolist() == [72] * 4
    assert masked.after.size.tolist() == [int(given.counted[..., 0].sum())] * 4
    real = given.x.numpy()[given.counted[..., 0]]
    expected = (real - real.mean(0)) / np.sqrt(real.var(0) + 1e-5)
    assert_allclose(masked.y[given.counted[..., 0]], expected, atol=1e-12)
    tokens = measure("layer_norm", given)
    assert (tokens.after.size == np.where(given.counted[..., 0].ravel(), 4, 0)).all()
    assert np.isnan(tokens.after.mean).any()
    assert np.isfinite(quantiles(tokens, True)).all(1).sum() == given.counted[..., 0].sum()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_and_shares_are_those_of_differences(name: str) -> None:
    function = ACTIVATIONS[name]
    x = np.linspace(-6, 6, 241) + 1e-3
    step = 1e-6
    above, below = (function.value(torch.as_tensor(x + sign * step)).numpy() for sign in (1, -1))
    slope = (above - below) / (2 * step)
    assert_allclose(function.slope(torch.as_tensor(x)).numpy(), slope, atol=1e-8)
    fine = function.slope(torch.linspace(-6, 6, 200_001, dtype=torch.float64)).numpy()
    largest = np.abs(fine).max()
    assert function.steepest == pytest.approx(largest, abs=1e-8)
    passing = min(largest, 1.0)
    flat, between, linear = function.shares(x)
    assert flat == pytest.approx((np.abs(slope) <= 0.1 * largest).mean())
    assert linear == pytest.approx((np.abs(slope) >= 0.9 * passing).mean())
    assert flat + between + linear == pytest.approx(1)


def test_a_density_is_that_of_gaussian_bumps() -> None:
    values = np.random.default_rng(1).normal(size=200)
    found = density(values)
    places = found.start + found.step * np.arange(len(found.height))
    width = 0.9 * min(values.std(), np.subtract(*np.quantile(values, [0.75, 0.25])) / 1.34) * 200**-0.2
    width = max(width, 0.8 * found.step)
    exact = np.array([np.exp(-(((place - values) / width) ** 2) / 2).sum() for place in places])
    assert_allclose(found.height, exact / exact.max(), atol=0.02)
    assert found.height.max() == pytest.approx(1)
    assert places[0] < values.min() < values.max() < places[-1]


@pytest.mark.parametrize("values", [np.full(7, 3.0), np.array([2.0]), np.array([]), np.array([np.nan, np.inf])])
def test_what_has_no_density_makes_none_up(values: np.ndarray) -> None:
    found = density(values)
    assert len(found.height) == 1
    assert np.isfinite([found.start, found.step]).all()


def test_densities_and_quantiles_are_those_of_each_region() -> None:
    numbers = measure("instance_norm", given_for("image"))
    assert len(densities(numbers, True)) == 24
    for group, row in zip(numbers.groups.chosen, quantiles(numbers, True), strict=True):
        assert_allclose(row, np.quantile(numbers.y[numbers.groups.labels == group], LEVELS))


def test_gain_and_bias_give_back_what_happened_to_the_whole_channel() -> None:
    given = given_for("image", "mixed scales")
    share = {key: given_back(measure(key, given), "image") for key in ("batch_norm", "layer_norm", "dynamic_tanh")}
    assert share["batch_norm"] == pytest.approx(1)
    assert share["layer_norm"] < 0.9
    layer = measure("layer_norm", given)
    squares = [np.corrcoef(layer.x[:, channel].ravel(), layer.y[:, channel].ravel())[0, 1] ** 2 for channel in range(6)]
    assert share["layer_norm"] == pytest.approx(np.mean(squares))


@pytest.mark.parametrize("key", ["batch_norm", "layer_norm", "instance_norm", "group_norm"])
def test_a_standardizing_method_takes_mean_and_projection_from_the_gradient(key: str) -> None:
    given = given_for("image")
    numbers = measure(key, given)
    found = backward(given, numbers, 1)
    inside = numbers.groups.labels.ravel() == 1
    x, y = numbers.x.ravel()[inside], numbers.y.ravel()[inside]
    assert_allclose(found.outputs, y)
    literal = found.arriving - found.arriving.mean()
    exact = literal - y * (literal * y).mean()  # with ε in the square of y
    literal = literal - y * (literal * y).mean() / (y**2).mean()
    assert_allclose(found.orthogonal, literal, atol=1e-12)
    assert_allclose(found.leaving, exact, atol=1e-10)
    assert found.factor == pytest.approx(x.std() / y.std())
    assert found.mean[0] == pytest.approx(found.arriving.mean())
    assert abs(found.mean[1]) < 1e-12
    assert found.along[0] > 0.3
    assert abs(found.along[1]) < 1e-3
    assert found.outside < 1e-12
    scale = 1 / np.sqrt(x.var() + 1e-5)
    at = {float(value): i for i, value in enumerate(x)}
    shown = [at[float(value)] for value in found.inputs]
    exact = scale * (np.eye(len(x)) - 1 / len(x) - np.outer(y, y) / len(x))
    assert_allclose(found.jacobian, exact[np.ix_(shown, shown)], atol=1e-12)
    assert (np.diff(found.inputs) >= 0).all()


@pytest.mark.parametrize(
    ("key", "settings"),
    [("weight_norm", {}), ("scale_norm", {}), ("rms_norm", {}), ("dynamic_tanh", {}), ("batch_norm", {"eps": 0.1})],
)
def test_the_part_along_the_output_is_taken_out_whole(key: str, settings: dict[str, Any]) -> None:
    given = given_for("conv2d" if METHODS[key].family == "weight" else "vector" if key == "scale_norm" else "image")
    found = backward(given, measure(key, given, **settings), 0, **settings)
    result = found.outputs - found.outputs.mean()
    assert abs(found.orthogonal @ result) < 1e-12 * np.linalg.norm(found.orthogonal) * np.linalg.norm(result)
    assert abs(found.orthogonal.mean()) < 1e-12


def test_a_method_without_centering_keeps_the_mean_of_the_gradient() -> None:
    given = given_for("tokens")
    found = backward(given, measure("rms_norm", given), 0)
    assert abs(found.mean[1]) > 0.1


@pytest.mark.parametrize("key", [key for key, layout in CASES if layout in ("image", "conv2d")])
def test_every_method_has_a_way_back(key: str) -> None:
    given = given_for("conv2d" if METHODS[key].family == "weight" else "image")
    numbers = measure(key, given)
    found = backward(given, numbers, 0)
    assert np.isfinite(found.jacobian).all()
    assert np.isfinite(found.leaving).all()
    tried = epsilons(given, numbers)
    assert (tried is None) == ("eps" not in {param.name for param in METHODS[key].params})


def test_regions_that_are_not_there_are_refused() -> None:
    given = made("padded sentences", (4, 8, 4), "tokens")
    numbers: Numbers = measure("layer_norm", given)
    with pytest.raises(NormcoreError, match="region=99"):
        backward(given, numbers, 99)
    with pytest.raises(NormcoreError, match="nothing in sample 3, token 7 counts"):
        backward(given, numbers, 31)


def test_a_larger_epsilon_takes_from_the_deviation_as_the_formula_says() -> None:
    given = given_for("image")
    numbers = measure("batch_norm", given)
    found = epsilons(given, numbers)
    assert found is not None
    assert found.current == METHODS["batch_norm"].default("eps")
    var = given.x.numpy().var(axis=(0, 2, 3))
    assert_allclose(found.std, [np.sqrt(var / (var + eps)).mean() for eps in found.eps])
