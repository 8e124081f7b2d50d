"""LARS: each gradient tensor is given a length that goes with the length of its weights."""

from typing import Annotated

from torch import Tensor

from normcore.core import (
    Method,
    Normed,
    Paper,
    Range,
    Region,
    Slot,
    multiply_by_trust,
    parameters_or_zeros,
)


def lars_trust_ratio(
    gradients: list[Tensor],
    *,
    parameters: list[Tensor] | None = None,
    trust_coefficient: Annotated[float, Range(0.0, usual=(0.001, 1.0), logarithmic=True)] = 0.001,
    weight_decay: Annotated[float, Range(0.0, usual=(0.0, 0.1))] = 0.0,
) -> Normed:
    """Multiplies ``g + weight_decay * w`` by ``trust_coefficient * ‖w‖ / (‖g‖ + weight_decay * ‖w‖)``, for each tensor.

    The ratio is 1 where a norm is 0, and so for parameters that are left out, which count as zeros. The denominator is
    the paper's; optax takes the norm of the sum instead. For momentum, hand the result to SGD, without weight decay.
    An infinite value becomes nan and the rest of its tensor 0; where a value is nan, the ratio of its tensor is 1.

    Shapes: any list of tensors, the parameters alike. Units: those of the weights.
    Source: You, Gitman and Ginsburg 2017, arXiv:1708.03888.
    """
    weights = parameters_or_zeros(parameters, gradients)
    done = multiply_by_trust(gradients, weights, trust_coefficient, weight_decay=weight_decay)
    stats = {"norm": done.norms, "parameter_norm": done.lengths, "scale": done.ratios}
    given = {name: list(values.detach()) for name, values in stats.items()}
    return Normed(done.y, given | ({"parameter": [weight.clone() for weight in weights]} if weight_decay else {}))


METHOD = Method(
    fn=lars_trust_ratio,
    name="LARS Trust Ratio",
    regions=(Region("o ->"), Region("o i ... ->")),
    paper=Paper(
        "Yang You, Igor Gitman, Boris Ginsburg", "Large Batch Training of Convolutional Networks", 2017, "1708.03888"
    ),
    why="With large batches one learning rate is too much for some layers and too little for others: what counts is "
    "the step beside the weights. A step in proportion to its weights trains every layer at one pace.",
    formula=lambda settings: (
        r"<trust_coefficient> \cdot \frac{<parameter_norm>}{<norm> + <weight_decay> \cdot <parameter_norm>} "
        r"\cdot (<x> + <weight_decay> \cdot <parameter>)"
        if settings["weight_decay"]
        else r"<x> \cdot <trust_coefficient> \cdot \frac{<parameter_norm>}{<norm>}"
    ),
    pytorch="for parameter in parameters:\n"
    "    weight, gradient = parameter.detach(), parameter.grad\n"
    "    denominator = gradient.norm() + {weight_decay} * weight.norm()\n"
    "    ratio = {trust_coefficient} * weight.norm() / denominator if weight.norm() * gradient.norm() > 0 else 1.0\n"
    "    parameter.grad = ratio * (gradient + {weight_decay} * weight)",
    context={"parameters": Slot("x")},
    invariant_to=lambda settings: frozenset() if settings["weight_decay"] else frozenset({"scale"}),
    builds_on=("normalized_gradient",),
    keeps=lambda settings: (
        frozenset() if settings["weight_decay"] else frozenset({"direction of each tensor", "clipped"})
    ),
)
