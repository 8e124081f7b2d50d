"""Skipping: a step whose gradient is not finite is left out altogether."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from normcore.core import EMPTY, Method, Normed, Paper, Range, Region, drop, norms_of, total


def skip_if_nonfinite(
    gradients: list[Tensor],
    *,
    state: Mapping[str, Any] = EMPTY,
    max_consecutive_errors: Annotated[int, Range(0, usual=(0, 10), integer=True)] = 5,
) -> Normed:
    """Makes all gradients 0 when any element of any of them is inf or nan; else leaves them as they are.

    After max_consecutive_errors such steps in a row the next one passes as it is, so that training fails visibly
    instead of standing still. optax freezes the optimizer's state in a skipped step as well. Here the optimizer is
    another object: leave out its step where the report's `scale` is 0, since with momentum or weight decay it moves
    even where the gradient is 0.

    Shapes: any list of tensors. Units: those of the gradient. State: `in_a_row` and `in_all`, counts.
    Source: optax (DeepMind 2020), ``optax.apply_if_finite``.
    """
    norms = norms_of(gradients)
    finite, zero = total(norms).isfinite(), torch.zeros((), dtype=torch.long, device=norms.device)
    if not norms.is_cpu or not finite:  # squares may overflow where values do not; a device is not waited for
        finite = total(norms_of(gradients, torch.inf), torch.inf).isfinite()
    in_a_row = torch.where(finite, 0, state.get("in_a_row", zero).to(zero.device) + 1)
    keep = finite | (in_a_row > max_consecutive_errors)
    moved = {"in_a_row": in_a_row, "in_all": state.get("in_all", zero).to(zero.device) + (~finite).long()}
    return Normed(drop(gradients, keep, norms), {"kept": keep.to(norms)}, moved)


METHOD = Method(
    fn=skip_if_nonfinite,
    name="Skip if Not Finite",
    regions=(Region("o ->"), Region("o i ... ->")),
    paper=Paper("DeepMind, Igor Babuschkin, Kate Baumli and others", "The DeepMind JAX Ecosystem", 2020),
    why="In half precision a sum overflows now and then, and the gradient has an inf. Norm clipping turns that into 0 "
    "and nan; leaving out the step costs nothing but the step.",
    formula=r"<x> \cdot <kept>",
    pytorch="in_a_row = 0  # kept from one step to the next\n"
    "finite = all(p.grad.isfinite().all() for p in parameters)\n"
    "in_a_row = 0 if finite else in_a_row + 1\n"
    "if not finite and in_a_row <= {max_consecutive_errors}:\n"
    "    for parameter in parameters:\n"
    "        parameter.grad.zero_()",
    builds_on=("clip_by_global_norm",),
    keeps=frozenset({"direction", "clipped", "small"}),
    remembers={"in_a_row": "how many steps in a row were not finite", "in_all": "how many were in all"},
)
