"""Clipping by the global norm: the whole gradient is scaled down when it is longer than a threshold.

Longer than most: it says what PyTorch does with values that are not finite, and has the error that PyTorch offers.
"""

from typing import Annotated

from torch import Tensor

from normcore.core import (
    Epsilon,
    Method,
    NormcoreError,
    Normed,
    Paper,
    Range,
    Region,
    multiply,
    norms_of,
    shortening,
    total,
)


def clip_by_global_norm(
    gradients: list[Tensor],
    *,
    max_norm: Annotated[float, Range(0.0, usual=(0.0, 5.0))] = 1.0,
    norm_type: Annotated[float, Range(1e-6, usual=(1.0, 4.0), infinite=True)] = 2.0,
    eps: Epsilon = 1e-6,
    error_if_nonfinite: bool = False,
) -> Normed:
    """Multiplies all gradients by ``min(1, max_norm / (norm + eps))``, the norm being that of all of them together.

    The direction stays. As in PyTorch ε is added to the norm, so that a norm just below the threshold shrinks by a
    millionth too (TensorFlow and optax have no ε); ``torch.nn.utils.clip_grad_norm`` is the same under its old name,
    deprecated since PyTorch 0.4. The norm of half-precision gradients is taken in float32.

    One value of inf makes the norm inf and the factor 0: that value becomes nan, and every other one silently 0. One
    nan makes all of them nan. PyTorch does the same and says nothing; the report's `norm_before` tells,
    `skip_if_nonfinite` drops such a step, and with `error_if_nonfinite` it is an error, before anything is changed.

    Shapes: any list of tensors. Units: those of the gradient.
    Errors: `NormcoreError` for a norm that is not finite, with `error_if_nonfinite`.
    Source: Pascanu, Mikolov and Bengio 2012, arXiv:1211.5063.
    """
    norms = norms_of(gradients, norm_type)
    norm = total(norms, norm_type)
    if error_if_nonfinite and not norm.isfinite():
        raise NormcoreError(
            f"clip_by_global_norm: the norm of the gradients is {float(norm):g}; leave out this step, or let "
            "error_if_nonfinite=False pass it on"
        )
    scale = shortening(max_norm, norm + eps)
    clipped = multiply(gradients, scale, norms, norm_type)
    return Normed(clipped, {"norm": norm.detach(), "scale": scale.detach()})


METHOD = Method(
    fn=clip_by_global_norm,
    name="Clip by Global Norm",
    regions=(Region("o ->"), Region("o i ... ->")),
    paper=Paper(
        "Razvan Pascanu, Tomáš Mikolov, Yoshua Bengio",
        "On the difficulty of training Recurrent Neural Networks",
        2012,
        "1211.5063",
    ),
    why="Where the loss has a cliff, a full gradient step jumps off it. Shortening the gradient keeps its direction "
    "and bounds the step.",
    formula=r"<x> \cdot \min\left(1, \frac{<max_norm>}{<norm> + <eps>}\right)",
    pytorch=lambda settings: (
        "torch.nn.utils.clip_grad_norm_(\n"
        "    parameters, {max_norm}, norm_type={norm_type}, error_if_nonfinite={error_if_nonfinite}\n)"
        if settings["eps"] == 1e-6
        else "norm = torch.nn.utils.get_total_norm(\n"
        "    [p.grad for p in parameters], norm_type={norm_type}, error_if_nonfinite={error_if_nonfinite}\n)\n"
        "parameters[0].grad.mul_(torch.clamp({max_norm} / (norm + {eps}), max=1.0))"
    ),
    builds_on=("clip_by_value",),
    keeps=frozenset({"direction", "clipped", "small"}),
    # A norm of a type above 2 is at most the norm, and bounds nothing but itself.
    limits=lambda settings: {"norm": "max_norm"} if settings["norm_type"] <= 2 else {},
)
