"""Spectral normalization: the weight is divided by its largest singular value, which power iteration keeps track of."""

from collections.abc import Mapping
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import normalize

from normcore.core import EMPTY, Bound, Epsilon, Method, Normed, Paper, Range, Region, Slot, cast, widen


def _step(matrix: Tensor, v: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """One power iteration: first the output side u, then the input side v."""
    u = normalize(matrix @ v, dim=0, eps=eps)
    return u, normalize(matrix.mT @ u, dim=0, eps=eps)


def _start(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Singular vectors after the first 15 iterations, shaped (o 1 ...) and (1 i ...)."""
    matrix = widen(weight).flatten(1)
    v = normalize(cast(torch.arange(1, matrix.shape[1] + 1, device=matrix.device), matrix.dtype).cos(), dim=0)
    for _ in range(15):
        u, v = _step(matrix, v, 1e-12)
    return u.reshape(-1, *(1,) * (weight.ndim - 1)), v.reshape(1, *weight.shape[1:])


def spectral_norm(
    weight: Tensor,
    whole: Bound,
    *,
    state: Mapping[str, Tensor] = EMPTY,
    training: bool = True,
    n_power_iterations: Annotated[int, Range(1, usual=(1, 5), integer=True)] = 1,
    eps: Epsilon = 1e-12,
) -> Normed:
    """Divides the weight by uᵀWv, an estimate of its largest singular value, W being the matrix of axes (o, i ...).

    Each step in training moves u and v by power iterations, u before v, as in PyTorch (the paper, flax and haiku take
    v first); evaluation leaves them. A layer starts with 15 iterations from one fixed v. The estimate never exceeds
    the true value. u and v are constants in the gradient. ε only guards the lengths that u and v are divided by, as
    ``max(length, eps)``; a weight of zeros gives nan, as in PyTorch.

    Shapes: weight (o i ...); state u (o 1 ...) and v (1 i ...).
    Source: Miyato, Kataoka, Koyama and Yoshida 2018, arXiv:1802.05957.
    """
    wide = widen(weight)
    matrix, u, v = wide.flatten(1), cast(state["u"], wide.dtype).reshape(-1), cast(state["v"], wide.dtype).reshape(-1)
    for _ in range(n_power_iterations if training else 0):
        u, v = _step(matrix.detach(), v, eps)
    estimate = (u @ matrix @ v).reshape((1,) * weight.ndim)
    moved = {"u": u.reshape(state["u"].shape), "v": v.reshape(state["v"].shape)}
    return Normed(cast(wide / estimate, weight.dtype), {"spectral_estimate": estimate.detach()}, moved)


METHOD = Method(
    fn=spectral_norm,
    name="SpectralNorm",
    regions=(Region("o i ... ->"),),
    paper=Paper(
        "Takeru Miyato, Toshiki Kataoka, Masanori Koyama, Yuichi Yoshida",
        "Spectral Normalization for Generative Adversarial Networks",
        2018,
        "1802.05957",
    ),
    why="A discriminator that can change arbitrarily fast gives its generator useless gradients. With a largest "
    "singular value of 1 no layer can stretch any input, and one power iteration a step is enough to know that value.",
    formula=r"\frac{<x>}{<spectral_estimate>}",
    pytorch="# torch.nn.utils.parametrizations.spectral_norm(module), but from a fixed v instead of a random one\n"
    "matrix = module.weight.flatten(1)\n"
    "v = torch.arange(1.0, matrix.shape[1] + 1).cos()\n"
    "for _ in range(15 + 2 * {n_power_iterations}):  # at the start, when it is put on, and now\n"
    "    u = torch.nn.functional.normalize(matrix.detach() @ v, dim=0, eps={eps})\n"
    "    v = torch.nn.functional.normalize(matrix.detach().T @ u, dim=0, eps={eps})\n"
    "y = module.weight / (u @ matrix @ v)",
    state={"u": Slot("o", lambda weight, _: _start(weight)[0]), "v": Slot("i", lambda weight, _: _start(weight)[1])},
    invariant_to=frozenset({"scale"}),
    builds_on=("weight_norm",),
)
