"""Whitening: taking the correlations out of groups of channels, with a matrix that is remembered."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from normcore.core.facts import Normed
from normcore.core.precision import full_precision
from normcore.core.region import Bound
from normcore.core.running import State, average
from normcore.core.slots import Slot
from normcore.core.statistics import affine, along_channels, cast, widen

RUNNING_WHITENING = {
    "running_mean": Slot("c", 0.0),
    "running_whitening": Slot("num_groups c/num_groups c/num_groups", "identity"),
    "num_batches_tracked": Slot("", 0, torch.long),
}


def whiten(
    x: Tensor,
    group: Bound,
    inverse_root: Callable[[Tensor], Tensor],
    eps: float,
    weight: Tensor | None,
    bias: Tensor | None,
    state: State,
    training: bool,
    tracks: bool,
    momentum: float | None,
) -> Normed:
    """Each group of channels times the inverse root of its covariance: ``W (x - mean) * weight + bias``.

    `group` splits the channels, which lie on the second axis; `inverse_root` finds W from the covariances plus ε, as
    (groups, channels, channels). In evaluation, mean and W are running averages.
    """
    wide = widen(x)
    split = group.split(wide).movedim((1, 2), (0, 1))
    groups, channels = split.shape[:2]
    rows = split.reshape(groups, channels, -1)
    if tracks and not training:
        prefix = "running_"
        mean, matrix = (cast(state[name], wide.dtype) for name in ("running_mean", "running_whitening"))
        mean = mean.reshape(groups, channels, 1)
        centered = rows - mean
    else:
        prefix = ""
        mean = rows.mean(-1, keepdim=True)
        rest = (rows - mean).mean(-1, keepdim=True)  # what rounding has left of a large mean
        mean, centered = mean + rest, rows - mean - rest
        covariance = centered @ centered.mT / rows.shape[-1]
        matrix = inverse_root(covariance + eps * torch.eye(channels, dtype=wide.dtype, device=wide.device))
        if tracks:
            state = average(state, {"running_mean": mean.flatten(), "running_whitening": matrix}, momentum)
    own = matrix.diagonal(dim1=-2, dim2=-1)
    white = matrix @ centered

    def back(values: Tensor) -> Tensor:
        return values.reshape(split.shape).movedim((0, 1), (1, 2)).reshape(x.shape)

    stats = {
        f"{prefix}mean": along_channels(mean.flatten(), group),
        f"{prefix}whitening": along_channels(own.flatten(), group),
        "from_others": back(white - own[..., None] * centered),
    }
    y = cast(affine(back(white), group, weight, bias), x.dtype)
    return Normed(y, {name: value.detach() for name, value in stats.items()}, state)


class InverseRoot(torch.autograd.Function):
    """The symmetric inverse square root of positive matrices; no eigenvalue counts as less than rounding or the floor.

    Its gradient solves ``W X + X W = G`` instead of dividing by differences of eigenvalues, so that equal ones do no
    harm.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor, floor: float) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        known = torch.finfo(matrix.dtype)
        least = (known.eps * values.amax(-1, keepdim=True)).clamp_min(max(floor, known.tiny))
        return (vectors * torch.maximum(values, least).rsqrt()[..., None, :]) @ vectors.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (root,) = ctx.saved_tensors
        with full_precision(root):
            square = root @ root
            return -square @ Lyapunov.apply(root, gradient) @ square, None


class Lyapunov(torch.autograd.Function):
    """The solution X of ``A X + X A = B`` for symmetric positive A."""

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor, right: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        turned = vectors.mT @ right @ vectors
        return vectors @ (turned / (values[..., :, None] + values[..., None, :])) @ vectors.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        matrix, solution = ctx.saved_tensors
        with full_precision(matrix):
            right = Lyapunov.apply(matrix, gradient)
            return -(right @ solution.mT + solution.mT @ right), right
