"""Floating point: precisions, memory layouts, large means, constant regions, and what PyTorch transforms."""

import itertools
from typing import Any

import pytest
import torch
from cases import (
    DTYPES,
    PLAIN,
    TENSORS,
    draw,
    every_activation,
    every_method,
    every_tensor_method,
    function,
    learned,
    modes,
    remembered,
    sizes_of,
    structures,
)
from torch import Tensor

from normcore import METHODS, Bound, Method, Region, layer
from normcore.core import Divides, center


def prepared(method: Method, layout: str, x: Tensor) -> dict[str, Any]:
    """Learned tensors, and a running state where the method has one."""
    tensors: dict[str, Any] = dict(learned(method, x, layout, {}))
    if method.state:
        tensors["state"] = remembered(method, x.shape[-1 if layout == "tokens" else 1], like=x)
    return tensors


@every_method
def test_gradients_and_second_gradients_are_those_of_finite_differences(method: Method, layout: str) -> None:
    small = {"n": 2, "t": 2, "l": 2, "d": 1, "o": 2, "i": 2}
    x = draw(layout, seed=11, **small).requires_grad_(True)
    # While power iteration moves them, its vectors are constants in the gradient: finite differences cannot agree.
    for training in (False,) if method.key == "spectral_norm" else modes(method):
        tensors = prepared(method, layout, x.detach())
        fn = function(method, layout, PLAIN.get(method.key, {}), training, **tensors)
        # torch.compile takes no function of its own that can be differentiated forward.
        ways = {"fast_mode": True, "check_forward_ad": method.key != "decorrelated_batch_norm"}
        assert torch.autograd.gradcheck(fn, (x,), **ways)
        assert torch.autograd.gradgradcheck(fn, (x,), fast_mode=True, check_fwd_over_rev=ways["check_forward_ad"])


@pytest.mark.parametrize("key", ["batch_norm", "layer_norm", "group_norm", "instance_norm", "layer_norm_2d"])
def test_a_bias_alone_has_second_gradients(key: str) -> None:
    """PyTorch's kernels have none with a bias and no gain."""
    x, bias = draw("image", seed=11, n=2), learned(METHODS[key], draw("image"), "image", {})["bias"]
    leaves = x.requires_grad_(True), bias.requires_grad_(True)
    assert torch.autograd.gradgradcheck(lambda x, bias: METHODS[key](x, bias=bias).y, leaves, fast_mode=True)


@pytest.mark.parametrize("scale", [1e30, 1e-20])
@pytest.mark.parametrize("key", ["l1_batch_norm", "linf_batch_norm"])
def test_distances_need_no_squares(key: str, scale: float) -> None:
    """So that gradients hold far beyond where variances overflow or vanish."""
    x, slope = (draw("vector", seed=seed, dtype=torch.float32, n=32) for seed in (11, 12))
    leaf = (scale * x).requires_grad_(True)
    (gradient,) = torch.autograd.grad(METHODS[key](leaf, "vector", eps=0.0).y, leaf, slope)
    exact = x.double().requires_grad_(True)
    (expected,) = torch.autograd.grad(METHODS[key](exact, "vector", eps=0.0).y, exact, slope.double())
    torch.testing.assert_close(gradient.double() * scale, expected, rtol=1e-4, atol=1e-5)


@every_method
def test_learned_tensors_get_the_gradients_of_finite_differences(method: Method, layout: str) -> None:
    if method.family == "gradient":
        return
    x = draw(layout, seed=11)
    values = learned(method, x, layout, {})
    for name, value in values.items():
        rest = {k: v for k, v in values.items() if k != name}

        def fn(tensor: Tensor, name: str = name, rest: dict[str, Tensor] = rest) -> Tensor:
            return method(x, layout, **{name: tensor}, **rest).y

        assert torch.autograd.gradcheck(fn, (value.requires_grad_(True),), fast_mode=True)


@every_method
def test_shape_and_precision_are_kept(method: Method, layout: str) -> None:
    for dtype in DTYPES:
        x = draw(layout, dtype=dtype)
        for training in modes(method):
            y = function(method, layout, {}, training, **learned(method, x, layout, {}))(x)
            assert y.dtype == dtype and y.shape == x.shape


@every_tensor_method
def test_half_precision_is_rounded_once_from_a_float32_result(method: Method, layout: str) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        x = 2 * draw(layout, seed=12, dtype=dtype) + 1
        wide = learned(method, x, layout, {})
        narrow = {name: tensor.to(dtype) for name, tensor in wide.items()}
        for tensors, training in itertools.product((wide, narrow), modes(method)):
            half = function(method, layout, {}, training, **tensors)(x)
            full = function(method, layout, {}, training, **{n: t.double() for n, t in tensors.items()})(x.float())
            # The float32 results of two code paths may differ in their last bits, and so fall on either side of a tie.
            step = torch.finfo(dtype).eps * full.abs().clamp_min(torch.finfo(dtype).tiny)
            assert bool(((half.float() - full).abs() <= 0.5001 * step).all())


def test_a_scale_and_a_gain_are_multiplied_in_float32() -> None:
    x, weight = 2 * draw("tokens", seed=12, dtype=torch.float16), torch.tensor([0.7, 1.3]).half()
    for kind in ("l2", "layer", "rms"):
        half, full = (
            METHODS["qk_norm"](t, "tokens", weight=w, kind=kind, scale=10.5).y
            for t, w in ((x, weight), (x.float(), weight.float()))
        )
        torch.testing.assert_close(half, full.half(), rtol=0, atol=0)


@every_tensor_method
def test_statistics_of_half_precision_input_are_float32(method: Method, layout: str) -> None:
    for dtype, expected in zip(DTYPES, (torch.float64, torch.float32, torch.float32, torch.float32), strict=True):
        x = draw(layout, dtype=dtype)
        for training in modes(method):
            mode = {"training": training} if method.state else {}
            stats = method(x, layout, **mode).stats
            assert {s.dtype for s in stats.values()} == {expected} or not (method.regions or stats)
            assert not any(s.requires_grad for s in method(x.requires_grad_(True), layout).stats.values())


NOT_OF_A_REGION = {"spectral_estimate", "gram_product", "exponential_map", "cayley_map", "householder_map"}
"""Statistics that depend on a state, or differ from element to element: the oracles speak of them."""


@every_tensor_method
def test_statistics_are_those_of_the_declared_region(method: Method, layout: str) -> None:
    x = 2 * draw(layout, seed=13) + 1
    for settings in structures(method, sizes_of(layout)):
        stats, bounds = method(x, layout, **settings).stats, method.bound(x.shape, layout, **settings)
        if len(bounds) != 1 or not isinstance(bounds[0], Bound):
            continue
        (region,) = bounds
        for label in range(region.count):
            inside = region.ids() == label
            values = x[inside].numpy()
            expected = {
                "mean": values.mean(),
                "var": values.var(),
                "var_unbiased": values.var(ddof=1) if values.size > 1 else 0.0,
                "mean_square": (values**2).mean(),
                "norm": (values**2).sum() ** 0.5,
                "absolute_norm": abs(values).sum(),
                "mean_deviation": abs(values - values.mean()).mean(),
                "centered_norm": ((values - values.mean()) ** 2).sum() ** 0.5,
                "fan_in": values.size,
                "spectral_norm": float(torch.linalg.matrix_norm(x.flatten(1), 2)),
            }
            of_x = {name: value for name, value in stats.items() if not name.startswith(tuple(method.context))}
            of_x = {name: value for name, value in of_x.items() if name not in NOT_OF_A_REGION}
            for name, statistic in of_x.items():
                got = statistic.expand(x.shape)[inside].unique()
                assert len(got) == 1
                if name in expected:  # the oracles know the others
                    assert got.numpy() == pytest.approx([expected[name]], rel=1e-9, abs=1e-12)


@every_method
def test_memory_layout_plays_no_part_and_the_input_is_left_alone(method: Method, layout: str) -> None:
    x = draw(layout)
    tensors = learned(method, x, layout, {})
    for training in modes(method):
        fn = function(method, layout, {}, training, **tensors)
        expected, kept = fn(x), x.clone()
        strange = [x.mT.contiguous().mT] if x.ndim > 1 else [x.repeat_interleave(2)[::2]]
        strange += [x[None].expand(2, *x.shape)[1]]
        if x.ndim in (4, 5):
            strange.append(x.to(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d))
        for same in strange:
            torch.testing.assert_close(fn(same), expected, rtol=1e-12, atol=1e-12)
        assert torch.equal(x, kept)


STANDARDIZING = [method for method in TENSORS if {"scale", "shift"} <= method.invariances()]


@pytest.mark.parametrize("method", STANDARDIZING, ids=lambda method: method.key)
def test_a_mean_far_above_the_spread_costs_little_precision(method: Method) -> None:
    for layout in method.layouts:
        x = 1000 + 0.01 * draw(layout, seed=14, dtype=torch.float32, n=8, c=8, h=6, w=6, l=30, t=6, i=30)
        settings = {"eps": 1e-12} if "eps" in {param.name for param in method.params} else {}
        exact = method(x.double(), layout, **settings).y
        error = (method(x, layout, **settings).y - exact).abs().max()
        # Neighboring float32 numbers at 1000 lie 6e-5 apart, 0.006 of the spread; PyTorch's kernels lose a few of them.
        assert float(error) < 0.02, layout


def test_centering_is_exact_where_the_mean_cannot_be() -> None:
    x = 1000 + 0.01 * draw("image", seed=14, dtype=torch.float32, h=6, w=6)
    region = Region("n c ... -> n ...").bind(x.shape)
    centered, mean = center(x, region)
    exact = x.double() - region.spread(region.mean(x.double()))
    assert float((centered - exact).abs().max()) < 1e-8
    assert float((region.spread(mean) - x.double() + exact).abs().max()) < 1e-4


@every_activation
def test_a_constant_region_gives_the_bias_and_finite_gradients(method: Method, layout: str) -> None:
    for value in (0.0, 7.0):
        x = torch.full_like(draw(layout), value).requires_grad_(True)
        tensors = learned(method, x.detach(), layout, {})
        y = method(x, layout, **tensors).y
        assert bool(torch.autograd.grad(y.sum(), x)[0].isfinite().all())
        if "shift" in method.invariances():  # before all that is learned but the gain and the bias
            y = method(x, layout, **{name: tensors[name] for name in tensors.keys() & {"weight", "bias"}}).y
            axis = 2 if layout == "tokens" else 1
            bias = tensors.get("bias", torch.zeros(1, dtype=x.dtype))
            bias = bias[0] if "labels" in method.context else bias  # without labels, all are of the first class
            wanted = bias.reshape(bias.shape + (1,) * (x.ndim - axis - bias.ndim))
            torch.testing.assert_close(y, wanted.expand(x.shape), rtol=0, atol=1e-9)


@every_activation
def test_one_element_in_each_region_stays_finite(method: Method, layout: str) -> None:
    x = draw(layout, seed=15, n=1, c=2, t=1, l=1, d=1, h=1, w=1).requires_grad_(True)
    settings = {param.name: 1 for param in method.params if isinstance(param.domain, Divides)}
    y = method(x, layout, **settings).y
    assert bool(y.isfinite().all()) and bool(torch.autograd.grad(y.sum(), x)[0].isfinite().all())
    if method.state:
        assert all(bool(value.isfinite().all()) for value in method(x, layout, **settings).state.values())


@every_tensor_method
def test_a_huge_epsilon_shrinks_and_a_zero_epsilon_is_exact(method: Method, layout: str) -> None:
    # SpectralNorm's ε is a smallest length for the vectors of its power iteration: it is beside the point here.
    if "eps" not in {param.name for param in method.params} or method.key == "spectral_norm":
        return
    x = 0.1 * draw(layout, seed=16)  # with norms below 1: an ε may be a floor that larger ones never touch
    sharp, dull = (method(x, layout, eps=eps).y for eps in (0.0, 1.0))
    assert bool(sharp.isfinite().all()) or any(b.size == 1 for b in method.bound(x.shape, layout))
    assert float(dull.norm()) < float(sharp.norm())


@every_tensor_method
def test_vmap_equals_a_loop(method: Method, layout: str) -> None:
    batch = torch.stack([draw(layout, seed=seed) for seed in (17, 18)])
    fn = function(method, layout, {}, **learned(method, batch[0], layout, {}))
    torch.testing.assert_close(torch.func.vmap(fn)(batch), torch.stack([fn(x) for x in batch]))


@every_tensor_method
def test_functional_gradients_equal_those_of_autograd(method: Method, layout: str) -> None:
    x = draw(layout, seed=19)
    fn = function(method, layout, {}, **learned(method, x, layout, {}))
    weights = draw(layout, seed=20)
    probe = x.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad((fn(probe) * weights).sum(), probe)
    torch.testing.assert_close(torch.func.grad(lambda t: (fn(t) * weights).sum())(x), expected)


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.parametrize("key", ["group_norm", "batch_norm"])
def test_a_compiled_layer_gives_the_same(key: str) -> None:
    x = draw("image", dtype=torch.float32)
    plain, traced = layer(key, 4), layer(key, 4)
    compiled = torch.compile(traced, backend="eager")
    for _ in range(2):
        torch.testing.assert_close(compiled(x), plain(x))
    assert all(torch.equal(plain.state_dict()[k], v) for k, v in traced.state_dict().items())


def test_no_method_loses_its_place() -> None:
    assert {method.key for method in STANDARDIZING} < set(METHODS)
