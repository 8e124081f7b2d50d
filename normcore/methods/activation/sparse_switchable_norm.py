"""Sparse switchable normalization: a learned mixture of statistics that narrows down to a single normalizer.

Longer than most: three kinds of statistics, two sets of shares, and the projection that makes shares sparse.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from normcore.core import (
    EMPTY,
    GAIN_AND_BIAS,
    RUNNING,
    Bound,
    Epsilon,
    Method,
    Momentum,
    Normed,
    Paper,
    Range,
    Region,
    Slot,
    switch,
    switching_code,
)

LAYOUTS = ("n c l", "n c h w", "n c d h w")
CORNER, SIDE = math.sqrt(2 / 3), 1 / 6
"""How far equal shares are from a single one, and squared from the nearest pair."""


def sparse_switchable_norm(
    x: Tensor,
    instance: Bound,
    layer: Bound,
    batch: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    mean_weight: Tensor | None = None,
    var_weight: Tensor | None = None,
    state: Mapping[str, Tensor] = EMPTY,
    training: bool = True,
    eps: Epsilon = 1e-5,
    momentum: Momentum = 0.1,
    radius: Annotated[float, Range(0.0, CORNER)] = 0.0,
    unbiased: bool = False,
    track_running_stats: bool = True,
) -> Normed:
    """Normalizes as switchable normalization does, with shares from SparsestMax, which can be 0.

    The shares, in the order instance, layer, batch, are the nearest to the logits of those that are not negative, sum
    to 1, and lie at least `radius` away from equal shares. Raising the radius from 0 to sqrt(2/3) while training leaves
    a single normalizer; equal logits stay equal shares, since no side is nearer. ε stands inside the root, and in
    evaluation the batch part comes from running averages.

    Shapes: x (n c l), (n c h w) or (n c d h w); weight and bias (c); mean_weight and var_weight (3); running_mean and
        running_var (c).
    Source: Shao, Meng, Li, Zhang, Li, Wang and Luo 2019, arXiv:1903.03793.
    """
    logits, share = (mean_weight, var_weight), partial(_sparsest_max, radius=radius)
    return switch(
        x, instance, batch, logits, share, weight, bias, state, training, eps, momentum, unbiased, track_running_stats
    )


def _sparsest_max(logits: Tensor, radius: float) -> Tensor:
    ranked, order = logits.sort(descending=True)
    shares = (logits - ((ranked.cumsum(0) - 1) / torch.arange(1, 4).to(logits)).amax()).clamp_min(0)  # sparsemax
    away = shares - 1 / 3
    distance = away.square().sum().clamp_min(1e-12).sqrt()
    stretched = 1 / 3 + away * torch.where((distance < radius) & (distance > 1e-5), radius / distance, 1.0)
    # Pushed out of the triangle, they go to where the circle meets the nearest side: two shares, and no third.
    half = math.sqrt(max(radius**2 - SIDE, 0.0) / 2)
    pair = torch.zeros_like(shares).scatter(0, order, shares.new_tensor([0.5 + half, 0.5 - half, 0.0]))
    return torch.where(stretched.amin() < 0, pair, stretched)


SHARES = "share = torch.full((3,), 1 / 3)  # SparsestMax of three equal logits, learned"

METHOD = Method(
    fn=sparse_switchable_norm,
    name="Sparse SwitchableNorm",
    regions=(
        *(Region(f"{axes} -> n c") for axes in LAYOUTS),
        *(Region(f"{axes} -> n") for axes in LAYOUTS),
        *(Region(f"{axes} -> c", running=True) for axes in LAYOUTS),
    ),
    paper=Paper(
        "Wenqi Shao, Tianjian Meng, Jingyu Li, Ruimao Zhang, Yudian Li, Xiaogang Wang, Ping Luo",
        "SSN: Learning Sparse Switchable Normalization via SparsestMax",
        2019,
        "1903.03793",
    ),
    why="A mixture keeps computing all three normalizers, though most layers want one. Shares that become exactly 0 "
    "while training leave the one that the layer has chosen.",
    formula=r"\frac{<x> - <mean>}{\sqrt{<var> + <eps>}}",
    pytorch=partial(switching_code, shares=SHARES),
    affine={**GAIN_AND_BIAS, "mean_weight": Slot("3", 1.0), "var_weight": Slot("3", 1.0)},
    state=RUNNING,
    invariant_to=frozenset({"scale", "shift"}),
    builds_on=("switchable_norm",),
)
