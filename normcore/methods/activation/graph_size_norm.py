"""Graph size normalization: every node is divided by the root of the number of nodes."""

from torch import Tensor

from normcore.core import LETTERS, Method, Normed, Paper, widen


def graph_size_norm(x: Tensor, *, layout: str = "image") -> Normed:
    """Divides all features by the root of the number of nodes in their graph: ``x / sqrt(nodes)``.

    One sample is one graph, its positions or tokens are the nodes; a vector is a single node, and stays as it is. No
    statistic is computed, so that neither ε nor a variance plays a part.

    Shapes: x (n c), (n c ...) or (n t c).
    Source: Dwivedi, Joshi, Luu, Laurent, Bengio and Bresson 2020, arXiv:2003.00982.
    """
    nodes = x[0].numel() // x.shape[LETTERS[layout].index("c")]
    wide = widen(x)
    return Normed((wide / nodes**0.5).to(x.dtype), {"nodes": wide.new_full((), nodes)})


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
    why="In a batch of graphs of very different sizes, features that sum over a graph differ as much. Dividing by the "
    "root of the size brings them to one scale before a BatchNorm looks at all of them.",
    formula=r"\frac{<x>}{\sqrt{<nodes>}}",
    pytorch="nodes = x[0].numel() // {c}\ny = x / nodes**0.5",
    builds_on=("batch_norm",),
)
