"""Weight normalization: the length and the direction of each unit's weights become separate parameters.

Longer than most: a kernel of PyTorch's, with a second gradient.
"""

from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from normcore.core import Bound, Method, Normed, OneOf, Paper, Region, Slot, cast, widen


def _norm(weight: Tensor, unit: Bound) -> Tensor:
    return torch.linalg.vector_norm(weight, dim=unit.reduced, keepdim=True)


def _slopes(weight: Tensor, gain: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of weight and gain, in steps that can be differentiated again."""
    dims = tuple(range(1, weight.ndim))
    norm = torch.linalg.vector_norm(weight, dim=dims, keepdim=True)
    unit = weight / norm
    along = (g * unit).sum(dims, keepdim=True)
    return (g - unit * along) * (gain / norm), along


def _mended(weight: Tensor, gain: Tensor, found: tuple[Tensor | None, ...], given: tuple[Tensor | None, ...]) -> Any:
    """A hook on PyTorch's node, whose gradients (of torch 2.13) take the norm for a constant when differentiated: where
    they can be, others stand in for them."""
    if given[0] is None or not torch.is_grad_enabled():
        return None
    right = _slopes(weight, gain, given[0])
    return tuple(None if old is None else new for old, new in zip(found, right, strict=True))


def _kernel(weight: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    weight, gain = weight.contiguous(), gain.contiguous()
    y, norm = torch._weight_norm_interface(weight, gain, 0)
    if y.grad_fn is not None:
        y.grad_fn.register_hook(partial(_mended, weight, gain))
    return y, norm


def _transformed() -> bool:
    """Whether something looks through the steps of a formula that would not through a kernel with a hook."""
    if torch.compiler.is_compiling():
        return True
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def weight_norm(
    weight: Tensor, unit: Bound, *, gain: Tensor | None = None, dim: Annotated[int | None, OneOf((0, None))] = 0
) -> Normed:
    """Divides the weights of each output unit by their L2 norm and multiplies by a learned gain.

    ``w = gain * v / ‖v‖`` without ε: a unit of zeros gives nan, as in PyTorch. The gain starts as the norm, so that
    nothing changes at first. With ``dim=None`` the whole tensor shares one norm and one gain.

    Shapes: weight (o i ...); gain (o 1 ...), or all ones with ``dim=None``.
    Source: Salimans and Kingma 2016, arXiv:1602.07868.
    """
    wide = widen(weight)
    gain = cast(gain, wide.dtype)
    if gain is None or dim is None or _transformed():
        norm = _norm(wide, unit)
        y = wide / norm if gain is None else wide * (gain / norm)
    else:
        y, norm = _kernel(wide, gain)
    return Normed(cast(y, weight.dtype), {"norm": norm.detach()})


METHOD = Method(
    fn=weight_norm,
    name="WeightNorm",
    regions=(Region("o i ... -> o", when={"dim": 0}), Region("o i ... ->", when={"dim": None})),
    paper=Paper(
        "Tim Salimans, Diederik P. Kingma",
        "Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep Neural Networks",
        2016,
        "1602.07868",
    ),
    why="The length and the direction of a weight vector want different step sizes. Separating them conditions the "
    "problem better, without any dependence on the batch.",
    formula=r"\frac{<x>}{<norm>}",
    pytorch="module = torch.nn.utils.parametrizations.weight_norm(module, dim={dim})\ny = module.weight",
    affine={"gain": Slot("o", _norm)},
    invariant_to=frozenset({"scale"}),
    builds_on=("batch_norm",),
)
