"""Exact spectral normalization: the weight is divided by its largest singular value, from a full decomposition."""

import torch
from torch import Tensor

from normcore.core import Bound, Method, Normed, Paper, Region, cast, widen


def spectral_norm_exact(weight: Tensor, whole: Bound) -> Normed:
    """Divides the weight by its largest singular value, W being the matrix of axes (o, i ...).

    What spectral normalization tends to as power iterations go on; its gradient is the true one, and it remembers
    nothing. The decomposition costs far more than one power iteration. A weight of zeros gives nan.

    Shapes: weight (o i ...).
    Source: Miyato, Kataoka, Koyama and Yoshida 2018, arXiv:1802.05957 (section 2.1).
    """
    wide = widen(weight)
    largest = torch.linalg.svd(wide.flatten(1), full_matrices=False).S[0].reshape((1,) * weight.ndim)
    return Normed(cast(wide / largest, weight.dtype), {"spectral_norm": largest.detach()})


METHOD = Method(
    fn=spectral_norm_exact,
    name="Exact SpectralNorm",
    regions=(Region("o i ... ->"),),
    paper=Paper(
        "Takeru Miyato, Toshiki Kataoka, Masanori Koyama, Yuichi Yoshida",
        "Spectral Normalization for Generative Adversarial Networks",
        2018,
        "1802.05957",
    ),
    why="Power iteration knows the largest singular value only roughly and a step late. A singular value decomposition "
    "gives it exactly, where its cost can be borne.",
    formula=r"\frac{<x>}{<spectral_norm>}",
    pytorch="weight = module.weight\ny = weight / torch.linalg.matrix_norm(weight.flatten(1), ord=2)",
    invariant_to=frozenset({"scale"}),
    builds_on=("spectral_norm",),
)
