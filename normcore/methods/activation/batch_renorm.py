"""Batch renormalization: batch statistics, corrected towards the running ones that evaluation will use.

Longer than most: training and evaluation have different formulas, and each is given in PyTorch too.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from torch import Tensor

from normcore.core import (
    EMPTY,
    GAIN_AND_BIAS,
    RUNNING,
    Bound,
    Epsilon,
    Identity,
    Method,
    Momentum,
    Normed,
    Paper,
    Range,
    Region,
    affine,
    along_channels,
    apply_running,
    as_it_was,
    beside,
    cast,
    multiply_add,
    standardize,
    track,
    widen,
)


def batch_renorm(
    x: Tensor,
    batch: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    state: Mapping[str, Tensor] = EMPTY,
    training: bool = True,
    rmax: Annotated[float, Range(1.0, usual=(1.0, 5.0), infinite=True)] = 3.0,
    dmax: Annotated[float, Range(0.0, usual=(0.0, 10.0), infinite=True)] = 5.0,
    eps: Epsilon = 1e-5,
    momentum: Momentum = 0.01,
) -> Normed:
    """Normalizes with the batch's statistics, then scales by r and shifts by d towards the running statistics.

    ``y = weight * ((x - mean) / std * r + d) + bias`` with ``r = std / running std`` within [1/rmax, rmax] and
    ``d = (mean - running mean) / running std`` within [-dmax, dmax], both from the state before this batch and both
    constants in the gradient. Where nothing is clipped, training gives the values of evaluation. ε stands inside both
    roots; the batch's variance divides by n. The paper averages the standard deviation; here the state is BatchNorm's,
    an average of n - 1 variances, so that a trained BatchNorm can go on with it. The paper starts with rmax = 1 and
    dmax = 0, which is BatchNorm, and lets them grow to 3 and 5.

    Shapes: x (n c ...) or (n t c); weight and bias (c); running_mean and running_var (c).
    Source: Ioffe 2017, arXiv:1702.03275.
    """
    wide = widen(x)
    if not training:
        y, used = apply_running(x, batch, state, eps, weight, bias)
        none = {"scale_correction": wide.new_ones(()), "shift_correction": wide.new_zeros(())}
        return Normed(y, {**used, **none}, state)
    y, stats = standardize(wide, batch, eps)
    state = as_it_was(state)
    running_mean, running_var = (
        along_channels(cast(state[k], wide.dtype), batch) for k in ("running_mean", "running_var")
    )
    running_std = (running_var + eps).sqrt()
    r = ((stats["var"] + eps).sqrt() / running_std).clamp(1 / rmax, rmax)
    d = ((stats["mean"] - running_mean) / running_std).clamp(-dmax, dmax)
    gain, shift = affine(r, batch, weight, None), affine(d, batch, weight, bias)
    state = track(state, batch, stats, momentum)
    corrections = {"scale_correction": lambda: r, "shift_correction": lambda: d}
    return Normed(cast(multiply_add(y, gain, shift), x.dtype), beside(stats, **corrections), state)


def _pytorch(settings: Mapping[str, Any]) -> str:
    if not settings["training"]:
        return "norm = torch.nn.BatchNorm{nd}({c}, eps={eps}).eval()\ny = norm({x}){back}"
    return """mean, var = x.mean({reduced}, keepdim=True), x.var({reduced}, unbiased=False, keepdim=True)
running_mean, running_std = 0.0, (1 + {eps}) ** 0.5  # those of a new layer
std = torch.sqrt(var + {eps})
r = (std / running_std).clamp(1 / {rmax}, {rmax}).detach()
d = ((mean - running_mean) / running_std).clamp(-{dmax}, {dmax}).detach()
y = (x - mean) / std * r + d"""


METHOD = Method(
    fn=batch_renorm,
    name="Batch Renorm",
    regions=(Region("n c ... -> c", running=True), Region("n t c -> c", running=True)),
    paper=Paper(
        "Sergey Ioffe",
        "Batch Renormalization: Towards Reducing Minibatch Dependence in Batch-Normalized Models",
        2017,
        "1702.03275",
    ),
    why="With small batches, or batches whose samples belong together, BatchNorm trains on other statistics than it is "
    "used with. Correcting towards the running ones makes training see what evaluation will see.",
    formula=r"\frac{<x> - <mean>}{\sqrt{<var> + <eps>}} \cdot <scale_correction> + <shift_correction>",
    pytorch=_pytorch,
    affine=GAIN_AND_BIAS,
    state=RUNNING,
    equals=(Identity("batch_norm", {"rmax": 1.0, "dmax": 0.0}),),
    builds_on=("batch_norm",),
)
