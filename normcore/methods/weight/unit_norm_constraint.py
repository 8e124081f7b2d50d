"""The unit-norm constraint: the weights of each unit get length 1."""

from torch import Tensor

from normcore.core import Bound, Epsilon, Identity, Method, Normed, Paper, Region, normalize


def unit_norm_constraint(weight: Tensor, unit: Bound, *, eps: Epsilon = 1e-7) -> Normed:
    """Divides the weights of each output unit by their L2 norm; meant for after each step.

    ``w / (‖w‖ + eps)``, as in Keras. After an optimizer step, copy the result into the parameter: unlike weight
    normalization, the lengths that the steps give are forgotten.

    Shapes: weight (o i ...).
    Source: ``keras.constraints.UnitNorm``; after each step, and without ε, in Zhang, Ma, Li and Wu 2017,
    arXiv:1709.04546 (whose Adam also takes the part along the weights out of their gradients).
    """
    return Normed(*normalize(weight, unit, eps))


METHOD = Method(
    fn=unit_norm_constraint,
    name="Unit-Norm Constraint",
    regions=(Region("o i ... -> o"),),
    paper=Paper(
        "Zijun Zhang, Lin Ma, Zongpeng Li, Chuan Wu", "Normalized Direction-preserving Adam", 2017, "1709.04546"
    ),
    why="Before a normalization the length of a unit's weights changes no output, yet as it grows every step turns "
    "them less. Held at length 1, they turn by what the learning rate says.",
    formula=r"\frac{<x>}{<norm> + <eps>}",
    pytorch="weight = module.weight\n"
    "norm = torch.linalg.vector_norm(weight, dim={reduced}, keepdim=True)\n"
    "y = weight / (norm + {eps})",
    elsewhere={
        "keras": "unit = keras.constraints.UnitNorm(axis={reduced})  # all but o, which Keras has last\ny = unit(x)"
    },
    invariant_to=frozenset({"scale"}),
    equals=(Identity("weight_norm", {"eps": 0.0}),),
)
