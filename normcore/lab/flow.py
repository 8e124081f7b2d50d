"""Where a gradient dies or explodes: what every layer of a deep net gets on the way back, measured by autograd."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from normcore.lab.flow_nets import Net, Seen, Unrolled, Wiring, build
from normcore.lab.flow_tasks import adding, digits
from normcore.lab.nets import ACTIVATIONS
from normcore.lab.teams import loss

FLAT = 0.1
"""A unit is saturated where its slope is at most this share of the function's steepest."""
FEW = 32
"""The Jacobian is that of an example among at most so many: its price is a pass over all of them for every unit."""
FUNCTIONS = {name: kind() for name, kind in ACTIVATIONS.items()}


@dataclass(frozen=True)
class Layers:
    """What every layer shows in one pass there and back, arrays of (layers), the one nearest to the input first.

    `gradient` is the length of ∂loss/∂output over the batch (of a recurrent net: at the state that the next step
    gets). `weights` is that of ∂loss/∂W, and empty where all layers share their weights. `spread` is the outputs'
    standard deviation. `flat` is the saturated share, `slope` the root mean square of the activations' slopes.
    """

    gradient: np.ndarray
    weights: np.ndarray
    spread: np.ndarray
    flat: np.ndarray
    slope: np.ndarray
    loss: float

    @property
    def ratio(self) -> float:
        """The first layer's gradient over the last one's; nan where there is none."""
        first, last = float(self.gradient[0]), float(self.gradient[-1])
        return first / last if np.isfinite([first, last]).all() and last > 0 else float("nan")

    @property
    def factor(self) -> float:
        """What a layer leaves of the gradient on its way back, as a geometric mean."""
        return self.ratio ** (1 / (len(self.gradient) - 1))


@dataclass(frozen=True)
class Profile:
    """A net before it learns: its layers, and the singular values of its Jacobian from the largest on.

    The Jacobian is that of the last layer's output by the first one's, for the first example of the batch among the
    next ones, `FEW` in all at most.
    """

    layers: Layers
    singular: np.ndarray

    @property
    def floor(self) -> float:
        """Singular values below this are rounding errors of the largest."""
        return float(self.singular[0]) * len(self.singular) * float(np.finfo(np.float64).eps)


def profile(wiring: Wiring, seed: int = 0) -> Profile:
    """Measures a net at its first weights, on its first batch.

    Raises:
        NormcoreError: Something that cannot be built, in a sentence.
    """
    net, (x, y) = build(wiring, seed), Batches(wiring, seed).next()
    seen, probes, value = forward(net, wiring, x, y)
    jacobian = _jacobian(build(wiring, seed), x[:FEW], wiring.depth, probes.shape[-1])
    grown = torch.autograd.grad(value, [probes, *learned(net)], materialize_grads=True)
    layers = read(net, seen, value, grown[0], grown[1:])
    fine = bool(jacobian.isfinite().all())
    singular = torch.linalg.svdvals(jacobian).numpy() if fine else np.full(len(jacobian), np.nan)
    return Profile(layers, singular)


class Batches:
    """The examples that a net sees, batch after batch, drawn from a seed."""

    def __init__(self, wiring: Wiring, seed: int) -> None:
        self.data = adding(wiring.depth) if wiring.recurrent else digits()
        self.size = wiring.batch
        self.generator = torch.Generator().manual_seed(seed + 1_000_003)

    def next(self) -> tuple[Tensor, Tensor]:
        """The next batch and its answers."""
        chosen = torch.randperm(len(self.data.x), generator=self.generator)[: self.size]
        return self.data.x[chosen], self.data.y[chosen]


def learned(net: Net) -> list[nn.Parameter]:
    """Everything that the net learns."""
    return [parameter for parameter in net.parameters() if parameter.requires_grad]


def forward(net: Net, wiring: Wiring, x: Tensor, y: Tensor, listen: bool = True) -> tuple[Seen, Tensor, Tensor]:
    """What the layers put out if anybody listens, probes whose gradients are theirs, and the loss."""
    states = 2 if wiring.kind == "lstm" else 1
    probes = torch.zeros(wiring.depth, len(x), states * wiring.width, dtype=x.dtype, requires_grad=True)
    seen = Seen()
    return seen, probes, loss(net(x, probes, seen if listen else None), y)


def read(net: Net, seen: Seen, value: Tensor, probes: Tensor, gradients: Sequence[Tensor]) -> Layers:
    """What a pass showed, from the gradients of its probes and of all that is learned."""
    flat, mean = [], []
    for given in seen.inputs:
        sizes = [slope(name, values) for name, values in given]
        least = [FLAT * steepest(name) for name, _ in given]
        flat.append(float(torch.cat([f <= at for f, at in zip(sizes, least, strict=True)]).double().mean()))
        mean.append(float(torch.cat(sizes).square().mean().sqrt()))
    return Layers(
        gradient=probes.flatten(1).norm(dim=1).numpy(),
        weights=_weights(net, gradients),
        spread=np.array([float(out.detach().std(correction=0)) for out in seen.outputs]),
        flat=np.array(flat),
        slope=np.array(mean),
        loss=float(value.detach()),
    )


def slope(name: str, values: Tensor) -> Tensor:
    """The size of an activation function's slope at each of the values, as one row."""
    with torch.enable_grad():
        x = values.detach().flatten().requires_grad_()
        (found,) = torch.autograd.grad(FUNCTIONS[name](x).sum(), x)
    return found.abs()


@cache
def steepest(name: str) -> float:
    """The size of the slope where an activation function is steepest."""
    return float(slope(name, torch.linspace(-10, 10, 20_001, dtype=torch.float64)).max())


def _weights(net: Net, gradients: Sequence[Tensor]) -> np.ndarray:
    """The length of the gradient of each layer's weights."""
    if isinstance(net, Unrolled):
        return np.zeros(0)
    by_parameter = {id(p): g for p, g in zip(learned(net), gradients, strict=True)}
    own = [[by_parameter[id(p)] for p in layer.parameters() if p.ndim > 1] for layer in net.hidden]
    return np.array([float(torch.cat([g.flatten() for g in layer]).norm()) for layer in own])


def _jacobian(net: Net, x: Tensor, depth: int, size: int) -> Tensor:
    """How the first example's last output moves with its first one; the others of its batch stay as they are."""
    moved = torch.zeros(1, size, dtype=x.dtype, requires_grad=True)
    still = torch.zeros(len(x), size, dtype=x.dtype)
    seen = Seen()
    net(x, [torch.cat([moved, still[1:]])] + [still] * (depth - 1), seen)
    wanted = torch.eye(size, dtype=x.dtype)
    (found,) = torch.autograd.grad(seen.outputs[-1][0], moved, wanted, is_grads_batched=True)
    return found[:, 0]
