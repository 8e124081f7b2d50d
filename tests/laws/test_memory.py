"""Memory: the order of the axes stays, and small variances keep their digits."""

import pytest
import torch
from cases import ACTIVATIONS, SIZES, draw

from normcore import METHODS, Method, layer

FORMATS = {"image": torch.channels_last, "volume": torch.channels_last_3d}
REORDERED = {"decorrelated_batch_norm", "iter_norm", "ibn"}  # products of matrices, and pieces put together
SPATIAL = [
    (method, layout)
    for method in ACTIVATIONS
    for layout in FORMATS
    if layout in method.layouts and method.key not in REORDERED
]


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
