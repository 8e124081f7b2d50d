"""Memory: the order of the axes stays, large tensors are worked on in blocks, and small variances keep their digits."""

import pytest
import torch
from cases import ACTIVATIONS, SIZES, draw, function, learned
from torch import Tensor

from normcore import METHODS, Method, layer
from normcore.core import blocks, kernels

FORMATS = {"image": torch.channels_last, "volume": torch.channels_last_3d}
REORDERED = {"decorrelated_batch_norm", "iter_norm", "ibn"}  # products of matrices, and pieces put together
SPATIAL = [
    (method, layout)
    for method in ACTIVATIONS
    for layout in FORMATS
    if layout in method.layouts and method.key not in REORDERED
]
IN_BLOCKS = [
    ("positional_norm", "image"),
    ("ghost_batch_norm", "image"),
    ("group_norm", "tokens"),
    ("rms_norm", "image"),
    ("bert_layer_norm", "tokens"),  # the kernel for groups, its divisor replaced
    ("weight_standardization", "conv2d"),
]
in_blocks = pytest.mark.parametrize(
    ("method", "layout"), [pytest.param(METHODS[key], layout, id=f"{key}-{layout}") for key, layout in IN_BLOCKS]
)


@pytest.mark.parametrize(("method", "layout"), SPATIAL, ids=lambda value: getattr(value, "key", value))
def test_channels_last_in_gives_channels_last_out(method: Method, layout: str) -> None:
    x = draw(layout, dtype=torch.float32, n=6, h=5, w=3).contiguous(memory_format=FORMATS[layout]).requires_grad_(True)
    norm = layer(method.key, SIZES["c"], layout)
    for training in (True, False):
        y = norm.train(training)(x)
        assert y.is_contiguous(memory_format=FORMATS[layout])
        (gradient,) = torch.autograd.grad(y, x, torch.ones_like(y))
        assert gradient.is_contiguous(memory_format=FORMATS[layout])


@pytest.mark.parametrize("key", ["layer_norm", "group_norm", "batch_norm", "positional_norm", "instance_norm"])
def test_a_variance_far_below_epsilon_keeps_its_digits(key: str) -> None:
    x = 1e-5 * draw("image", dtype=torch.float32, n=8, h=6, w=6)
    stats, exact = (METHODS[key](x.to(dtype)).stats for dtype in (torch.float32, torch.float64))
    for name, value in exact.items():
        torch.testing.assert_close(stats[name].double(), value, rtol=1e-5, atol=1e-12)


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Blocks so small that the laws' tensors are cut, and into how many pieces they were."""
    seen: list[int] = []
    for module in (blocks, kernels):
        monkeypatch.setattr(module, "BLOCK", 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    find = blocks._cut

    def counted(x: Tensor, dims: tuple[int, ...]) -> tuple[int, int]:
        axis, step = find(x, dims)
        seen.append(-(-x.shape[axis] // step))
        return axis, step

    monkeypatch.setattr(blocks, "_cut", counted)
    return seen


@in_blocks
def test_blocks_give_what_the_whole_gives(method: Method, layout: str, request: pytest.FixtureRequest) -> None:
    x = draw(layout, seed=3, n=6, t=8, h=8, w=5).requires_grad_(True)
    tensors = {name: value.requires_grad_(True) for name, value in learned(method, x.detach(), layout, {}).items()}

    def results() -> list[Tensor]:
        normed = method(x, layout, **tensors)
        gradients = torch.autograd.grad(normed.y, [x, *tensors.values()], torch.cos(normed.y))
        return [normed.y, *gradients, *normed.stats.values()]

    whole = results()
    cuts = request.getfixturevalue("cuts")
    for one, other in zip(results(), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    assert max(cuts) > 1


@in_blocks
def test_blocks_have_second_gradients_and_can_be_mapped(method: Method, layout: str, cuts: list[int]) -> None:
    x = draw(layout, seed=5, n=2, t=4, h=4, w=4)
    tensors = learned(method, x, layout, {})
    fn = function(method, layout, {}, **tensors)
    assert torch.autograd.gradcheck(fn, (x.requires_grad_(True),), fast_mode=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(fn, (x,), fast_mode=True)
    batch = torch.stack([draw(layout, seed=seed, n=2, t=4, h=4, w=4) for seed in (6, 7)])
    torch.testing.assert_close(torch.func.vmap(fn)(batch), torch.stack([fn(each) for each in batch]))
    slope = torch.func.grad(lambda t: fn(t).cos().sum())
    torch.testing.assert_close(torch.func.vmap(slope)(batch), torch.stack([slope(each) for each in batch]))
    assert max(cuts) > 1
