"""Normalizers that mix statistics or take an activation in: FRN, batch-instance, whitening, sparse switching.

The answers are the formulas of the released code, written with torch's own operations; gradients are autograd's. The
EvoNorms' values and gradients are held against timm's modules, in test_timm.py.
"""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from agreement import agrees
from cases import draw
from torch import Tensor, nn
from torch.nn import functional

from normcore import METHODS, layer

BATCH = {"eps": 1e-5, "momentum": 0.1, "track_running_stats": True}

# The defaults of the methods' settings, and where the values stand.
PUBLISHED: dict[str, dict[str, Any]] = {
    "filter_response_norm": {"eps": 1e-6, "learnable_eps": False, "tlu": True},  # the paper; its code takes |eps|
    "evo_norm_s0": {"num_groups": 2, "eps": 1e-5},  # the authors' code, with 32 groups
    "evo_norm_s1": {"num_groups": 2, "eps": 1e-5},  # the same
    "evo_norm_s2": {"num_groups": 2, "eps": 1e-5},  # the same
    "evo_norm_b0": BATCH,  # the authors' code for eps, torch.nn.BatchNorm2d for the rest
    "evo_norm_b1": BATCH,  # the same
    "evo_norm_b2": BATCH,  # the same
    "sparse_switchable_norm": {
        **BATCH,
        "radius": 0.0,
        "unbiased": False,
    },  # the paper: r grows from 0
    "batch_instance_norm": BATCH,  # the authors' code, which inherits from torch's BatchNorm
    "iter_norm": {"num_groups": 2, "T": 5, **BATCH},  # the authors' code
    "decorrelated_batch_norm": {"num_groups": 2, **BATCH},  # the authors' PyTorch code
}

SPACE = ("signal", "image", "volume")
EPS = 1e-3
Answer = Callable[..., Tensor]


def column(parameter: Tensor, x: Tensor) -> Tensor:
    return parameter.reshape(1, -1, *(1,) * (x.ndim - 2))


def compare(key: str, name: str, oracle: Answer, x: Tensor, layout: str, **settings: Any) -> None:
    """Values, and gradients for the input and for all that is learned, where nothing is left at its start."""
    method, generator = METHODS[key], torch.Generator().manual_seed(5)
    tensors = {
        slot: torch.randn(x.shape[1] if shape.axes == "c" else int(shape.axes), generator=generator).double()
        for slot, shape in method.affine.items()
    }
    inputs = [tensor.requires_grad_(True) for tensor in (x, *tensors.values())]
    weights = torch.randn(x.shape, generator=generator).double()
    found = []
    for y in (method(x, layout, **settings, **tensors).y, oracle(x, **tensors)):
        found.append([y, *torch.autograd.grad((y * weights).sum(), inputs, materialize_grads=True)])
    agrees(key, name, *found)


@pytest.mark.parametrize(("learnable_eps", "tlu"), list(product((False, True), repeat=2)))
@pytest.mark.parametrize("layout", SPACE)
def test_filter_response_norm(layout: str, learnable_eps: bool, tlu: bool) -> None:
    def oracle(x: Tensor, weight: Tensor, bias: Tensor, tau: Tensor, learned_eps: Tensor) -> Tensor:
        nu2 = x.pow(2).mean(tuple(range(2, x.ndim)), keepdim=True)
        small = EPS + learned_eps.abs() if learnable_eps else EPS
        y = column(weight, x) * (x / torch.sqrt(nu2 + small)) + column(bias, x)
        return torch.maximum(y, column(tau, x)) if tlu else y

    settings = {"eps": EPS, "learnable_eps": learnable_eps, "tlu": tlu}
    compare("filter_response_norm", "authors' formula", oracle, draw(layout, 81), layout, **settings)


def test_filter_response_norm_of_single_pixels_is_a_sign_or_with_a_learned_epsilon_a_soft_one() -> None:
    x = draw("image", 82, h=1, w=1)
    y = METHODS["filter_response_norm"](x, eps=0.0, tlu=False).y
    torch.testing.assert_close(y, x.sign())
    soft = METHODS["filter_response_norm"](x, eps=0.0, tlu=False, learnable_eps=True, learned_eps=-torch.ones(1)).y
    torch.testing.assert_close(soft, x / (x**2 + 1).sqrt())


def test_a_new_filter_response_norm_is_followed_by_relu() -> None:
    x = draw("image", 83, dtype=torch.float32)
    norm = layer("filter_response_norm", 4)
    assert norm.get_parameter("learned_eps").tolist() == pytest.approx([1e-4])
    torch.testing.assert_close(norm(x), layer("filter_response_norm", 4, tlu=False)(x).relu())
    torch.testing.assert_close(norm(x), METHODS["filter_response_norm"](x).y)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("key", ["evo_norm_b0", "evo_norm_b1", "evo_norm_b2"])
def test_evo_norms_remember_the_variance_as_batch_norm_does(key: str, momentum: float | None) -> None:
    norm, plain = (layer(k, 4, eps=EPS, momentum=momentum).double() for k in (key, "batch_norm"))
    for seed in range(3):
        x = (seed + 1) * draw("image", seed)
        norm(x), plain(x)
        torch.testing.assert_close(norm.get_buffer("running_var"), plain.get_buffer("running_var"))
    assert "running_mean" not in dict(norm.named_buffers()) and int(norm.get_buffer("num_batches_tracked")) == 3


@pytest.mark.parametrize("layout", SPACE)
def test_batch_instance_norm(layout: str) -> None:
    def oracle(x: Tensor, weight: Tensor, bias: Tensor, rho: Tensor) -> Tensor:
        samples, channels = x.shape[:2]
        of_batch = functional.batch_norm(x, None, None, weight * rho, bias, True, eps=EPS)
        flat = x.reshape(1, samples * channels, *x.shape[2:])
        gain = (weight * (1 - rho)).repeat(samples)
        of_instance = functional.batch_norm(flat, None, None, gain, None, True, eps=EPS)
        return of_batch + of_instance.reshape(x.shape)

    compare("batch_instance_norm", "authors' formula", oracle, 2 * draw(layout, 87) + 1, layout, eps=EPS)


@pytest.mark.parametrize(("rho", "key"), [(1.0, "batch_norm"), (0.0, "instance_norm")])
@pytest.mark.parametrize("layout", SPACE)
def test_batch_instance_norm_has_its_two_sources_as_ends(layout: str, rho: float, key: str) -> None:
    x = draw(layout, 88)
    share = torch.full((4,), rho, dtype=x.dtype)
    pure, mixed = METHODS[key](x, layout).y, METHODS["batch_instance_norm"](x, layout, rho=share).y
    agrees("batch_instance_norm", key, mixed, pure)


def test_batch_instance_norm_in_evaluation_takes_the_batch_part_from_its_state() -> None:
    norm, theirs = layer("batch_instance_norm", 4).double(), nn.BatchNorm2d(4).double()
    with torch.no_grad():
        norm.get_parameter("rho").fill_(0.3)
    for seed in range(3):
        norm(draw("image", seed) + seed), theirs(draw("image", seed) + seed)
    x = draw("image", 89)
    expected = 0.3 * theirs.eval()(x) + 0.7 * functional.instance_norm(x)
    agrees("batch_instance_norm", "torch.nn.BatchNorm2d and InstanceNorm2d", norm.eval()(x), expected)


def blocks(x: Tensor, groups: int) -> Tensor:
    """The values of each group's channels, one row a channel: (groups, channels in group, values)."""
    return x.transpose(0, 1).reshape(groups, x.shape[1] // groups, -1)


def whitened(x: Tensor, groups: int, root: Callable[[Tensor], Tensor]) -> Tensor:
    """One group after the other, one covariance entry after the other."""
    done = []
    for rows in blocks(x, groups):
        centered = [row - row.sum() / len(row) for row in rows]
        entries = [[(a * b).sum() / len(a) + (EPS if a is b else 0) for b in centered] for a in centered]
        done.append(root(torch.stack([torch.stack(line) for line in entries])) @ torch.stack(centered))
    return torch.cat(done).reshape(x.shape[1], x.shape[0], *x.shape[2:]).transpose(0, 1)


def by_svd(sigma: Tensor) -> Tensor:
    u, values, _ = torch.linalg.svd(sigma)
    return u @ values.rsqrt().diag() @ u.T


def by_newton(sigma: Tensor, steps: int) -> Tensor:
    p, trace = torch.eye(len(sigma), dtype=sigma.dtype), sigma.diagonal().sum()
    for _ in range(steps):
        p = 1.5 * p - 0.5 * torch.linalg.matrix_power(p, 3) @ (sigma / trace)
    return p / trace.sqrt()


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("layout", SPACE)
def test_decorrelated_batch_norm(layout: str, groups: int) -> None:
    def oracle(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return whitened(x, groups, by_svd) * column(weight, x) + column(bias, x)

    x = 2 * draw(layout, 90, c=6, n=6) + 1
    compare("decorrelated_batch_norm", "authors' formula", oracle, x, layout, num_groups=groups, eps=EPS)


@pytest.mark.parametrize("steps", [1, 2, 5, 9])
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("layout", SPACE)
def test_iter_norm(layout: str, groups: int, steps: int) -> None:
    def oracle(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = whitened(x, groups, lambda sigma: by_newton(sigma, steps))
        return y * column(weight, x) + column(bias, x)

    x = 2 * draw(layout, 91, c=6, n=6) + 1
    compare("iter_norm", "authors' formula", oracle, x, layout, num_groups=groups, eps=EPS, T=steps)


WHITENING = ["decorrelated_batch_norm", "iter_norm"]


@pytest.mark.parametrize("key", WHITENING)
@pytest.mark.parametrize("layout", SPACE)
def test_whitening_single_channels_is_batch_norm(layout: str, key: str) -> None:
    x = 2 * draw(layout, 92) + 1
    compare(
        key,
        "torch.nn.functional.batch_norm",
        lambda x, weight, bias: functional.batch_norm(x, None, None, weight, bias, True, eps=EPS),
        x,
        layout,
        num_groups=4,
        eps=EPS,
    )


@pytest.mark.parametrize("groups", [1, 2])
def test_whitened_channels_of_a_group_are_uncorrelated_and_stay_close_to_what_they_were(groups: int) -> None:
    x = draw("image", 93, n=8, h=4, w=4)
    x = x + 0.5 * x.roll(1, 1)
    exact = METHODS["decorrelated_batch_norm"](x, num_groups=groups, eps=0.0).y
    rows = blocks(exact, groups)
    identity = torch.eye(4 // groups, dtype=x.dtype).expand(groups, -1, -1)
    torch.testing.assert_close(rows @ rows.mT / rows.shape[-1], identity, rtol=0, atol=1e-10)
    # ZCA, not PCA: the whitening matrix is symmetric, so that each channel goes with its own old values.
    centered = blocks(x, groups) - blocks(x, groups).mean(-1, keepdim=True)
    cross = rows @ centered.mT
    torch.testing.assert_close(cross, cross.mT)
    assert bool((cross.diagonal(dim1=1, dim2=2) > 0).all())


def test_with_many_steps_iter_norm_is_decorrelated_batch_norm() -> None:
    x = draw("image", 94, n=8, h=4, w=4).requires_grad_(True)
    ys = [METHODS[k](x, eps=EPS, **s).y for k, s in ((WHITENING[1], {"T": 30}), (WHITENING[0], {}))]
    weights = draw("image", 95, n=8, h=4, w=4)
    agrees(
        "iter_norm", "decorrelated_batch_norm, T = 30", *([y, *torch.autograd.grad((y * weights).sum(), x)] for y in ys)
    )


@pytest.mark.parametrize("key", WHITENING)
@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
def test_the_whitening_matrix_is_averaged_and_used_in_evaluation(key: str, momentum: float | None) -> None:
    norm = layer(key, 6, num_groups=2, eps=EPS, momentum=momentum).double()
    mean, matrix = torch.zeros(6, dtype=torch.float64), torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    torch.testing.assert_close(norm.get_buffer("running_whitening"), matrix)
    for seed in range(3):
        x = (seed + 1) * draw("image", seed, c=6, n=8) + seed
        y = norm(x)
        share = 1 / (seed + 1) if momentum is None else momentum
        rows = blocks(x, 2)
        cov = torch.stack([torch.cov(part, correction=0) for part in rows]) + EPS * torch.eye(3)
        new = torch.stack([by_svd(part) if key == WHITENING[0] else by_newton(part, 5) for part in cov])
        mean, matrix = (1 - share) * mean + share * rows.mean(-1).flatten(), (1 - share) * matrix + share * new
        torch.testing.assert_close(norm.get_buffer("running_mean"), mean)
        torch.testing.assert_close(norm.get_buffer("running_whitening"), matrix)
        assert y.shape == x.shape
    x = draw("image", 96, c=6, n=2)
    rows = matrix @ (blocks(x, 2) - mean.reshape(2, 3, 1))
    agrees(key, "literal loop", norm.eval()(x), rows.reshape(6, 2, *x.shape[2:]).transpose(0, 1))


def test_a_covariance_without_full_rank_is_whitened_as_far_as_epsilon_reaches() -> None:
    x = draw("image", 97, dtype=torch.float32, n=1, c=4).requires_grad_(True)  # four values for four channels
    y = METHODS["decorrelated_batch_norm"](x, num_groups=1, eps=1e-12).y
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    assert bool(y.isfinite().all()) and bool(gradient.isfinite().all())
    assert float(y.detach().abs().max()) < 4


def nearest_shares(logits: Tensor, radius: float) -> np.ndarray:
    """SparsestMax by trying: of all shares far enough from equal ones, those nearest to the logits."""
    grid = np.linspace(0, 1, 1501)
    first, second = (axis.ravel() for axis in np.meshgrid(grid, grid))
    inside = first + second <= 1
    points = np.stack([first, second, 1 - first - second], 1)[inside]
    points = points[((points - 1 / 3) ** 2).sum(1) >= radius**2 - 1e-12]
    return points[((points - logits.numpy()) ** 2).sum(1).argmin()]


def shares_of(logits: Tensor, radius: float) -> Tensor:
    """The shares as the method uses them, read off the means that it mixes for one element of three small inputs."""
    parts = []
    for shift in ((1.0, 0.0, 0.0), (1.0, 1.0, 0.0), (1.0, 0.0, 1.0)):
        own, neighbor, other = shift
        x = torch.tensor([[[own], [neighbor]], [[other], [0.0]]], dtype=torch.float64)
        mean = METHODS["sparse_switchable_norm"](x, "signal", mean_weight=logits, radius=radius).stats["mixed_mean"]
        parts.append([own, (own + neighbor) / 2, (own + other) / 2, float(mean[0, 0, 0])])
    table = torch.tensor(parts, dtype=torch.float64)
    return torch.linalg.solve(table[:, :3], table[:, 3])


@pytest.mark.parametrize("radius", [0.0, 0.2, 0.35, 0.45, 0.6, 0.75, (2 / 3) ** 0.5])
def test_sparsest_max_is_the_nearest_point_outside_the_circle(radius: float) -> None:
    generator = torch.Generator().manual_seed(98)
    cases = [torch.randn(3, generator=generator).double() * scale for scale in (0.1, 0.3, 0.6, 1.0) for _ in range(4)]
    for logits in cases:
        agrees(
            "sparse_switchable_norm",
            "a search over all shares",
            shares_of(logits, radius),
            nearest_shares(logits, radius),
            tolerance=0.04,
        )
    chosen = shares_of(cases[0], (2 / 3) ** 0.5)
    torch.testing.assert_close(chosen.sort().values, torch.tensor([0.0, 0.0, 1.0]).double(), rtol=0, atol=1e-6)


def sparsest_max(logits: Tensor, radius: float) -> Tensor:
    """The paper's algorithm, step by step: project, push out to the circle, and again on the side that is left."""

    def sparsemax(v: Tensor) -> Tensor:
        for count in (3, 2, 1):
            kept = v.topk(count).indices
            shares = torch.zeros_like(v)
            shares[kept] = v[kept] - (v[kept].sum() - 1) / count
            if bool((shares >= 0).all()):
                return shares
        raise AssertionError

    def outside(shares: Tensor, center: Tensor, far: float) -> Tensor:
        distance = (shares - center).norm()
        return shares if distance >= far else center + far * (shares - center) / distance

    center = torch.full_like(logits, 1 / 3)
    first = sparsemax(logits)
    pushed = outside(first, center, radius)
    if bool((pushed >= 0).all()):
        return pushed
    second = sparsemax(pushed)
    middle = (second > 0).to(logits) / 2
    return outside(second, middle, float(radius**2 - ((middle - center) ** 2).sum()) ** 0.5)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("radius", [0.0, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("layout", SPACE)
def test_sparse_switchable_norm(layout: str, radius: float, unbiased: bool) -> None:
    def oracle(x: Tensor, weight: Tensor, bias: Tensor, mean_weight: Tensor, var_weight: Tensor) -> Tensor:
        space = tuple(range(2, x.ndim))
        mean_in, var_in = x.mean(space, keepdim=True), x.var(space, unbiased=unbiased, keepdim=True)
        square = var_in + mean_in**2
        mean_ln, mean_bn = mean_in.mean(1, keepdim=True), mean_in.mean(0, keepdim=True)
        var_ln, var_bn = square.mean(1, keepdim=True) - mean_ln**2, square.mean(0, keepdim=True) - mean_bn**2
        p, q = sparsest_max(mean_weight, radius), sparsest_max(var_weight, radius)
        mean = p[0] * mean_in + p[1] * mean_ln + p[2] * mean_bn
        var = q[0] * var_in + q[1] * var_ln + q[2] * var_bn
        return (x - mean) / (var + EPS).sqrt() * column(weight, x) + column(bias, x)

    x = draw(layout, 99)
    compare("sparse_switchable_norm", "authors' formula", oracle, x, layout, eps=EPS, radius=radius, unbiased=unbiased)


def test_equal_logits_stay_equal_shares_at_every_radius() -> None:
    x, logits = draw("image", 100), torch.zeros(3, dtype=torch.float64, requires_grad=True)
    gradients = []
    for radius in (0.0, 0.4, 0.8):
        y = METHODS["sparse_switchable_norm"](x, mean_weight=logits, var_weight=logits, radius=radius).y
        torch.testing.assert_close(y, METHODS["switchable_norm"](x).y)
        gradients.append(torch.autograd.grad(y.sin().sum(), logits)[0])
    assert torch.equal(gradients[0], gradients[1]) and torch.equal(gradients[0], gradients[2])
