"""EvoNorm-S2: the swish x·sigmoid(x) over the root mean square of its group of channels."""

from torch import Tensor
from torch.nn import functional

from normcore.core import GAIN_AND_BIAS, Bound, Epsilon, Groups, Method, Normed, Paper, Region, affine, cast, widen


def evo_norm_s2(
    x: Tensor,
    groups: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    num_groups: Groups = 2,
    eps: Epsilon = 1e-5,
) -> Normed:
    """Divides ``x * sigmoid(x)`` by the root of the mean square of its group of channels.

    No mean is taken out, neither of the values nor of their squares. ε stands inside the root. Activation and
    normalization are one: no ReLU follows. The paper uses 32 groups.

    Shapes: x (n c l), (n c h w) or (n c d h w); weight and bias (c).
    Source: Liu, Brock, Simonyan and Le 2020, arXiv:2004.02967.
    """
    wide = widen(x)
    mean_square = groups.spread(groups.mean(wide.square()))
    swish = functional.silu(wide)
    y = affine(swish, groups, weight, bias, (mean_square + eps).rsqrt())
    return Normed(cast(y, x.dtype), {"mean_square": mean_square.detach()})


METHOD = Method(
    fn=evo_norm_s2,
    name="EvoNorm-S2",
    regions=(Region("n (g k) l -> n g"), Region("n (g k) h w -> n g"), Region("n (g k) d h w -> n g")),
    paper=Paper(
        "Hanxiao Liu, Andrew Brock, Karen Simonyan, Quoc V. Le",
        "Evolving Normalization-Activation Layers",
        2020,
        "2004.02967",
    ),
    why="The search that found EvoNorm-S0 also asked what of it matters: this one measures the group without "
    "centering, by its root mean square.",
    formula=r"\frac{<x>}{(1 + e^{-<x>}) \cdot \sqrt{<mean_square> + <eps>}}",
    pytorch=(
        "square = x.square().reshape({n}, {num_groups}, -1).mean(-1, keepdim=True)\n"
        "y = (torch.nn.functional.silu(x).reshape({n}, {num_groups}, -1) / torch.sqrt(square + {eps})).reshape(x.shape)"
    ),
    sizes={"g": "num_groups"},
    affine=GAIN_AND_BIAS,
    builds_on=("group_norm",),
)
