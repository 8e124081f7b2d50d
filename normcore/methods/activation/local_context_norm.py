"""Local context normalization: group normalization within a window around each position."""

from typing import Annotated

from torch import Tensor, tensor

from normcore.core import GAIN_AND_BIAS, Divides, Epsilon, Method, Normed, Paper, Range, Window, affine, cast, widen


def local_context_norm(
    x: Tensor,
    near: Window,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    window: Annotated[int, Range(1, usual=(1, 9), integer=True)] = 227,
    channels_per_group: Annotated[int, Divides("c", "group", "channel", counts_members=True)] = 2,
    eps: Epsilon = 1e-5,
) -> Normed:
    """Subtracts the mean of a window and channel group around each value and divides by the standard deviation there.

    The window is moved inward at the borders, so that it is always full; one that is larger than the map makes this
    GroupNorm. (The authors' code repeats the statistics of the outermost full windows, which is the same border rule;
    its windows lie one step further on.) The variance divides by n, ε stands inside the root, gradients flow through
    the statistics; with small maps the authors' code takes n - 1, with large ones it stops those gradients.

    Shapes: x (n c l), (n c h w) or (n c d h w); weight and bias (c).
    Source: Ortiz, Robinson, Morris, Fuentes, Kiekintveld, Hassan and Jojic 2019, arXiv:1912.05845.
    """
    wide = widen(x)
    origin = wide.detach().mean(tuple(range(1, x.ndim)), keepdim=True)  # a large mean would cost digits
    moved = wide - origin
    groups = moved.unflatten(1, (-1, channels_per_group))
    mean, var = groups.mean(2), groups.var(2, correction=0)
    for axis in range(2, x.ndim):  # the variance of a window: within its lines, and between their means
        extent, places = min(window, x.shape[axis]), range(x.shape[axis])
        lines = mean.unfold(axis, extent, 1)
        var = var.unfold(axis, extent, 1).mean(-1) + lines.var(-1, correction=0)
        starts = tensor([near.span(axis, i)[0] for i in places], device=x.device)
        mean, var = (statistic.index_select(axis, starts) for statistic in (lines.mean(-1), var))
    mean, var = (statistic.repeat_interleave(channels_per_group, 1) for statistic in (mean, var))
    y = affine(moved - mean, near.axes, weight, bias, (var + eps).rsqrt())
    return Normed(cast(y, x.dtype), {"window_mean": (mean + origin).detach(), "window_var": var.detach()})


METHOD = Method(
    fn=local_context_norm,
    name="Local Context Norm",
    regions=tuple(
        Window(axes, {"k": "channels_per_group", "...": "window"}, inside=True)
        for axes in ("n (g k) l", "n (g k) h w", "n (g k) d h w")
    ),
    paper=Paper(
        "Anthony Ortiz, Caleb Robinson, Dan Morris, Olac Fuentes, Christopher Kiekintveld, Md Mahmudulla Hassan, "
        "Nebojsa Jojic",
        "Local Context Normalization: Revisiting Local Normalization",
        2019,
        "1912.05845",
    ),
    why="In detection and segmentation, what lies far off in a large image should not change a feature here. A window "
    "keeps GroupNorm's statistics local.",
    formula=r"\frac{<x> - <window_mean>}{\sqrt{<window_var> + <eps>}}",
    pytorch="group = {channels_per_group}\n"
    "windows = x.unflatten(1, (-1, group))\n"
    "for axis in range(2, x.ndim):\n"
    "    windows = windows.unfold(axis + 1, min({window}, x.shape[axis]), 1)\n"
    "inner = (2, *range(x.ndim + 1, windows.ndim))\n"
    "mean, var = windows.mean(inner), windows.var(inner, correction=0)\n"
    "for axis in range(2, x.ndim):\n"
    "    nearest = (torch.arange(x.shape[axis]) - {window} // 2).clamp(0, mean.shape[axis] - 1)\n"
    "    mean, var = mean.index_select(axis, nearest), var.index_select(axis, nearest)\n"
    "mean, var = mean.repeat_interleave(group, 1), var.repeat_interleave(group, 1)\n"
    "y = (x - mean) / torch.sqrt(var + {eps})",
    affine=GAIN_AND_BIAS,
    sizes={"k": "channels_per_group"},
    invariant_to=frozenset({"scale", "shift"}),
    builds_on=("group_norm",),
)
