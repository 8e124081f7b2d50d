"""Graph size normalization: the features of a node are divided by the root of how many nodes its graph has."""

import torch
from torch import Tensor

from normcore.core import LETTERS, Method, Normed, Paper, Slot, cast, widen


def graph_size_norm(x: Tensor, *, mask: Tensor | None = None, layout: str) -> Normed:
    """Divides every node by the root of the number of nodes in its graph: ``x / sqrt(nodes)``.

    One sample is one graph, its positions or tokens are the nodes: those where the mask is True, all without a mask.
    What is masked is divided all the same; a graph without nodes stays as it is. Nothing is computed from the values:
    there is no ε, no gain and no bias.

    Shapes: x (n c ...) or (n t c); mask (n ...) or (n t).
    Source: Dwivedi, Joshi, Luu, Laurent, Bengio and Bresson 2020, arXiv:2003.00982.
    """
    wide = widen(x)
    if mask is None:
        nodes = wide.new_full((), x.numel() // (x.shape[0] * x.shape[LETTERS[layout].index("c")]))
    else:
        counted = cast(mask, wide.dtype).reshape(len(mask), -1).sum(1)
        nodes = counted.clamp_min(1).reshape(-1, *(1,) * (x.ndim - 1))
    return Normed(cast(wide * nodes.rsqrt(), x.dtype), {"nodes": nodes})


METHOD = Method(
    fn=graph_size_norm,
    name="GraphSizeNorm",
    regions=(),
    paper=Paper(
        "Vijay Prakash Dwivedi, Chaitanya K. Joshi, Anh Tuan Luu, Thomas Laurent, Yoshua Bengio, Xavier Bresson",
        "Benchmarking Graph Neural Networks",
        2020,
        "2003.00982",
    ),
    why="Sums over the nodes of a graph grow with its size, so that large and small graphs disagree about how large "
    "features are, and a batch norm after them is led by the large ones.",
    formula=r"\frac{<x>}{\sqrt{<nodes>}}",
    pytorch="nodes = x[0].numel() // x.shape[{channel}]  # without a mask\ny = x / nodes**0.5",
    context={"mask": Slot("positions", dtype=torch.bool)},
    builds_on=("batch_norm",),
)
