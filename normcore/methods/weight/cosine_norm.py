"""Cosine normalization: a unit answers with the cosine between its weights and its input."""

from typing import Annotated

from torch import Tensor

from normcore.core import Bound, Epsilon, Identity, Method, Normed, Paper, Range, Region, normalize, widen


def cosine_norm(
    weight: Tensor,
    unit: Bound,
    *,
    scale: Annotated[float, Range(0.0, usual=(0.5, 20.0))] = 1.0,
    eps: Epsilon = 0.0,
) -> Normed:
    """Divides the weights of each output unit by their L2 norm: the weights' half of cosine normalization.

    The paper replaces the product ``w · x`` by ``w · x / (‖w‖ ‖x‖)``, which lies between -1 and 1. This is ``w / ‖w‖``;
    the other half, ``x / ‖x‖``, is the method "l2_norm" on the layer's input (for a convolution the norm of each
    patch). The bias is left out. `scale`, 1 in the paper, widens the range; ε is added to the norm.

    Shapes: weight (o i ...).
    Source: Luo, Zhan, Wang and Yang 2017, arXiv:1702.05870.
    """
    return Normed(*normalize(weight, unit, eps, widen(weight).new_full((), scale)))


METHOD = Method(
    fn=cosine_norm,
    name="Cosine Normalization",
    regions=(Region("o i ... -> o"),),
    paper=Paper(
        "Chunjie Luo, Jianfeng Zhan, Lei Wang, Qiang Yang",
        "Cosine Normalization: Using Cosine Similarity Instead of Dot Product in Neural Networks",
        2017,
        "1702.05870",
    ),
    why="A dot product has no bound, so that a unit's input can vary without limit. The cosine cannot leave -1 to 1, "
    "and needs no statistics of a batch.",
    formula=r"<scale> \cdot \frac{<x>}{<norm> + <eps>}",
    pytorch="weight = module.weight\n"
    "norm = torch.linalg.vector_norm(weight, dim={reduced}, keepdim=True)\n"
    "y = {scale} * weight / (norm + {eps})",
    invariant_to=frozenset({"scale"}),
    equals=(Identity("weight_norm", {"scale": 1.0, "eps": 0.0}), Identity("unit_norm_constraint", {"scale": 1.0})),
    builds_on=("weight_norm",),
)
