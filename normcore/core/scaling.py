"""Regions that no fused kernel of PyTorch fits: one formula, and for large tensors compiled loops that follow it."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor, is_legacy_batchedtensor
from torch.autograd.forward_ad import unpack_dual

from normcore.core import rows

Maybe = TypeVar("Maybe", Tensor, Tensor | None)


class Recipe(NamedTuple):
    """What is done with each region: the dimensions that it spans, and how its spread becomes a divisor.

    The sum of squares (of what is `centered`, or of the values as they are) is divided by `total`; eps is added to
    that, or with `outside` to the root of that or of `least`, whichever is more. With a `total` of infinity the
    divisor does not follow the values.
    """

    dims: tuple[int, ...]
    eps: float
    total: float
    centered: bool
    outside: bool = False
    least: float = 0.0

    def rule(self, dtype: torch.dtype) -> tuple[float, float, bool, bool, float]:
        """What the compiled loops want to know."""
        return float(self.eps), float(self.total), self.centered, self.outside, self.floor(dtype)

    def floor(self, dtype: torch.dtype) -> float:
        """Below which mean square the divisor does not follow it, if eps is outside the root."""
        return max(self.least, torch.finfo(dtype).tiny)

    def second(self, centered: Tensor) -> Tensor:
        """The mean square or variance of each region."""
        if self.total == math.inf:
            return torch.zeros_like(_origin(self, centered))
        squares = centered.square().sum(self.dims, keepdim=True)
        return squares if self.total == 1 else squares / self.total

    def scale(self, second: Tensor) -> Tensor:
        """What the values are multiplied with, given the mean square or variance of their region."""
        return (root(second, self.least) + self.eps).reciprocal() if self.outside else (second + self.eps).rsqrt()

    def within(self, parameter: Tensor) -> bool:
        """Whether a parameter differs within a region."""
        return any(parameter.shape[d] > 1 for d in self.dims)


class Scaled(NamedTuple):
    """The result, the mean square or variance of each region, and its mean, in shapes that broadcast."""

    y: Tensor
    second: Tensor
    mean: Tensor | None


def root(x: Tensor, least: float = 0.0) -> Tensor:
    """The square root of x, or of `least` if that is more; its slope at 0 is 0 instead of infinity."""
    return x.clamp_min(max(least, torch.finfo(x.dtype).tiny)).sqrt()


def scale_regions(recipe: Recipe, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Scaled:
    """``(x - mean) * scale * weight + bias``; gain and bias broadcast against x, the statistics are detached."""
    tensors = [t for t in (x, weight, bias) if t is not None]
    steps: Any = _compiled
    if not rows.compilable(*tensors):
        steps = _formula
    elif len(tensors) > 1 and not rows.have(recipe, x, weight, bias):
        y, second, mean = scale_regions(recipe, x, None, None)
        y = y if weight is None else y * weight
        return Scaled(y if bias is None else y + bias, second, mean)
    elif any(_followed(t) or (t.requires_grad and torch.is_grad_enabled()) for t in tensors):
        steps = _formula if any(t.is_inference() for t in tensors) else _Compiled.apply  # which keeps them
    y, second, *others = steps(recipe, x, weight, bias)
    return Scaled(y, second.detach(), others[1].detach() if others else None)


def _followed(t: Tensor) -> bool:
    """Whether torch.func looks through a tensor, or forward differentiation has a tangent of it."""
    return is_functorch_wrapped_tensor(t) or unpack_dual(t).tangent is not None


def _origin(recipe: Recipe, x: Tensor) -> Tensor:
    """The first value of each region, a constant. No element lies further from the mean than sqrt(n) deviations: so
    the distances from it can be averaged without losing digits to a large mean."""
    return x.detach()[tuple(slice(0, 1) if d in recipe.dims else slice(None) for d in range(x.ndim))]


def _formula(recipe: Recipe, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, ...]:
    """The result, the mean square or variance, and where values are centered what is left of the mean, and the mean."""
    centered = x
    means: tuple[Tensor, ...] = ()
    if recipe.centered:
        origin = _origin(recipe, x)
        centered = x - origin
        rest = centered.mean(recipe.dims, keepdim=True)
        means = rest, origin + rest
        centered = centered.sub_(rest)
    second = recipe.second(centered)
    scale = recipe.scale(second)
    if weight is None:
        y = centered * scale
    else:
        y = centered * scale * weight if recipe.within(weight) else centered * (scale * weight)
    return (y if bias is None else y + bias), second, *means


def _centered(recipe: Recipe, x: Tensor, rest: Sequence[Tensor]) -> Tensor:
    return x - _origin(recipe, x) - rest[0] if rest else x


def _turned(recipe: Recipe, change: Tensor, unit: Tensor, scale: Tensor, second: Tensor) -> Tensor:
    """How normalized values move as x does, and how x feels their slopes: the Jacobian is symmetric."""
    if recipe.total < math.inf:
        along = (change * unit).sum(recipe.dims, keepdim=True) / recipe.total
        if recipe.outside:  # the root alone answers to x, not the eps beside it, nor what stands for a small one
            least = recipe.floor(second.dtype)
            along = torch.where(second < least, 0.0, along * (1 + recipe.eps / root(second, least)))
        change = change - unit * along
    if recipe.centered:
        change = change - change.mean(recipe.dims, keepdim=True)
    return change * scale


def _gradient(
    recipe: Recipe, g: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, second: Tensor, *rest: Tensor
) -> tuple[Tensor | None, ...]:
    """The gradients of x, weight and bias."""
    scale = recipe.scale(second)
    unit = _centered(recipe, x, rest) * scale
    by_weight = None if weight is None else (g * unit).sum_to_size(weight.shape)
    by_bias = None if bias is None else g.sum_to_size(bias.shape)
    return _turned(recipe, g if weight is None else g * weight, unit, scale, second), by_weight, by_bias


def _tangent(recipe: Recipe, primals: Sequence[Any], tangents: Sequence[Any], second: Tensor, *rest: Tensor) -> Tensor:
    """How the result moves as x, weight and bias do; a tangent that is None is 0."""
    (x, weight, _), (by_x, by_weight, by_bias) = primals, tangents
    scale = recipe.scale(second)
    unit = _centered(recipe, x, rest) * scale
    moved = torch.zeros_like(unit) if by_x is None else _turned(recipe, by_x, unit, scale, second)
    moved = moved if weight is None else moved * weight
    moved = moved if by_weight is None else moved + unit * by_weight
    return moved if by_bias is None else moved + by_bias


def in_front(size: int, dims: Sequence[int | None], tensors: Sequence[Maybe]) -> list[Maybe]:
    """Tensors with the dimension that torch.func.vmap maps, of this size, in front; those without it get it."""
    return [
        t if t is None else t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)
        for t, dim in zip(tensors, dims, strict=True)
    ]


def _compiled(recipe: Recipe, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, ...]:
    return rows.forward(recipe, x, weight, bias) or _formula(recipe, x, weight, bias)


class _Compiled(torch.autograd.Function):
    """The formula by compiled loops, keeping no more than the input and the statistics."""

    @staticmethod
    def forward(recipe: Recipe, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, ...]:
        return _compiled(recipe, x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.recipe, x, weight, bias = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(x, weight, bias, *output[1:3])
        ctx.save_for_forward(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, *statistics = ctx.saved_tensors
        if torch.is_grad_enabled():  # this gradient will be differentiated itself, and the statistics with it
            statistics = _formula(ctx.recipe, x, weight, bias)[1:]
        elif rows.compilable(x, g) and not (_followed(g) or is_legacy_batchedtensor(g)):
            found = rows.backward(ctx.recipe, g, x, weight, bias, *statistics)
            if found:
                return None, *found
        return None, *_gradient(ctx.recipe, g, x, weight, bias, *statistics)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        statistics = _formula(ctx.recipe, *ctx.saved_tensors)[1:]  # they may be differentiated themselves
        return _tangent(ctx.recipe, ctx.saved_tensors, tangents, *statistics), *(None for _ in statistics)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """A mapped dimension is one more that regions do not span."""
        recipe, *tensors = inputs
        mapped = in_front(info.batch_size, in_dims[1:], tensors)
        result = _Compiled.apply(recipe._replace(dims=tuple(d + 1 for d in recipe.dims)), *mapped)
        return result, (0,) * len(result)
