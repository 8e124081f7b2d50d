"""The relatives of BatchNorm: Keras, equinox, PyTorch in several processes, the authors' formulas, literal loops."""

import copy
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from agreement import agrees, with_gradients
from cases import draw
from torch import Tensor, distributed, multiprocessing, nn
from torch.autograd.gradcheck import GradcheckError

from normcore import METHODS, layer

os.environ.setdefault("KERAS_BACKEND", "jax")

TRACKING = {"eps": 1e-5, "momentum": 0.1, "track_running_stats": True}
# The defaults of the methods' settings, and where the values stand.
PUBLISHED: dict[str, dict[str, Any]] = {
    # The paper's final limits and rate of averaging; ε as in torch.nn.BatchNorm2d.
    "batch_renorm": {"rmax": 3.0, "dmax": 5.0, "eps": 1e-5, "momentum": 0.01},
    "mean_only_batch_norm": {"momentum": 0.1, "track_running_stats": True},  # torch.nn.BatchNorm2d
    "l1_batch_norm": {"scale": True, **TRACKING},  # Hoffer's code: eps=1e-5, normalized=True
    "linf_batch_norm": {"k": 10, **TRACKING},  # Hoffer's code: eps=1e-5, k=10
    "frozen_batch_norm": {"eps": 1e-5},  # torchvision.ops.FrozenBatchNorm2d
    "sync_batch_norm": TRACKING,  # torch.nn.SyncBatchNorm
    "moving_average_batch_norm": {"eps": 1e-5, "momentum": 0.1},  # torch.nn.BatchNorm2d
}
EPS = 1e-3
CHANNELS = 4
Oracle = Callable[[Tensor, Tensor, Tensor], Tensor]


def parameters(seed: int = 90) -> tuple[Tensor, Tensor]:
    """A gain and a bias for each channel."""
    weight, bias = torch.randn(2, CHANNELS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return weight.requires_grad_(True), bias.requires_grad_(True)


def remembered(seed: int = 91, batches: int = 3, var: str = "running_var") -> dict[str, Tensor]:
    """A running state somewhere along the way."""
    mean, second = torch.rand(2, CHANNELS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5
    return {"running_mean": mean, var: second, "num_batches_tracked": torch.tensor(batches)}


def both(ours: Tensor, theirs: Tensor, inputs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    return with_gradients(ours, inputs), with_gradients(theirs, inputs)


def column(values: Tensor) -> Tensor:
    return values.reshape(-1, 1, 1)


def batch(seed: int, **sizes: int) -> Tensor:
    return (2 * draw("image", seed, c=CHANNELS, **sizes) + 1).requires_grad_(True)


# batch renormalization


def keras_renorm(x: Tensor, weight: Tensor, bias: Tensor, state: dict[str, Tensor], rmax: float, dmax: float) -> Any:
    """Value, and gradients of a weighted sum by x, gain and bias, of Keras's layer with the same running statistics."""
    import jax  # noqa: PLC0415
    import keras  # noqa: PLC0415

    jax.config.update("jax_enable_x64", True)
    clipping = {"rmax": rmax, "rmin": 1 / rmax, "dmax": dmax}
    norm = keras.layers.BatchNormalization(
        axis=1, epsilon=EPS, renorm=True, renorm_clipping=clipping, renorm_momentum=0.9, dtype="float64"
    )
    norm.build(tuple(x.shape))
    norm.gamma.assign(weight.detach().numpy())
    norm.beta.assign(bias.detach().numpy())
    norm.renorm_mean.assign(state["running_mean"].numpy())
    norm.renorm_stddev.assign((state["running_var"] + EPS).sqrt().numpy())
    fixed = [v.value for v in norm.non_trainable_variables]
    names = [v.name for v in norm.trainable_variables]
    weights = np.cos(np.arange(x.numel())).reshape(x.shape)

    def total(values: Any, given: Any) -> Any:
        y, moved = norm.stateless_call(values, fixed, given, training=True)
        return (y * weights).sum(), (y, moved)

    values = [v.value for v in norm.trainable_variables]
    (_, (y, moved)), (slopes, slope) = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(
        values, x.detach().numpy()
    )
    after = {v.name: m for v, m in zip(norm.non_trainable_variables, moved, strict=True)}
    return [y, slope, slopes[names.index("gamma")], slopes[names.index("beta")]], after


@pytest.mark.parametrize("spread", [1.0, 0.1])
@pytest.mark.parametrize(("rmax", "dmax"), [(1.0, 0.0), (3.0, 5.0), (1.1, 0.2), (1e6, 1e6)])
def test_batch_renorm_is_that_of_keras(rmax: float, dmax: float, spread: float) -> None:
    x, (weight, bias), state = (spread * batch(92)).detach().requires_grad_(True), parameters(), remembered()
    settings = {"rmax": rmax, "dmax": dmax, "eps": EPS, "momentum": 0.1}
    normed = METHODS["batch_renorm"](x, weight=weight, bias=bias, state=state, **settings)
    ours = with_gradients(normed.y, [x, weight, bias])
    theirs, after = keras_renorm(x, weight, bias, state, rmax, dmax)
    oracle = "keras.layers.BatchNormalization(renorm=True)"  # whose statistics are float32 in float64 layers too
    agrees("batch_renorm", oracle, ours, theirs, tolerance=1e-5)
    agrees("batch_renorm", oracle, normed.state["running_mean"], after["renorm_mean"], tolerance=1e-5)
    agrees(
        "batch_renorm",
        "the paper's Algorithm 1",
        ours,
        with_gradients(algorithm(x, weight, bias, state, rmax, dmax), [x, weight, bias]),
    )


def algorithm(x: Tensor, weight: Tensor, bias: Tensor, state: dict[str, Tensor], rmax: float, dmax: float) -> Tensor:
    """The paper's Algorithm 1, channel by channel."""
    y = []
    for c, values in enumerate(x.unbind(1)):
        mean = values.sum() / values.numel()
        sigma = (EPS + ((values - mean) ** 2).sum() / values.numel()) ** 0.5
        known = float(state["running_var"][c] + EPS) ** 0.5
        r = min(max(sigma.item() / known, 1 / rmax), rmax)
        d = min(max((mean.item() - float(state["running_mean"][c])) / known, -dmax), dmax)
        y.append(weight[c] * ((values - mean) / sigma * r + d) + bias[c])
    return torch.stack(y, 1)


def test_batch_renorm_that_never_clips_has_the_values_of_evaluation_but_not_its_gradient() -> None:
    x, (weight, bias), state = batch(93), parameters(), remembered()
    given: dict[str, Any] = {"weight": weight, "bias": bias, "state": state, "rmax": math.inf, "dmax": math.inf}
    ours = METHODS["batch_renorm"](x, **given).y
    evaluated = METHODS["batch_renorm"](x, training=False, **given).y
    trained = nn.functional.batch_norm(x, state["running_mean"], state["running_var"], weight, bias)
    one, other = both(ours, evaluated, [x])
    agrees("batch_renorm", "torch.nn.BatchNorm2d in evaluation", [ours, evaluated], [trained, trained])
    assert not torch.allclose(one[1], other[1], rtol=1e-2)


def test_batch_renorm_remembers_what_batch_norm_does_and_corrects_by_what_it_knew_before() -> None:
    ours, plain = layer("batch_renorm", CHANNELS, momentum=0.1).double(), nn.BatchNorm2d(CHANNELS).double()
    for seed in range(94, 97):
        x = batch(seed)
        before = {name: value.clone() for name, value in ours.named_buffers()}
        stats = METHODS["batch_renorm"](x, state=before).stats
        mean, std = x.mean((0, 2, 3)), (x.var((0, 2, 3), unbiased=False) + 1e-5).sqrt()
        old = (before["running_var"] + 1e-5).sqrt()
        torch.testing.assert_close(stats["scale_correction"].flatten(), (std / old).clamp(1 / 3, 3))
        torch.testing.assert_close(stats["shift_correction"].flatten(), (mean - before["running_mean"]) / old)
        ours(x), plain(x)
        for name in ("running_mean", "running_var"):
            torch.testing.assert_close(ours.get_buffer(name), plain.get_buffer(name))
    x = batch(97)
    torch.testing.assert_close(ours.eval()(x), plain.eval()(x))


def test_the_corrections_of_batch_renorm_are_constants_of_the_gradient() -> None:
    x, state = batch(98), remembered()
    fn = lambda t: METHODS["batch_renorm"](t, state=state, eps=EPS).y  # noqa: E731
    normed = METHODS["batch_renorm"](x, state=state, eps=EPS)
    plain = METHODS["batch_norm"](x, eps=EPS).y * normed.stats["scale_correction"] + normed.stats["shift_correction"]
    agrees("batch_renorm", "torch.nn.BatchNorm2d, scaled and shifted", *both(normed.y, plain, [x]))
    with pytest.raises(GradcheckError):
        torch.autograd.gradcheck(fn, (batch(98, n=2, h=1, w=1),), fast_mode=True)


# mean-only batch normalization


def test_mean_only_batch_norm() -> None:
    x, (_, bias) = batch(100), parameters()
    theirs = torch.empty_like(x)
    for c in range(CHANNELS):
        theirs[:, c] = x[:, c] - sum(x[:, c].flatten().unbind()) / x[:, c].numel() + bias[c]
    ours = METHODS["mean_only_batch_norm"](x, bias=bias).y
    agrees("mean_only_batch_norm", "literal loop", *both(ours, theirs, [x, bias]))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_mean_only_batch_norm_remembers_the_mean_as_torch_does(momentum: float | None) -> None:
    ours = layer("mean_only_batch_norm", CHANNELS, momentum=momentum).double()
    plain = nn.BatchNorm2d(CHANNELS, momentum=momentum).double()
    assert set(dict(ours.named_buffers())) == {"running_mean", "num_batches_tracked"}
    for seed in range(101, 104):
        ours(batch(seed)), plain(batch(seed))
    found, expected = ours.get_buffer("running_mean"), plain.get_buffer("running_mean")
    agrees("mean_only_batch_norm", "torch.nn.BatchNorm2d.running_mean", found, expected)
    x = batch(104)
    agrees("mean_only_batch_norm", "literal loop", ours.eval()(x), x - column(expected))
    ours.train()(x)
    assert not torch.equal(found, expected)


def test_mean_only_after_weight_norm_is_batch_norm_for_whitened_inputs() -> None:
    generator = torch.Generator().manual_seed(105)
    raw = torch.randn(64, 5, generator=generator, dtype=torch.float64)
    white = torch.linalg.qr(raw - raw.mean(0))[0] * 8  # mean 0, covariance 1
    weight = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    unit = METHODS["weight_norm"](weight, gain=torch.ones(3, 1, dtype=torch.float64)).y
    ours = METHODS["mean_only_batch_norm"](white @ unit.T, "vector").y
    agrees(
        "mean_only_batch_norm",
        "torch.nn.BatchNorm1d on whitened inputs",
        ours,
        nn.functional.batch_norm(white @ weight.T, None, None, training=True, eps=1e-12),
    )


# L1 and top-k


def by_deviation(x: Tensor, weight: Tensor, bias: Tensor, size: Callable[[Tensor], Tensor]) -> Tensor:
    """The authors' code: distances from the mean in a matrix of values by channels, ε added to their size."""
    distances = (x.transpose(0, 1).flatten(1).T - x.mean((0, 2, 3))).abs()
    scale = 1 / (size(distances) + EPS)
    return (x - column(x.mean((0, 2, 3)))) * column(scale) * column(weight) + column(bias)


@pytest.mark.parametrize("scale", [True, False])
def test_l1_batch_norm(scale: bool) -> None:
    x, (weight, bias) = batch(110), parameters()
    factor = (np.pi / 2) ** 0.5 if scale else 1
    ours = METHODS["l1_batch_norm"](x, weight=weight, bias=bias, eps=EPS, scale=scale).y
    theirs = by_deviation(x, weight, bias, lambda distances: distances.mean(0) * factor)
    agrees("l1_batch_norm", "authors' formula (Hoffer)", *both(ours, theirs, [x, weight, bias]))


def top(k: int) -> Callable[[Tensor], Tensor]:
    def size(distances: Tensor) -> Tensor:
        constant = 0.5 * (1 + (np.pi * np.log(4)) ** 0.5) / ((2 * np.log(len(distances))) ** 0.5)
        return torch.topk(distances, k, dim=0)[0].mean(0) * constant

    return size


@pytest.mark.parametrize("k", [1, 3, 10, 16])
def test_linf_batch_norm(k: int) -> None:
    x, (weight, bias) = batch(111), parameters()
    ours = METHODS["linf_batch_norm"](x, weight=weight, bias=bias, eps=EPS, k=k).y
    agrees("linf_batch_norm", "authors' formula", *both(ours, by_deviation(x, weight, bias, top(k)), [x, weight, bias]))


def test_linf_batch_norm_with_k_beyond_the_count_takes_all() -> None:
    x = batch(112)
    ours, theirs = (METHODS["linf_batch_norm"](x, k=k).y for k in (16, 10**6))
    assert torch.equal(ours, theirs)
    shape = METHODS["l1_batch_norm"](x, eps=0.0, scale=False).y
    ratio = METHODS["linf_batch_norm"](x, eps=0.0, k=16).y / shape
    torch.testing.assert_close(ratio, ratio.flatten()[0].expand_as(ratio))


@pytest.mark.parametrize("key", ["l1_batch_norm", "linf_batch_norm"])
def test_normal_values_come_out_with_standard_deviation_one(key: str) -> None:
    x = 7 + 3 * torch.randn(20000, 2, generator=torch.Generator().manual_seed(113), dtype=torch.float64)
    spread = METHODS[key](x, "vector").y.std(0)
    assert ((spread - 1).abs() < (0.02 if key == "l1_batch_norm" else 0.3)).all()


@pytest.mark.parametrize(("key", "settings"), [("l1_batch_norm", {"scale": False}), ("linf_batch_norm", {"k": 2})])
def test_deviations_are_remembered(key: str, settings: dict[str, Any]) -> None:
    norm = layer(key, CHANNELS, eps=EPS, **settings).double()
    mean, deviation = (norm.get_buffer(name).clone() for name in ("running_mean", "running_deviation"))
    for seed in range(114, 117):
        x = batch(seed)
        norm(x)
        distances = (x - x.mean((0, 2, 3), keepdim=True)).abs().transpose(0, 1).flatten(1).T
        new = distances.mean(0) if key == "l1_batch_norm" else top(2)(distances)
        mean, deviation = 0.9 * mean + 0.1 * x.mean((0, 2, 3)), 0.9 * deviation + 0.1 * new
    x = batch(117)
    agrees(key, "literal loop", norm.eval()(x), (x - column(mean)) / (column(deviation) + EPS))
    agrees(key, "literal loop", norm.get_buffer("running_deviation"), deviation)


def test_a_new_l1_layer_expects_normal_values() -> None:
    x = batch(118)
    y = layer("l1_batch_norm", CHANNELS, eps=0.0).double().eval()(x)
    torch.testing.assert_close(y, x, rtol=1e-6, atol=0)
    y = layer("l1_batch_norm", CHANNELS, eps=0.0, scale=False).double().eval()(x)
    torch.testing.assert_close(y, x * (math.pi / 2) ** 0.5, rtol=1e-6, atol=0)


# frozen batch normalization


@pytest.mark.parametrize("layout", ["vector", "signal", "image", "volume", "tokens"])
@pytest.mark.parametrize("training", [True, False])
def test_frozen_batch_norm_is_a_trained_batch_norm(layout: str, training: bool) -> None:
    rank = {"vector": 1, "signal": 1, "tokens": 1, "image": 2, "volume": 3}[layout]
    plain = getattr(nn, f"BatchNorm{rank}d")(CHANNELS, eps=EPS).double()
    move = (lambda t: t.transpose(1, 2)) if layout == "tokens" else (lambda t: t)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.copy_(torch.rand(CHANNELS, generator=torch.Generator().manual_seed(120)) + 0.5)
    for seed in (121, 122):
        plain(move(3 * draw(layout, seed, c=CHANNELS) + 1))
    frozen = layer("frozen_batch_norm", CHANNELS, layout, eps=EPS).double().train(training)
    frozen.load_state_dict({k: v for k, v in plain.state_dict().items() if k != "num_batches_tracked"})
    kept = copy.deepcopy(frozen.state_dict())
    x = draw(layout, 123, c=CHANNELS).requires_grad_(True)
    agrees("frozen_batch_norm", "torch.nn.BatchNorm in evaluation", *both(frozen(x), move(plain.eval()(move(x))), [x]))
    assert not list(frozen.parameters())
    assert all(torch.equal(value, kept[name]) for name, value in frozen.state_dict().items())


# moving-average batch normalization


@pytest.mark.parametrize("momentum", [0.1, 0.7])
def test_moving_average_batch_norm_is_that_of_equinox(momentum: float) -> None:
    import equinox  # noqa: PLC0415
    import jax  # noqa: PLC0415

    jax.config.update("jax_enable_x64", True)
    theirs, memory = equinox.nn.make_with_state(equinox.nn.BatchNorm)(
        CHANNELS, "n", EPS, momentum=1 - momentum, mode="ema", dtype=jax.numpy.float64
    )
    weight, bias = parameters()
    theirs = equinox.tree_at(lambda m: (m.weight, m.bias), theirs, (weight.detach().numpy(), bias.detach().numpy()))
    state: Any = None
    for seed in range(130, 134):
        x = batch(seed)
        weights = np.cos(np.arange(x.numel())).reshape(x.shape)

        def total(norm: Any, given: Any, memory: Any, weights: Any = weights) -> Any:
            y, after = jax.vmap(norm, axis_name="n", in_axes=(0, None), out_axes=(0, None))(given, memory)
            return (y * weights).sum(), (y, after)

        def both_slopes(norm: Any, given: Any, memory: Any) -> Any:
            return equinox.filter_value_and_grad(lambda p: total(*p, memory), has_aux=True)((norm, given))

        (_, (y, memory)), (slopes, slope) = both_slopes(theirs, jax.numpy.asarray(x.detach().numpy()), memory)
        normed = METHODS["moving_average_batch_norm"](
            x, weight=weight, bias=bias, state=state, eps=EPS, momentum=momentum
        )
        ours = with_gradients(normed.y, [x, weight, bias])
        state = normed.state
        oracle = 'equinox.nn.BatchNorm(mode="ema")'
        agrees("moving_average_batch_norm", oracle, ours, [y, slope, slopes.weight, slopes.bias])
        mean, var = memory.get(theirs.ema_state_index)
        agrees("moving_average_batch_norm", oracle, [state["running_mean"], state["running_var"]], [mean, var])
    x = batch(134)
    calm = equinox.nn.inference_mode(theirs)
    y, _ = jax.vmap(calm, axis_name="n", in_axes=(0, None), out_axes=(0, None))(x.detach().numpy(), memory)
    given: dict[str, Any] = {"weight": weight, "bias": bias, "state": state, "eps": EPS}
    agrees("moving_average_batch_norm", oracle, METHODS["moving_average_batch_norm"](x, training=False, **given).y, y)


def test_the_first_batch_and_momentum_one_are_batch_norm() -> None:
    x, (weight, bias) = batch(135), parameters()
    for given in ({}, {"momentum": None}, {"momentum": 1.0, "state": remembered()}):
        plain = nn.functional.batch_norm(x, None, None, weight, bias, training=True)
        ours = METHODS["moving_average_batch_norm"](x, weight=weight, bias=bias, **given).y
        agrees("moving_average_batch_norm", "torch.nn.BatchNorm2d", *both(ours, plain, [x, weight, bias]))


def test_with_momentum_none_every_batch_counts_the_same() -> None:
    state: Any = None
    batches = [batch(seed) for seed in range(136, 140)]
    for x in batches:
        state = METHODS["moving_average_batch_norm"](x, state=state, momentum=None).state
    means = torch.stack([x.mean((0, 2, 3)) for x in batches])
    variances = torch.stack([x.var((0, 2, 3), unbiased=False) for x in batches])
    torch.testing.assert_close(state["running_mean"], means.mean(0))
    torch.testing.assert_close(state["running_var"], variances.mean(0))


# synchronized batch normalization

SHARES = {"equal": (3, 3), "unequal": (1, 4), "three": (2, 1, 5)}
STEPS = 3


def replica(rank: int, shares: tuple[int, ...], folder: str, layout: str) -> None:
    """One process: its part of every batch through the layer, and what came of it into a file."""
    torch.set_num_threads(1)
    options = {"rank": rank, "world_size": len(shares)}
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", **options)
    norm = layer("sync_batch_norm", CHANNELS, layout, eps=EPS).double()
    found = []
    for step in range(STEPS):
        start = sum(shares[:rank])
        x = whole(step, shares, layout)[start : start + shares[rank]].clone().requires_grad_(True)
        found.append(trace(norm, x, whole(50 + step, shares, layout)[start : start + shares[rank]]))
    x = whole(99, shares, layout)[: 1 + rank]  # evaluation sends no message: the processes may do different things
    found.append([norm.eval()(x)] if rank == 0 else [])
    torch.save([[part.detach() for part in parts] for parts in found], f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def whole(seed: int, shares: tuple[int, ...], layout: str) -> Tensor:
    """The large batch; its samples have unlike means, so that no part of it stands for the whole."""
    x = draw(layout, 140 + seed, n=sum(shares), c=CHANNELS)
    return x + torch.arange(len(x), dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def trace(norm: Any, x: Tensor, weights: Tensor) -> list[Tensor]:
    """Value, gradients of a sum whose terms all depend on all statistics, and running state."""
    y = norm(x)
    inputs = [x, norm.weight, norm.bias]
    slopes = torch.autograd.grad((y * weights + y**3).sum(), inputs)
    stats = METHODS["sync_batch_norm"](x.detach(), norm.layout).stats
    return [y, *slopes, *(value.clone() for value in norm.buffers()), stats["mean"], stats["var"]]


@pytest.mark.parametrize(("shares", "layout"), [("equal", "image"), ("unequal", "tokens"), ("three", "vector")])
def test_sync_batch_norm_in_processes_is_batch_norm_of_the_whole_batch(
    tmp_path: Path, shares: str, layout: str
) -> None:
    parts = SHARES[shares]
    multiprocessing.spawn(replica, (parts, str(tmp_path), layout), nprocs=len(parts))
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(len(parts))]
    plain: Any = layer("batch_norm", CHANNELS, layout, eps=EPS).double()
    oracle = "batch_norm of the whole batch"
    for step in range(STEPS):
        x = whole(step, parts, layout).requires_grad_(True)
        y, dx, dweight, dbias, *rest = trace(plain, x, whole(50 + step, parts, layout))
        theirs = [process[step] for process in found]
        agrees("sync_batch_norm", oracle, torch.cat([part[0] for part in theirs]), y)
        agrees("sync_batch_norm", oracle, torch.cat([part[1] for part in theirs]), dx)
        agrees("sync_batch_norm", oracle, sum(part[2] for part in theirs), dweight)
        agrees("sync_batch_norm", oracle, sum(part[3] for part in theirs), dbias)
        for part in theirs:
            agrees("sync_batch_norm", oracle, part[4:], rest)
    agrees("sync_batch_norm", oracle, found[0][STEPS], [plain.eval()(whole(99, parts, layout)[:1])])


@pytest.mark.parametrize("training", [True, False])
def test_sync_batch_norm_alone_is_torchs(training: bool) -> None:
    ours = layer("sync_batch_norm", CHANNELS, eps=EPS).double().train(training)
    theirs = nn.SyncBatchNorm(CHANNELS, eps=EPS).double().train(training)
    for seed in range(150, 152):
        x = batch(seed)
        agrees("sync_batch_norm", "torch.nn.SyncBatchNorm", *both(ours(x), theirs(x), [x]))
    for name, value in theirs.named_buffers():
        agrees("sync_batch_norm", "torch.nn.SyncBatchNorm", ours.get_buffer(name), value)
