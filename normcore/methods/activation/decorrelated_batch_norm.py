"""Decorrelated batch normalization: the channels of a group come out uncorrelated.

Longer than most: PyTorch has no whitening, so that its code is written out, for training and for evaluation.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from normcore.core import (
    EMPTY,
    GAIN_AND_BIAS,
    RUNNING_WHITENING,
    Bound,
    Epsilon,
    Groups,
    InverseRoot,
    Method,
    Momentum,
    Normed,
    Paper,
    Region,
    whiten,
)

LAYOUTS = ("l", "h w", "d h w")


def decorrelated_batch_norm(
    x: Tensor,
    group: Bound,
    position: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    state: Mapping[str, Tensor] = EMPTY,
    training: bool = True,
    num_groups: Groups = 2,
    eps: Epsilon = 1e-5,
    momentum: Momentum = 0.1,
    track_running_stats: bool = True,
) -> Normed:
    """Subtracts each channel's mean over the batch and multiplies each group of channels by Σ^(-1/2), which whitens it.

    Σ is the group's covariance over the batch and all positions, divided by n, plus ε on the diagonal; its inverse root
    is the symmetric one (ZCA), from an eigendecomposition. The paper uses groups of 16 channels.
    In evaluation, mean and whitening matrix are running averages. A group of one channel is BatchNorm.

    Shapes: x (n c l), (n c h w) or (n c d h w); weight, bias and running_mean (c); running_whitening (g k k).
    Source: Huang, Yang, Lang and Deng 2018, arXiv:1804.08450.
    """

    def inverse_root(covariance: Tensor) -> Tensor:
        root: Tensor = InverseRoot.apply(covariance, eps)
        return root

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
            "values, vectors = torch.linalg.eigh(cov)",
            "whitening = (vectors * values.rsqrt()[:, None]) @ vectors.mT",
        ]
    lines += ["y = (whitening @ (rows - mean)).reshape(x.transpose(0, 1).shape).transpose(0, 1)"]
    return "\n".join(lines)


METHOD = Method(
    fn=decorrelated_batch_norm,
    name="Decorrelated BN",
    regions=(
        *(Region(f"n (g k) {space} -> g", running=True) for space in LAYOUTS),
        *(Region(f"n (g k) {space} -> n g {space}") for space in LAYOUTS),
    ),
    paper=Paper("Lei Huang, Dawei Yang, Bo Lang, Jia Deng", "Decorrelated Batch Normalization", 2018, "1804.08450"),
    why="BatchNorm gives every channel unit variance but leaves the channels correlated. Whitening removes that too, "
    "and ZCA, which turns nothing, keeps channels from trading places between batches.",
    formula=r"<whitening> \cdot (<x> - <mean>) + <from_others>",
    pytorch=_pytorch,
    sizes={"g": "num_groups"},
    affine=GAIN_AND_BIAS,
    state=RUNNING_WHITENING,
    invariant_to=frozenset({"scale", "shift", "channel shift"}),
    builds_on=("batch_norm",),
)
