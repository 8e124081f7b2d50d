"""Batch-instance normalization: each channel learns how much of BatchNorm and how much of InstanceNorm it wants.

Longer than most: two norms are mixed, and only one of them has running statistics.
"""

from collections.abc import Mapping

from torch import Tensor

from normcore.core import (
    EMPTY,
    GAIN_AND_BIAS,
    RUNNING,
    Bound,
    Epsilon,
    Method,
    Momentum,
    Normed,
    Paper,
    Region,
    Slot,
    affine,
    along_channels,
    apply_running,
    cast,
    or_number,
    standardize,
    track,
    widen,
)

LAYOUTS = ("n c l", "n c h w", "n c d h w")


def batch_instance_norm(
    x: Tensor,
    batch: Bound,
    instance: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    rho: Tensor | None = None,
    state: Mapping[str, Tensor] = EMPTY,
    training: bool = True,
    eps: Epsilon = 1e-5,
    momentum: Momentum = 0.1,
    track_running_stats: bool = True,
) -> Normed:
    """Mixes the outputs of BatchNorm and InstanceNorm: ``(rho * batch + (1 - rho) * instance) * weight + bias``.

    Left out, `rho` is 1, which is BatchNorm. The paper keeps it in [0, 1] by clipping it after each step of the
    optimizer, and so must the training loop: ``with torch.no_grad(): layer.rho.clamp_(0, 1)``. Variances are the
    population's (divided by n), ε stands inside the roots; in evaluation BatchNorm's part takes its running statistics.

    Shapes: x (n c l), (n c h w) or (n c d h w); weight, bias and rho (c); running_mean and running_var (c).
    Source: Nam and Kim 2018, arXiv:1805.07925.
    """
    wide = widen(x)
    if track_running_stats and not training:
        by_batch, used = apply_running(wide, batch, state, eps, None, None)
    else:
        by_batch, used = standardize(wide, batch, eps)
        state = track(state, batch, used, momentum) if track_running_stats else state
    by_instance, own = standardize(wide, instance, eps)
    share = along_channels(or_number(rho, 1.0, wide), batch)
    y = affine(share * by_batch + (1 - share) * by_instance, batch, weight, bias)
    stats = {**used, "instance_mean": own["mean"], "instance_var": own["var"], "batch_share": share.detach()}
    return Normed(cast(y, x.dtype), stats, state)


METHOD = Method(
    fn=batch_instance_norm,
    name="Batch-Instance Norm",
    regions=(
        *(Region(f"{axes} -> c", running=True) for axes in LAYOUTS),
        *(Region(f"{axes} -> n c") for axes in LAYOUTS),
    ),
    paper=Paper(
        "Hyeonseob Nam, Hyo-Eun Kim",
        "Batch-Instance Normalization for Adaptively Style-Invariant Neural Networks",
        2018,
        "1805.07925",
    ),
    why="InstanceNorm removes a picture's style, and with it contrast that a classifier needs; BatchNorm keeps both. "
    "Let each channel learn which style is a disturbance and which is information.",
    formula=r"<batch_share> \cdot \frac{<x> - <mean>}{\sqrt{<var> + <eps>}} + "
    r"(1 - <batch_share>) \cdot \frac{<x> - <instance_mean>}{\sqrt{<instance_var> + <eps>}}",
    pytorch="weight, bias = torch.ones({column}), torch.zeros({column})  # learned\n"
    "rho = torch.ones({column})  # learned, and clipped to [0, 1] after each step\n"
    "norm = torch.nn.BatchNorm{nd}({c}, eps={eps}, momentum={momentum}, affine=False, "
    "track_running_stats={track_running_stats}).train({training})\n"
    "y = rho * norm(x) + (1 - rho) * torch.nn.functional.instance_norm(x, eps={eps})\n"
    "y = weight * y + bias",
    affine={**GAIN_AND_BIAS, "rho": Slot("c", 1.0)},
    state=RUNNING,
    invariant_to=frozenset({"scale", "shift"}),
    builds_on=("batch_norm", "instance_norm"),
)
