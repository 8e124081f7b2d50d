"""Which inputs really move an output: the regions measured, by autograd, instead of declared."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from normcore.core import NormcoreError
from normcore.core.region import check_index


def influence(fn: Callable[[Tensor], Any], x: Tensor, index: Sequence[int]) -> Tensor:
    """How much each input moves one output: ``|∂y[index] / ∂x|``, measured by autograd.

    Args:
        fn: Any callable from a tensor to a tensor of the same axes: a module, a method, a function of your own.
        x: The input, floating point, any shape.
        index: The output element.

    Returns:
        A tensor of x's shape; an element that `fn` does not look at has exactly 0.

    Raises:
        NormcoreError: The index lies outside the output, or the output does not depend on x by differentiable steps.
    """
    with torch.enable_grad():
        probe = x.detach().clone().requires_grad_(True)
        y = fn(probe)
        y = getattr(y, "y", y)
        output = y[check_index(index, y.shape)]
        if not output.requires_grad:
            raise NormcoreError("influence: the output does not depend on x in a differentiable way")
        (gradient,) = torch.autograd.grad(output, probe, allow_unused=True)
    return torch.zeros_like(x) if gradient is None else gradient.abs()
