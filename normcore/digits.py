"""What goes wrong with the digits of a tensor: lost in computing, missing in the input, beyond a format's range."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from normcore.core import Bound, shift_away, widen
from normcore.finding import Case, Finding, moments

ERROR = 1e-3
"""From this error on, in units of an output of deviation 1, lost digits are worth a word."""

FAR = 1e3
"""From this ratio of mean to deviation on, lost digits are laid to the mean."""

COARSE = 0.1
"""From this share of the deviation on, the spacing of the input's own numbers is worth a word."""


def digits_lost(case: Case) -> list[Finding]:
    """Digits that the computation loses to a mean far above the deviation."""
    wide = widen(case.x)
    if wide.dtype is torch.float64 or not case.centers:
        return []
    regions = [bound for bound in case.bounds if isinstance(bound, Bound) and bound.size > 1]
    ratio = max((_ratio(region, wide) for region in regions), default=0.0)
    if ratio < FAR:
        return []
    exact = case.run(wide.double())
    error = float((case.run(wide).double() - exact).abs().max())
    if not error > ERROR:
        return []
    shifted = float((case.run(shift_away(wide, case.bounds)[0]).double() - exact).abs().max())
    mends = shifted < error / 10 and case.norm.family == "activation"
    return [
        Finding(
            f"The mean is up to {ratio:,.0f} times the deviation, and float32 loses digits to it: the output is off by "
            f"up to {error:.1g}.",
            f"normcore.layer({case.norm.key!r}, ..., shift_first=True) subtracts a value of each region first: off by "
            f"{shifted:.1g}."
            if mends
            else "Subtract a constant near the mean before this method.",
            "digits",
        )
    ]


def digits_lost_to_memory(module: nn.Module, key: str, x: Tensor) -> list[Finding]:
    """Digits that a layer of PyTorch's loses to a large mean where axes do not lie in memory in their order."""
    kernel: Callable[[Tensor], Tensor]
    if x.dtype is not torch.float32 or x.is_contiguous():
        return []
    if isinstance(module, nn.GroupNorm):
        kernel = partial(functional.group_norm, num_groups=module.num_groups, eps=module.eps)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        kernel = partial(functional.batch_norm, running_mean=None, running_var=None, training=True, eps=module.eps)
    else:
        return []
    exact = kernel(x.double().contiguous())
    error, usual = (float((kernel(each).double() - exact).abs().max()) for each in (x, x.contiguous()))
    if not (error > ERROR and usual < error / 10):
        return []
    return [
        Finding(
            "Its input does not lie in memory in the order of its axes (channels come last, say), and PyTorch's kernel "
            f"for that loses digits to a large mean: the output is off by up to {error:.1g}, else by {usual:.1g}.",
            f"Give it x.contiguous(), or normcore.layer({key!r}, ...) in its place, which keeps them in any order.",
            "digits",
        )
    ]


def _ratio(region: Bound, x: Tensor) -> float:
    """The largest mean in deviations, among regions that are not constant."""
    mean, deviation = moments(region, x)
    spread = deviation > 0
    return float((mean.abs() / torch.where(spread, deviation, math.inf)).max())


def coarse_input(case: Case) -> list[Finding]:
    """Input whose numbers lie too far apart for its spread."""
    region = case.region
    if region is None or region.size == 1 or not case.centers:
        return []
    mean, deviation = moments(region, case.x)
    exponent = mean.abs().clamp_min(torch.finfo(case.x.dtype).tiny).log2().floor()
    spacing = torch.finfo(case.x.dtype).eps * exponent.exp2()
    coarse = (spacing > COARSE * deviation) & (deviation > 0)
    if not bool(coarse.any()):
        return []
    worst = int((spacing / deviation.clamp_min(1e-300) * coarse).argmax())
    name = str(case.x.dtype).removeprefix("torch.")
    return [
        Finding(
            f"Near {float(mean.flatten()[worst]):,.6g}, the mean of a region, {name} numbers lie "
            f"{float(spacing.flatten()[worst]):.2g} apart, and its deviation is {float(deviation.flatten()[worst]):.2g}"
            ": the input holds nothing finer.",
            f"Subtract the mean before the values are rounded to {name}, or keep them in a wider format.",
            "coarse",
        )
    ]


def squares_beyond_half(case: Case) -> list[Finding]:
    """Squares beyond the largest float16."""
    largest, limit = float(case.x.abs().max()), torch.finfo(torch.float16).max
    if case.x.dtype is not torch.float16 or largest**2 <= limit or not case.norm.regions:
        return []
    return [
        Finding(
            f"The square of the largest value, {largest:,.5g}, is more than float16 holds ({limit:,.0f}). Statistics "
            "here are float32 and stand it; a sum of squares in float16 would be infinite.",
            "In code of your own, square x.float().",
            "range",
        )
    ]
