"""The mathematics that methods share, through PyTorch's own fused kernels or compiled loops."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from normcore.core import rows
from normcore.core.axes import LETTERS
from normcore.core.kernels import fused, fused_rms
from normcore.core.region import Bound
from normcore.core.scaling import Recipe, root, scale_regions

Statistics = Mapping[str, Tensor]
HALF = (torch.float16, torch.bfloat16)
Optional = TypeVar("Optional", Tensor, Tensor | None)


class Later(Mapping[str, Tensor]):
    """Statistics by name, each worked out when it is first asked for: most calls want the result alone.

    `moments` gives the mean and the variance, divided by n - 1, where that is cheap: one value a region in their order,
    as a vector or in the shape of the split view.
    """

    def __init__(
        self, ways: Mapping[str, Callable[[], Tensor]], moments: Callable[[], tuple[Tensor, Tensor]] | None = None
    ) -> None:
        self._ways, self.moments = ways, moments
        self._found: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._found:
            self._found[name] = self._ways[name]().detach()
        return self._found[name]

    def __contains__(self, name: object) -> bool:
        return name in self._ways

    def __iter__(self) -> Iterator[str]:
        return iter(self._ways)

    def __len__(self) -> int:
        return len(self._ways)


def beside(stats: Statistics, **ways: Callable[[], Tensor]) -> Later:
    """Statistics and others beside them, which are worked out when they are asked for."""
    return Later({**{name: partial(stats.__getitem__, name) for name in stats}, **ways})


def standardize(
    x: Tensor,
    region: Bound,
    eps: float,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    unbiased: bool = False,
    eps_place: str = "inside",
) -> tuple[Tensor, Statistics]:
    """Each region to mean 0 and variance 1: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    `var` divides by the number of elements, or by one less with `unbiased` (a single element then has variance 0).
    With `eps_place` "outside", ε is added to the root. Half-precision input is computed in float32 and rounded once,
    at the end. Gain and bias follow the channel axis, or broadcast against x.

    Returns:
        The result, and `mean` and `var` (`var_unbiased`) as used, in shapes that broadcast against the input. They
        are worked out when they are asked for, from x as it is by then.
    """
    wide = widen(x)
    # Gains that kernels do not take; nor a bias alone, with which PyTorch's have no second gradient.
    whole = (weight is not None and weight.ndim == x.ndim) or (bias is not None and bias.ndim == x.ndim)
    apart = unbiased or whole or (weight is None and bias is not None)
    if region.size > 1 and eps_place == "inside" and not (apart and rows.compilable(wide)):
        # sqrt(n/(n-1)·var + eps) = sqrt(n/(n-1)) · sqrt(var + eps·(n-1)/n): the same kernels serve both estimators.
        share = (region.size - unbiased) / region.size
        gains = (None, None) if apart else (cast(weight, wide.dtype), cast(bias, wide.dtype))
        done = fused(wide, region, eps * share, *gains)
        if done is not None:
            y = done.y * math.sqrt(share) if unbiased else done.y
            y = affine(y, region, weight, bias) if apart or not done.gained else y
            return cast(y, x.dtype), _moments(wide, region, unbiased, done.mean, done.sample_var)
    total = region.size - 1 or 1 if unbiased else region.size
    recipe = Recipe(region.reduced, eps, total, centered=True, outside=eps_place == "outside")
    y, second, mean = scale_regions(recipe, region.split(wide), *_split(weight, bias, wide, region))
    name = "var_unbiased" if unbiased else "var"
    assert mean is not None, "the recipe centers"
    ways = {"mean": partial(region.spread, mean), name: partial(region.spread, second)}
    moments = partial(_with_sample_variance, mean, second, total / (region.size - 1 or 1))
    return cast(region.join(y), x.dtype), Later(ways, moments)


def _with_sample_variance(mean: Tensor, second: Tensor, share: float) -> tuple[Tensor, Tensor]:
    return mean, second * share


def _moments(x: Tensor, region: Bound, unbiased: bool, mean: Tensor, sample_var: Tensor | None) -> Statistics:
    """The mean and variance by region; the variance comes from x where the kernel did not give it."""
    x = x.detach() if x.requires_grad else x

    def var() -> Tensor:
        if sample_var is not None:
            return region.spread(sample_var if unbiased else sample_var * ((region.size - 1) / region.size))
        return region.spread(variance(x - region.spread(mean), region, unbiased))

    ways = {"mean": lambda: region.spread(mean), "var_unbiased" if unbiased else "var": var}
    return Later(ways, None if sample_var is None else lambda: (mean, sample_var))


def _split(weight: Tensor | None, bias: Tensor | None, x: Tensor, region: Bound) -> tuple[Tensor | None, Tensor | None]:
    """Gain and bias laid along the channel axis of the region's split view."""
    w, b = (None if p is None else region.lay(cast(p, x.dtype)) for p in (weight, bias))
    return w, b


def rescale(
    x: Tensor,
    region: Bound,
    eps: float,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps_place: str = "inside",
) -> tuple[Tensor, Statistics]:
    """Each region to a mean square of 1, without centering: ``x / sqrt(mean(x²) + eps) * weight + bias``.

    With `eps_place` "outside", ε is added to the root.

    Returns:
        The result, and `mean_square` as used, in a shape that broadcasts against the input.
    """
    wide = widen(x)
    if bias is None and eps_place == "inside":
        y = fused_rms(wide, region, eps, cast(weight, wide.dtype))
        if y is not None:
            values = wide.detach()
            return cast(y, x.dtype), Later({"mean_square": lambda: region.spread(region.mean(values.square()))})
    recipe = Recipe(region.reduced, eps, region.size, centered=False, outside=eps_place == "outside")
    done = scale_regions(recipe, region.split(wide), *_split(weight, bias, wide, region))
    return cast(region.join(done.y), x.dtype), Later({"mean_square": partial(region.spread, done.second)})


def normalize(
    x: Tensor,
    region: Bound,
    eps: float,
    weight: Tensor | None = None,
    eps_place: str = "outside",
    centered: bool = False,
) -> tuple[Tensor, Statistics]:
    """Each region to length 1, `centered` first if asked for: ``x / (norm + eps) * weight``, with the L2 norm.

    With `eps_place` "inside" it is divided by ``sqrt(norm² + eps)``, with "maximum" by ``max(norm, eps)``. A region of
    zeros stays one. The weight follows the channel axis, or broadcasts against x.

    Returns:
        The result, and `norm` (of what is centered) and `mean` (if it is), in shapes that broadcast against the input.
    """
    wide = widen(x)
    recipe = Recipe(region.reduced, eps, 1, centered, outside=eps_place == "outside" or not eps)
    if eps_place == "maximum":
        recipe = recipe._replace(eps=0.0, outside=True, least=eps**2)
    y, second, mean = scale_regions(recipe, region.split(wide), *_split(weight, None, wide, region))
    ways = {"norm": lambda: region.spread(root(second))}
    if mean is not None:
        ways["mean"] = partial(region.spread, mean)
    return cast(region.join(y), x.dtype), Later(ways)


def subtract_mean(x: Tensor, region: Bound, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Each region minus its mean, plus a bias, and the means by region, which are constants.

    The bias follows the channel axis. Half-precision input is for the caller to widen.
    """
    if not rows.compilable(x):
        y, mean = center(x, region)
        return affine(y, region, None, bias), mean.detach()
    recipe = Recipe(region.reduced, 1.0, math.inf, centered=True)
    y, _, found = scale_regions(recipe, region.split(x), *_split(None, bias, x, region))
    assert found is not None, "the recipe centers"
    return region.join(y), found.reshape(region.region_shape)


def center(x: Tensor, region: Bound) -> tuple[Tensor, Tensor]:
    """Each region minus its mean, and the means by region.

    The mean of what is left is taken out again: in float32 the first mean of values around 1000 is only good to 3e-5.
    """
    mean = region.mean(x)
    centered = x - region.spread(mean)
    rest = region.mean(centered)
    return centered - region.spread(rest), mean + rest


def shift_away(x: Tensor, bounds: Sequence[object], alike: bool = False) -> tuple[Tensor, Tensor]:
    """x minus the first value of each region, and these values, which count as constants.

    It changes nothing for a method that a shift of a region leaves alone, but saves the digits that fused kernels lose
    to a mean far above the deviation: no value lies further from the mean than sqrt(n) deviations. With several
    statistics, or where regions must be shifted `alike` and are not one a channel, the first value of all serves.
    """
    region = bounds[0] if len(bounds) == 1 else None
    if isinstance(region, Bound) and (not alike or region.letters == ("c",)):
        first = tuple(0 if d in region.reduced else slice(None) for d in range(len(region.split_shape)))
        origin = region.split(x.detach())[first]
        return x - region.spread(origin), origin
    origin = x.detach()[(0,) * x.ndim]
    return x - origin, origin


def affine(
    y: Tensor, region: Bound | str, weight: Tensor | None, bias: Tensor | None, scale: Tensor | None = None
) -> Tensor:
    """``y * scale * weight + bias``: gain and bias laid along the channel axis and the axes after it.

    The scale broadcasts against y. It is multiplied with the gain first if that has fewer values than y.
    """
    if weight is not None:
        gain = cast(along_channels(weight, region), y.dtype)
        if scale is not None and _covers(y, gain, scale):
            y, scale = y * scale, None
        scale = gain if scale is None else scale * gain
    shift = None if bias is None else cast(along_channels(bias, region), y.dtype)
    if scale is None:
        return y if shift is None else y + shift
    return y * scale if shift is None else multiply_add(y, scale, shift)


def _covers(y: Tensor, gain: Tensor, scale: Tensor) -> bool:
    """Whether the product of two tensors is as large as what they broadcast against."""
    shapes = ((1,) * (y.ndim - t.ndim) + t.shape for t in (gain, scale))
    return all(max(sizes) == size for *sizes, size in zip(*shapes, y.shape, strict=True))


def multiply_add(y: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``y * scale + shift``, in one step where the scale does not learn: its gradient would take a pass more."""
    if scale.requires_grad and torch.is_grad_enabled():
        return y * scale + shift
    return torch.addcmul(shift, y, scale)


def along_channels(parameter: Tensor, region: Bound | str) -> Tensor:
    """A parameter of shape (c) or (c h w), reshaped so that it broadcasts against the tensor.

    Where there is no region, the name of the layout says where the channels lie.
    """
    if isinstance(region, str):
        after = len(LETTERS[region]) - LETTERS[region].index("c") - parameter.ndim
    else:
        after = len(region.shape) - region.channel_axis - parameter.ndim
    return parameter.reshape(*parameter.shape, *(1,) * after)


def euclidean_norm(x: Tensor, region: Bound) -> Tensor:
    """The root of the sum of squares of each region, laid so that it broadcasts; its gradient at 0 is 0."""
    return region.spread(root(region.mean(x.square()) * region.size))


def variance(centered: Tensor, region: Bound, unbiased: bool = False) -> Tensor:
    """The mean square of centered values by region; `unbiased` divides by one less, a lone element giving 0."""
    total = region.size - 1 or 1 if unbiased else region.size
    return region.mean(centered.square()) * (region.size / total)


class _Variance(torch.autograd.Function):
    """The variance of some dimensions, keeping no more than the input and the mean for its gradient."""

    @staticmethod
    def forward(x: Tensor, dims: tuple[int, ...], total: int) -> tuple[Tensor, Tensor]:
        mean = x.mean(dims, keepdim=True)
        centered = x - mean
        rest = centered.mean(dims, keepdim=True)
        return centered.sub_(rest).square_().sum(dims, keepdim=True) / total, mean + rest

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, ctx.dims, ctx.total = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(x, output[1])
        ctx.save_for_forward(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        x, mean = ctx.saved_tensors
        if torch.is_grad_enabled():  # this gradient will be differentiated itself, and the mean with it
            mean = x.mean(ctx.dims, keepdim=True)
        return (x - mean) * (g * (2 / ctx.total)), None, None

    @staticmethod
    def jvp(ctx: Any, moved: Tensor, *_: None) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        centered = x - x.mean(ctx.dims, keepdim=True)
        return (centered * moved).sum(ctx.dims, keepdim=True) * (2 / ctx.total), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, dims: tuple[int, ...], total: int) -> Any:
        """A mapped dimension is one more that is not averaged over."""
        return _Variance.apply(x.movedim(in_dims[0], 0), tuple(d + 1 for d in dims), total), (0, 0)


def own_variance(x: Tensor, region: Bound, unbiased: bool = False) -> Tensor:
    """The variance by region of values that nobody else needs centered."""
    total = region.size - 1 or 1 if unbiased else region.size
    if region.size > 1 and x.numel() <= rows.LARGE:
        return torch.var(region.split(x), region.reduced, correction=region.size - total).reshape(region.region_shape)
    return _Variance.apply(region.split(x), region.reduced, total)[0].reshape(region.region_shape)


def cast(x: Optional, dtype: torch.dtype) -> Optional:
    """The tensor in a precision; itself where it has it, at a tenth of the price of asking torch."""
    return x if x is None or x.dtype is dtype else x.to(dtype)


def widen(x: Tensor) -> Tensor:
    """Half-precision tensors in float32, where all statistics are computed; others as they are."""
    return x.float() if x.dtype in HALF else x
