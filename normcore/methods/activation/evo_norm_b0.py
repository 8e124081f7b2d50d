"""EvoNorm-B0: the batch's standard deviation, or the sample's own plus the value, whichever is larger.

Longer than most: two statistics, one of them remembered, and PyTorch code for training and for evaluation.
"""

from collections.abc import Mapping
from typing import Any

import torch
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
    cast,
    own_variance,
    remembered_variance,
    widen,
)

LAYOUTS = ("n c l", "n c h w", "n c d h w")


def evo_norm_b0(
    x: Tensor,
    batch: Bound,
    instance: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    v: Tensor | None = None,
    state: Mapping[str, Tensor] = EMPTY,
    training: bool = True,
    eps: Epsilon = 1e-5,
    momentum: Momentum = 0.1,
    track_running_stats: bool = True,
) -> Normed:
    """Divides by the channel's standard deviation over the batch, or by ``v * x`` plus that over the sample alone.

    The larger divisor wins, which takes the place of an activation: no ReLU follows. Both variances are the
    population's (divided by n), ε stands inside the roots. In evaluation the batch's comes from a running average that
    remembers the n - 1 estimate, as BatchNorm's does. A `v` that is left out is 1.

    Shapes: x (n c l), (n c h w) or (n c d h w); weight, bias and v (c); running_var (c).
    Source: Liu, Brock, Simonyan and Le 2020, arXiv:2004.02967.
    """
    wide = widen(x)
    used, state = remembered_variance(wide, batch, state, training, track_running_stats, momentum)
    (batch_var,) = used.values()
    instance_var = instance.spread(own_variance(wide, instance))
    slope = 1.0 if v is None else along_channels(cast(v, wide.dtype), batch)
    divisor = torch.maximum((batch_var + eps).sqrt(), slope * wide + (instance_var + eps).sqrt())
    stats = {**used, "instance_var": instance_var}
    y = cast(affine(wide / divisor, batch, weight, bias), x.dtype)
    return Normed(y, {name: value.detach() for name, value in stats.items()}, state)


def _pytorch(settings: Mapping[str, Any]) -> str:
    if settings["track_running_stats"] and not settings["training"]:
        var = "torch.ones({column})  # the running variance of a new layer"
    else:
        var = "x.transpose(0, 1).flatten(1).var(1, unbiased=False).reshape({column})"
    return f"""var = {var}
v = torch.ones({{column}})  # learned
other = v * x + torch.sqrt(x.var({{space}}, unbiased=False, keepdim=True) + {{eps}})
y = x / torch.maximum(torch.sqrt(var + {{eps}}), other)"""


METHOD = Method(
    fn=evo_norm_b0,
    name="EvoNorm-B0",
    regions=(
        *(Region(f"{axes} -> c", running=True) for axes in LAYOUTS),
        *(Region(f"{axes} -> n c") for axes in LAYOUTS),
    ),
    paper=Paper(
        "Hanxiao Liu, Andrew Brock, Karen Simonyan, Quoc V. Le",
        "Evolving Normalization-Activation Layers",
        2020,
        "2004.02967",
    ),
    why="BatchNorm and the ReLU after it were designed apart. A search over formulas that mix both found this one, in "
    "which the spread of the batch and that of the sample compete to divide.",
    formula=r"\frac{<x>}{\max(\sqrt{<var> + <eps>}, <x> + \sqrt{<instance_var> + <eps>})}",
    pytorch=_pytorch,
    affine={**GAIN_AND_BIAS, "v": Slot("c", 1.0)},
    state={name: RUNNING[name] for name in ("running_var", "num_batches_tracked")},
    invariant_to=frozenset({"scale"}),
    builds_on=("batch_norm",),
)
