"""Mean subtraction: every channel loses its mean over the nodes of its graph."""

from torch import Tensor

from normcore.core import WITH_POSITIONS, Bound, Method, Normed, Paper, Region, cast, subtract_mean, widen


def mean_subtraction_norm(x: Tensor, channel: Bound) -> Normed:
    """Subtracts each channel's mean over the nodes of one graph, and divides by nothing.

    One sample is one graph, its positions or tokens are the nodes. There is no variance, no ε, no gain and no bias.

    Shapes: x (n c l), (n c h w), (n c d h w) or (n t c).
    Source: Yang, Wang, Yao, Liu and Abdelzaher 2020, arXiv:2003.13663.
    """
    y, mean = subtract_mean(widen(x), channel)
    return Normed(cast(y, x.dtype), {"mean": channel.spread(mean)})


METHOD = Method(
    fn=mean_subtraction_norm,
    name="Mean Subtraction",
    regions=tuple(Region(f"{axes} -> n c") for axes in WITH_POSITIONS),
    paper=Paper(
        "Chaoqi Yang, Ruijie Wang, Shuochao Yao, Shengzhong Liu, Tarek Abdelzaher",
        "Revisiting Over-smoothing in Deep GCNs",
        2020,
        "2003.13663",
    ),
    why="Every graph convolution averages neighbours, until all nodes say the same. What they come to share is their "
    "mean: taken out layer by layer, the differences are what is left to grow.",
    formula="<x> - <mean>",
    pytorch="y = x - x.mean(dim={reduced}, keepdim=True)",
    invariant_to=frozenset({"shift"}),
    builds_on=("instance_norm",),
)
