"""Zeroing: elements that are not a number become 0, and all others stay."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from normcore.core import EMPTY, Method, Normed, Paper, multiply, norms_of, replace


def zero_nans(gradients: list[Tensor], *, state: Mapping[str, Any] = EMPTY, infinite: bool = False) -> Normed:
    """Replaces every element that is nan by 0, and with `infinite` every infinite one too.

    As in optax infinite elements are kept unless told otherwise, and one flag for each gradient tells whether anything
    was found in the last step (False for a parameter without a gradient). It hides a fault: look at the flags, or skip
    the step as a whole.

    Shapes: any list of tensors. Units: those of the gradient. State: `found`, a flag for each gradient.
    Source: optax (DeepMind 2020), ``optax.zero_nans``.
    """
    # A norm is nan where an element is, and else finite or inf, however many there are of each.
    norms = norms_of(gradients)
    broken = ~norms_of(gradients, torch.inf).isfinite() if infinite else norms.isnan()
    inf = 0.0 if infinite else torch.inf
    if norms.is_cpu and not broken.any():
        return Normed(multiply(gradients, norms.new_ones(()), norms), {}, {"found": list(broken)})
    y = replace(gradients, lambda g, out: torch.nan_to_num(g, 0.0, inf, -inf, out=out))
    return Normed(y, {}, {"found": list(broken)})


METHOD = Method(
    fn=zero_nans,
    name="Zero NaNs",
    regions=(),
    paper=Paper("DeepMind, Igor Babuschkin, Kate Baumli and others", "The DeepMind JAX Ecosystem", 2020),
    why="One 0/0 in a loss makes every weight nan in a single step. Where the cause is known and rare, "
    "the broken elements can be left out.",
    formula=r"\operatorname{number}(<x>)",
    pytorch="for parameter in parameters:\n"
    "    broken = ~parameter.grad.isfinite() if {infinite} else parameter.grad.isnan()\n"
    "    parameter.grad.masked_fill_(broken, 0.0)",
    keeps=frozenset({"direction", "clipped", "small"}),
    remembers={"found": "whether something was found in each gradient"},
)
