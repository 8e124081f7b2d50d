"""Values and gradients of PyTorch's own modules, in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from agreement import agrees
from cases import draw, learned
from torch import Tensor, nn
from torch.nn import functional

from normcore import METHODS, reparametrize
from normcore.core import LETTERS

# The defaults of the methods' settings, and where the values stand.
PUBLISHED: dict[str, dict[str, Any]] = {
    "batch_norm": {"eps": 1e-5, "momentum": 0.1, "track_running_stats": True},  # torch.nn.BatchNorm2d
    "ghost_batch_norm": {"ghost_batch_size": 2, "eps": 1e-5, "momentum": 0.1, "track_running_stats": True},  # the same
    "layer_norm": {"eps": 1e-5, "weight_offset": 0.0},  # torch.nn.LayerNorm
    "instance_norm": {"eps": 1e-5, "momentum": 0.1, "track_running_stats": False},  # torch.nn.InstanceNorm2d
    "group_norm": {"num_groups": 2, "eps": 1e-5},  # torch.nn.GroupNorm
    "switchable_norm": {"eps": 1e-5, "momentum": 0.1, "unbiased": False, "track_running_stats": True},  # the paper
    "local_response_norm": {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1.0},  # torch.nn.LocalResponseNorm, n = 5
    "positional_norm": {"eps": 1e-5, "unbiased": True},  # the authors' code
    "global_response_norm": {"eps": 1e-6, "residual": True},  # the authors' code
    "weight_norm": {"dim": 0},  # torch.nn.utils.parametrizations.weight_norm
    "weight_standardization": {"eps": 1e-5, "eps_place": "outside", "unbiased": True},  # the authors' code
}

MODULES = {
    "batch_norm": "torch.nn.BatchNorm",
    "instance_norm": "torch.nn.InstanceNorm",
    "layer_norm": "torch.nn.LayerNorm",
    "rms_norm": "torch.nn.RMSNorm",
    "group_norm": "torch.nn.GroupNorm",
    "positional_norm": "torch.nn.LayerNorm over channels",
    "local_response_norm": "torch.nn.LocalResponseNorm",
    "weight_norm": "torch.nn.utils.parametrizations.weight_norm",
}

Fill = Callable[[Tensor, Tensor | None, Tensor | None], Tensor]


def moved(fn: Fill) -> Fill:
    """A channels-first oracle for token layouts."""
    return lambda x, weight, bias: fn(x.transpose(1, 2), weight, bias).transpose(1, 2)


def group_norm(groups: int) -> Fill:
    return lambda x, weight, bias: functional.group_norm(x, groups, weight, bias, 1e-3)


def batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    return functional.batch_norm(x, None, None, weight, bias, training=True, eps=1e-3)


def instance_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    return functional.instance_norm(x, weight=weight, bias=bias, eps=1e-3)


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    return functional.layer_norm(x, x.shape[1:], weight, bias, 1e-3)


def layer_norm_of_tokens(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], weight, bias, 1e-3)


def rms_norm_last(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    return functional.rms_norm(x, x.shape[-1:], weight, 1e-3)


def rms_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    return rms_norm_last(x.movedim(1, -1), weight, bias).movedim(-1, 1)


def positional_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    return functional.layer_norm(x.movedim(1, -1), x.shape[1:2], weight, bias, 1e-3).movedim(-1, 1)


SPACE = ("signal", "image", "volume")
CASES: list[tuple[str, str, dict[str, Any], Fill]] = [
    *(("batch_norm", layout, {}, batch_norm) for layout in ("vector", *SPACE)),
    ("batch_norm", "tokens", {}, moved(batch_norm)),
    *(("instance_norm", layout, {}, instance_norm) for layout in SPACE),
    ("instance_norm", "tokens", {}, moved(instance_norm)),
    *(("layer_norm", layout, {}, layer_norm) for layout in ("vector", *SPACE)),
    ("layer_norm", "tokens", {}, layer_norm_of_tokens),
    *(("rms_norm", layout, {}, rms_norm) for layout in ("vector", *SPACE)),
    ("rms_norm", "tokens", {}, rms_norm_last),
    *(
        ("group_norm", layout, {"num_groups": groups}, group_norm(groups))
        for layout in ("vector", *SPACE)
        for groups in (1, 2, 3, 6)
    ),
    *(("group_norm", "tokens", {"num_groups": groups}, moved(group_norm(groups))) for groups in (1, 2, 3, 6)),
    *(("positional_norm", layout, {"unbiased": False}, positional_norm) for layout in ("vector", *SPACE)),
]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("key", "layout", "settings", "oracle"), CASES)
def test_values_and_gradients_are_torchs(
    key: str, layout: str, settings: dict[str, Any], oracle: Fill, affine: bool
) -> None:
    method, changed = METHODS[key], {"c": 6, "n": 3, "h": 3, "t": 5}
    x = (2 * draw(layout, 31, **changed) + 1).requires_grad_(True)
    tensors = learned(method, x.detach(), layout, {"eps": 1e-3} | settings) if affine else {}
    for tensor in tensors.values():
        tensor.requires_grad_(True)
    weights = draw(layout, 32, **changed)
    ours = method(x, layout, eps=1e-3, **settings, **tensors).y
    theirs = oracle(x, tensors.get("weight"), tensors.get("bias"))
    inputs = [x, *tensors.values()]
    sides = ([y, *torch.autograd.grad((y * weights).sum(), inputs)] for y in (ours, theirs))
    agrees(key, MODULES[key], *sides)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("layout", SPACE)
def test_layer_norm_with_a_gain_for_each_channel_is_group_norm_with_one_group(layout: str, per_channel: bool) -> None:
    x = draw(layout, 33)
    shape = x.shape[1:2] if per_channel else x.shape[1:]
    weight, bias = (torch.randn(shape, generator=torch.Generator().manual_seed(s)).double() for s in (1, 2))
    ours = METHODS["layer_norm"](x, layout, weight=weight, bias=bias).y
    oracle = functional.group_norm(x, 1, weight, bias) if per_channel else functional.layer_norm(x, shape, weight, bias)
    agrees("layer_norm", "torch.nn.GroupNorm" if per_channel else "torch.nn.LayerNorm", ours, oracle)


@pytest.mark.parametrize("layout", ["vector", *SPACE])
@pytest.mark.parametrize("key", ["batch_norm", "instance_norm"])
def test_evaluation_is_torchs(key: str, layout: str) -> None:
    if layout not in METHODS[key].layouts:
        return
    x = draw(layout, 34).requires_grad_(True)
    generator = torch.Generator().manual_seed(35)
    mean, var, weight, bias = torch.rand(4, x.shape[1], generator=generator, dtype=torch.float64)
    state = {"running_mean": mean, "running_var": var, "num_batches_tracked": torch.tensor(7)}
    settings = {"track_running_stats": True, "training": False}
    ours = METHODS[key](x, layout, state=state, weight=weight, bias=bias, **settings)
    theirs = functional.batch_norm(x, mean, var, weight, bias, training=False)
    agrees(key, MODULES[key], *([y, *torch.autograd.grad(y.sum(), x)] for y in (ours.y, theirs)))
    assert ours.state is state


@pytest.mark.parametrize("layout", ["vector", *SPACE])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8])
def test_local_response_norm_is_torchs(size: int, layout: str) -> None:
    x = draw(layout, 36, c=7).requires_grad_(True)
    settings = {"alpha": 0.7, "beta": 0.6, "k": 1.5}
    ours = METHODS["local_response_norm"](x, layout, size=size, **settings).y
    # The vector layout has no spatial axis, and torch wants one.
    wide = x[..., None] if x.ndim == 2 else x
    theirs = functional.local_response_norm(wide, size, **settings).reshape(x.shape)
    sides = ([y, *torch.autograd.grad((y * x.detach().cos()).sum(), x)] for y in (ours, theirs))
    agrees("local_response_norm", MODULES["local_response_norm"], *sides)


@pytest.mark.parametrize("dim", [0, None])
@pytest.mark.parametrize("layout", ["linear", "conv1d", "conv2d", "conv3d"])
def test_weight_norm_is_torchs(layout: str, dim: int | None) -> None:
    weight = draw(layout, 37)
    modules = [nn.Module(), nn.Module()]
    for module in modules:
        module.register_parameter("weight", nn.Parameter(weight.clone()))
    ours = reparametrize(modules[0], "weight_norm", dim=dim)
    theirs = nn.utils.parametrizations.weight_norm(modules[1], dim=dim)
    gain, direction = ours.parametrizations.weight[0].gain, ours.parametrizations.weight.original
    other_gain, other_direction = theirs.parametrizations.weight.original0, theirs.parametrizations.weight.original1
    torch.testing.assert_close(gain.reshape(-1), other_gain.reshape(-1))
    with torch.no_grad():
        for one, other in ((gain, other_gain), (direction, other_direction)):
            change = torch.rand(one.shape, generator=torch.Generator().manual_seed(38), dtype=torch.float64)
            one.mul_(change + 0.5)
            other.mul_(change.reshape(other.shape) + 0.5)
    for module in modules:
        (module.weight * weight.cos()).sum().backward()
    mine = [ours.weight, gain.grad.reshape(-1), direction.grad]
    agrees(
        "weight_norm", MODULES["weight_norm"], mine, [theirs.weight, other_gain.grad.reshape(-1), other_direction.grad]
    )


def test_every_layout_of_the_standard_methods_has_an_oracle() -> None:
    for key in ("batch_norm", "instance_norm", "layer_norm", "rms_norm", "group_norm"):
        assert {layout for name, layout, _, _ in CASES if name == key} == set(METHODS[key].layouts)
        assert set(METHODS[key].layouts) <= set(LETTERS)
