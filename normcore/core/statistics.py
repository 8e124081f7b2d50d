"""The mathematics that methods share, each piece through PyTorch's own fused kernel where one fits its region."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from normcore.core.region import Bound

Statistics = Mapping[str, Tensor]
HALF = (torch.float16, torch.bfloat16)


def standardize(
    x: Tensor,
    region: Bound,
    eps: float,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    unbiased: bool = False,
) -> tuple[Tensor, Statistics]:
    """Each region to mean 0 and variance 1: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    `var` divides by the number of elements, or by one less with `unbiased` (a single element then has variance 0).
    Half-precision input is computed in float32 and rounded once, at the end. Gain and bias follow the channel axis.

    Returns:
        The result, and `mean` and `var` (`var_unbiased`) as used, in shapes that broadcast against the input.
    """
    wide = widen(x)
    if not unbiased:
        done = _through_kernel(wide, region, eps, weight, bias)
        var = done.rstd.square().reciprocal() - eps
        name = "var"
    else:
        # sqrt(n/(n-1)·var + eps) = sqrt(n/(n-1)) · sqrt(var + eps·(n-1)/n): the same kernels serve both estimators.
        share = (region.size - 1 or 1) / region.size
        done = _through_kernel(wide, region, eps * share, None, None)
        done = done._replace(y=affine(done.y * math.sqrt(share), region, weight, bias))
        var = done.rstd.square().reciprocal() / share - eps
        name = "var_unbiased"
    stats = {"mean": region.spread(done.mean).detach(), name: region.spread(var.clamp_min(0.0)).detach()}
    return done.y.to(x.dtype), stats


class _Standardized(NamedTuple):
    y: Tensor
    mean: Tensor
    rstd: Tensor


def _through_kernel(x: Tensor, region: Bound, eps: float, weight: Tensor | None, bias: Tensor | None) -> _Standardized:
    """Standardizes through the kernel that fits the region's memory layout and takes this gain and bias."""
    kinds, sizes = region.merged
    w, b = (None if p is None else p.to(x.dtype) for p in (weight, bias))
    given = [p for p in (w, b) if p is not None]
    if kinds in ("", "K", "R", "KR") and all(_covers(p, x, region) for p in given):
        flat = x.reshape(region.count, region.size)
        w, b = (None if p is None else p.reshape(-1) for p in (w, b))
        done = _Standardized(*torch.native_layer_norm(flat, flat.shape[1:], w, b, eps))
    elif _groups_channels(region) and all(_by_channel(p, region, axis=1) for p in given):
        samples, channels = x.shape[:2]
        layout = (samples, channels, math.prod(x.shape[2:]), region.count // samples)
        done = _Standardized(*torch.native_group_norm(x.contiguous(), w, b, *layout, eps))
    elif kinds in ("RK", "RKR") and all(_by_channel(p, region) and region.count == len(p) for p in given):
        flat = x.reshape(sizes)
        if kinds == "RK":  # here this kernel loses digits to a large mean, unless it is taken out first
            origin = flat.detach().mean(0)
            done = _Standardized(*torch.native_batch_norm(flat - origin, w, b, None, None, True, 0.0, eps))
            done = done._replace(mean=done.mean + origin)
        else:
            done = _Standardized(*torch.native_batch_norm(flat, w, b, None, None, True, 0.0, eps))
    else:
        centered, mean = center(x, region)
        rstd = (region.mean(centered.square()) + eps).rsqrt()
        return _Standardized(affine(centered * region.spread(rstd), region, weight, bias), mean, rstd)
    return done._replace(y=done.y.reshape(x.shape))


def _covers(parameter: Tensor, x: Tensor, region: Bound) -> bool:
    """Whether a parameter has one value for each element of a region, in the same order."""
    return parameter.numel() == region.size and parameter.shape == x.shape[x.ndim - parameter.ndim :]


def _by_channel(parameter: Tensor, region: Bound, axis: int | None = None) -> bool:
    """Whether a parameter has one value a channel (the channels lying on the given axis)."""
    axes = region.factors if axis is None else region.factors[axis : axis + 1]
    return parameter.ndim == 1 and any(factors[0].letter in ("c", "g") for factors in axes)


def _groups_channels(region: Bound) -> bool:
    """Whether the group norm kernel computes the region: blocks of channels of one sample, with all their space."""
    samples, *others = region.factors
    if not others or not all(factor.kept for factor in samples):
        return False
    channels, *space = others
    blocks = "".join("K" if f.kept else "R" for f in channels if f.size > 1)
    return blocks in ("", "K", "R", "KR") and not any(f.kept and f.size > 1 for axis in space for f in axis)


def rescale(
    x: Tensor, region: Bound, eps: float, weight: Tensor | None = None, bias: Tensor | None = None
) -> tuple[Tensor, Statistics]:
    """Each region to a mean square of 1, without centering: ``x / sqrt(mean(x²) + eps) * weight + bias``.

    Returns:
        The result, and `mean_square` as used, in a shape that broadcasts against the input.
    """
    wide = widen(x)
    mean_square = region.spread(region.mean(wide.square()))
    y = affine(wide * (mean_square + eps).rsqrt(), region, weight, bias)
    return y.to(x.dtype), {"mean_square": mean_square.detach()}


def center(x: Tensor, region: Bound) -> tuple[Tensor, Tensor]:
    """Each region minus its mean, and the means by region.

    The mean of what is left is taken out again: in float32 the first mean of values around 1000 is only good to 3e-5.
    """
    mean = region.mean(x)
    centered = x - region.spread(mean)
    rest = region.mean(centered)
    return centered - region.spread(rest), mean + rest


def affine(y: Tensor, region: Bound, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Gain, then bias, laid along the channel axis and the axes after it."""
    if weight is not None:
        y = y * along_channels(weight, region).to(y.dtype)
    return y if bias is None else y + along_channels(bias, region).to(y.dtype)


def along_channels(parameter: Tensor, region: Bound) -> Tensor:
    """A parameter of shape (c) or (c h w), reshaped so that it broadcasts against the tensor."""
    axis = next((a for a, factors in enumerate(region.factors) if factors[0].letter in ("c", "g")), 0)
    return parameter.reshape(parameter.shape + (1,) * (len(region.shape) - axis - parameter.ndim))


def variance(centered: Tensor, region: Bound, unbiased: bool = False) -> Tensor:
    """The mean square of centered values by region; `unbiased` divides by one less, a lone element giving 0."""
    total = region.size - 1 or 1 if unbiased else region.size
    return region.mean(centered.square()) * (region.size / total)


def widen(x: Tensor) -> Tensor:
    """Half-precision tensors in float32, where all statistics are computed; others as they are."""
    return x.float() if x.dtype in HALF else x


def root(x: Tensor) -> Tensor:
    """The square root, with slope 0 instead of infinity at 0."""
    return x.clamp_min(torch.finfo(x.dtype).tiny).sqrt()
