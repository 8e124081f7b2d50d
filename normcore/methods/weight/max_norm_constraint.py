"""The max-norm constraint: weights of a unit that are longer than a limit are shortened to it."""

from typing import Annotated

from torch import Tensor

from normcore.core import Bound, Epsilon, Method, Normed, Paper, Range, Region, cast, euclidean_norm, widen


def max_norm_constraint(
    weight: Tensor,
    unit: Bound,
    *,
    max_norm: Annotated[float, Range(0.0, usual=(0.5, 5.0))] = 3.0,
    eps: Epsilon = 1e-7,
) -> Normed:
    """Shortens the weights of each output unit to an L2 norm of at most `max_norm`; meant for after each step.

    ``w * min(‖w‖, max_norm) / (‖w‖ + eps)``, as in Keras (there the default limit is 2): ε shortens every unit a
    little. With ``eps=0`` it is the exact projection, which changes nothing when repeated. After an optimizer step,
    copy the result into the parameter; `normcore.reparametrize` keeps the limit while training through it instead.

    Shapes: weight (o i ...).
    Source: Hinton, Srivastava, Krizhevsky, Sutskever and Salakhutdinov 2012, arXiv:1207.0580; the default from
    Srivastava and others 2014 (JMLR), where typical limits range from 3 to 4.
    """
    wide = widen(weight)
    norm = euclidean_norm(wide, unit)
    y = wide * (norm.clamp(max=max_norm) / (norm + eps))
    return Normed(cast(y, weight.dtype), {"norm": norm.detach()})


METHOD = Method(
    fn=max_norm_constraint,
    name="Max-Norm Constraint",
    regions=(Region("o i ... -> o"),),
    paper=Paper(
        "Geoffrey E. Hinton, Nitish Srivastava, Alex Krizhevsky, Ilya Sutskever, Ruslan R. Salakhutdinov",
        "Improving neural networks by preventing co-adaptation of feature detectors",
        2012,
        "1207.0580",
    ),
    why="A penalty on weights keeps them all small. A limit on the length of each unit's weights leaves them alone "
    "until they reach it, so that training can start with a very large learning rate.",
    formula=r"<x> \cdot \frac{\min(<norm>, <max_norm>)}{<norm> + <eps>}",
    pytorch="weight = module.weight\n"
    "norm = torch.linalg.vector_norm(weight, dim={reduced}, keepdim=True)\n"
    "y = weight * torch.clamp(norm, max={max_norm}) / (norm + {eps})",
    elsewhere={
        "keras": "limit = keras.constraints.MaxNorm({max_norm}, axis={reduced})  # all but o, which Keras has last\n"
        "y = limit(x)"
    },
)
