"""SELU: an activation function that normalizes by itself, layer after layer."""

from torch import Tensor
from torch.nn import functional

from normcore.core import Method, Normed, Paper, cast, widen


def selu(x: Tensor) -> Normed:
    """Scales positive values by λ and bends negative ones toward -λα, each value by itself.

    ``y = λ * x`` for positive x and ``λ * α * (exp(x) - 1)`` otherwise, with λ = 1.0507009873554805 and
    α = 1.6732632423543772: the numbers for which independent inputs of mean 0 and variance 1, weighed by weights of
    sum 0 and square sum 1 (LeCun's initialization), give outputs of mean 0 and variance 1 again.

    Shapes: x (n c ...) or (n t c).
    Source: Klambauer, Unterthiner, Mayr and Hochreiter 2017, arXiv:1706.02515.
    """
    return Normed(cast(functional.selu(widen(x)), x.dtype), {})


METHOD = Method(
    fn=selu,
    name="SELU",
    regions=(),
    paper=Paper(
        "Günter Klambauer, Thomas Unterthiner, Andreas Mayr, Sepp Hochreiter",
        "Self-Normalizing Neural Networks",
        2017,
        "1706.02515",
    ),
    why="Plain fully connected networks lose their values' scale from layer to layer, and BatchNorm disturbs them with "
    "its noise. With this activation mean 0 and variance 1 are where the layers pull back to on their own.",
    formula=r"1.0507 \cdot \left(\max(<x>, 0) + 1.67326 \cdot \left(e^{\min(<x>, 0)} - 1\right)\right)",
    pytorch="y = torch.nn.functional.selu(x)",
    elsewhere={"keras": "y = keras.ops.selu(x)", "flax": "y = jax.nn.selu(x)"},
    builds_on=("batch_norm",),
)
