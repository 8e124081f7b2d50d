"""Local response normalization: neighboring channels damp each other."""

from typing import Annotated

from torch import Tensor

from normcore.core import Method, Normed, Paper, Range, Window, cast, widen


def local_response_norm(
    x: Tensor,
    neighbors: Window,
    *,
    size: Annotated[int, Range(1, usual=(1, 9), integer=True)] = 5,
    alpha: Annotated[float, Range(0.0, usual=(0.0, 1.0))] = 1e-4,
    beta: Annotated[float, Range(0.0, usual=(0.0, 2.0))] = 0.75,
    k: Annotated[float, Range(0.0, usual=(0.0, 4.0))] = 1.0,
) -> Normed:
    """Divides each value by a power of the mean square of `size` neighboring channels at the same position.

    ``y = x / (k + alpha / size * sum of squares) ** beta``, missing neighbors counting as 0. As in PyTorch, ONNX and
    Caffe, alpha is divided by `size`, and the default k is 1 (the paper and TensorFlow do not divide; the paper has
    k = 2, n = 5). An even window reaches one channel further down than up.

    Shapes: x (n c ...).
    Source: Krizhevsky, Sutskever and Hinton 2012 (NeurIPS).
    """
    back, ahead = neighbors.reach[1]
    wide = widen(x)
    # A product with a band of ones costs less than pooling, up to many hundred channels.
    window = wide.new_full((x.shape[1], x.shape[1]), 1 / size).tril(ahead).triu(-back)
    mean_square = (window @ wide.square().reshape(*x.shape[:2], -1)).reshape(x.shape)
    y = wide * (k + alpha * mean_square).pow(-beta)
    return Normed(cast(y, x.dtype), {"window_mean_square": mean_square.detach()})


METHOD = Method(
    fn=local_response_norm,
    name="Local Response Norm",
    regions=(Window("n c ...", {"c": "size"}),),
    paper=Paper(
        "Alex Krizhevsky, Ilya Sutskever, Geoffrey E. Hinton",
        "ImageNet Classification with Deep Convolutional Neural Networks",
        2012,
    ),
    why="ReLU outputs have no upper limit. Borrowing lateral inhibition from the eye, a channel with strong neighbors "
    "at the same place is turned down.",
    formula=r"\frac{<x>}{\left(<k> + <alpha> \cdot <window_mean_square>\right)^{<beta>}}",
    pytorch="y = torch.nn.functional.local_response_norm({x3}, {size}, alpha={alpha}, beta={beta}, k={k}){back3}",
    builds_on=("local_contrast_norm",),
)
