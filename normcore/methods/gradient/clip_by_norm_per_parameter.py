"""Clipping per parameter: each gradient tensor is scaled down when it is longer than a threshold."""

from typing import Annotated

from torch import Tensor

from normcore.core import Identity, Method, Normed, Paper, Range, Region, multiply, norms_of, shortening


def clip_by_norm_per_parameter(
    gradients: list[Tensor],
    *,
    max_norm: Annotated[float, Range(0.0, usual=(0.0, 5.0))] = 1.0,
) -> Normed:
    """Multiplies each gradient by ``min(1, max_norm / norm)``, the norm being its own.

    Each tensor keeps its direction, but long ones lose weight beside short ones, so that the direction of the whole
    gradient changes. TensorFlow's ``tf.clip_by_norm`` and Keras' ``clipnorm`` are this. A gradient that is not finite
    spoils no other one.

    Shapes: any list of tensors. Units: those of the gradient.
    Source: Pascanu, Mikolov and Bengio 2012, arXiv:1211.5063, with a norm for each tensor.
    """
    norms = norms_of(gradients)
    scales = shortening(max_norm, norms)
    return Normed(multiply(gradients, scales, norms), {"norm": list(norms.detach()), "scale": list(scales.detach())})


METHOD = Method(
    fn=clip_by_norm_per_parameter,
    name="Clip by Norm per Parameter",
    regions=(Region("o ->"), Region("o i ... ->")),
    paper=Paper(
        "Razvan Pascanu, Tomáš Mikolov, Yoshua Bengio",
        "On the difficulty of training Recurrent Neural Networks",
        2012,
        "1211.5063",
    ),
    why="With one norm for everything, a single exploding layer silences all the others. A norm for each tensor keeps "
    "the trouble where it is, and needs no talk between devices.",
    formula=r"<x> \cdot \min\left(1, \frac{<max_norm>}{<norm>}\right)",
    pytorch="for parameter in parameters:\n"
    "    parameter.grad.mul_(torch.clamp({max_norm} / parameter.grad.norm(), max=1.0))",
    equals=(Identity("clip_by_global_norm", other_settings={"eps": 0.0}, single=True),),
    builds_on=("clip_by_global_norm",),
    keeps=frozenset({"direction of each tensor", "clipped", "small"}),
    limits={"norm of each tensor": "max_norm"},
)
