"""Weight methods, penalties on weights and data-dependent initialization, against libraries and literal formulas."""

import copy
import math
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import equinox
import flax.linen
import jax
import keras
import numpy as np
import pytest
import torch
from agreement import agrees
from cases import draw
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from normcore import METHODS, NormcoreError, data_dependent_init, reparametrize
from normcore.penalties import orthogonal_regularization

jax.config.update("jax_enable_x64", True)

# The defaults of the methods' settings, and where the values stand.
PUBLISHED: dict[str, dict[str, Any]] = {
    "scaled_weight_standardization": {"gamma": 1.0, "eps": 1e-4, "eps_place": "inside", "unbiased": True},  # `listing`
    "centered_weight_norm": {},  # the paper has no ε
    "spectral_norm": {"n_power_iterations": 1, "eps": 1e-12},  # torch.nn.utils.parametrizations.spectral_norm
    "spectral_norm_exact": {},
    "cosine_norm": {"scale": 1.0, "eps": 0.0},  # the paper's equation
    "orthogonal_parametrization": {"kind": "exponential"},  # torch's for square matrices
    "max_norm_constraint": {"max_norm": 3.0, "eps": 1e-7},  # Srivastava and others 2014; keras.config.epsilon
    "unit_norm_constraint": {"eps": 1e-7},  # keras.config.epsilon
    "parseval_update": {"beta": 1e-3},  # near the 3e-4 that codes of the paper have
}

LAYOUTS = ["linear", "conv1d", "conv2d", "conv3d"]
Oracle = Callable[..., Any]


def weighted(weight: Tensor, y: Tensor, *parameters: Tensor) -> list[Tensor]:
    """A value, and the gradients of a weighted sum of it."""
    return [y, *torch.autograd.grad((y * draw_like(y)).sum(), [weight, *parameters])]


def draw_like(y: Tensor) -> Tensor:
    return torch.cos(torch.arange(y.numel(), dtype=y.dtype)).reshape(y.shape)


def in_jax(fn: Oracle, *arrays: Tensor) -> list[Any]:
    """The same of a function in jax."""
    values = [np.asarray(array.detach()) for array in arrays]
    y, pull = jax.vjp(fn, *values)
    return [np.asarray(y), *(np.asarray(g) for g in pull(np.cos(np.arange(y.size, dtype=float)).reshape(y.shape)))]


def column(tensor: Tensor, like: Tensor) -> Tensor:
    return tensor.reshape(-1, *(1,) * (like.ndim - 1))


def gains(weight: Tensor) -> Tensor:
    return column(torch.linspace(0.5, 2.0, len(weight), dtype=weight.dtype), weight).requires_grad_(True)


# Scaled weight standardization and centered weight normalization


def listing(weight: Tensor, gain: Tensor, gamma: float, eps: float) -> Tensor:
    """A form common in PyTorch, TensorFlow and Haiku code of the paper, here with torch.var's n - 1."""
    axes, fan_in = list(range(1, weight.ndim)), math.prod(weight.shape[1:])
    mean, var = weight.mean(axes, keepdim=True), weight.var(axes, keepdim=True)
    return gamma * (weight - mean) / (var * fan_in + eps) ** 0.5 * gain


def deepmind(weight: Tensor, gain: Tensor, gamma: float, eps: float) -> Tensor:
    """The authors' JAX code, on weights of axes (o i ...)."""
    axes, fan_in = list(range(1, weight.ndim)), math.prod(weight.shape[1:])
    mean, var = weight.mean(axes, keepdim=True), weight.var(axes, correction=0, keepdim=True)
    scale = torch.rsqrt(torch.maximum(var * fan_in, torch.tensor(eps, dtype=weight.dtype))) * gain * gamma
    return weight * scale - mean * scale


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("oracle", "name", "settings"),
    [
        (listing, "authors' formula", {"eps_place": "inside", "unbiased": True}),
        (deepmind, "authors' code", {"eps_place": "floor", "unbiased": False}),
    ],
)
@pytest.mark.parametrize("eps", [1e-4, 0.5, 1.0])
def test_scaled_weight_standardization(
    layout: str, oracle: Oracle, name: str, settings: dict[str, Any], eps: float
) -> None:
    weight = (0.2 * draw(layout, 201) + 0.1).requires_grad_(True)
    gain = gains(weight)
    ours = METHODS["scaled_weight_standardization"](weight, gain=gain, gamma=1.7139, eps=eps, **settings).y
    theirs = oracle(weight, gain, 1.7139, eps)
    agrees("scaled_weight_standardization", name, weighted(weight, ours, gain), weighted(weight, theirs, gain))


def test_the_factors_for_nonlinearities_keep_the_variance_at_one() -> None:
    z = torch.randn(2_000_000, generator=torch.Generator().manual_seed(202), dtype=torch.float64)
    for gamma, activation in ((1.7139, torch.relu), (1.7881, nn.functional.silu)):
        assert float((gamma * activation(z)).var()) == pytest.approx(1.0, rel=5e-3)


def test_scaled_standardization_hands_on_the_variance_of_white_inputs() -> None:
    weight = draw("linear", 203, o=300, i=200)
    y = METHODS["scaled_weight_standardization"](3 * weight + 1, unbiased=False, eps=0.0).y
    torch.testing.assert_close(y.square().sum(1), torch.ones(300, dtype=torch.float64))


def test_learned_gains_start_at_one_and_train() -> None:
    for key in ("scaled_weight_standardization", "centered_weight_norm"):
        layer = reparametrize(nn.Conv2d(3, 4, 2), key)
        gain = layer.parametrizations.weight[0].gain
        assert gain.shape == (4, 1, 1, 1) and bool((gain == 1).all())
        layer.weight.cos().sum().backward()
        assert bool((gain.grad != 0).all())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_centered_weight_norm(layout: str) -> None:
    weight = (draw(layout, 204) + 0.5).requires_grad_(True)
    gain = gains(weight)
    rows = []
    for row, g in zip(weight.flatten(1), gain.flatten(), strict=True):
        centered = row - sum(row) / len(row)
        rows.append(g * centered / sum(c * c for c in centered) ** 0.5)
    theirs = torch.stack(rows).reshape_as(weight)
    ours = METHODS["centered_weight_norm"](weight, gain=gain).y
    agrees("centered_weight_norm", "literal loop", weighted(weight, ours, gain), weighted(weight, theirs, gain))


def test_centered_weight_norm_is_weight_standardization_with_a_gain() -> None:
    weight = draw("conv2d", 205)
    gain = torch.full((4, 1, 1, 1), weight[0].numel() ** 0.5, dtype=torch.float64)
    standardized = METHODS["weight_standardization"](weight, unbiased=False, eps=0.0).y
    torch.testing.assert_close(METHODS["centered_weight_norm"](weight, gain=gain).y, standardized)


@pytest.mark.parametrize("key", ["centered_weight_norm", "scaled_weight_standardization"])
def test_a_unit_of_equal_weights_gives_nothing_and_no_nan(key: str) -> None:
    for weight in (torch.full((2, 3), 0.7), torch.ones(2, 1)):
        y = METHODS[key](weight.requires_grad_(True)).y
        assert not y.any()
        assert torch.autograd.grad(y.sum(), weight)[0].isfinite().all()


# Spectral normalization

SEVERAL = pytest.mark.parametrize("iterations", [1, 3])


def torchs(layer: nn.Module, **settings: Any) -> tuple[nn.Module, nn.Module]:
    """PyTorch's parametrization and ours, on copies of a layer, with the same u and v."""
    theirs = parametrizations.spectral_norm(copy.deepcopy(layer), **settings)
    ours = reparametrize(copy.deepcopy(layer), "spectral_norm", **settings)
    same, other = ours.parametrizations.weight[0], theirs.parametrizations.weight[0]
    same.u.copy_(other._u.reshape(same.u.shape))
    same.v.copy_(other._v.reshape(same.v.shape))
    return ours, theirs


@SEVERAL
@pytest.mark.parametrize("eps", [1e-12, 0.95])
@pytest.mark.parametrize("layer", [nn.Linear(5, 7), nn.Conv1d(3, 4, 2), nn.Conv2d(3, 4, 2), nn.Conv3d(2, 3, 2)])
def test_spectral_norm_is_torchs_step_by_step(layer: nn.Module, iterations: int, eps: float) -> None:
    layer = copy.deepcopy(layer).double()
    with torch.no_grad():
        # So that the larger ε is just above the lengths.
        layer.weight.mul_(0.94 / torch.linalg.matrix_norm(layer.weight.flatten(1), 2))
    ours, theirs = torchs(layer, n_power_iterations=iterations, eps=eps)
    optimizers = [torch.optim.SGD(module.parameters(), 0.01) for module in (ours, theirs)]
    for step in range(6):
        if step == 4:
            ours.eval(), theirs.eval()
        weights, grads = [ours.weight, theirs.weight], []
        for module, weight, optimizer in zip((ours, theirs), weights, optimizers, strict=True):
            optimizer.zero_grad()
            (weight * draw_like(weight)).sum().backward()
            grads.append(module.parametrizations.weight.original.grad.clone())
            optimizer.step()
        state, other = ours.parametrizations.weight[0], theirs.parametrizations.weight[0]
        mine = [weights[0], grads[0], state.u.flatten(), state.v.flatten()]
        name = "torch.nn.utils.parametrizations.spectral_norm"
        agrees("spectral_norm", name, mine, [weights[1], grads[1], other._u, other._v])


@SEVERAL
def test_spectral_norm_is_equinox(iterations: int) -> None:
    weight = draw("conv2d", 211).requires_grad_(True)
    state = METHODS["spectral_norm"](draw("conv2d", 212)).state

    def theirs(array: Any) -> Any:
        inner = equinox.nn.Conv2d(3, 4, 2, use_bias=False, key=jax.random.key(0))
        inner = equinox.tree_at(lambda layer: layer.weight, inner, array)
        norm, memory = equinox.nn.make_with_state(equinox.nn.SpectralNorm)(
            inner, "weight", iterations, key=jax.random.key(1)
        )
        memory = memory.set(norm.uv_index, tuple(np.asarray(state[name]).reshape(-1) for name in ("u", "v")))
        # Of inputs with a single one, a convolution gives back the kernel, turned around.
        inputs = np.zeros((12, 3, 3, 3))
        for n, (c, h, w) in enumerate(np.ndindex(3, 2, 2)):
            inputs[n, c, h, w] = 1
        found = jax.vmap(lambda x: norm(x, memory)[0])(inputs)
        return found[:, :, 0, 0].T.reshape(4, 3, 2, 2)

    ours = METHODS["spectral_norm"](weight, state=state, n_power_iterations=iterations).y
    agrees("spectral_norm", "equinox.nn.SpectralNorm", weighted(weight, ours), in_jax(theirs, weight))


def test_spectral_norm_is_flax_once_both_have_converged() -> None:
    weight = draw("linear", 213, o=4, i=6).requires_grad_(True)
    many = 400

    def theirs(array: Any) -> Any:
        norm = flax.linen.SpectralNorm(flax.linen.Dense(4, use_bias=False), n_steps=many)
        start = norm.init(jax.random.key(0), np.eye(6), update_stats=False)
        params = jax.tree.map(lambda _: array.T, start["params"])
        memory = start["batch_stats"]
        return norm.apply({"params": params, "batch_stats": memory}, np.eye(6), update_stats=False).T

    ours = METHODS["spectral_norm"](weight, n_power_iterations=many).y
    agrees("spectral_norm", "flax.linen.SpectralNorm", weighted(weight, ours), in_jax(theirs, weight), 1e-8)


def test_power_iteration_never_overestimates_and_tends_to_the_true_norm() -> None:
    weight = draw("linear", 214, o=30, i=20)
    true = float(METHODS["spectral_norm_exact"](weight).stats["spectral_norm"])
    state, estimates = {"u": torch.zeros(30, 1).double(), "v": torch.ones(1, 20).double() / 20**0.5}, []
    for _ in range(300):
        normed = METHODS["spectral_norm"](weight, state=state)
        state = normed.state
        estimates.append(float(normed.stats["spectral_estimate"]))
    assert all(estimate <= true * (1 + 1e-12) for estimate in estimates)
    assert estimates == pytest.approx(sorted(estimates), rel=1e-12)
    assert estimates[0] < 0.95 * true and estimates[-1] == pytest.approx(true, rel=1e-9)


def test_spectral_norm_starts_the_same_each_time_with_fifteen_iterations() -> None:
    weight = draw("conv2d", 215)
    v = torch.cos(torch.arange(1, 13, dtype=torch.float64))
    for _ in range(15):
        u = weight.flatten(1) @ v
        u = u / u.norm()
        v = weight.flatten(1).T @ u
        v = v / v.norm()
    state = METHODS["spectral_norm"](weight, training=False).state
    torch.testing.assert_close(state["u"].flatten(), u)
    torch.testing.assert_close(state["v"].flatten(), v)


def test_u_and_v_are_constants_in_the_gradient() -> None:
    weight = draw("linear", 216).requires_grad_(True)
    state = METHODS["spectral_norm"](draw("linear", 217)).state
    normed = METHODS["spectral_norm"](weight, state=state)
    u, v = normed.state["u"].flatten(), normed.state["v"].flatten()
    assert not u.requires_grad and not v.requires_grad
    assert state["u"] is not normed.state["u"] and not torch.equal(u, state["u"].flatten())
    theirs = weight / torch.einsum("o,oi,i->", u, weight, v)
    agrees("spectral_norm", "authors' formula", weighted(weight, normed.y), weighted(weight, theirs))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_spectral_norm_exact(layout: str) -> None:
    weight = draw(layout, 218).requires_grad_(True)
    theirs = weight / torch.linalg.matrix_norm(weight.flatten(1), 2)
    ours = METHODS["spectral_norm_exact"](weight).y
    assert float(torch.linalg.matrix_norm(ours.detach().flatten(1), 2)) == pytest.approx(1.0)
    agrees("spectral_norm_exact", "torch.linalg.matrix_norm", weighted(weight, ours), weighted(weight, theirs))
    gram = np.asarray(weight.detach().flatten(1) @ weight.detach().flatten(1).T)
    agrees("spectral_norm_exact", "numpy.linalg.eigvalsh", ours, weight.detach() / np.linalg.eigvalsh(gram)[-1] ** 0.5)


# Unit lengths and projections


def test_cosine_norm_on_normalized_inputs_is_the_cosine() -> None:
    weight, x = draw("linear", 221).requires_grad_(True), 5 * draw("vector", 222, c=3)
    ours = nn.functional.linear(nn.functional.normalize(x), METHODS["cosine_norm"](weight).y)
    theirs = nn.functional.cosine_similarity(x[:, None], weight[None], dim=2)
    assert float(theirs.detach().abs().max()) <= 1
    agrees("cosine_norm", "torch.nn.functional.cosine_similarity", weighted(weight, ours), weighted(weight, theirs))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cosine_norm_scales_and_adds_epsilon_to_the_norm(layout: str) -> None:
    weight = draw(layout, 223).requires_grad_(True)
    rows = [7.0 * row / (sum(w * w for w in row) ** 0.5 + 0.3) for row in weight.flatten(1)]
    ours = METHODS["cosine_norm"](weight, scale=7.0, eps=0.3).y
    theirs = torch.stack(rows).reshape_as(weight)
    agrees("cosine_norm", "literal loop", weighted(weight, ours), weighted(weight, theirs))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_unit_lengths_are_those_of_flax(layout: str) -> None:
    weight = draw(layout, 224).requires_grad_(True)

    def theirs(array: Any) -> Any:
        # Flax wants the units on the last axis, and takes the layer's kernel; an identity gives it back.
        kernel = array.reshape(len(array), -1).T
        norm = flax.linen.WeightNorm(flax.linen.Dense(len(array), use_bias=False), use_scale=False, epsilon=0.0)
        start = norm.init(jax.random.key(0), np.eye(len(kernel)))
        return norm.apply(jax.tree.map(lambda _: kernel, start), np.eye(len(kernel))).T.reshape(array.shape)

    for key in ("cosine_norm", "unit_norm_constraint"):
        ours = METHODS[key](weight, eps=0.0).y
        agrees(key, "flax.linen.WeightNorm", weighted(weight, ours), in_jax(theirs, weight))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("limit", [0.5, 1.7, 2.2, 9.0])
def test_max_norm_constraint_is_keras(layout: str, limit: float) -> None:
    weight = draw(layout, 225).requires_grad_(True)
    constraint = keras.constraints.MaxNorm(limit, axis=tuple(range(1, weight.ndim)))
    ours = METHODS["max_norm_constraint"](weight, max_norm=limit).y
    agrees("max_norm_constraint", "keras.constraints.MaxNorm", weighted(weight, ours), in_jax(constraint, weight))
    clipped = torch.renorm(weight.detach(), 2, 0, limit)
    agrees("max_norm_constraint", "torch.renorm", ours, clipped, 1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_unit_norm_constraint_is_keras(layout: str) -> None:
    weight = draw(layout, 226).requires_grad_(True)
    constraint = keras.constraints.UnitNorm(axis=tuple(range(1, weight.ndim)))
    ours = METHODS["unit_norm_constraint"](weight).y
    agrees("unit_norm_constraint", "keras.constraints.UnitNorm", weighted(weight, ours), in_jax(constraint, weight))


@pytest.mark.parametrize("key", ["max_norm_constraint", "unit_norm_constraint"])
def test_a_projection_changes_nothing_when_repeated(key: str) -> None:
    once = METHODS[key](3 * draw("conv2d", 227), eps=0.0).y
    torch.testing.assert_close(METHODS[key](once, eps=0.0).y, once, rtol=1e-14, atol=1e-14)


def test_max_norm_leaves_short_units_alone_and_shortens_long_ones() -> None:
    weight = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]], dtype=torch.float64)
    y = METHODS["max_norm_constraint"](weight, max_norm=2.0, eps=0.0).y
    torch.testing.assert_close(y, torch.tensor([[1.2, 1.6], [0.3, 0.4], [0.0, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize("key", ["max_norm_constraint", "unit_norm_constraint", "cosine_norm"])
def test_a_unit_of_zeros_gives_zeros_and_finite_gradients(key: str) -> None:
    weight = torch.zeros(2, 3, requires_grad=True)
    y = METHODS[key](weight, eps=1e-7).y
    assert not y.any() and torch.autograd.grad(y.sum(), weight)[0].isfinite().all()


# Orthogonal parametrization

KINDS = {"exponential": "matrix_exp", "cayley": "cayley", "householder": "householder"}
SHAPES = [(5, 5), (6, 3), (3, 6), (4, 1), (3, 2, 2, 2), (9, 2, 2), (1, 4)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_or_columns_stay_orthonormal(kind: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(231)
    weight, state = (
        torch.randn(shape).double(),
        METHODS["orthogonal_parametrization"](torch.randn(shape).double()).state,
    )
    for scale in (0.1, 1.0, 30.0):
        y = METHODS["orthogonal_parametrization"](scale * weight, state=state, kind=kind).y.flatten(1)
        y = y if len(y) >= y.shape[1] else y.T
        torch.testing.assert_close(y.T @ y, torch.eye(y.shape[1]).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(5, 5), (6, 3), (3, 6)])
@pytest.mark.parametrize("kind", KINDS)
def test_orthogonal_parametrization_is_torchs_in_its_coordinates(kind: str, shape: tuple[int, int]) -> None:
    torch.manual_seed(232)
    theirs = parametrizations.orthogonal(nn.Linear(shape[1], shape[0]).double(), orthogonal_map=KINDS[kind])
    (torchs,) = theirs.parametrizations.weight
    lower = torch.randn(max(shape), min(shape)).double().tril(-1)
    coordinates = lower - torch.eye(*lower.shape).double() if kind == "householder" else lower
    tall = shape[0] >= shape[1]
    weight, original = (x if tall else x.T.contiguous() for x in (torchs.base @ lower, coordinates))
    base = torchs.base[:, : min(shape)]
    weight, original = weight.requires_grad_(True), original.requires_grad_(True)
    ours = METHODS["orthogonal_parametrization"](weight, kind=kind, state={"base": base if tall else base.T}).y
    mine, others = weighted(weight, ours), weighted(original, torchs(original))
    # Along the directions that torch's triangle has, the slopes are the same.
    slopes = torchs.base.T @ (mine[1] if tall else mine[1].T)
    others[1] = (others[1] if tall else others[1].T).tril(-1)
    name = "torch.nn.utils.parametrizations.orthogonal"
    agrees("orthogonal_parametrization", name, [mine[0], slopes.tril(-1)], others)


@pytest.mark.parametrize("kind", KINDS)
def test_an_orthonormal_weight_stays_and_others_move_to_the_nearest(kind: str) -> None:
    for layer in (nn.Linear(4, 6), nn.Linear(6, 4), nn.Conv2d(2, 3, 2)):
        layer.double()
        nn.init.orthogonal_(layer.weight)
        before = layer.weight.detach().clone()
        reparametrize(layer, "orthogonal_parametrization", kind=kind)
        torch.testing.assert_close(layer.weight.detach(), before, rtol=0, atol=1e-12)
        if kind != "householder":
            drawn = torch.randn_like(before)
            layer.weight = drawn
            u, _, v = np.linalg.svd(drawn.flatten(1).numpy(), full_matrices=False)
            agrees("orthogonal_parametrization", "numpy.linalg.svd", layer.weight, (u @ v).reshape(before.shape))


@pytest.mark.parametrize("kind", KINDS)
def test_training_moves_along_orthonormal_weights(kind: str) -> None:
    torch.manual_seed(233)
    layer = reparametrize(nn.Linear(4, 4).double(), "orthogonal_parametrization", kind=kind)
    with torch.no_grad():  # a rotation away from where it starts
        turn = 0.6 * torch.randn(4, 4).double()
        target = layer.weight @ torch.matrix_exp(turn - turn.T)
    optimizer = torch.optim.Adam(layer.parameters(), 0.05)
    for _ in range(400):
        optimizer.zero_grad()
        (layer.weight - target).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(layer.weight @ layer.weight.T, torch.eye(4).double())
    assert float((layer.weight - target).detach().norm()) < 1e-3


# The Parseval update


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parseval_update_is_a_gradient_step_on_its_penalty(layout: str) -> None:
    beta, weight = 0.03, draw(layout, 241).requires_grad_(True)
    matrix = weight.flatten(1)
    penalty = beta / 4 * (matrix @ matrix.T - torch.eye(len(matrix)).double()).square().sum()
    (slope,) = torch.autograd.grad(penalty, weight, create_graph=True)
    ours, theirs = METHODS["parseval_update"](weight, beta=beta).y, weight - slope
    agrees("parseval_update", "gradient step by autograd", weighted(weight, ours), weighted(weight, theirs))
    rows = np.asarray(matrix.detach())
    literal = (1 + beta) * rows - beta * np.einsum("ai,bi,bj->aj", rows, rows, rows)
    agrees("parseval_update", "authors' formula", ours.flatten(1), literal)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4)])
def test_repeated_parseval_updates_end_at_orthonormal_weights(shape: tuple[int, int]) -> None:
    torch.manual_seed(242)
    weight = torch.randn(shape).double()
    for _ in range(500):
        weight = METHODS["parseval_update"](weight, beta=0.1).y
    torch.testing.assert_close(torch.linalg.svdvals(weight), torch.ones(min(shape)).double())
    torch.testing.assert_close(METHODS["parseval_update"](weight, beta=1.0).y, weight)


# Orthogonal regularization


def literal(weight: Tensor, kind: str) -> Tensor:
    """The penalties, written out entry by entry."""
    rows = weight.flatten(1)
    sides = [rows, rows.T] if len(rows) < rows.shape[1] else [rows.T, rows]
    distances = [
        torch.stack([torch.stack([(a * b).sum() - float(i == j) for j, b in enumerate(s)]) for i, a in enumerate(s)])
        for s in sides
    ]
    if kind == "so":
        return sum(d * d for d in distances[0].flatten())
    if kind == "dso":
        return sum(d * d for distance in distances for d in distance.flatten())
    if kind == "mc":
        return max(abs(d) for d in distances[0].flatten())
    v = torch.tensor([math.cos(n + 1) for n in range(len(distances[0]))], dtype=weight.dtype)
    u = torch.stack([(row * v).sum() for row in distances[0]])
    v = torch.stack([(row * u).sum() for row in distances[0]])
    return (v * v).sum() ** 0.5 / (u * u).sum() ** 0.5


@pytest.mark.parametrize("kind", ["so", "dso", "mc", "srip"])
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4), (3, 2, 2), (2, 3, 2, 2), (2, 1, 2, 2, 2)])
def test_orthogonal_regularization(kind: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(251)
    weight = (0.3 * torch.randn(shape).double()).requires_grad_(True)  # small: most of D lies below 0
    pairs = [orthogonal_regularization(weight, kind), literal(weight, kind)]
    assert pairs[0].shape == ()
    mine, theirs = ([y, *torch.autograd.grad(y, weight)] for y in pairs)
    agrees("orthogonal_regularization", "literal loop", mine, theirs)


@pytest.mark.parametrize("kind", ["so", "mc", "srip", "dso"])
def test_the_penalty_of_orthonormal_weights_is_nothing(kind: str) -> None:
    for shape in ((3, 5), (5, 3), (4, 4)):
        weight = nn.init.orthogonal_(torch.empty(shape).double()).requires_grad_(True)
        penalty = orthogonal_regularization(weight, kind)
        # Both Grams are the identity only for a square weight: |5 - 3| values of 1 are left elsewhere.
        expected = abs(shape[0] - shape[1]) if kind == "dso" else 0
        assert float(penalty.detach()) == pytest.approx(expected, abs=1e-12)
        assert torch.autograd.grad(penalty, weight)[0].isfinite().all()
    exact = torch.eye(3, 5, requires_grad=True)
    penalty = orthogonal_regularization(exact, "srip")
    assert float(penalty.detach()) < 1e-15 and torch.autograd.grad(penalty, exact)[0].isfinite().all()


def test_penalties_have_their_order_and_are_blind_to_rotations() -> None:
    torch.manual_seed(252)
    weight, turn = torch.randn(4, 9).double(), nn.init.orthogonal_(torch.empty(9, 9).double())
    for kind in ("so", "dso", "mc", "srip"):
        value = orthogonal_regularization(weight, kind)
        torch.testing.assert_close(orthogonal_regularization(weight @ turn, kind), value)
    true = torch.linalg.matrix_norm(weight @ weight.T - torch.eye(4).double(), 2)
    assert 0.7 * true < orthogonal_regularization(weight, "srip") <= true * (1 + 1e-12)
    assert orthogonal_regularization(weight.half(), "so").dtype == torch.float32


def test_what_no_penalty_fits_is_refused() -> None:
    with pytest.raises(NormcoreError, match="kind='l2' must be one of 'so', 'dso', 'mc', 'srip'"):
        orthogonal_regularization(torch.ones(2, 2), "l2")
    for weight in (torch.ones(2), torch.ones(2, 2, dtype=torch.long), None):
        with pytest.raises(NormcoreError, match="must be floating-point"):
            orthogonal_regularization(weight)


# Data-dependent initialization


def net(**settings: Any) -> nn.Sequential:
    torch.manual_seed(261)
    parts = [nn.Conv2d(3, 5, 3, stride=2), nn.ReLU(), nn.Conv2d(5, 4, 2, groups=1), nn.Tanh(), nn.Flatten()]
    model = nn.Sequential(*parts, nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    for part in model:
        if hasattr(part, "weight"):
            reparametrize(part, "weight_norm", **settings)
    return model


def batch() -> Tensor:
    return 3 * torch.randn(7, 3, 7, 7, generator=torch.Generator().manual_seed(262), dtype=torch.float64) + 2


def test_every_preactivation_gets_mean_zero_and_variance_one_on_the_batch() -> None:
    model, x = net(), batch()
    directions = [part.parametrizations.weight.original.clone() for part in model if hasattr(part, "weight")]
    assert data_dependent_init(model, x) is model
    seen = 0
    for part in model:
        x = part(x)
        if hasattr(part, "weight"):
            values = x.detach().transpose(0, 1).flatten(1)
            agrees("weight_norm", "mean 0, variance 1", values.mean(1), np.zeros(len(values)))
            agrees("weight_norm", "mean 0, variance 1", values.var(1, correction=0), np.ones(len(values)))
            torch.testing.assert_close(part.parametrizations.weight.original, directions[seen], rtol=0, atol=0)
            seen += 1
    assert seen == 4
    assert all(parameter.requires_grad for parameter in model.parameters()) and not model._forward_hooks


def test_gain_and_bias_are_those_of_the_papers_formula() -> None:
    torch.manual_seed(263)
    layer, x = reparametrize(nn.Linear(5, 3).double(), "weight_norm"), torch.randn(11, 5).double() + 1
    v = layer.parametrizations.weight.original.detach()
    data_dependent_init(layer, x)
    t = np.asarray([[sum(a * b for a, b in zip(row, unit, strict=True)) / unit.norm() for unit in v] for row in x])
    mine = [layer.parametrizations.weight[0].gain.flatten(), layer.bias]
    agrees("weight_norm", "authors' formula", mine, [1 / t.std(0), -t.mean(0) / t.std(0)])


def test_any_position_and_precision_and_shared_use_is_initialized() -> None:
    torch.manual_seed(264)
    tokens = reparametrize(nn.Linear(5, 3), "weight_norm")
    x = torch.randn(4, 6, 5)
    y = data_dependent_init(tokens, x)(x)
    torch.testing.assert_close(y.mean((0, 1)), torch.zeros(3), rtol=0, atol=1e-5)
    shared = reparametrize(nn.Linear(4, 4), "weight_norm")
    twice, x = nn.Sequential(shared, nn.ReLU(), shared), torch.randn(30, 4)
    torch.testing.assert_close(data_dependent_init(twice, x)[0](x).std(0, correction=0), torch.ones(4))
    half = reparametrize(nn.Linear(4, 2).bfloat16(), "weight_norm")
    data_dependent_init(half, x.bfloat16())
    assert float((half(x.bfloat16()).detach().float().std(0, correction=0) - 1).abs().max()) < 0.03


def unreached() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    model[0].spare = reparametrize(nn.Linear(3, 3), "weight_norm")
    reparametrize(model[1], "weight_norm")
    return model


@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (lambda: nn.Linear(3, 2), torch.randn(4, 3), "no layer is weight-normed"),
        (lambda: reparametrize(nn.Linear(3, 2, bias=False), "weight_norm"), torch.randn(4, 3), "has no bias"),
        (lambda: reparametrize(nn.Linear(3, 2), "weight_norm", dim=None), torch.randn(4, 3), "one gain for all"),
        (unreached, torch.randn(4, 3), "does not reach 1 layer: '0.spare'"),
        (lambda: reparametrize(nn.Linear(3, 2), "weight_norm"), torch.zeros(4, 3), "the same value on the whole batch"),
    ],
)
def test_what_cannot_be_initialized_is_refused_and_left_alone(
    model: Callable[[], nn.Module], x: Tensor, message: str
) -> None:
    module = model()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(NormcoreError, match=message):
        data_dependent_init(module, x)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


# All of them


@pytest.mark.parametrize("key", [key for key in PUBLISHED if METHODS[key].state])
def test_gradients_flow_through_several_uses_of_one_weight(key: str) -> None:
    layer = reparametrize(nn.Linear(4, 3).double(), key)
    first, last = layer.weight, layer.eval().weight
    total = first.cos().sum() + last.cos().sum() + layer.train().weight.cos().sum()
    total.backward()
    assert layer.parametrizations.weight.original.grad.isfinite().all()


@pytest.mark.parametrize("key", PUBLISHED)
def test_half_precision_modules_keep_their_precision_and_load_their_state(key: str) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        layer = reparametrize(nn.Conv2d(3, 4, 2).to(dtype), key)
        assert layer.weight.dtype == dtype
        twin = reparametrize(nn.Conv2d(3, 4, 2).to(dtype), key).eval()
        twin.load_state_dict(layer.eval().state_dict())
        assert torch.equal(twin.weight, layer.weight)
        parametrize.remove_parametrizations(layer, "weight")
        assert layer.weight.dtype == dtype


@pytest.mark.parametrize("key", PUBLISHED)
def test_an_ensemble_of_weights_is_mapped_one_by_one(key: str) -> None:
    batch = torch.stack([draw("conv2d", seed) for seed in (271, 272, 273)])
    found = torch.func.vmap(lambda weight: METHODS[key](weight).y)(batch)
    agrees(key, "one by one", found, torch.stack([METHODS[key](weight).y for weight in batch]))


def test_weight_norm_stands_beside_what_torch_func_transforms() -> None:
    layer = reparametrize(nn.Linear(4, 3), "weight_norm")
    x = torch.randn(5, 4)
    torch.testing.assert_close(torch.func.vmap(layer)(x), layer(x))
    slope = torch.func.grad(lambda t: layer(t).sum())(x)
    torch.testing.assert_close(slope, layer.weight.sum(0).expand(5, 4))
    torch.testing.assert_close(torch.func.jacrev(layer)(x[0]), layer.weight)
