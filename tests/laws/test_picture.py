"""The picture is the truth: declared regions are exactly the inputs that move an output."""

import math
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

import pytest
import torch
from cases import (
    GRADIENTS,
    beside,
    draw,
    every_tensor_method,
    function,
    learned,
    modes,
    remembered,
    samples,
    shape_of,
    sizes_of,
    structures,
)
from torch import Tensor

from normcore import METHODS, Bound, Method, NormcoreError, Window, influence


@lru_cache
def declared(bounds: tuple[Bound | Window, ...], shape: tuple[int, ...]) -> Tensor:
    """One row for each output element: the members of its regions, and the element itself."""
    count = math.prod(shape)
    picture = torch.eye(count, dtype=torch.bool)
    strides = torch.tensor([math.prod(shape[axis + 1 :]) for axis in range(len(shape))])
    for row in range(count):
        index = tuple(int(i) for i in torch.unravel_index(torch.tensor(row), shape))
        for bound in bounds:
            picture[row, (bound.members(index) * strides).sum(1)] = True
    return picture


def jacobian(fn: Any, x: Tensor) -> Tensor:
    """The derivative of each output element (row) by each input element (column)."""
    probe = x.clone().requires_grad_(True)
    rows = torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape)
    (gradient,) = torch.autograd.grad(fn(probe), probe, rows, is_grads_batched=True)
    return gradient.reshape(x.numel(), x.numel())


def draws(layout: str, settings: dict[str, Any], seed: int = 1) -> list[Tensor]:
    """Inputs below and above every threshold; for the maximum norm also one in which each element is the largest."""
    x = draw(layout, seed=2 + seed)
    scaled = [x * scale for scale in (1e-8, -1e-8, 1.0, 30.0)]
    if math.inf in settings.values():
        spikes = torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape)
        scaled += list(x + 100 * spikes)
    return scaled


def erased(method: Method, bounds: tuple[Bound | Window, ...], settings: dict[str, Any]) -> bool:
    """Whether centering leaves nothing, because every region is a single element."""
    return "shift" in method.invariances(**settings) and bool(bounds) and all(bound.size == 1 for bound in bounds)


@every_tensor_method
def test_an_output_is_moved_by_its_regions_and_by_nothing_else(method: Method, layout: str) -> None:
    for training in modes(method):
        for settings in samples(method, layout):
            inputs = draws(layout, settings)
            bounds = method.bound(inputs[0].shape, layout, training=training, **settings)
            expected = declared(bounds, tuple(inputs[0].shape))
            if erased(method, bounds, settings) and bounds == method.bound(inputs[0].shape, layout, **settings):
                expected = torch.zeros_like(expected)
            measured = torch.zeros_like(expected)
            # A threshold, or a share of 0, can close a way: then other values, of what is learned too, open it.
            for seed in range(1, 9):
                inputs = draws(layout, settings, seed)
                tensors = learned(method, inputs[0], layout, settings, seed)
                if method.state:
                    tensors["state"] = remembered(
                        method, inputs[0].shape[-1 if layout == "tokens" else 1], settings, like=inputs[0]
                    )
                fn = function(method, layout, settings, training, **tensors)
                measured |= torch.stack([jacobian(fn, x) != 0 for x in inputs]).any(0)
                if torch.equal(measured, expected) or not method.affine:
                    break
            assert torch.equal(measured, expected), (settings, training)


def changes(fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Which outputs (rows) change when an input element (column) does: in sign, to a spike, to infinity."""
    columns = []
    for place in range(x.numel()):
        moved = torch.zeros(x.numel(), dtype=torch.bool)
        for value in (-float(x.reshape(-1)[place]), 1e3, math.inf):
            other = x.clone()
            other.view(-1)[place] = value
            with suppress(NormcoreError):  # what is refused says nothing
                before, after = fn(x).reshape(-1), fn(other).reshape(-1)
                moved |= (before != after) & ~(before.isnan() & after.isnan())
        columns.append(moved)
    return torch.stack(columns, 1)


@pytest.mark.parametrize("layout", ["bias", "linear", "conv2d", "examples"])
@pytest.mark.parametrize("method", GRADIENTS, ids=lambda method: method.key)
def test_a_gradient_is_changed_by_its_regions_and_by_nothing_else(method: Method, layout: str) -> None:
    """Rules for gradients jump, and remember: their derivatives do not tell all, and a history comes before."""
    if layout not in method.layouts:
        return
    for settings in structures(method, sizes_of(layout)):
        expected = declared(method.bound(shape_of(layout), layout, **settings), shape_of(layout))
        measured = torch.zeros_like(expected)
        for scale in (1.0, 30.0, 1e-3):
            x, history = scale * draw(layout, seed=7), {}
            for step in range(30 if method.remembers else 0):
                history = {
                    "state": method([scale * draw(layout, seed=step)], **beside(method, x), **settings, **history).state
                }
            measured |= changes(lambda x: method([x], **beside(method, x), **settings, **history).y[0], x)  # noqa: B023
            if torch.equal(measured, expected):
                break
        assert torch.equal(measured, expected), settings


@every_tensor_method
def test_influence_is_the_absolute_jacobian(method: Method, layout: str) -> None:
    x = draw(layout)
    fn = function(method, layout, {}, **learned(method, x, layout, {}))
    expected = jacobian(fn, x).abs()
    for row in (0, x.numel() // 2, x.numel() - 1):
        index = torch.unravel_index(torch.tensor(row), x.shape)
        torch.testing.assert_close(influence(fn, x, [int(i) for i in index]).reshape(-1), expected[row])


def test_influence_measures_any_callable() -> None:
    x = torch.randn(2, 3)
    assert torch.equal(influence(torch.nn.Linear(3, 3), x, (1, 0)) != 0, torch.tensor([[False] * 3, [True] * 3]))
    assert torch.equal(influence(lambda t: t.roll(1, 0), x, (0, 2)), torch.tensor([[0.0] * 3, [0.0, 0.0, 1.0]]))
    assert x.grad is None and not x.requires_grad


def test_influence_works_where_gradients_are_switched_off() -> None:
    with torch.no_grad():
        assert influence(lambda t: 3 * t, torch.ones(2), (1,)).tolist() == [0.0, 3.0]


@pytest.mark.parametrize("training", [True, False])
def test_statistics_from_a_running_average_drop_out_in_evaluation(training: bool) -> None:
    bounds = METHODS["switchable_norm"].bound((4, 4, 2, 2), "image", training=training)
    assert len(bounds) == (3 if training else 2)
