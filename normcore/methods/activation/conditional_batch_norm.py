"""Conditional batch normalization: BatchNorm with a gain and a bias of its own for each class.

Longer than most: all that BatchNorm has, and labels and tables besides.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from normcore.core import (
    EMPTY,
    RUNNING,
    Bound,
    Classes,
    Epsilon,
    Method,
    Momentum,
    Normed,
    Paper,
    Region,
    Slot,
    affine,
    apply_running,
    cast,
    chosen_rows,
    standardize,
    track,
    widen,
)


def conditional_batch_norm(
    x: Tensor,
    batch: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    labels: Tensor | None = None,
    state: Mapping[str, Tensor] = EMPTY,
    training: bool = True,
    eps: Epsilon = 1e-5,
    momentum: Momentum = 0.1,
    track_running_stats: bool = True,
    num_classes: Classes = 10,
) -> Normed:
    """Standardizes each channel over the batch, then applies the gain and the bias of each sample's class.

    All classes share the statistics. The gains are rows of a table, and the label of a sample names its row; without
    labels all take the first (the paper's gains come from a small network that reads a question). ε stands inside the
    root, and training and evaluation differ as in BatchNorm, which it is with one class.

    Shapes: x (n c ...) or (n t c); labels (n), whole numbers; weight and bias (num_classes c); running state (c).
    Source: de Vries et al. 2017, arXiv:1707.00683.
    """
    key = "conditional_batch_norm"
    gain, shift = (None if t is None else chosen_rows(key, t, labels, batch) for t in (weight, bias))
    if track_running_stats and not training:
        y, stats = apply_running(widen(x), batch, state, eps, None, None)
        return Normed(cast(affine(y, batch, gain, shift), x.dtype), stats, state)
    y, stats = standardize(x, batch, eps, gain, shift)
    return Normed(y, stats, track(state, batch, stats, momentum) if track_running_stats else state)


METHOD = Method(
    fn=conditional_batch_norm,
    name="Conditional BatchNorm",
    regions=(Region("n c ... -> c", running=True), Region("n t c -> c", running=True)),
    paper=Paper(
        "Harm de Vries, Florian Strub, Jérémie Mary, Hugo Larochelle, Olivier Pietquin, Aaron Courville",
        "Modulating early visual processing by language",
        2017,
        "1707.00683",
    ),
    why="A trained vision network should look at an image as a question, or a class, asks it to. Changing only the "
    "gains and biases steers every layer with very few numbers.",
    formula=r"\frac{<x> - <mean>}{\sqrt{<var> + <eps>}}",
    pytorch="weight, bias = torch.ones({num_classes}, {c}), torch.zeros({num_classes}, {c})  # learned\n"
    "labels = torch.zeros({n}, dtype=torch.long)\n"
    "norm = torch.nn.BatchNorm{nd}({c}, eps={eps}, momentum={momentum}, affine=False, "
    "track_running_stats={track_running_stats}).train({training})\n"
    "y = norm({x})\n"
    "rows = y.shape[:2] + (1,) * (y.ndim - 2)\n"
    "y = (y * weight[labels].reshape(rows) + bias[labels].reshape(rows)){back}",
    affine={"weight": Slot("num_classes c", 1.0), "bias": Slot("num_classes c", 0.0)},
    state=RUNNING,
    context={"labels": Slot("n", dtype=torch.long)},
    invariant_to=frozenset({"scale", "shift"}),
    builds_on=("conditional_instance_norm",),
)
