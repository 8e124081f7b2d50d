"""Graph size normalization: every node is divided by the root of how many nodes its graph has."""

import math

from torch import Tensor

from normcore.core import LETTERS, Method, Normed, Paper, widen


def graph_size_norm(x: Tensor, *, layout: str = "tokens") -> Normed:
    """Divides everything by the root of the number of nodes: ``x / sqrt(nodes)``.

    One sample is one graph, its positions or tokens are the nodes; a sample without positions is a graph of one node.
    There is no mean, no variance, no ε, no gain and no bias: where all graphs are of one size, it is a constant factor.

    Shapes: x (n c), (n c l), (n c h w), (n c d h w) or (n t c).
    Source: Dwivedi, Joshi, Luu, Laurent, Bengio and Bresson 2020, arXiv:2003.00982.
    """
    wide = widen(x)
    nodes = wide.new_full((), math.prod(x.shape) // (x.shape[0] * x.shape[LETTERS[layout].index("c")]))
    return Normed((wide / nodes.sqrt()).to(x.dtype), {"nodes": nodes})


METHOD = Method(
    fn=graph_size_norm,
    name="Graph Size Norm",
    regions=(),
    paper=Paper(
        "Vijay Prakash Dwivedi, Chaitanya K. Joshi, Anh Tuan Luu, Thomas Laurent, Yoshua Bengio, Xavier Bresson",
        "Benchmarking Graph Neural Networks",
        2020,
        "2003.00982",
    ),
    why="The graphs of a batch differ in size. Divided by its root before BatchNorm takes its statistics over all of "
    "their nodes, small and large graphs count alike: without that the largest ones decide.",
    formula=r"\frac{<x>}{\sqrt{<nodes>}}",
    pytorch="nodes = x[0].numel() // {c}\ny = x / nodes**0.5",
    builds_on=("batch_norm",),
)
