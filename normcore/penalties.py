"""Penalties on weights: numbers to add to a loss, where a method would change the weight itself."""

import torch
from torch import Tensor

from normcore.core import LAYOUTS, NormcoreError, full_precision, root, widen

KINDS = ("so", "dso", "mc", "srip")


def orthogonal_regularization(weight: Tensor, kind: str = "so") -> Tensor:
    """How far a weight is from having orthonormal rows or columns, as one number of at least 0, to add to the loss.

    With W the matrix of axes (o, i ...) and D = WᵀW - I or WWᵀ - I, whichever is smaller (only that one can be 0):

    - "so", soft orthogonality: ``‖D‖²``, the sum of the squares;
    - "dso", double soft orthogonality: the sum of these for both WᵀW - I and WWᵀ - I;
    - "mc", mutual coherence: the largest ``|D|``;
    - "srip", spectral restricted isometry: D's largest singular value as two power steps from a fixed vector see it,
      ``‖D D v‖ / ‖D v‖``. The authors start from a random vector, and their code squares the result.

    Multiply it by a coefficient: for "srip" the authors start at 0.1 and lower it in steps, to 0 at the end.
    Statistics of half-precision weights are taken in float32.

    Args:
        weight: A tensor of axes (o i), (o i l), (o i h w) or (o i d h w).
        kind: One of the four.

    Returns:
        A tensor without axes, of float32 for a half-precision weight and of the weight's precision for others.

    Raises:
        NormcoreError: No such kind, or a weight of other axes.

    Source: Bansal, Chen and Wang 2018, arXiv:1810.09102; "so" as a penalty also in Brock and others 2016,
    arXiv:1609.07093 (there with the absolute value instead of the square).
    """
    if kind not in KINDS:
        raise NormcoreError(f"orthogonal_regularization: kind={kind!r} must be one of {', '.join(map(repr, KINDS))}")
    ranks = {len(axes.split()) for axes in LAYOUTS["weight"].values()}
    if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.ndim not in ranks:
        tensor = isinstance(weight, Tensor)
        found = f"{weight.dtype} of shape {tuple(weight.shape)}" if tensor else type(weight).__name__
        raise NormcoreError(f"orthogonal_regularization: weight is {found}; it must be floating-point, (o i ...)")
    with full_precision(weight):
        return _penalty(widen(weight).flatten(1), kind)


def _penalty(matrix: Tensor, kind: str) -> Tensor:
    """The penalty of a kind on a matrix of axes (o, i ...)."""
    rows, columns = matrix.shape
    distance = _distance(matrix.mT if rows < columns else matrix)
    if kind == "so":
        return distance.square().sum()
    if kind == "dso":
        return distance.square().sum() + _distance(matrix if rows < columns else matrix.mT).square().sum()
    return distance.abs().max() if kind == "mc" else _spectral_norm(distance)


def _distance(matrix: Tensor) -> Tensor:
    """MᵀM - I."""
    return matrix.mT @ matrix - torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)


def _spectral_norm(distance: Tensor) -> Tensor:
    once = distance @ torch.arange(1, len(distance) + 1, device=distance.device).to(distance.dtype).cos()
    # The root's guard makes the penalty of an orthonormal weight 0, with slope 0.
    return root((distance @ (once / root(once.square().sum()))).square().sum())
