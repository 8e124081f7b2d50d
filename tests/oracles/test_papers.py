"""Literal loops, written from the papers' definitions: one formula, one element at a time.

Gradients come from a complex step: for a formula of analytic functions, ``imag(f(x + ih)) / h`` is the derivative to
the last digit, with no difference of close numbers.
"""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from agreement import agrees
from cases import draw

from normcore import METHODS

Array = np.ndarray
EPS = 1e-3
STEP = 1e-150


def moments(values: list[Any], unbiased: bool = False) -> tuple[Any, Any]:
    """Mean and variance of a list of numbers."""
    mean = sum(values) / len(values)
    return mean, sum((value - mean) ** 2 for value in values) / (len(values) - unbiased)


def agree(key: str, oracle: Callable[[Array], Array], x: torch.Tensor, **given: Any) -> None:
    """Asserts that values, and the gradient of a weighted sum of them, are the same."""
    probe = x.clone().requires_grad_(True)
    y = METHODS[key](probe, **given).y
    weights = torch.cos(torch.arange(x.numel(), dtype=x.dtype)).reshape(x.shape)
    (gradient,) = torch.autograd.grad((y * weights).sum(), probe)
    array = x.numpy().astype(complex)
    expected = np.zeros(x.shape)
    for index in np.ndindex(*x.shape):
        stepped = array.copy()
        stepped[index] += 1j * STEP
        expected[index] = (oracle(stepped) * weights.numpy()).sum().imag / STEP
    agrees(key, "literal loop", [y, gradient], [oracle(array).real, expected])


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_ghost_batch_norm(size: int) -> None:
    def oracle(x: Array) -> Array:
        y = np.zeros_like(x)
        for start, channel in product(range(0, 6, size), range(x.shape[1])):
            ghost = range(start, start + size)
            mean, var = moments([x[n, channel, i] for n in ghost for i in range(x.shape[2])])
            for n, i in product(ghost, range(x.shape[2])):
                y[n, channel, i] = (x[n, channel, i] - mean) / (var + EPS) ** 0.5
        return y

    agree("ghost_batch_norm", oracle, draw("signal", 61, n=6, c=2), layout="signal", ghost_batch_size=size, eps=EPS)


@pytest.mark.parametrize("unbiased", [True, False])
def test_positional_norm(unbiased: bool) -> None:
    def oracle(x: Array) -> Array:
        y = np.zeros_like(x)
        for n, h, w in np.ndindex(x.shape[0], *x.shape[2:]):
            mean, var = moments([x[n, c, h, w] for c in range(x.shape[1])], unbiased)
            for c in range(x.shape[1]):
                y[n, c, h, w] = (x[n, c, h, w] - mean) / (var + EPS) ** 0.5
        return y

    agree("positional_norm", oracle, draw("image", 62, n=2, c=5), eps=EPS, unbiased=unbiased)


@pytest.mark.parametrize("residual", [True, False])
def test_global_response_norm(residual: bool) -> None:
    weight, bias = torch.randn(2, 3, generator=torch.Generator().manual_seed(63), dtype=torch.float64)

    def oracle(x: Array) -> Array:
        samples, channels, height, width = x.shape
        places = list(product(range(height), range(width)))
        y = np.zeros_like(x)
        for n in range(samples):
            norms = [sum(x[n, c, h, w] ** 2 for h, w in places) ** 0.5 for c in range(channels)]
            for c, (h, w) in product(range(channels), places):
                response = norms[c] / (sum(norms) / channels + EPS)
                y[n, c, h, w] = float(weight[c]) * x[n, c, h, w] * response + float(bias[c])
                y[n, c, h, w] += x[n, c, h, w] if residual else 0
        return y

    x = draw("image", 64, n=2, c=3)
    agree("global_response_norm", oracle, x, eps=EPS, residual=residual, weight=weight, bias=bias)


@pytest.mark.parametrize("eps_place", ["inside", "outside"])
@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("layout", ["linear", "conv2d"])
def test_weight_standardization(layout: str, unbiased: bool, eps_place: str) -> None:
    def oracle(weight: Array) -> Array:
        y = np.zeros_like(weight)
        for unit in range(len(weight)):
            mean, var = moments(list(weight[unit].ravel()), unbiased)
            sigma = (var + EPS) ** 0.5 if eps_place == "inside" else var**0.5 + EPS
            for index in np.ndindex(*weight.shape[1:]):
                y[(unit, *index)] = (weight[(unit, *index)] - mean) / sigma
        return y

    agree("weight_standardization", oracle, draw(layout, 65), eps=EPS, unbiased=unbiased, eps_place=eps_place)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
def test_local_response_norm(size: int) -> None:
    alpha, beta, k = 0.8, 0.6, 1.5

    def oracle(x: Array) -> Array:
        y = np.zeros_like(x)
        for n, c, i in np.ndindex(*x.shape):
            near = range(max(0, c - size // 2), min(x.shape[1], c + (size - 1) // 2 + 1))
            squares = sum(x[n, j, i] ** 2 for j in near)
            y[n, c, i] = x[n, c, i] / (k + alpha / size * squares) ** beta
        return y

    settings = {"size": size, "alpha": alpha, "beta": beta, "k": k}
    agree("local_response_norm", oracle, draw("signal", 66, n=2, c=5), layout="signal", **settings)


def switchable(x: Array, mean_share: Array, var_share: Array, unbiased: bool) -> Array:
    """The definition of the authors' code: layer and batch variances built from the instance moments."""
    samples, channels, length = x.shape
    instance = [[moments(list(x[n, c]), unbiased) for c in range(channels)] for n in range(samples)]

    def pooled(pairs: list[tuple[Any, Any]]) -> tuple[Any, Any]:
        mean = sum(m for m, _ in pairs) / len(pairs)
        return mean, sum(v + m**2 for m, v in pairs) / len(pairs) - mean**2

    y = np.zeros_like(x)
    for n, c in product(range(samples), range(channels)):
        of_layer = pooled([instance[n][j] for j in range(channels)])
        of_batch = pooled([instance[i][c] for i in range(samples)])
        three = (instance[n][c], of_layer, of_batch)
        mean = sum(share * part[0] for share, part in zip(mean_share, three, strict=True))
        var = sum(share * part[1] for share, part in zip(var_share, three, strict=True))
        for i in range(length):
            y[n, c, i] = (x[n, c, i] - mean) / (var + EPS) ** 0.5
    return y


def softmax(logits: torch.Tensor) -> Array:
    powers = np.exp(logits.numpy())
    return powers / powers.sum()


@pytest.mark.parametrize("unbiased", [True, False])
def test_switchable_norm(unbiased: bool) -> None:
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(67), dtype=torch.float64)
    tensors = {"mean_weight": logits[0], "var_weight": logits[1]}
    agree(
        "switchable_norm",
        lambda x: switchable(x, softmax(logits[0]), softmax(logits[1]), unbiased),
        draw("signal", 68, n=3, c=2),
        layout="signal",
        eps=EPS,
        unbiased=unbiased,
        **tensors,
    )


def test_switchable_norm_starts_with_equal_shares() -> None:
    x = draw("signal", 68, n=3, c=2)
    third = np.full(3, 1 / 3)
    agree("switchable_norm", lambda a: switchable(a, third, third, False), x, layout="signal", eps=EPS)


@pytest.mark.parametrize(("choice", "key"), list(enumerate(["instance_norm", "layer_norm", "batch_norm"])))
@pytest.mark.parametrize("layout", ["signal", "image", "volume"])
def test_switchable_norm_with_a_single_choice_is_that_norm(layout: str, choice: int, key: str) -> None:
    logits = torch.full((3,), -1e4, dtype=torch.float64)
    logits[choice] = 1e4
    x = draw(layout, 69).requires_grad_(True)
    ours = METHODS["switchable_norm"](x, layout, mean_weight=logits, var_weight=logits).y
    pure = METHODS[key](x, layout).y
    torch.testing.assert_close(ours, pure, rtol=1e-9, atol=1e-9)
    weights = draw(layout, 70)
    grads = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (ours, pure)]
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-9)


def test_switchable_norm_in_evaluation_takes_the_batch_part_from_its_state() -> None:
    x, logits = draw("image", 71), torch.tensor([-1e4, -1e4, 1e4], dtype=torch.float64)
    mean, var = torch.rand(2, 4, generator=torch.Generator().manual_seed(72), dtype=torch.float64)
    state = {"running_mean": mean, "running_var": var, "num_batches_tracked": torch.tensor(1)}
    given = {"state": state, "training": False}
    ours = METHODS["switchable_norm"](x, mean_weight=logits, var_weight=logits, **given).y
    torch.testing.assert_close(ours, METHODS["batch_norm"](x, **given).y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("unbiased", [True, False])
def test_switchable_norm_remembers_the_n_minus_one_variance_of_the_batch(unbiased: bool) -> None:
    x = draw("image", 73)
    state = METHODS["switchable_norm"](x, momentum=1.0, unbiased=unbiased).state
    torch.testing.assert_close(state["running_mean"], x.mean((0, 2, 3)))
    if not unbiased:
        torch.testing.assert_close(state["running_var"], x.var((0, 2, 3)))


def test_switchable_norm_stores_the_authors_batch_variance() -> None:
    x = draw("image", seed=3)
    norm = METHODS["switchable_norm"](x, momentum=1.0, unbiased=True)
    mean, var = x.mean((2, 3)), x.var((2, 3))  # torch.var, the n - 1 estimate, as in the released code
    stored = (var + mean**2).mean(0) - mean.mean(0) ** 2
    torch.testing.assert_close(norm.state["running_var"], stored, rtol=1e-9, atol=1e-12)
