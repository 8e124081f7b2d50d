"""Weight methods as parametrizations of modules."""

import copy

import pytest
import torch
from cases import WEIGHTS, samples, shape_of
from torch import nn
from torch.nn.utils import parametrize

from normcore import METHODS, Method, reparametrize

MODULES = {"linear": nn.Linear, "conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "conv3d": nn.Conv3d}
CASES = [
    pytest.param(method, layout, settings, id=f"{method.key}-{layout}-{settings}")
    for method in WEIGHTS
    for layout in ("linear", "conv2d")
    for settings in samples(method, layout)
]


def module(layout: str, seed: int = 0) -> nn.Module:
    units, inputs, *kernel = shape_of(layout)
    torch.manual_seed(seed)
    return MODULES[layout](inputs, units, *([tuple(kernel)] if kernel else [])).double()


@pytest.mark.parametrize(("method", "layout", "settings"), CASES)
def test_the_weight_is_the_methods_value_and_gradients_flow(
    method: Method, layout: str, settings: dict[str, object]
) -> None:
    original = module(layout)
    changed = reparametrize(copy.deepcopy(original), method.key, **settings).eval()
    parametrization = changed.parametrizations.weight[0]
    beside = dict(parametrization.named_parameters())
    if method.state:
        beside |= {"state": dict(parametrization.named_buffers()), "training": False}
    expected = method(original.weight, **settings, **beside).y
    assert torch.equal(changed.weight, expected)
    changed.weight.square().sum().backward()
    assert all(parameter.grad is not None for name, parameter in changed.named_parameters() if "weight" in name)


@pytest.mark.parametrize(("method", "layout", "settings"), CASES)
def test_state_survives_and_the_parametrization_comes_off(
    method: Method, layout: str, settings: dict[str, object]
) -> None:
    changed = reparametrize(module(layout), method.key, **settings).eval()
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.mul_(1.5)
    new = reparametrize(module(layout, seed=1), method.key, **settings).eval()
    new.load_state_dict(changed.state_dict())
    twin = copy.deepcopy(changed)
    assert torch.equal(new.weight, changed.weight) and torch.equal(twin.weight, changed.weight)
    value = changed.weight.detach().clone()
    parametrize.remove_parametrizations(changed, "weight")
    assert torch.equal(changed.weight, value) and isinstance(changed.weight, nn.Parameter)


# A mean that is taken out cannot be put back by a gain.
SCALING = [method for method in WEIGHTS if method.affine and "shift" not in method.invariances()]


@pytest.mark.parametrize("method", [m for m in WEIGHTS if m.state], ids=lambda method: method.key)
def test_what_is_remembered_is_kept_outside_training(method: Method) -> None:
    changed = reparametrize(module("conv2d"), method.key).eval()
    with torch.no_grad():
        changed.parametrizations.weight.original.mul_(torch.linspace(0.5, 2, 4).double().reshape(4, 1, 1, 1))
    before = {name: value.clone() for name, value in changed.named_buffers()}
    assert changed.weight.isfinite().all()
    assert before and all(torch.equal(value, before[name]) for name, value in changed.named_buffers())


@pytest.mark.parametrize("method", SCALING, ids=lambda method: method.key)
def test_what_is_learned_starts_where_the_weight_stays_as_it_was(method: Method) -> None:
    for settings in samples(method, "conv2d"):
        changed = module("conv2d")
        before = changed.weight.detach().clone()
        reparametrize(changed, method.key, **settings)
        torch.testing.assert_close(changed.weight.detach(), before, rtol=1e-12, atol=1e-12)
        changed.weight = 2 * before
        torch.testing.assert_close(changed.weight.detach(), 2 * before, rtol=1e-12, atol=1e-12)


def test_the_gain_has_one_entry_for_each_unit_or_one_in_all() -> None:
    for dim, shape in ((0, (4, 1, 1, 1)), (None, (1, 1, 1, 1))):
        changed = reparametrize(module("conv2d"), "weight_norm", dim=dim)
        assert changed.parametrizations.weight[0].gain.shape == shape


def test_another_parameter_can_be_named() -> None:
    cell = reparametrize(nn.LSTMCell(3, 2), "weight_norm", "weight_hh")
    assert parametrize.is_parametrized(cell, "weight_hh") and not parametrize.is_parametrized(cell, "weight_ih")
    assert cell(torch.ones(1, 3))[0].isfinite().all()


def test_two_methods_can_be_stacked() -> None:
    changed = reparametrize(reparametrize(module("linear"), "weight_standardization"), "weight_norm")
    norm = METHODS["weight_standardization"](changed.parametrizations.weight.original).y
    torch.testing.assert_close(changed.weight, norm)


def test_a_reparametrized_module_trains() -> None:
    changed = reparametrize(module("linear"), "weight_norm")
    optimizer = torch.optim.SGD(changed.parameters(), lr=0.05)
    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (changed(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
