"""Orthogonal parametrization: whatever the weight becomes in training, the matrix made from it is orthonormal.

Longer than most: three maps, and each is written in PyTorch too.
"""

from collections.abc import Mapping
from typing import Annotated

import torch
from torch import Tensor

from normcore.core import EMPTY, Bound, Method, Normed, OneOf, Paper, Region, Slot, cast, widen


def _tall(weight: Tensor) -> Tensor:
    """The weight as a matrix with at least as many rows as columns."""
    matrix = weight.flatten(1)
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.mT


def _nearest(weight: Tensor, whole: Bound) -> Tensor:
    """The matrix with orthonormal rows or columns that is nearest to the weight, shaped as the weight."""
    u, _, v = torch.linalg.svd(widen(weight).flatten(1), full_matrices=False)
    return (u @ v).reshape(weight.shape)


def orthogonal_parametrization(
    weight: Tensor,
    whole: Bound,
    *,
    state: Mapping[str, Tensor] = EMPTY,
    training: bool = True,
    kind: Annotated[str, OneOf(("exponential", "cayley", "householder"))] = "exponential",
) -> Normed:
    """Moves an orthonormal base B by an orthogonal matrix made from the weight: rows or columns stay orthonormal.

    With A = WBᵀ - BWᵀ, "exponential" is ``exp(A) B`` and "cayley" ``(I - A/2)⁻¹ (I + A/2) B``, which cannot turn
    by 180°; "householder" is ``-H₁ ⋯ Hₖ B``, whose reflections flip the columns of W + B. W is the matrix of axes
    (o, i ...), transposed where it is wider than tall. B is the orthonormal matrix nearest to the weight that a layer
    starts from, and stays: an orthonormal weight is left as it is, any other becomes B (with "householder" a mixture
    of its columns). PyTorch's maps are these for W = BX, with X a lower triangle; here all of W counts.

    Shapes: weight (o i ...); state base (o i ...).
    Source: Lezcano-Casado and Martínez-Rubio 2019, arXiv:1901.08428; the base, and that it may be any, from
    Lezcano-Casado 2019, arXiv:1909.09501.
    """
    w, base = _tall(widen(weight)), _tall(cast(state["base"], widen(weight).dtype))
    if kind == "householder":
        moved = -base
        for vector in (w + base).unbind(1)[::-1]:
            moved = moved - torch.outer(vector, 2 / vector.square().sum() * (vector @ moved))
    else:
        skew = w @ base.mT - base @ w.mT
        eye = torch.eye(len(w), dtype=w.dtype, device=w.device)
        exponential = kind == "exponential"
        moved = (
            torch.matrix_exp(skew) @ base if exponential else torch.linalg.solve(eye - skew / 2, base + skew @ base / 2)
        )
    y = (moved if len(weight) == len(w) else moved.mT).reshape(weight.shape)
    return Normed(cast(y, weight.dtype), {f"{kind}_map": y.detach()}, state)


PYTORCH = {
    "exponential": "torch.matrix_exp(skew) @ base",
    "cayley": "torch.linalg.solve(eye - skew / 2, base + skew @ base / 2)",
    "householder": "-torch.linalg.multi_dot([*(eye - 2 * c.outer(c) / (c @ c) for c in (w + base).T), eye, base])",
}

METHOD = Method(
    fn=orthogonal_parametrization,
    name="Orthogonal Parametrization",
    regions=(Region("o i ... ->"),),
    paper=Paper(
        "Mario Lezcano-Casado, David Martínez-Rubio",
        "Cheap Orthogonal Constraints in Neural Networks: A Simple Parametrization of the Orthogonal and Unitary Group",
        2019,
        "1901.08428",
    ),
    why="Over many layers or time steps any weight that is not orthogonal lets signals and gradients vanish or "
    "explode. A map from all matrices onto orthogonal ones lets an ordinary optimizer train within them.",
    formula=lambda settings: f"<{settings['kind']}_map>",
    pytorch=lambda settings: (
        "w, wide = module.weight.flatten(1), {o} < module.weight[0].numel()\n"
        "w = w.T if wide else w\n"
        "u, _, v = torch.linalg.svd(w.detach(), full_matrices=False)\n"
        "base, eye = u @ v, torch.eye(len(w))  # the base is kept while the weight trains\n"
        "skew = w @ base.T - base @ w.T\n"
        f"y = {PYTORCH[settings['kind']]}\n"
        "y = (y.T if wide else y).reshape(module.weight.shape)"
    ),
    state={"base": Slot("o i ...", _nearest)},
    builds_on=("parseval_update",),
)
