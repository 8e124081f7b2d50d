"""Weight normalization: the length and the direction of each unit's weights become separate parameters.

Longer than most: a kernel of PyTorch's, with a second gradient and a way to be mapped.
"""

from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor

from normcore.core import Bound, Method, Normed, OneOf, Paper, Region, Slot, cast, in_front, widen


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
    """A hook on PyTorch's node: its gradients (of torch 2.13) take the norm for a constant when differentiated."""
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


class _Mapped(torch.autograd.Function):
    """The same in torch.func's transforms, which pass hooks by."""

    @staticmethod
    def forward(weight: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        return torch._weight_norm_interface(weight.contiguous(), gain.contiguous(), 0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        weight, gain = ctx.saved_tensors
        return _slopes(weight, gain, g)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Tensor) -> tuple[tuple[Tensor, ...], tuple[int, int]]:
        """A mapped dimension is nothing but more units."""
        mapped = in_front(info.batch_size, in_dims, inputs)
        done = _Mapped.apply(*(t.flatten(0, 1) for t in mapped))
        return tuple(t.unflatten(0, (info.batch_size, -1)) for t in done), (0, 0)


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
    if gain is None or dim is None or torch.compiler.is_compiling():
        norm = _norm(wide, unit)
        y = wide / norm if gain is None else wide * (gain / norm)
    else:
        y, norm = (_Mapped.apply if torch._C._are_functorch_transforms_active() else _kernel)(wide, gain)
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
