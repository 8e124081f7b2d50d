"""torch.autocast: methods compute in the precision of their input, whatever is on around them."""

import pytest
import torch
from cases import TENSORS, draw, every_tensor_method, function, samples
from torch import Tensor, nn

from normcore import METHODS, Method, layer, orthogonal_regularization, reparametrize
from normcore.core import InverseRoot

HALF = torch.bfloat16


def values(method: Method, layout: str, settings: dict[str, object], within: bool) -> list[Tensor]:
    """The output and the gradient, with autocast on in the forward pass."""
    x = draw(layout, 3, torch.float32).requires_grad_(True)
    with torch.autocast("cpu", HALF, enabled=within):
        y = function(method, layout, settings)(x)
    return [y, *torch.autograd.grad((y * y.detach().cos()).sum(), x)]


@every_tensor_method
def test_autocast_changes_no_bit(method: Method, layout: str) -> None:
    for settings in samples(method, layout):
        pairs = zip(*(values(method, layout, settings, within) for within in (True, False)), strict=True)
        assert all(torch.equal(ours, plain) and ours.dtype is plain.dtype for ours, plain in pairs), settings


@pytest.mark.parametrize("key", ["decorrelated_batch_norm", "divisive_norm", "local_response_norm", "iter_norm"])
def test_layers_and_compiled_layers_are_alike_within_autocast(key: str) -> None:
    norm, x = layer(key, 4), draw("image", 4, torch.float32)
    expected = layer(key, 4)(x)
    torch.compiler.reset()
    compiled = torch.compile(layer(key, 4), backend="eager", fullgraph=True)
    with torch.autocast("cpu", HALF):
        for y in (norm(x), norm(x), compiled(x)):  # checked, and straight to the mathematics
            torch.testing.assert_close(y, expected)
        stacked = torch.vmap(lambda part: METHODS[key](part).y)(x[None])
    torch.testing.assert_close(stacked[0], expected)


@pytest.mark.parametrize("key", [method.key for method in TENSORS if method.family == "weight"])
def test_parametrizations_start_and_compute_alike_within_autocast(key: str) -> None:
    plain = nn.Linear(6, 4)
    within = nn.Linear(6, 4)
    within.load_state_dict(plain.state_dict())
    reparametrize(plain, key)
    expected = plain.weight
    with torch.autocast("cpu", HALF):
        reparametrize(within, key)
        assert torch.equal(within.weight, expected)
    for name, value in plain.state_dict().items():
        assert torch.equal(within.state_dict()[name], value), name


def test_the_inverse_root_goes_backward_within_autocast_too() -> None:
    half = draw("tokens", 5, torch.float32, t=8)
    matrix = (half.mT @ half).requires_grad_(True)
    total = InverseRoot.apply(matrix, 0.0).cos().sum()
    (expected,) = torch.autograd.grad(total, matrix, retain_graph=True)
    with torch.autocast("cpu", HALF):
        assert torch.equal(torch.autograd.grad(total, matrix)[0], expected)


@pytest.mark.parametrize("kind", ["so", "dso", "mc", "srip"])
def test_penalties_are_alike_within_autocast(kind: str) -> None:
    weight = draw("conv2d", 6, torch.float32)
    with torch.autocast("cpu", HALF):
        within = orthogonal_regularization(weight, kind)
    assert torch.equal(within, orthogonal_regularization(weight, kind))
