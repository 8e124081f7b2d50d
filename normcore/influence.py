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
        fn: Any callable from a tensor to a tensor: a module, a method, a function of your own. It is called once, so
            that a layer in training mode remembers x as a batch.
        x: The input, floating point, any shape.
        index: The output element.

    Returns:
        A tensor of x's shape; an element that `fn` does not look at has exactly 0.

    Raises:
        NormcoreError: The index lies outside the output, or the output does not depend on x by differentiable steps.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise NormcoreError(f"influence: x is {kind}; it must be a floating-point tensor")
    if not callable(fn):
        raise NormcoreError(f"influence: fn is {type(fn).__name__}; it must be a module or a function")
    with torch.inference_mode(False), torch.enable_grad():
        probe = x.detach().clone().requires_grad_(True)
        y = fn(probe)
        y = getattr(y, "y", y)
        if not isinstance(y, Tensor) or not y.is_floating_point():
            returned = y.dtype if isinstance(y, Tensor) else type(y).__name__
            raise NormcoreError(f"influence: fn returned {returned}; it must return a floating-point tensor")
        output = y[check_index(index, y.shape)]
        if not output.requires_grad:
            raise NormcoreError("influence: the output does not depend on x in a differentiable way")
        (gradient,) = torch.autograd.grad(output, probe, allow_unused=True)
    return torch.zeros_like(x) if gradient is None else gradient.abs()
