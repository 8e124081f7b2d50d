"""Regions that no fused kernel of PyTorch fits: one formula, run over blocks of the tensor that stay in the cache."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

Maybe = TypeVar("Maybe", Tensor, Tensor | None)

BLOCK = 2**18
"""Elements that one thread works on at a time: a float32 block and its temporaries fit the cache of a core."""


class Recipe(NamedTuple):
    """What is done with each region: the dimensions that it spans, and how its spread becomes a divisor.

    The sum of squares (of what is `centered`, or of the values as they are) is divided by `total`; eps is added to
    that, or with `outside` to its root.
    """

    dims: tuple[int, ...]
    eps: float
    total: int
    centered: bool
    outside: bool = False

    def scale(self, second: Tensor) -> Tensor:
        """What the values are multiplied with, given the mean square or variance of their region."""
        return (root(second) + self.eps).reciprocal() if self.outside else (second + self.eps).rsqrt()

    def in_a_row(self, x: Tensor) -> bool:
        """Whether the elements of a region lie side by side in memory."""
        return x.is_contiguous() and self.dims == tuple(range(x.ndim - len(self.dims), x.ndim))

    def within(self, parameter: Tensor) -> bool:
        """Whether a parameter differs within a region."""
        return any(parameter.shape[d] > 1 for d in self.dims)


class Scaled(NamedTuple):
    """The result, the mean square or variance of each region, and its mean, in shapes that broadcast."""

    y: Tensor
    second: Tensor
    mean: Tensor | None


def root(x: Tensor) -> Tensor:
    """The square root, with slope 0 instead of infinity at 0."""
    return x.clamp_min(torch.finfo(x.dtype).tiny).sqrt()


def scale_regions(recipe: Recipe, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Scaled:
    """``(x - mean) * scale * weight + bias``; gain and bias broadcast against x, the statistics are detached."""
    plain = x.numel() <= BLOCK or torch.compiler.is_compiling()  # a compiler finds blocks of its own
    y, second, *mean = (_formula if plain else _InBlocks.apply)(recipe, x, weight, bias)
    return Scaled(y, second.detach(), mean[0].detach() if mean else None)


def _formula(
    recipe: Recipe,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    out: Tensor | None = None,
    spare: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """The result, into `out` if given, and the statistics; the squares go to `spare`, or to `out` if not centered."""
    centered = x
    mean: tuple[Tensor, ...] = ()
    if recipe.centered:
        # No element lies further from the mean than sqrt(n) deviations. So the first one serves as the origin: the
        # distances from it can be averaged without losing digits to a large mean.
        first = tuple(slice(0, 1) if d in recipe.dims else slice(None) for d in range(x.ndim))
        origin = x[first].detach()
        centered = torch.sub(x, origin, out=out)
        rest = centered.mean(recipe.dims, keepdim=True)
        centered, mean = centered.sub_(rest), (origin + rest,)
    squares = torch.square(centered, out=spare if recipe.centered else out)
    second = squares.sum(recipe.dims, keepdim=True) / recipe.total
    factors = [recipe.scale(second)]
    if weight is not None:
        factors = [*factors, weight] if recipe.within(weight) else [factors[0] * weight]
    y = centered
    for factor in factors:
        y = torch.mul(y, factor, out=out)
    return (y if bias is None else y.add_(bias)), second, *mean


def _by_kernel(recipe: Recipe, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, ...]:
    """The formula of regions that lie in a row, through PyTorch's kernel for groups: its divisor is replaced after."""
    tiny, size = torch.finfo(x.dtype).tiny, math.prod(x.shape[d] for d in recipe.dims)
    y, *found = torch.native_group_norm(x, None, None, x.numel() // size, 1, size, 1, tiny)
    mean, inverse = (t.reshape(x.shape[: recipe.dims[0]] + (1,) * len(recipe.dims)) for t in found)
    second = (inverse.square().reciprocal() - tiny).clamp_min(0) * (size / recipe.total)
    y *= recipe.scale(second) / inverse
    if weight is not None:
        y *= weight
    return (y if bias is None else y.add_(bias)), second, mean


def _gradient(
    recipe: Recipe, g: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, second: Tensor, *mean: Tensor
) -> tuple[Tensor | None, ...]:
    """The gradients of x, weight and bias."""
    scale = recipe.scale(second)
    unit = (x - mean[0]).mul_(scale) if mean else x * scale
    product = g * unit
    by_weight = None if weight is None else product.sum_to_size(weight.shape)
    by_bias = None if bias is None else g.sum_to_size(bias.shape)
    outer = scale
    if weight is not None and recipe.within(weight):
        g, product = g * weight, product.mul_(weight)
    elif weight is not None:
        outer = scale * weight
    slope = product.sum(recipe.dims, keepdim=True) / recipe.total
    if recipe.outside:  # the root alone answers to x, not the eps beside it
        slope = slope / (scale * root(second))
    g = torch.addcmul(g, unit, slope, value=-1)
    if mean:
        g -= g.mean(recipe.dims, keepdim=True)
    return g.mul_(outer), by_weight, by_bias


def in_front(size: int, dims: Sequence[int | None], tensors: Sequence[Maybe]) -> list[Maybe]:
    """Tensors with the dimension that torch.func.vmap maps, of this size, in front; those without it get it."""
    return [
        t if t is None else t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)
        for t, dim in zip(tensors, dims, strict=True)
    ]


class _InBlocks(torch.autograd.Function):
    """The formula and its gradient, block by block, keeping no more than the input and the statistics.

    Forward, a kernel of PyTorch's takes regions that are centered and lie in a row.
    """

    @staticmethod
    def forward(recipe: Recipe, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, ...]:
        if recipe.centered and recipe.in_a_row(x):
            return _by_kernel(recipe, x, weight, bias)
        axis, step = _cut(x, recipe.dims)
        y, found = torch.empty_like(x), []
        spare = torch.empty_like(x.narrow(axis, 0, step)) if recipe.centered else None
        for block in _blocks(axis, step, x, weight, bias, y):
            block.append(spare if spare is None else spare.narrow(axis, 0, block[0].shape[axis]))
            found.append(_formula(recipe, *block)[1:])
        return y, *(torch.cat(parts, axis) for parts in zip(*found, strict=True))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.recipe, x, weight, bias = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(x, weight, bias, *output[1:])

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, *statistics = ctx.saved_tensors
        axis, step = _cut(x, ctx.recipe.dims)
        if torch.is_grad_enabled():  # this gradient will be differentiated itself, and the statistics with it
            statistics = _formula(ctx.recipe, x, weight, bias)[1:]
        if torch.is_grad_enabled() or step == x.shape[axis]:
            return None, *_gradient(ctx.recipe, g, x, weight, bias, *statistics)
        by_x = torch.empty_like(g)
        by_weight, by_bias = (None if p is None else g.new_zeros(p.shape) for p in (weight, bias))
        for outs, block in zip(
            _blocks(axis, step, by_x, by_weight, by_bias),
            _blocks(axis, step, g, x, weight, bias, *statistics),
            strict=True,
        ):
            done = _gradient(ctx.recipe, *block)
            outs[0].copy_(done[0])
            for total, part in zip(outs[1:], done[1:], strict=True):
                if part is not None:
                    total.add_(part)
        return None, by_x, by_weight, by_bias

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """A mapped dimension is one more that regions do not span."""
        recipe, *tensors = inputs
        mapped = in_front(info.batch_size, in_dims[1:], tensors)
        result = _InBlocks.apply(recipe._replace(dims=tuple(d + 1 for d in recipe.dims)), *mapped)
        return result, (0,) * len(result)


def _cut(x: Tensor, dims: tuple[int, ...]) -> tuple[int, int]:
    """A dimension along which no region is cut, and the length of the pieces; all of it where cutting gains nothing."""
    pieces = x.numel() // (BLOCK * torch.get_num_threads()) if x.device.type == "cpu" else 0
    if pieces > 1:
        kept = [d for d in range(x.ndim) if d not in dims and x.stride(d) >= 16]
        if kept:
            axis = max(kept, key=lambda d: (min(x.shape[d], pieces), x.stride(d)))
            return axis, -(-x.shape[axis] // pieces)
    return 0, x.shape[0]


def _blocks(axis: int, step: int, *tensors: Tensor | None) -> Iterator[list[Any]]:
    """The parts of the tensors along an axis; those without that axis come whole each time."""
    size = max(t.shape[axis] for t in tensors if t is not None)
    for start in range(0, size, step):
        length = min(step, size - start)
        yield [t if t is None or t.shape[axis] == 1 else t.narrow(axis, start, length) for t in tensors]
