"""Graph normalization: instance normalization over the nodes of a graph that learns how much of the mean to remove."""

from torch import Tensor

from normcore.core import (
    GAIN_AND_BIAS,
    WITH_POSITIONS,
    Bound,
    Epsilon,
    Identity,
    Later,
    Method,
    Normed,
    Paper,
    Region,
    Slot,
    along_channels,
    cast,
    rescale,
    subtract_mean,
    widen,
)


def graph_norm(
    x: Tensor,
    channel: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    mean_scale: Tensor | None = None,
    eps: Epsilon = 1e-5,
) -> Normed:
    """Subtracts a learned share of each channel's mean over one graph, and divides by the root mean square of the rest.

    One sample is one graph, its positions or tokens are the nodes. The rest is not centered again before it is
    squared: with a share of 1, the default, its mean square is the population's variance (divided by n). ε stands
    inside the root.

    Shapes: x (n c l), (n c h w), (n c d h w) or (n t c); weight, bias and mean_scale (c).
    Source: Cai, Luo, Xu, He, Liu and Wang 2020, arXiv:2009.03294.
    """
    wide = widen(x)
    share, moves = wide.new_ones(()), channel.mean(wide)
    rest, mean = subtract_mean(wide, channel)
    if mean_scale is not None:
        share = along_channels(cast(mean_scale, wide.dtype), channel)
        mean = mean + (moves - moves.detach())  # exact to more digits, and moving as the other does
        rest = rest + (1 - share) * channel.spread(mean)
    y, stats = rescale(rest, channel, eps, weight, bias)
    ways = {
        "mean": lambda: channel.spread(mean),
        "share": lambda: share,
        "rest_square": lambda: stats["mean_square"],
    }
    return Normed(cast(y, x.dtype), Later(ways))


METHOD = Method(
    fn=graph_norm,
    name="GraphNorm",
    regions=tuple(Region(f"{axes} -> n c") for axes in WITH_POSITIONS),
    paper=Paper(
        "Tianle Cai, Shengjie Luo, Keyulu Xu, Di He, Tie-Yan Liu, Liwei Wang",
        "GraphNorm: A Principled Approach to Accelerating Graph Neural Network Training",
        2020,
        "2009.03294",
    ),
    why="Graphs in a batch differ so much that BatchNorm is too noisy for them, and InstanceNorm removes a mean that "
    "can tell what the graph looks like. Learning the share that is removed keeps what is worth keeping.",
    formula=r"\frac{<x> - <share> \cdot <mean>}{\sqrt{<rest_square> + <eps>}}",
    pytorch="share = torch.ones({column})  # learned\n"
    "rest = x - share * x.mean(dim={reduced}, keepdim=True)\n"
    "y = rest / torch.sqrt(rest.square().mean(dim={reduced}, keepdim=True) + {eps})",
    affine={**GAIN_AND_BIAS, "mean_scale": Slot("c", 1.0)},
    invariant_to=frozenset({"scale", "shift"}),
    equals=(Identity("instance_norm"),),
    builds_on=("instance_norm", "batch_norm"),
)
