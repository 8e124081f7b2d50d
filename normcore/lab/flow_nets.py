"""Deep nets in which the gradient of every layer can be read: stacks of layers, and cells unrolled in time."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from normcore.core import NormcoreError
from normcore.lab import tasks
from normcore.lab.flow_tasks import adding
from normcore.lab.nets import ACTIVATIONS, CELLS, Plan, Recurrent
from normcore.lab.starts import STARTS, draw
from normcore.layer import layer, reparametrize
from normcore.registry import METHODS

KINDS: Mapping[str, str] = {"mlp": "MLP", "rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}
MOST = {"depth": 200, "width": 256, "batch": 1024}
GATES = {"lstm": 4, "gru": 3}
NUMBERS = 4_000_000
"""The most numbers that all layers together compute in one pass."""
PIXELS = 64
SKIPS = "residual"
"""What methods that bring a skip connection of their own take beside their input."""


@dataclass(frozen=True)
class Wiring:
    """A net and how it learns: everything that a gradient on its way back may depend on.

    `depth` counts layers, or with a recurrent `kind` time steps. `norm` is an activation method (for cells: one that
    they exist with), `weights` a weight method, `forget` the first bias of an LSTM's forget gate, `clip` a gradient
    method, `penalty` a kind of orthogonal regularization of weight `strength`; None is none of them.
    """

    kind: str = "mlp"
    depth: int = 20
    width: int = 32
    activation: str = "sigmoid"
    start: str = "xavier"
    norm: str | None = None
    norm_settings: tuple[tuple[str, Any], ...] = ()
    weights: str | None = None
    weight_settings: tuple[tuple[str, Any], ...] = ()
    residual: bool = False
    forget: float = 0.0
    batch: int = 32
    learning_rate: float = 0.1
    optimizer: str = "sgd"
    penalty: str | None = None
    strength: float = 0.01
    clip: str | None = None
    clip_settings: tuple[tuple[str, Any], ...] = ()

    @property
    def recurrent(self) -> bool:
        """Whether its layers are time steps."""
        return self.kind != "mlp"

    @property
    def function(self) -> str:
        """The activation function it really has: the gates of LSTM and GRU are no choice."""
        return "sigmoid and tanh" if self.kind in ("lstm", "gru") else self.activation


@dataclass
class Seen:
    """What a forward pass leaves behind: each layer's output, and what its activation functions were given."""

    outputs: list[Tensor] = field(default_factory=list)
    inputs: list[list[tuple[str, Tensor]]] = field(default_factory=list)


class Stack(nn.Module):
    """Linear, norm, activation, `depth` times, with x + before it where it skips; then a linear answer."""

    def __init__(self, wiring: Wiring) -> None:
        super().__init__()
        sizes = [PIXELS, *[wiring.width] * wiring.depth]
        self.hidden = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))
        self.own_skip = wiring.norm is not None and SKIPS in METHODS[wiring.norm].context
        self.norms = nn.ModuleList(_norm(wiring, self.own_skip and at == 0) for at in range(wiring.depth))
        self.act = ACTIVATIONS[wiring.activation]()
        self.activation, self.residual = wiring.activation, wiring.residual
        self.answer = nn.Linear(wiring.width, 10)

    def forward(self, x: Tensor, probes: Tensor | Sequence[Tensor], seen: Seen | None = None) -> Tensor:
        """Answers (n 10) to x (n 64); what `probes` (depth n width) hold is added to the outputs of the layers."""
        for at, (hidden, norm, probe) in enumerate(zip(self.hidden, self.norms, probes, strict=True)):
            before = hidden(x)
            if self.own_skip and at:
                branch = self.act(before)
                given = before
                after = norm(branch, residual=x)
            else:
                given = norm(before)
                branch = self.act(given)
                after = x + branch if self.residual and at else branch
            x = after + probe
            if seen is not None:
                seen.outputs.append(x)
                seen.inputs.append([(self.activation, given)])
        answer: Tensor = self.answer(x)
        return answer

    def matrices(self) -> list[list[Tensor]]:
        """The weights of each layer, as they are used."""
        return [[_weight(hidden, "weight")] for hidden in self.hidden]


class Unrolled(nn.Module):
    """A recurrent cell over all time steps, then a linear answer from its last state."""

    def __init__(self, wiring: Wiring, data: tasks.Data) -> None:
        super().__init__()
        made = Recurrent(data, Plan(wiring.kind, wiring.norm, dict(wiring.norm_settings), width=wiring.width))
        cell: Any = made.hidden[0]
        if wiring.kind == "rnn":
            cell.nonlinearity = wiring.activation
        self.cell = cell
        self.answer = nn.Linear(wiring.width, 1)

    def forward(self, x: Tensor, probes: Tensor | Sequence[Tensor], seen: Seen | None = None) -> Tensor:
        """Answers (n 1) to x (n t c); `probes` (t n state) are added to the state as the next step gets it."""
        state: Any = None
        width = self.answer.in_features
        for now, probe in zip(x.unbind(1), probes, strict=True):
            with Listener() if seen is not None else nullcontext() as heard:
                state = self.cell(now, state)
            parts = probe.split(width, -1)
            if isinstance(state, tuple):
                state = tuple(part + own for part, own in zip(state, parts, strict=True))
            else:
                state = state + parts[0]
            if seen is not None and heard is not None:
                seen.outputs.append(torch.cat(state, -1) if isinstance(state, tuple) else state)
                seen.inputs.append(heard.found)
        answer: Tensor = self.answer(state[0] if isinstance(state, tuple) else state)
        return answer

    def matrices(self) -> list[list[Tensor]]:
        """The recurrent weights, a matrix a gate."""
        return [list(_weight(self.cell, "weight_hh").split(self.answer.in_features))]


def _weight(module: nn.Module, name: str) -> Tensor:
    """A weight as it is used, whatever it is computed from."""
    found: Tensor = getattr(module, name)
    return found


class Listener(TorchFunctionMode):
    """Hears what sigmoids, tangents and rectifiers are given, wherever in a cell they are."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("sigmoid", "tanh", "relu"):
            self.found.append((name, args[0].detach()))
        return func(*args, **(kwargs or {}))


Net = Stack | Unrolled


def build(wiring: Wiring, seed: int) -> Net:
    """The net with first weights that only depend on the wiring and the seed, in float64; biases start at 0.

    Raises:
        NormcoreError: Something that cannot be built, in a sentence.
    """
    check(wiring)
    net: Net = Unrolled(wiring, adding(wiring.depth)) if wiring.recurrent else Stack(wiring)
    generator = torch.Generator().manual_seed(seed)
    parts = [net.cell] if isinstance(net, Unrolled) else list(net.hidden)
    net.double()
    with torch.no_grad():
        for part in parts:
            draw(part, wiring.start, generator)
        if wiring.kind == "lstm":
            parts[0].get_parameter("bias_ih")[wiring.width : 2 * wiring.width] = wiring.forget
        STARTS["lecun"](net.answer.weight, generator)
        net.answer.bias.zero_()
    if wiring.weights is not None:
        for part in parts:
            for name in [n for n, p in part.named_parameters(recurse=False) if p.ndim > 1]:
                reparametrize(part, wiring.weights, name, **dict(wiring.weight_settings))
    return net.double()


def fitting(kind: str) -> list[str]:
    """The keys of the activation methods that a kind of net can be built with."""
    if kind == "mlp":
        return [k for k, method in METHODS.items() if method.family == "activation" and "vector" in method.layouts]
    return [norm for cell, norm in CELLS if cell == kind and norm is not None]


def clips() -> list[str]:
    """The keys of the gradient methods that do with the gradient of a whole batch."""
    return [key for key, method in METHODS.items() if method.family == "gradient" and not method.per_example]


def functions(kind: str) -> list[str]:
    """The activation functions that a kind of net can be built with; none where the cell's gates are no choice."""
    return list(ACTIVATIONS) if kind == "mlp" else ["tanh", "relu"] if kind == "rnn" else []


def _norm(wiring: Wiring, left_out: bool) -> nn.Module:
    """A layer's norm; the first layer changes the size, so that nothing can skip it."""
    if left_out or wiring.norm is None:
        return nn.Identity()
    return layer(wiring.norm, wiring.width, "vector", **dict(wiring.norm_settings))


def check(wiring: Wiring) -> None:
    """Refuses what cannot be built or trained, in a sentence."""
    for what, value, known in (
        ("kind", wiring.kind, KINDS),
        ("start", wiring.start, STARTS),
        ("activation", wiring.activation, functions(wiring.kind) or [wiring.activation]),
        ("norm", wiring.norm, [None, *fitting(wiring.kind)]),
        ("weights", wiring.weights, [None, *(k for k, m in METHODS.items() if m.family == "weight")]),
        ("clip", wiring.clip, [None, *clips()]),
    ):
        if value not in known:
            raise NormcoreError(f"flow: {what}={value!r} cannot be; there are {', '.join(map(str, known))}")
    for what, most in MOST.items():
        size, least = getattr(wiring, what), 1 if what == "batch" else 2
        if not isinstance(size, int) or isinstance(size, bool) or not least <= size <= most:
            raise NormcoreError(f"flow: {what}={size!r} must be a whole number from {least} to {most}")
    numbers = GATES.get(wiring.kind, 1) * wiring.depth * wiring.width * wiring.batch
    if numbers > NUMBERS:
        raise NormcoreError(
            f"flow: depth={wiring.depth}, width={wiring.width} and batch={wiring.batch} make {numbers:,} numbers in "
            f"one pass of this net; at most {NUMBERS:,} are measured, so lower one of the three"
        )
