"""Iterative normalization: channels decorrelated by a few Newton steps.

Longer than most: PyTorch has no whitening, so that its code is written out, for training and for evaluation.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from normcore.core import (
    EMPTY,
    GAIN_AND_BIAS,
    RUNNING_WHITENING,
    Bound,
    Epsilon,
    Groups,
    Method,
    Momentum,
    Normed,
    Paper,
    Range,
    Region,
    whiten,
)

LAYOUTS = ("l", "h w", "d h w")


def iter_norm(
    x: Tensor,
    group: Bound,
    position: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    state: Mapping[str, Tensor] = EMPTY,
    training: bool = True,
    num_groups: Groups = 2,
    T: Annotated[int, Range(0, usual=(1, 10), integer=True)] = 5,  # noqa: N803 (as in the paper)
    eps: Epsilon = 1e-5,
    momentum: Momentum = 0.1,
    track_running_stats: bool = True,
) -> Normed:
    """Whitens each group of channels as decorrelated BatchNorm does, with `T` Newton steps toward Σ^(-1/2).

    Σ is the group's covariance over the batch and all positions, divided by n, plus ε on the diagonal. From P = 1 each
    step takes ``P <- (3 P - P³ Σ / tr Σ) / 2``, and the whitening matrix is ``P / sqrt(tr Σ)``. More steps come closer
    to the exact root. The paper uses groups of 64 channels.
    In evaluation, mean and whitening matrix are running averages. A group of one channel is BatchNorm.

    Shapes: x (n c l), (n c h w) or (n c d h w); weight, bias and running_mean (c); running_whitening (g k k).
    Source: Huang, Zhou, Zhu, Liu and Shao 2019, arXiv:1904.03441.
    """

    def inverse_root(covariance: Tensor) -> Tensor:
        trace = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
        scaled, root = covariance / trace, torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=x.device)
        for _ in range(T):
            root = 1.5 * root - 0.5 * root @ root @ root @ scaled
        return root * trace.rsqrt()

    return whiten(x, group, inverse_root, eps, weight, bias, state, training, track_running_stats, momentum)


def _pytorch(settings: Mapping[str, Any]) -> str:
    size = "{c} // {num_groups}"
    lines = [f"rows = x.transpose(0, 1).reshape({{num_groups}}, {size}, -1)"]
    if settings["track_running_stats"] and not settings["training"]:
        lines += [f"mean, whitening = torch.zeros({{num_groups}}, {size}, 1), torch.eye({size})  # of a new layer"]
    else:
        lines += [
            "mean = rows.mean(-1, keepdim=True)",
            f"cov = (rows - mean) @ (rows - mean).mT / rows.shape[-1] + {{eps}} * torch.eye({size})",
            "trace = cov.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None]",
            f"whitening = torch.eye({size})",
            "for _ in range({T}):",
            "    whitening = 1.5 * whitening - 0.5 * whitening @ whitening @ whitening @ (cov / trace)",
            "whitening = whitening / torch.sqrt(trace)",
        ]
    lines += ["y = (whitening @ (rows - mean)).reshape(x.transpose(0, 1).shape).transpose(0, 1)"]
    return "\n".join(lines)


METHOD = Method(
    fn=iter_norm,
    name="IterNorm",
    regions=(
        *(Region(f"n (g k) {space} -> g", running=True) for space in LAYOUTS),
        *(Region(f"n (g k) {space} -> n g {space}") for space in LAYOUTS),
    ),
    paper=Paper(
        "Lei Huang, Yi Zhou, Fan Zhu, Li Liu, Ling Shao",
        "Iterative Normalization: Beyond Standardization towards Efficient Whitening",
        2019,
        "1904.03441",
    ),
    why="Decorrelated BatchNorm needs an eigendecomposition, slow on a GPU, and whitens directions of mere noise. "
    "A few Newton steps are matrix products alone, and leave the smallest directions small.",
    formula=r"<whitening> \cdot (<x> - <mean>) + <from_others>",
    pytorch=_pytorch,
    sizes={"g": "num_groups"},
    affine=GAIN_AND_BIAS,
    state=RUNNING_WHITENING,
    invariant_to=frozenset({"scale", "shift", "channel shift"}),
    builds_on=("decorrelated_batch_norm",),
)
