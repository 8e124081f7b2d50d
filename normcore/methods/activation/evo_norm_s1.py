"""EvoNorm-S1: the swish x·sigmoid(x) over the standard deviation of its group of channels."""

from torch import Tensor
from torch.nn import functional

from normcore.core import (
    GAIN_AND_BIAS,
    Bound,
    Epsilon,
    Groups,
    Method,
    Normed,
    Paper,
    Region,
    affine,
    cast,
    own_variance,
    widen,
)


def evo_norm_s1(
    x: Tensor,
    groups: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    num_groups: Groups = 2,
    eps: Epsilon = 1e-5,
) -> Normed:
    """Divides ``x * sigmoid(x)`` by the standard deviation of its group of channels; no mean is subtracted.

    This is EvoNorm-S0 with its slope v fixed at 1. The variance is the population's (divided by n), ε stands inside the
    root. Activation and normalization are one: no ReLU follows. The paper uses 32 groups.

    Shapes: x (n c l), (n c h w) or (n c d h w); weight and bias (c).
    Source: Liu, Brock, Simonyan and Le 2020, arXiv:2004.02967.
    """
    wide = widen(x)
    var = groups.spread(own_variance(wide, groups))
    swish = functional.silu(wide)
    y = affine(swish, groups, weight, bias, (var + eps).rsqrt())
    return Normed(cast(y, x.dtype), {"var": var.detach()})


METHOD = Method(
    fn=evo_norm_s1,
    name="EvoNorm-S1",
    regions=(Region("n (g k) l -> n g"), Region("n (g k) h w -> n g"), Region("n (g k) d h w -> n g")),
    paper=Paper(
        "Hanxiao Liu, Andrew Brock, Karen Simonyan, Quoc V. Le",
        "Evolving Normalization-Activation Layers",
        2020,
        "2004.02967",
    ),
    why="The search that found EvoNorm-S0 also asked what of it matters: this one does without the learned slope in "
    "the sigmoid.",
    formula=r"\frac{<x>}{(1 + e^{-<x>}) \cdot \sqrt{<var> + <eps>}}",
    pytorch=(
        "std = torch.sqrt(x.reshape({n}, {num_groups}, -1).var(-1, unbiased=False, keepdim=True) + {eps})\n"
        "y = (torch.nn.functional.silu(x).reshape({n}, {num_groups}, -1) / std).reshape(x.shape)"
    ),
    sizes={"g": "num_groups"},
    affine=GAIN_AND_BIAS,
    builds_on=("group_norm",),
)
