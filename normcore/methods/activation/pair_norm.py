"""Pair normalization: the mean squared distance between the nodes of a graph stays the same in every layer."""

import math
from typing import Annotated

from torch import Tensor

from normcore.core import (
    WITH_POSITIONS,
    Bound,
    Epsilon,
    Later,
    Method,
    Normed,
    Paper,
    Range,
    Region,
    cast,
    rescale,
    subtract_mean,
    widen,
)


def pair_norm(
    x: Tensor,
    channel: Bound,
    graph: Bound,
    *,
    scale: Annotated[float, Range(0.0, usual=(0.1, 10.0))] = 1.0,
    eps: Epsilon = 1e-5,
) -> Normed:
    """Centers each channel over the nodes of one graph, and divides by the root of the nodes' mean squared length.

    ``y = scale * centered / sqrt(mean over the nodes of |centered|² + eps)``, where the length of a node is taken over
    its channels, and ε stands inside the root. One sample is one graph, its positions or tokens are the nodes.

    Shapes: x (n c l), (n c h w), (n c d h w) or (n t c).
    Source: Zhao and Akoglu 2019, arXiv:1909.12223; ε and its place as in PyTorch Geometric.
    """
    centered, mean = subtract_mean(widen(x), channel)
    channels = graph.size // channel.size  # a squared length has so many squares
    y, stats = rescale(centered, graph, eps / channels, centered.new_full((), scale / math.sqrt(channels)))
    ways = {"mean": lambda: channel.spread(mean), "mean_square_length": lambda: channels * stats["mean_square"]}
    return Normed(cast(y, x.dtype), Later(ways))


METHOD = Method(
    fn=pair_norm,
    name="PairNorm",
    regions=(
        *(Region(f"{axes} -> n c") for axes in WITH_POSITIONS),
        *(Region(f"{axes} -> n") for axes in WITH_POSITIONS),
    ),
    paper=Paper("Lingxiao Zhao, Leman Akoglu", "PairNorm: Tackling Oversmoothing in GNNs", 2019, "1909.12223"),
    why="The more graph convolutions, the closer all nodes come to each other, until nothing tells them apart. With "
    "the mean squared distance between pairs held constant they cannot all meet, in a network of any depth.",
    formula=r"<scale> \cdot \frac{<x> - <mean>}{\sqrt{<mean_square_length> + <eps>}}",
    pytorch="centered = x - x.mean(dim={space}, keepdim=True)\n"
    "square = centered.square().sum(dim={channel}, keepdim=True).mean(dim={space}, keepdim=True)\n"
    "y = {scale} * centered / torch.sqrt(square + {eps})",
    invariant_to=frozenset({"scale", "shift", "channel shift"}),
    builds_on=("layer_norm", "batch_norm"),
)
