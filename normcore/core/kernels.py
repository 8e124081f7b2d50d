"""PyTorch's own fused kernels: which of them computes a bound region, in one pass over the tensor."""

from typing import NamedTuple

import torch
from torch import Tensor

from normcore.core.region import Bound
from normcore.core.rows import compilable


class Standardized(NamedTuple):
    """The result, and by region the mean and the variance, divided by n - 1 (None where the kernel keeps it).

    Gain and bias are in it if `gained`.
    """

    y: Tensor
    mean: Tensor
    sample_var: Tensor | None = None
    gained: bool = True


def fused(x: Tensor, region: Bound, eps: float, weight: Tensor | None, bias: Tensor | None) -> Standardized | None:
    """Each region to mean 0 and variance 1, through the kernel that takes this region, gain and bias; None if none."""
    contiguous = x.is_contiguous()
    if contiguous and region.tail and _along_tail(region, weight, bias):
        return Standardized(*torch.native_layer_norm(x, region.tail, weight, bias, eps)[:2])
    if _shaped((region.shape[region.channel_axis],), weight, bias):
        if contiguous and region.groups and region.channel_axis == 1:
            return Standardized(*torch.native_group_norm(x, weight, bias, *region.groups, eps)[:2])
        if region.letters == ("c",) and region.merged[0] in ("RK", "RKR") and not compilable(x):  # loops are faster
            return _batch_norm(x, region, eps, weight, bias)
    if torch.compiler.is_compiling() or (contiguous and compilable(x)):
        return None
    return _in_rows(x, region, eps, weight, bias)


def _in_rows(x: Tensor, region: Bound, eps: float, weight: Tensor | None, bias: Tensor | None) -> Standardized | None:
    """The kernel for layers where memory has each region as a row, or on a copy that has.

    The first value of each is taken out of the copy: that saves digits.
    """
    order, back, sizes, channels = region.as_rows
    gained = channels and _shaped(sizes, weight, bias)
    gains = (weight, bias) if gained else (None, None)
    rows = region.split(x).permute(order)
    if rows.is_contiguous():
        y, mean, _ = torch.native_layer_norm(rows, sizes, *gains, eps)
        return Standardized(region.join(y.permute(back)), mean, gained=gained)
    if not x.is_contiguous():
        return None
    origin = rows.detach() if rows.requires_grad else rows
    for dim in range(-len(sizes), 0):
        origin = origin.narrow(dim, 0, 1)
    y, mean, _ = torch.native_layer_norm(rows - origin, sizes, *gains, eps)
    return Standardized(region.join(y.permute(back)).contiguous(), mean + origin, gained=gained)


def fused_rms(x: Tensor, region: Bound, eps: float, weight: Tensor | None) -> Tensor | None:
    """Each region to mean square 1, through PyTorch's kernel; None without one, or where compiled loops are faster."""
    if compilable(x) or not region.tail or not x.is_contiguous() or not _along_tail(region, weight):
        return None
    return torch.rms_norm(x, region.tail, weight, eps)


def _along_tail(region: Bound, weight: Tensor | None, bias: Tensor | None = None) -> bool:
    """Whether gain and bias lie where the kernel for layers expects them: along the last axes, from the channels on."""
    from_channels = region.channel_axis >= len(region.shape) - len(region.tail)
    return (weight is None and bias is None) or (from_channels and _shaped(region.tail, weight, bias))


def _shaped(shape: tuple[int, ...], weight: Tensor | None, bias: Tensor | None = None) -> bool:
    return (weight is None or weight.shape == shape) and (bias is None or bias.shape == shape)


def _batch_norm(
    x: Tensor, region: Bound, eps: float, weight: Tensor | None, bias: Tensor | None
) -> Standardized | None:
    # The variance that the kernel remembers is exact; its rstd would lose digits to eps.
    running_mean, running_var = x.new_zeros(region.count), x.new_zeros(region.count)
    remembered = (weight, bias, running_mean, running_var, True, 1.0, eps)
    if x.is_contiguous() and region.channel_axis == 1 and x.ndim > 2:
        return Standardized(torch.native_batch_norm(x, *remembered)[0], running_mean, running_var)
    last = x.movedim(region.channel_axis, -1)
    if not last.is_contiguous():
        return None
    flat = last.reshape(-1, region.count)
    origin = flat.detach().mean(0)  # here the kernel loses digits to a large mean, unless it is taken out first
    y = torch.native_batch_norm(flat - origin, *remembered)[0].reshape(last.shape)
    return Standardized(y.movedim(-1, region.channel_axis), running_mean + origin, running_var)
