"""Sign gradient: of every element only the sign is kept."""

import torch
from torch import Tensor

from normcore.core import Method, Normed, Paper, replace


def sign_gradient(gradients: list[Tensor]) -> Normed:
    """Replaces every element by its sign: -1, 0 or 1.

    Every weight then moves by the learning rate, in its own direction. Adam without its averages is this. nan
    becomes 0, as in ``torch.sign`` (in optax it stays nan).

    Shapes: any list of tensors. Units: none after it.
    Source: Bernstein, Wang, Azizzadenesheli and Anandkumar 2018, arXiv:1802.04434.
    """
    return Normed(replace(gradients, torch.sign), {})


METHOD = Method(
    fn=sign_gradient,
    name="Sign Gradient",
    regions=(),
    paper=Paper(
        "Jeremy Bernstein, Yu-Xiang Wang, Kamyar Azizzadenesheli, Animashree Anandkumar",
        "signSGD: Compressed Optimisation for Non-Convex Problems",
        2018,
        "1802.04434",
    ),
    why="Sending gradients between machines costs more than computing them. One bit for each element is enough to "
    "converge, and no element can be too large.",
    formula=r"\operatorname{sign}(<x>)",
    pytorch="for parameter in parameters:\n    parameter.grad.sign_()",
    invariant_to=frozenset({"scale"}),
    builds_on=("clip_by_value",),
    keeps=frozenset({"clipped"}),
    limits={"value": 1.0},
)
