"""The Parseval update: one step that brings a weight's rows closer to an orthonormal set."""

from typing import Annotated

from torch import Tensor

from normcore.core import Bound, Method, Normed, Paper, Range, Region, cast, widen


def parseval_update(
    weight: Tensor,
    whole: Bound,
    *,
    beta: Annotated[float, Range(0.0, 1.0, usual=(1e-4, 1e-2), logarithmic=True)] = 1e-3,
) -> Normed:
    """Takes one gradient step on ``beta / 4 * ‖W Wᵀ - I‖²``, W being the matrix of axes (o, i ...).

    ``(1 + beta) W - beta W Wᵀ W``, meant for after each optimizer step: copy the result into the parameter. Where W has
    full rank, its singular values move toward 1 (those below √(1 + 2 / beta) do), and a weight whose rows (or, where
    there are more rows than columns, whose columns) are orthonormal stays as it is.

    Shapes: weight (o i ...).
    Source: Cisse, Bojanowski, Grave, Dauphin and Usunier 2017, arXiv:1704.08847.
    """
    wide = widen(weight)
    matrix = wide.flatten(1)
    product = (matrix @ (matrix.mT @ matrix)).reshape(weight.shape)
    y = (1 + beta) * wide - beta * product
    return Normed(cast(y, weight.dtype), {"gram_product": product.detach()})


METHOD = Method(
    fn=parseval_update,
    name="Parseval Update",
    regions=(Region("o i ... ->"),),
    paper=Paper(
        "Moustapha Cisse, Piotr Bojanowski, Edouard Grave, Yann Dauphin, Nicolas Usunier",
        "Parseval Networks: Improving Robustness to Adversarial Examples",
        2017,
        "1704.08847",
    ),
    why="A small disturbance of the input grows with the singular values of every layer. Orthonormal weights let it "
    "pass unchanged, and one cheap step after each update keeps them near that.",
    formula=r"(1 + <beta>) \cdot <x> - <beta> \cdot <gram_product>",
    pytorch="weight = module.weight.flatten(1)\n"
    "y = (1 + {beta}) * weight - {beta} * weight @ weight.T @ weight\n"
    "y = y.reshape(module.weight.shape)",
)
