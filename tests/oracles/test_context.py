"""Tensors that come with the input: masks, styles, labels, conditions and residuals, against packages and formulas."""

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from agreement import agrees
from cases import draw
from torch import Tensor, nn
from torch.nn import functional

from normcore import METHODS, NormcoreError, layer
from normcore.methods.activation.fixup import fixup_scale

os.environ.setdefault("KERAS_BACKEND", "jax")

# The defaults of the methods' settings, and where the values stand.
PUBLISHED: dict[str, dict[str, Any]] = {
    "masked_layer_norm": {"eps": 1e-5},  # torch.nn.LayerNorm
    "masked_batch_norm": {"eps": 1e-5, "momentum": 0.1, "track_running_stats": True},  # torch.nn.BatchNorm2d
    "adain": {"eps": 1e-5, "unbiased": False},  # the paper's formula, with the ε of the authors' code
    # The papers leave the number open (32 styles, and a network in place of a table): 10, the classes of CIFAR-10.
    "conditional_instance_norm": {"eps": 1e-5, "num_classes": 10},
    "conditional_batch_norm": {"eps": 1e-5, "momentum": 0.1, "track_running_stats": True, "num_classes": 10},
    "adaptive_layer_norm": {"eps": 1e-6},  # the authors' code
    "adaptive_group_norm": {"num_groups": 2, "eps": 1e-5},  # torch.nn.GroupNorm; the authors take 32 groups
    "spade": {"base": "batch", "eps": 1e-5, "momentum": 0.1, "track_running_stats": True},  # the authors' code
    "rezero": {},
    "skip_init": {},
    "layer_scale": {"init_value": 1e-5},  # timm, and the paper up to 24 layers
    "residual_scaling": {"alpha": 0.2},  # NF-ResNet; between the 0.1 and 0.3 of Inception-ResNet
    "deep_norm": {"alpha": 2.0, "eps": 1e-5},  # the paper's (2N)^(1/4) with N = 8 layers; torch.nn.LayerNorm
    "fixup": {},
}
EPS = 1e-3
GENERATOR = torch.Generator().manual_seed(70)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64)


def both(ours: Callable[..., Tensor], theirs: Callable[..., Tensor], *inputs: Tensor) -> tuple[Any, Any]:
    """Values of two functions, and the gradients of a weighted sum of them by all the inputs."""
    found = []
    for fn in (ours, theirs):
        probes = [x.detach().clone().requires_grad_(True) for x in inputs]
        y = fn(*probes)
        weights = torch.cos(torch.arange(y.numel(), dtype=y.dtype)).reshape(y.shape)
        found.append([y, *torch.autograd.grad((y * weights).sum(), probes)])
    return found[0], found[1]


def some(*shape: int, along: int = 1) -> Tensor:
    """A mask in which something counts along that axis, and something does not."""
    mask = torch.rand(shape, generator=GENERATOR) < 0.6
    return mask.index_fill(along, torch.tensor(0), True).index_fill(along, torch.tensor(shape[along] - 1), False)


# ---- masks


def jax_value_and_gradients(fn: Callable[..., Any], *inputs: Tensor) -> list[np.ndarray]:
    """A jax function's value, and the gradients of the weighted sum that `both` takes."""
    import jax  # noqa: PLC0415

    jax.config.update("jax_enable_x64", True)
    arrays = [jax.numpy.asarray(x.detach().numpy()) for x in inputs]
    y, pullback = jax.vjp(fn, *arrays)
    weights = np.cos(np.arange(y.size)).reshape(y.shape)
    return [np.asarray(part) for part in (y, *pullback(jax.numpy.asarray(weights)))]


@pytest.mark.parametrize("which", ["positions", "elements"])
def test_masked_batch_norm_is_that_of_flax(which: str) -> None:
    import flax.linen as flax  # noqa: PLC0415

    x, gain, bias = 3 * draw("tokens", 71, n=3, t=5) + 1, random(4), random(4)
    mask = some(3, 5) if which == "positions" else some(3, 5, 4)
    norm = flax.BatchNorm(use_running_average=False, epsilon=EPS, use_fast_variance=False, dtype=np.float64)

    def theirs(x: Any, gain: Any, bias: Any) -> Any:
        variables = {"params": {"scale": gain, "bias": bias}, "batch_stats": {"mean": np.zeros(4), "var": np.ones(4)}}
        where = mask.numpy() if which == "elements" else mask.numpy()[..., None]
        return norm.apply(variables, x, mask=where, mutable=["batch_stats"])[0]

    def ours(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        given = {"weight": gain, "bias": bias, "mask": mask}
        return METHODS["masked_batch_norm"](x, "tokens", eps=EPS, **given).y

    mine, _ = both(ours, ours, x, gain, bias)
    agrees("masked_batch_norm", "flax.linen.BatchNorm", mine, jax_value_and_gradients(theirs, x, gain, bias))


def test_masked_batch_norm_is_that_of_keras_state_and_all() -> None:
    import keras  # noqa: PLC0415

    norm = keras.layers.BatchNormalization(epsilon=EPS, momentum=0.9, dtype="float64")
    ours = layer("masked_batch_norm", 4, "tokens", eps=EPS).double()
    mean, var = np.zeros(4), np.ones(4)
    for seed in (72, 73):
        x, mask = 3 * draw("tokens", seed, n=3, t=5) + 1, some(3, 5)
        y = norm(x.numpy(), training=True, mask=mask.numpy())
        # Keras adds 1e-7 to the count.
        agrees("masked_batch_norm", "keras.layers.BatchNormalization", ours(x, mask=mask), np.asarray(y), 1e-6)
        agrees("masked_batch_norm", "keras.layers.BatchNormalization", ours.running_mean, norm.moving_mean, 1e-6)
        counted = x[mask].numpy()  # Keras remembers the variance divided by n, here it is by n - 1
        mean = 0.9 * mean + 0.1 * counted.mean(0)
        var = 0.9 * var + 0.1 * counted.var(0, ddof=1)
        agrees("masked_batch_norm", "literal loop", [ours.running_mean, ours.running_var], [mean, var])
    x = draw("tokens", 74)
    ours.eval()
    assert torch.equal(ours(x, mask=some(4, 3)), ours(x))


@pytest.mark.parametrize("layout", ["tokens", "image"])
def test_masked_layer_norm_is_that_of_flax(layout: str) -> None:
    import flax.linen as flax  # noqa: PLC0415

    x = 3 * draw(layout, 75, h=3, w=3) + 1
    mask = some(*x.shape, along=-1)
    shape = x.shape[-1:] if layout == "tokens" else x.shape[1:]
    gain, bias = random(*shape), random(*shape)
    axes = -1 if layout == "tokens" else (1, 2, 3)
    norm = flax.LayerNorm(
        epsilon=EPS, reduction_axes=axes, feature_axes=axes, use_fast_variance=False, dtype=np.float64
    )

    def theirs(x: Any, gain: Any, bias: Any) -> Any:
        return norm.apply({"params": {"scale": gain, "bias": bias}}, x, mask=mask.numpy())

    def ours(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        return METHODS["masked_layer_norm"](x, layout, eps=EPS, weight=gain, bias=bias, mask=mask).y

    mine, _ = both(ours, ours, x, gain, bias)
    agrees("masked_layer_norm", "flax.linen.LayerNorm", mine, jax_value_and_gradients(theirs, x, gain, bias))


@pytest.mark.parametrize(("layout", "shape"), [("image", (4, 2, 2)), ("signal", (4, 3)), ("volume", (4, 2, 2, 2))])
def test_a_mask_of_positions_holds_for_all_channels(layout: str, shape: tuple[int, ...]) -> None:
    x, mask = draw(layout, 76), some(*shape)
    for key in ("masked_layer_norm", "masked_batch_norm"):
        every = mask[:, None].expand(x.shape)
        agrees(key, "literal loop", *(METHODS[key](x, layout, mask=m).y for m in (mask, every)), tolerance=0.0)


def test_masked_layer_norm_is_a_loop_over_the_samples() -> None:
    x, mask = draw("image", 77), some(4, 2, 2)

    def loop(x: Tensor) -> Tensor:
        samples = []
        for sample, inside in zip(x, mask, strict=True):
            values = sample[:, inside]
            samples.append((sample - values.mean()) / (values.var(correction=0) + EPS).sqrt())
        return torch.stack(samples)

    def ours(x: Tensor) -> Tensor:
        return METHODS["masked_layer_norm"](x, mask=mask, eps=EPS).y

    agrees("masked_layer_norm", "literal loop", *both(ours, loop, x))


@pytest.mark.parametrize(("key", "plain"), [("masked_layer_norm", "layer_norm"), ("masked_batch_norm", "batch_norm")])
@pytest.mark.parametrize("layout", ["vector", "signal", "image", "volume", "tokens"])
def test_where_everything_counts_the_mask_changes_nothing(key: str, plain: str, layout: str) -> None:
    x = 100 + draw(layout, 78)
    gain, bias = random(2, 4)
    axis = 2 if layout == "tokens" else 1
    all_true = torch.ones([size for a, size in enumerate(x.shape) if a != axis], dtype=torch.bool)
    ours = METHODS[key](x, layout, weight=gain, bias=bias, mask=all_true)
    theirs = METHODS[plain](x, layout, weight=gain, bias=bias)
    agrees(key, plain, [ours.y, *ours.state.values()], [theirs.y, *theirs.state.values()])
    assert list(ours.state) == list(theirs.state)


def test_what_is_masked_moves_nothing_and_is_transformed() -> None:
    for key in ("masked_layer_norm", "masked_batch_norm"):
        x, mask = draw("image", 79), some(4, 2, 2)
        changed = torch.where(mask[:, None], x, 1e6)
        before, after = (METHODS[key](t, mask=mask) for t in (x, changed))
        inside = mask[:, None].expand(x.shape)
        assert torch.equal(before.y[inside], after.y[inside])
        assert all(torch.equal(before.stats[name], after.stats[name]) for name in before.stats)
        assert all(torch.equal(before.state[name], after.state[name]) for name in before.state)
        normalized = (x - before.stats["mean"]) / (before.stats["var"] + 1e-5).sqrt()
        agrees(key, "literal loop", before.y, normalized)
        half = METHODS[key](x.half(), mask=mask)
        assert half.y.dtype == torch.float16 and half.stats["mean"].dtype == torch.float32


def test_where_nothing_counts_there_is_the_bias_and_the_state_stays() -> None:
    x, bias = draw("tokens", 80).requires_grad_(True), random(4)
    none = torch.zeros(4, 3, dtype=torch.bool)
    for key in ("masked_layer_norm", "masked_batch_norm"):
        y = METHODS[key](x, "tokens", bias=bias, mask=none).y
        assert torch.equal(y, bias.expand(x.shape))
        assert bool(torch.autograd.grad(y.sum(), x)[0].isfinite().all())
    for momentum in (0.1, None):
        norm = layer("masked_batch_norm", 4, "tokens", momentum=momentum).double()
        norm(x, mask=some(4, 3))
        kept = {name: value.clone() for name, value in norm.named_buffers()}
        norm(x, mask=none)
        assert all(torch.equal(value, kept[name]) for name, value in norm.named_buffers())
    one = METHODS["masked_batch_norm"](x, "tokens", mask=torch.eye(4, 3) * torch.tensor([1, 0, 0]) > 0)
    assert bool(one.state["running_var"].isfinite().all())


def test_masks_and_large_means_and_transforms() -> None:
    x = 1000 + 0.01 * draw("image", 81, torch.float32, h=6, w=6)
    mask = some(4, 6, 6)
    for key in ("masked_layer_norm", "masked_batch_norm"):
        exact = METHODS[key](x.double(), mask=mask, eps=1e-12).y
        assert float((METHODS[key](x, mask=mask, eps=1e-12).y - exact).abs().max()) < 1e-4
        xs, masks = torch.stack([x, x + 1]), torch.stack([mask, ~mask])
        mapped = torch.func.vmap(lambda t, m, key=key: METHODS[key](t, mask=m).y)(xs, masks)
        looped = torch.stack([METHODS[key](t, mask=m).y for t, m in zip(xs, masks, strict=True)])
        torch.testing.assert_close(mapped, looped, rtol=1e-3, atol=1e-3)
        small = draw("image", 82, n=2).requires_grad_(True)
        assert torch.autograd.gradcheck(lambda t, key=key: METHODS[key](t, mask=mask[:2, :2, :2]).y, (small,))


# ---- styles and labels


@pytest.mark.parametrize("unbiased", [False, True])
def test_adain(unbiased: bool) -> None:
    x, style = 3 * draw("image", 83) + 1, 2 * random(4, 4, 3, 5) - 1

    def formula(x: Tensor, style: Tensor) -> Tensor:
        def moments(values: Tensor) -> tuple[Tensor, Tensor]:
            flat = values.flatten(2)
            mean = flat.sum(2) / flat.shape[2]
            squares = (flat - mean[..., None]).square().sum(2)
            deviation = (squares / (flat.shape[2] - unbiased) + EPS).sqrt()
            return mean[..., None, None], deviation[..., None, None]

        (mean, deviation), (style_mean, style_deviation) = moments(x), moments(style)
        return style_deviation * (x - mean) / deviation + style_mean

    def ours(x: Tensor, style: Tensor) -> Tensor:
        return METHODS["adain"](x, style=style, eps=EPS, unbiased=unbiased).y

    agrees("adain", "authors' formula", *both(ours, formula, x, style))
    normed = METHODS["adain"](x, style=style, eps=EPS, unbiased=unbiased)
    agrees("adain", "literal loop", normed.stats["style_mean"][1, 2, 0, 0], style[1, 2].mean())
    agrees("adain", "identity", METHODS["adain"](x, style=x, eps=EPS, unbiased=unbiased).y, x)


def test_a_style_gives_its_mean_and_spread_whatever_its_size() -> None:
    x, style = draw("signal", 84, l=50), 3 * random(4, 4, 7) + 5
    y = METHODS["adain"](x, "signal", style=style, eps=0.0).y
    agrees("adain", "literal loop", [y.mean(2), y.var(2, correction=0)], [style.mean(2), style.var(2, correction=0)])
    flat = METHODS["adain"](x, "signal", style=style[..., 0], eps=0.0, unbiased=True).y
    agrees("adain", "literal loop", flat, style[..., :1].expand(x.shape))
    constant = torch.ones(4, 4, 2, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(METHODS["adain"](x, "signal", style=constant, eps=0.0).y.sum(), constant)
    assert bool(gradient.isfinite().all())


CONDITIONAL = [
    ("conditional_instance_norm", lambda x: functional.instance_norm(x, eps=EPS), "torch.nn.InstanceNorm2d"),
    ("conditional_batch_norm", lambda x: functional.batch_norm(x, None, None, training=True, eps=EPS), "BatchNorm2d"),
]


@pytest.mark.parametrize(("key", "plain", "name"), CONDITIONAL, ids=[key for key, _, _ in CONDITIONAL])
@pytest.mark.parametrize("layout", ["signal", "image", "volume", "tokens"])
def test_each_sample_has_the_gain_and_bias_of_its_class(key: str, plain: Any, name: str, layout: str) -> None:
    x, weight, bias, labels = draw(layout, 85), random(3, 4), random(3, 4), torch.tensor([2, 0, 2, 1])

    def theirs(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = plain(x.transpose(1, -1)).transpose(1, -1) if layout == "tokens" else plain(x)
        samples = []
        for sample, label in zip(y, labels.tolist(), strict=True):
            channels_last = sample if layout == "tokens" else sample.movedim(0, -1)
            scaled = channels_last * weight[label] + bias[label]
            samples.append(scaled if layout == "tokens" else scaled.movedim(-1, 0))
        return torch.stack(samples)

    def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        tables = {"weight": weight, "bias": bias, "labels": labels}
        return METHODS[key](x, layout, eps=EPS, num_classes=3, **tables).y

    oracle = name if name.startswith("torch") else f"torch.nn.{name}"
    agrees(key, oracle, *both(ours, theirs, x, weight, bias))
    half = {"weight": weight.half(), "bias": bias.half()}
    single = {name: value.float() for name, value in half.items()}
    rounded = METHODS[key](x.half().float(), layout, num_classes=3, labels=labels, **single).y.half()
    assert torch.equal(METHODS[key](x.half(), layout, num_classes=3, labels=labels, **half).y, rounded)
    unlabeled, first = (
        METHODS[key](x, layout, num_classes=3, weight=weight, bias=bias, **given).y
        for given in ({}, {"labels": torch.zeros(4, dtype=torch.long)})
    )
    assert torch.equal(unlabeled, first)


@pytest.mark.parametrize(("key", "plain"), [(k, k.removeprefix("conditional_")) for k, _, _ in CONDITIONAL])
def test_with_one_class_it_is_the_plain_method_in_training_and_evaluation(key: str, plain: str) -> None:
    ours, theirs = layer(key, 4, num_classes=1).double(), layer(plain, 4).double()
    with torch.no_grad():
        for name, value in theirs.named_parameters():
            value.copy_(random(4))
            ours.get_parameter(name).copy_(value[None])
    for seed in (86, 87):
        x = draw("image", seed)
        for labels in ({}, {"labels": torch.zeros(4, dtype=torch.long)}):
            agrees(key, plain, ours.eval()(x, **labels), theirs.eval()(x))
        agrees(key, plain, ours.train()(x), theirs.train()(x))
        assert len(list(ours.buffers())) == len(list(theirs.buffers()))
        for mine, other in zip(ours.buffers(), theirs.buffers(), strict=True):
            agrees(key, plain, mine, other)


@pytest.mark.parametrize("key", [key for key, _, _ in CONDITIONAL])
def test_labels_that_name_no_row_are_refused(key: str) -> None:
    norm = layer(key, 4, num_classes=3)
    x = draw("image", dtype=torch.float32)
    for labels, found in (([0, 1, 2, 3], "not 0 to 3"), ([0, -1, 2, 1], "not -1 to 2")):
        with pytest.raises(NormcoreError, match=f"{key}: labels must be whole numbers from 0 to 2, .*{found}$"):
            norm(x, labels=torch.tensor(labels))
    with pytest.raises(NormcoreError, match=r"from 0 to 2, the rows of the table, not torch\.float32$"):
        norm(x, labels=torch.zeros(4))
    assert torch.equal(norm(x, labels=torch.zeros(4, dtype=torch.uint8)), norm(x))


# ---- conditions


def test_adaptive_layer_norm_modulates_as_in_dit() -> None:
    x, scale, shift = draw("tokens", 88), random(4, 4), random(4, 4)
    norm = nn.LayerNorm(4, eps=1e-6, elementwise_affine=False, dtype=torch.float64)

    def theirs(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return norm(x) * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)

    def ours(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return METHODS["adaptive_layer_norm"](x, "tokens", scale=scale, shift=shift).y

    agrees("adaptive_layer_norm", "authors' formula", *both(ours, theirs, x, scale, shift))
    image = draw("image", 89)
    expected = functional.layer_norm(image, image.shape[1:], eps=1e-6) * (1 + scale[..., None, None])
    agrees("adaptive_layer_norm", "authors' formula", METHODS["adaptive_layer_norm"](image, scale=scale).y, expected)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_adaptive_group_norm_keeps_its_own_gain_as_in_guided_diffusion(groups: int) -> None:
    x, scale, shift, weight, bias = draw("image", 90), random(4, 4), random(4, 4), random(4), random(4)

    def theirs(x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        normed = functional.group_norm(x, groups, weight, bias)
        return normed * (1 + scale[:, :, None, None]) + shift[:, :, None, None]

    def ours(x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        given = {"scale": scale, "shift": shift, "weight": weight, "bias": bias}
        return METHODS["adaptive_group_norm"](x, num_groups=groups, **given).y

    agrees("adaptive_group_norm", "authors' formula", *both(ours, theirs, x, scale, shift, weight, bias))
    tokens = draw("tokens", 91)
    expected = functional.group_norm(tokens.transpose(1, 2), groups) * (1 + scale[..., None]) + shift[..., None]
    y = METHODS["adaptive_group_norm"](tokens, "tokens", num_groups=groups, scale=scale, shift=shift).y
    agrees("adaptive_group_norm", "authors' formula", y, expected.transpose(1, 2))


@pytest.mark.parametrize(
    ("base", "plain"), [("batch", nn.BatchNorm2d(4, affine=False)), ("instance", nn.InstanceNorm2d(4))]
)
def test_spade_multiplies_by_maps_in_training_and_evaluation(base: str, plain: nn.Module) -> None:
    ours, theirs = layer("spade", 4, base=base).double(), plain.double()
    for seed in (92, 93):
        x, gamma, beta = draw("image", seed), random(4, 4, 2, 2), random(4, 4, 2, 2)
        for training in (False, True):
            ours.train(training), theirs.train(training)
            mine, other = both(
                lambda x, gamma, beta: ours(x, gamma=gamma, beta=beta),
                lambda x, gamma, beta: theirs(x) * (1 + gamma) + beta,
                *(x, gamma, beta),
            )
            agrees("spade", "authors' formula", mine, other)
    if base == "batch":
        agrees("spade", "torch.nn.BatchNorm2d", list(ours.buffers()), list(theirs.buffers()))


def test_constant_maps_are_a_condition_for_each_sample() -> None:
    x, gamma, beta = draw("image", 94), random(4, 4), random(4, 4)
    maps = {name: value[..., None, None].expand(x.shape) for name, value in (("gamma", gamma), ("beta", beta))}
    tables = {"weight": 1 + gamma, "bias": beta, "labels": torch.arange(4)}
    for base in ("batch", "instance"):
        conditional = METHODS[f"conditional_{base}_norm"](x, num_classes=4, **tables).y
        agrees("spade", f"conditional_{base}_norm", METHODS["spade"](x, base=base, **maps).y, conditional)


# ---- branches without a normalization


@pytest.mark.parametrize(("key", "shape"), [("rezero", (1,)), ("skip_init", ())])
def test_a_branch_is_scaled_and_added(key: str, shape: tuple[int, ...]) -> None:
    x, residual, weight = draw("tokens", 95), random(4, 3, 4), random(*shape)

    def ours(x: Tensor, residual: Tensor, weight: Tensor) -> Tensor:
        return METHODS[key](x, "tokens", residual=residual, weight=weight).y

    def theirs(x: Tensor, residual: Tensor, weight: Tensor) -> Tensor:
        return residual + weight * x

    agrees(key, "authors' formula", *both(ours, theirs, x, residual, weight))
    norm = layer(key, 4, "tokens")
    assert norm.get_parameter("weight").shape == shape and not norm.get_parameter("weight").any()
    agrees(key, "authors' formula", norm.double()(x, residual=residual), residual, tolerance=0.0)
    agrees(key, "authors' formula", METHODS[key](x, "tokens", weight=weight).y, weight * x)


@pytest.mark.parametrize("layout", ["vector", "signal", "image", "volume"])
def test_layer_scale_has_a_gain_for_each_channel_wherever_that_lies(layout: str) -> None:
    x, weight = draw(layout, 96), random(4)
    y = METHODS["layer_scale"](x, layout, weight=weight).y
    agrees("layer_scale", "literal loop", y, torch.stack([x[:, c] * weight[c] for c in range(4)], 1))


@pytest.mark.parametrize("alpha", [0.1, 0.17, 1.0])
def test_residual_scaling(alpha: float) -> None:
    x, residual = draw("image", 98), random(4, 4, 2, 2)
    mine, theirs = both(
        lambda x, residual: METHODS["residual_scaling"](x, residual=residual, alpha=alpha).y,
        lambda x, residual: residual + x * alpha,
        *(x, residual),
    )
    agrees("residual_scaling", "authors' formula", mine, theirs)


def test_the_variance_grows_as_nf_resnet_predicts() -> None:
    x, alpha, expected = random(200, 500), 0.2, 1.0
    for _ in range(5):
        branch = random(200, 500)  # a branch whose input was divided by the expected deviation gives variance 1
        x = METHODS["residual_scaling"](branch, "vector", residual=x, alpha=alpha).y
        expected += alpha**2
    assert float(x.var()) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("alpha", [1.0, 2.0, 36**0.25])
@pytest.mark.parametrize("layout", ["tokens", "image"])
def test_deep_norm_is_layer_norm_of_the_weighted_sum(layout: str, alpha: float) -> None:
    x = draw(layout, 99)
    shape = x.shape[-1:] if layout == "tokens" else x.shape[1:]
    norm = nn.LayerNorm(shape, dtype=torch.float64)
    mine, theirs = both(
        lambda x, residual, weight, bias: (
            METHODS["deep_norm"](x, layout, residual=residual, weight=weight, bias=bias, alpha=alpha).y
        ),
        lambda x, residual, weight, bias: torch.func.functional_call(
            norm, {"weight": weight, "bias": bias}, (residual * alpha + x,)
        ),
        *(x, random(*x.shape), random(*shape), random(*shape)),
    )
    agrees("deep_norm", "torch.nn.LayerNorm", mine, theirs)


def test_deep_norm_of_half_precision_is_rounded_once() -> None:
    x, residual = draw("tokens", 100, torch.float16), random(4, 3, 4).half()
    half = METHODS["deep_norm"](x, "tokens", residual=residual).y
    single = METHODS["deep_norm"](x.float(), "tokens", residual=residual.float()).y
    assert torch.equal(half, single.half())


def test_fixup_is_the_end_of_the_authors_block() -> None:
    mine, theirs = both(
        lambda x, residual, weight, bias: METHODS["fixup"](x, residual=residual, weight=weight, bias=bias).y,
        lambda x, residual, scale, bias2b: residual + (x * scale + bias2b),
        *(draw("image", 101), random(4, 4, 2, 2), random(1), random(1)),
    )
    agrees("fixup", "authors' formula", mine, theirs)
    new = layer("fixup", 4)
    assert [(p.shape, float(p.detach())) for p in (new.weight, new.bias)] == [((1,), 1.0), ((1,), 0.0)]


def test_fixup_scale_is_the_papers_rule() -> None:
    assert [fixup_scale(2, branches) for branches in (1, 4, 100)] == [1.0, 0.5, pytest.approx(0.1)]
    assert fixup_scale(3, 16) == pytest.approx(16**-0.25)
    # Together the layers of a branch that are scaled shrink it by the root of the number of branches.
    for layers in (2, 3, 5):
        assert math.prod([fixup_scale(layers, 9)] * (layers - 1)) == pytest.approx(9**-0.5)
    for layers, branches in ((1, 4), (2, 0)):
        with pytest.raises(NormcoreError, match=f"fixup_scale: layers={layers}, branches={branches} must be"):
            fixup_scale(layers, branches)


# ---- all of them


CONTEXT: list[tuple[str, str, Callable[[Tensor], Any], str]] = [
    ("masked_layer_norm", "mask", lambda x: some(4, 2, 2), "(4, 2, 2) or (4, 4, 2, 2)"),
    ("masked_batch_norm", "mask", lambda x: some(4, 2, 2), "(4, 2, 2) or (4, 4, 2, 2)"),
    ("graph_size_norm", "mask", lambda x: some(4, 2, 2), "(4, 2, 2)"),
    ("adain", "style", lambda x: random(4, 4, 3), "(4, 4) and any further axes"),
    ("conditional_instance_norm", "labels", lambda x: torch.tensor([0, 1, 1, 0]), "(4,)"),
    ("conditional_batch_norm", "labels", lambda x: torch.tensor([0, 1, 1, 0]), "(4,)"),
    *(
        (f"adaptive_{base}_norm", n, lambda x: random(4, 4), "(4, 4)")
        for base in ("layer", "group")
        for n in ("scale", "shift")
    ),
    *(("spade", n, lambda x: random(*x.shape), "(4, 4, 2, 2)") for n in ("gamma", "beta")),
    *(
        (key, "residual", lambda x: random(*x.shape), "(4, 4, 2, 2)")
        for key in ("rezero", "skip_init", "layer_scale", "residual_scaling", "deep_norm", "fixup")
    ),
]
every_context = pytest.mark.parametrize(
    ("key", "name", "make", "words"), CONTEXT, ids=[f"{c[0]}-{c[1]}" for c in CONTEXT]
)


@every_context
def test_a_layer_passes_its_context_on(key: str, name: str, make: Callable[[Tensor], Any], words: str) -> None:
    x, norm = draw("image", 102), layer(key, 4).double()
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(random(*parameter.shape))
    given = {name: make(x)}
    normed = METHODS[key](x, **given, **dict(norm.named_parameters()))
    y = norm(x, **given)
    assert torch.equal(y, normed.y) and not torch.allclose(y, norm(x))


@every_context
def test_context_that_does_not_fit_gets_one_sentence(
    key: str, name: str, make: Callable[[Tensor], Any], words: str
) -> None:
    x, norm = draw("image", 103), layer(key, 4).double()
    right = make(x)
    for wrong in (right[:3], right.unsqueeze(0)):
        with pytest.raises(NormcoreError) as caught:
            norm(x, **{name: wrong})
        assert str(caught.value) == f"{key}: {name} has shape {tuple(wrong.shape)}; it must be {words}"
    with pytest.raises(NormcoreError, match=f"^{key}: {name} is list; it must be a tensor$"):
        norm(x, **{name: right.tolist()})
    known = ", ".join(METHODS[key].context)
    with pytest.raises(NormcoreError, match=f"^{key}: beside x it takes {known}, not memory$"):
        norm(x, memory=right)
    assert torch.equal(norm.eval()(x), norm(x, **dict.fromkeys(METHODS[key].context)))


@every_context
def test_what_comes_with_the_input_gets_the_gradients_of_finite_differences(
    key: str, name: str, make: Callable[[Tensor], Any], words: str
) -> None:
    x = draw("image", 104).requires_grad_(True)
    given = make(x)
    if given.is_floating_point():
        assert torch.autograd.gradcheck(
            lambda x, given: METHODS[key](x, **{name: given}).y, (x, given.requires_grad_(True)), fast_mode=True
        )
    stats = METHODS[key](x, **{name: given}).stats
    assert stats and not any(value.requires_grad for value in stats.values())
    assert all(value.expand(x.shape).shape == x.shape for value in stats.values())
