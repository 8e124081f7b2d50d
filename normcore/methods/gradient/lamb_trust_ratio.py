"""LAMB: each update tensor is given the length of its weights.

Longer than most: ten authors, and weight decay that makes it another rule.
"""

from typing import Annotated

import torch
from torch import Tensor

from normcore.core import (
    Identity,
    Method,
    Normed,
    Paper,
    Range,
    Region,
    Slot,
    multiply_by_trust,
    parameters_or_zeros,
)


def lamb_trust_ratio(
    gradients: list[Tensor],
    *,
    parameters: list[Tensor] | None = None,
    weight_decay: Annotated[float, Range(0.0, usual=(0.0, 0.1))] = 0.0,
    max_ratio: Annotated[float | None, Range(0.0, usual=(0.1, 10.0), none="no limit")] = None,
) -> Normed:
    """Multiplies ``u + weight_decay * w`` by ``‖w‖ / ‖u + weight_decay * w‖``, for each tensor, at most max_ratio.

    u is the update of Adam: call it with the updates in place of the gradients (on a plain gradient it is LARS with a
    coefficient of 1). The ratio is 1 where a norm is 0, and so for parameters that are left out, which count as zeros.
    The paper's φ, which bounds ‖w‖, is the identity here; pytorch_optimizer bounds ‖w‖ at 10, and timm's trust_clip the
    ratio at 1. An infinite value becomes nan and the rest of its tensor 0; where a value is nan, the ratio is 1.

    Shapes: any list of tensors, the parameters alike. Units: those of the weights.
    Source: You, Li, Reddi and others 2019, arXiv:1904.00962.
    """
    weights = parameters_or_zeros(parameters, gradients)
    limit = torch.inf if max_ratio is None else max_ratio
    done = multiply_by_trust(gradients, weights, most=limit, weight_decay=weight_decay, added=True)
    stats = {"sum_norm" if weight_decay else "norm": done.norms, "parameter_norm": done.lengths, "scale": done.ratios}
    given = {name: list(values.detach()) for name, values in stats.items()}
    return Normed(done.y, given | ({"parameter": [weight.clone() for weight in weights]} if weight_decay else {}))


METHOD = Method(
    fn=lamb_trust_ratio,
    name="LAMB Trust Ratio",
    regions=(Region("o ->"), Region("o i ... ->")),
    paper=Paper(
        "Yang You, Jing Li, Sashank Reddi, Jonathan Hseu, Sanjiv Kumar, Srinadh Bhojanapalli, Xiaodan Song, "
        "James Demmel, Kurt Keutzer, Cho-Jui Hsieh",
        "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes",
        2019,
        "1904.00962",
    ),
    why="LARS gives every layer a step in proportion to its weights, and fails on attention. Doing so with Adam's "
    "update instead of the gradient trained BERT with batches of 32 thousand.",
    formula=lambda settings: (
        (r"\min\left(<max_ratio>, RATIO\right)" if settings["max_ratio"] is not None else "RATIO").replace(
            "RATIO", r"\frac{<parameter_norm>}{" + ("<sum_norm>}" if settings["weight_decay"] else "<norm>}")
        )
        + (r" \cdot (<x> + <weight_decay> \cdot <parameter>)" if settings["weight_decay"] else r" \cdot <x>")
    ),
    pytorch=lambda settings: (
        "for parameter in parameters:\n"
        "    weight, update = parameter.detach(), parameter.grad + {weight_decay} * parameter.detach()\n"
        "    ratio = weight.norm() / update.norm() if weight.norm() * update.norm() > 0 else torch.tensor(1.0)\n"
        "    parameter.grad = "
        + ("ratio" if settings["max_ratio"] is None else "ratio.clamp(max={max_ratio})")
        + " * update"
    ),
    context={"parameters": Slot("x")},
    invariant_to=lambda settings: (
        frozenset() if settings["weight_decay"] or settings["max_ratio"] is not None else frozenset({"scale"})
    ),
    equals=(
        Identity(
            "lars_trust_ratio",
            settings={"weight_decay": 0.0, "max_ratio": None},
            other_settings={"trust_coefficient": 1.0, "weight_decay": 0.0},
        ),
    ),
    builds_on=("lars_trust_ratio",),
    keeps=lambda settings: (
        frozenset()
        if settings["weight_decay"]
        else frozenset({"direction of each tensor"} | ({"clipped"} if settings["max_ratio"] is None else set()))
    ),
)
