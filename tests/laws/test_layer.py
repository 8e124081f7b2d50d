"""Layers: their parameters and buffers, and what a state remembers."""

import copy
import pickle
from typing import Any

import pytest
import torch
from cases import ACTIVATIONS, SIZES, draw, every_activation, samples
from torch import nn

from normcore import METHODS, Method, NormLayer, layer
from normcore.core import LETTERS

STATEFUL = [method for method in ACTIVATIONS if "num_batches_tracked" in method.state]
TRACKING = [method for method in STATEFUL if method.default("track_running_stats") is not None]


def tracking(method: Method) -> dict[str, bool]:
    """What makes a method keep running statistics, where that is a choice."""
    return {"track_running_stats": True} if method in TRACKING else {}


def usual(method: Method) -> str:
    """Images, or what the method is for."""
    return "image" if "image" in method.layouts else method.layouts[-1]


def trained(method: Method, layout: str, **settings: Any) -> NormLayer:
    """A layer with random parameters that has seen two batches."""
    norm = layer(method.key, SIZES["c"], layout, **settings)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    for seed in (21, 22):
        norm(draw(layout, seed, torch.float32))
    return norm


@every_activation
def test_a_new_layer_that_loads_the_state_gives_the_same_bits(method: Method, layout: str) -> None:
    x = draw(layout, 23, torch.float32)
    for settings in [s for s in samples(method, layout) if set(s) <= {"track_running_stats", "num_groups"}]:
        norm = trained(method, layout, **settings)
        new = layer(method.key, SIZES["c"], layout, **settings)
        new.load_state_dict(norm.state_dict())
        twins = [new, copy.deepcopy(norm), pickle.loads(pickle.dumps(norm))]
        for training in (True, False):
            expected = norm.train(training)(x)
            for twin in twins:
                assert torch.equal(twin.train(training)(x), expected)
                assert all(torch.equal(value, norm.state_dict()[name]) for name, value in twin.state_dict().items())


@every_activation
def test_a_layer_is_its_method_with_the_layers_tensors(method: Method, layout: str) -> None:
    norm, x = trained(method, layout), draw(layout, 24, torch.float32)
    tensors: dict[str, Any] = dict(norm.named_parameters())
    if norm.tracks:
        tensors |= {"training": True, "state": {name: value.clone() for name, value in norm.named_buffers()}}
    normed = method(x, layout, **tensors)
    assert torch.equal(norm(x), normed.y)
    assert all(torch.equal(value, normed.state[name]) for name, value in norm.named_buffers())


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(
    ("key", "theirs"),
    [
        ("batch_norm", lambda affine: nn.BatchNorm2d(4, affine=affine)),
        ("group_norm", lambda affine: nn.GroupNorm(2, 4, affine=affine)),
        ("instance_norm", lambda affine: nn.InstanceNorm2d(4, affine=affine)),
        ("layer_norm", lambda affine: nn.LayerNorm((4, 2, 3), elementwise_affine=affine)),
        ("rms_norm", lambda affine: nn.RMSNorm(4, elementwise_affine=affine)),
    ],
)
def test_parameters_and_buffers_are_named_and_shaped_as_in_torch(key: str, theirs: Any, affine: bool) -> None:
    channels = (4, 2, 3) if key == "layer_norm" else 4
    ours, other = layer(key, channels, affine=affine), theirs(affine)
    expected = {name: (value.shape, value.dtype) for name, value in other.state_dict().items()}
    assert {name: (value.shape, value.dtype) for name, value in ours.state_dict().items()} == expected
    other.load_state_dict(ours.state_dict())
    ours.load_state_dict(other.state_dict())


def test_layer_norm_has_a_gain_for_each_feature_or_for_each_channel() -> None:
    x = draw("image", dtype=torch.float32)
    for channels, shape in (((4, 2, 2), (4, 2, 2)), (4, (4,)), ((4,), (4,))):
        norm = layer("layer_norm", channels)
        assert norm.get_parameter("weight").shape == norm.get_parameter("bias").shape == shape
        assert norm(x).shape == x.shape
    assert layer("layer_norm", 4, "tokens").get_parameter("weight").shape == (4,)
    assert layer("batch_norm", (4, 2, 2)).get_parameter("weight").shape == (4,)


def test_an_offset_gain_starts_at_what_is_left_of_1() -> None:
    x = draw("tokens")
    plain, offset = (layer("layer_norm", 4, "tokens", weight_offset=o).double() for o in (0.0, 1.0))
    assert torch.equal(offset.weight, torch.zeros(4).double())
    torch.testing.assert_close(offset(x), plain(x))
    with torch.no_grad():
        offset.weight += 0.5
    torch.testing.assert_close(offset(x), 1.5 * plain(x))


def test_frozen_batch_norm_loads_what_torchs_batch_norm_saves() -> None:
    theirs, model = nn.BatchNorm2d(4), nn.Sequential(layer("frozen_batch_norm", 4))
    theirs(draw("image", dtype=torch.float32))
    state = nn.Sequential(theirs).state_dict()
    model.load_state_dict(state)
    assert "0.num_batches_tracked" in state
    torch.testing.assert_close(model(draw("image", dtype=torch.float32)), theirs.eval()(draw("image").float()))
    with pytest.raises(RuntimeError, match="num_batches_tracked"):
        nn.Sequential(layer("group_norm", 4)).load_state_dict(state)


def test_without_affine_nothing_is_learned() -> None:
    for method in ACTIVATIONS:
        norm = layer(method.key, 4, method.layouts[-1], affine=False)
        assert not list(norm.parameters())
        assert norm(draw(method.layouts[-1], dtype=torch.float32)).isfinite().all()


@pytest.mark.parametrize("layout", ["signal", "image", "volume"])
@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
@pytest.mark.parametrize("key", ["batch_norm", "instance_norm"])
def test_running_state_follows_torch_step_by_step(key: str, momentum: float | None, layout: str) -> None:
    if key == "instance_norm" and momentum is None:
        return  # torch's InstanceNorm fails with momentum None
    rank = len(LETTERS[layout]) - 2
    stem = {"batch_norm": "BatchNorm", "instance_norm": "InstanceNorm"}[key]
    theirs = getattr(nn, f"{stem}{rank}d")(4, momentum=momentum, affine=True, track_running_stats=True).double()
    ours = layer(key, 4, layout, momentum=momentum, track_running_stats=True).double()
    for seed in range(25, 29):
        x = 3 * draw(layout, seed) + 2
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-9, atol=1e-9)
        for name in ("running_mean", "running_var"):
            torch.testing.assert_close(ours.get_buffer(name), theirs.get_buffer(name), rtol=1e-9, atol=1e-9)
        assert int(ours.get_buffer("num_batches_tracked")) == seed - 24
        ours.eval(), theirs.eval()
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-9, atol=1e-9)
        assert int(ours.get_buffer("num_batches_tracked")) == seed - 24
        ours.train(), theirs.train()


def test_momentum_none_is_the_mean_of_all_batches() -> None:
    norm = layer("batch_norm", 4, momentum=None).double()
    batches = [draw("image", seed) * seed for seed in range(1, 5)]
    for batch in batches:
        norm(batch)
    torch.testing.assert_close(norm.get_buffer("running_mean"), torch.stack(batches).mean((0, 1, 3, 4)))
    variances = torch.stack([batch.transpose(0, 1).reshape(4, -1).var(1) for batch in batches])
    torch.testing.assert_close(norm.get_buffer("running_var"), variances.mean(0))


def test_ghost_batches_are_remembered_one_after_the_other() -> None:
    ghost, plain = (
        layer(key, 4, **s).double() for key, s in (("ghost_batch_norm", {"ghost_batch_size": 2}), ("batch_norm", {}))
    )
    x = draw("image")
    ghost(x)
    for piece in x.split(2):
        plain(piece)
    for name, value in plain.named_buffers():
        torch.testing.assert_close(ghost.get_buffer(name), value)


@pytest.mark.parametrize("method", STATEFUL, ids=lambda method: method.key)
def test_evaluation_before_any_step_uses_mean_zero_and_variance_one(method: Method) -> None:
    x = draw(usual(method))
    norm = layer(method.key, 4, usual(method), **tracking(method)).double().eval()
    y = norm(x)
    if method.bound(x.shape, usual(method), training=False, **tracking(method)) == ():
        gain = float(dict(norm.named_parameters()).get("weight", torch.ones(1)).detach().flatten()[0])
        torch.testing.assert_close(y, gain * x, rtol=2e-5, atol=0)  # what ε is added to is up to the method
    assert bool(y.isfinite().all())


@pytest.mark.parametrize("method", STATEFUL, ids=lambda method: method.key)
def test_reset_puts_the_state_back_to_that_of_a_new_layer(method: Method) -> None:
    norm = trained(method, usual(method), **tracking(method))
    new = layer(method.key, 4, usual(method), **tracking(method))
    assert any(not torch.equal(value, new.get_buffer(name)) for name, value in norm.named_buffers())
    norm.reset_running_stats()
    assert all(torch.equal(value, new.get_buffer(name)) for name, value in norm.named_buffers())


@pytest.mark.parametrize("method", TRACKING, ids=lambda method: method.key)
def test_without_tracking_there_are_no_buffers_and_evaluation_is_training(method: Method) -> None:
    norm = layer(method.key, 4, usual(method), track_running_stats=False)
    x = draw(usual(method), dtype=torch.float32)
    assert not list(norm.buffers())
    assert torch.equal(norm(x), norm.eval()(x))
    norm.reset_running_stats()


@pytest.mark.parametrize("method", STATEFUL, ids=lambda method: method.key)
def test_a_method_called_directly_changes_no_state(method: Method) -> None:
    norm = trained(method, usual(method), **tracking(method))
    state = dict(norm.named_buffers())
    kept = {name: value.clone() for name, value in state.items()}
    x = draw(usual(method), dtype=torch.float32)
    after = method(x, usual(method), **tracking(method), state=state).state
    assert all(torch.equal(value, kept[name]) for name, value in state.items())
    assert any(not torch.equal(value, kept[name]) for name, value in after.items())
    assert not any(value.requires_grad for value in after.values())


def test_a_copied_layer_shares_the_method_and_prints_its_settings() -> None:
    norm = layer("group_norm", 4, num_groups=4)
    assert copy.deepcopy(norm).method is pickle.loads(pickle.dumps(norm)).method is METHODS["group_norm"]
    assert repr(norm) == "NormLayer('group_norm', 4, layout='image', num_groups=4, eps=1e-05)"


def test_a_layers_gain_can_be_replaced_by_torchs_own_tools() -> None:
    norm, x = layer("group_norm", 4).double(), draw("image")
    doubled = torch.func.functional_call(norm, {"weight": 2 * norm.get_parameter("weight")}, (x,))
    torch.testing.assert_close(doubled, 2 * norm(x))
    nn.utils.parametrize.register_parametrization(norm, "weight", nn.Softplus())
    torch.testing.assert_close(norm(x), nn.functional.group_norm(x, 2, norm.weight))


def test_a_layer_moves_to_another_precision() -> None:
    for method in ACTIVATIONS:
        layout = method.layouts[-1]
        y = layer(method.key, 4, layout).to(torch.bfloat16)(draw(layout, dtype=torch.bfloat16))
        assert y.dtype == torch.bfloat16


@pytest.mark.parametrize("momentum", [None, 1.0])
def test_a_running_average_of_weight_one_is_the_new_value_however_small(momentum: float | None) -> None:
    norm = layer("batch_norm", 3, "vector", momentum=momentum)
    x = 1e-4 * torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    norm(x)
    torch.testing.assert_close(norm.running_var, x.var(0), rtol=1e-3, atol=0)
