"""Small nets whose norm, activation and weights can be chosen, and first weights that only depend on a seed."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from normcore.cells import LayerNormGRUCell, LayerNormLSTMCell, LayerNormRNNCell, RecurrentBatchNormLSTMCell
from normcore.core import NormcoreError
from normcore.lab.starts import STARTS, draw
from normcore.lab.tasks import Data
from normcore.layer import layer, reparametrize
from normcore.registry import METHODS

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "linear": nn.Identity,
}
PLACEMENTS = ("pre", "post")
# Without its norms each cell is the one of torch.nn, whose own kernels do not stack.
CELLS: dict[tuple[str, str | None], type[nn.Module]] = {
    ("rnn", None): LayerNormRNNCell,
    ("lstm", None): LayerNormLSTMCell,
    ("gru", None): LayerNormGRUCell,
    ("irnn", None): LayerNormRNNCell,
    ("rnn", "layer_norm"): LayerNormRNNCell,
    ("irnn", "layer_norm"): LayerNormRNNCell,
    ("lstm", "layer_norm"): LayerNormLSTMCell,
    ("gru", "layer_norm"): LayerNormGRUCell,
    ("lstm", "recurrent_batch_norm"): RecurrentBatchNormLSTMCell,
}


@dataclass(frozen=True)
class Plan:
    """How a net is built: everything that contestants may differ in, and how large it is.

    `norm` is the key of a method, for activations or for weights, or None; `settings` are its own. `placement` says
    where a transformer's norms stand, "pre" or "post". `init` is how first weights are drawn, one of `starts.STARTS`;
    but for "pytorch", which is what torch.nn does, biases start at 0.
    """

    model: str
    norm: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    activation: str = "relu"
    depth: int = 1
    width: int = 50
    placement: str = "pre"
    init: str = "pytorch"

    def normalize(self, channels: int, layout: str) -> nn.Module:
        """The norm for a place in the net; nothing where weights are normalized, or nothing is."""
        if self.norm is None or METHODS[self.norm].family != "activation":
            return nn.Identity()
        method = METHODS[self.norm]
        if method.context:
            raise NormcoreError(
                f"race: {method.name} takes {', '.join(method.context)} beside its input, which this net has not"
            )
        return layer(self.norm, channels, layout, **self.settings)

    def activate(self) -> nn.Module:
        """The activation function."""
        return ACTIVATIONS[self.activation]()


class MLP(nn.Module):
    """Linear, norm, activation, `depth` times; then a linear answer."""

    def __init__(self, data: Data, plan: Plan) -> None:
        super().__init__()
        sizes = [data.x[0].numel(), *[plan.width] * plan.depth]
        self.hidden = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))
        self.norms = nn.ModuleList(plan.normalize(plan.width, "vector") for _ in self.hidden)
        self.acts = nn.ModuleList(plan.activate() for _ in self.hidden)
        self.answer = nn.Linear(sizes[-1], data.classes or 1)

    def forward(self, x: Tensor) -> Tensor:
        """Answers (n classes) to x (n ...)."""
        x = x.flatten(1)
        for hidden, norm, act in zip(self.hidden, self.norms, self.acts, strict=True):
            x = act(norm(hidden(x)))
        return self.answer(x)


class CNN(nn.Module):
    """Convolution, norm, activation, `depth` times, halved once; the mean over all places, then a linear answer."""

    def __init__(self, data: Data, plan: Plan) -> None:
        super().__init__()
        sizes = [data.x.shape[1], *[plan.width] * plan.depth]
        self.hidden = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in pairwise(sizes))
        self.norms = nn.ModuleList(plan.normalize(plan.width, "image") for _ in self.hidden)
        self.acts = nn.ModuleList(plan.activate() for _ in self.hidden)
        self.answer = nn.Linear(sizes[-1], data.classes or 1)

    def forward(self, x: Tensor) -> Tensor:
        """Answers (n classes) to x (n c h w)."""
        for i, (hidden, norm, act) in enumerate(zip(self.hidden, self.norms, self.acts, strict=True)):
            x = act(norm(hidden(x)))
            x = nn.functional.max_pool2d(x, 2) if i == 0 else x
        return self.answer(x.mean((2, 3)))


class ResidualCNN(nn.Module):
    """A first convolution, then `depth` blocks x + (convolution, norm, activation, convolution, norm)."""

    def __init__(self, data: Data, plan: Plan) -> None:
        super().__init__()
        self.first = nn.Conv2d(data.x.shape[1], plan.width, 3, padding=1)
        self.hidden = nn.ModuleList(nn.Conv2d(plan.width, plan.width, 3, padding=1) for _ in range(2 * plan.depth))
        self.norms = nn.ModuleList(plan.normalize(plan.width, "image") for _ in self.hidden)
        self.acts = nn.ModuleList(plan.activate() for _ in self.hidden)
        self.answer = nn.Linear(plan.width, data.classes or 1)

    def forward(self, x: Tensor) -> Tensor:
        """Answers (n classes) to x (n c h w)."""
        x = nn.functional.max_pool2d(self.first(x), 2)
        for i in range(0, len(self.hidden), 2):
            inner = self.acts[i](self.norms[i](self.hidden[i](x)))
            x = self.acts[i + 1](x + self.norms[i + 1](self.hidden[i + 1](inner)))
        return self.answer(x.mean((2, 3)))


class Recurrent(nn.Module):
    """A recurrent cell over all steps, then a linear answer from its last state."""

    def __init__(self, data: Data, plan: Plan) -> None:
        super().__init__()
        norm = plan.norm if plan.norm is None or METHODS[plan.norm].family == "activation" else None
        if (plan.model, norm) not in CELLS:
            known = ", ".join(str(name or "none") for model, name in CELLS if model == plan.model)
            raise NormcoreError(f"race: there is no {plan.model} cell with {norm}; there are those with {known}")
        settings = plan.settings if norm else {}
        settings = {**settings, "nonlinearity": "relu"} if plan.model == "irnn" else settings
        cell = CELLS[plan.model, norm](data.x.shape[-1], plan.width, **settings)
        for name, _ in list(cell.named_children()) if norm is None else ():
            setattr(cell, name, nn.Identity())
        self.hidden = nn.ModuleList([cell])
        self.answer = nn.Linear(plan.width, data.classes or 1)

    def forward(self, x: Tensor) -> Tensor:
        """Answers (n classes) to x (n t c)."""
        state = None
        for step in x.unbind(1):
            state = self.hidden[0](step, state)
        return self.answer(state[0] if isinstance(state, tuple) else state)


class IdentityRecurrent(Recurrent):
    """A recurrent net of rectifiers that starts by keeping what it has: its first recurrent weights are the identity.

    The gradient then neither fades nor grows on its way back; a step too far, and it explodes.
    Source: Le, Jaitly and Hinton 2015, arXiv:1504.00941.
    """

    def begin(self) -> None:
        """Puts the identity and biases of 0 in the place of the drawn weights."""
        with torch.no_grad():
            nn.init.eye_(self.hidden[0].get_parameter("weight_hh"))
            for name in ("bias_ih", "bias_hh"):
                nn.init.zeros_(self.hidden[0].get_parameter(name))


class Transformer(nn.Module):
    """Attention and a two-layer net for every token, `depth` times, with norms before ("pre") or after ("post")."""

    heads = 4

    def __init__(self, data: Data, plan: Plan) -> None:
        super().__init__()
        width = plan.width
        self.before = plan.placement == "pre"
        self.embed = nn.Linear(data.x.shape[-1], width)
        self.place = nn.Parameter(torch.zeros(data.x.shape[1], width))
        sizes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
        self.hidden = nn.ModuleList(nn.Linear(i, o) for _ in range(plan.depth) for i, o in sizes)
        self.norms = nn.ModuleList(plan.normalize(width, "tokens") for _ in range(2 * plan.depth))
        self.acts = nn.ModuleList(plan.activate() for _ in range(plan.depth))
        self.last = plan.normalize(width, "tokens") if self.before else nn.Identity()
        self.answer = nn.Linear(width, data.classes or 1)

    def forward(self, x: Tensor) -> Tensor:
        """Answers (n classes) to x (n t c)."""
        x = self.embed(x) + self.place
        for i, act in enumerate(self.acts):
            join, mix, up, down = self.hidden[4 * i : 4 * i + 4]
            x = self._around(2 * i, x, partial(self._attend, join, mix))
            x = self._around(2 * i + 1, x, nn.Sequential(up, act, down))
        return self.answer(self.last(x).mean(1))

    def _around(self, at: int, x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        norm = self.norms[at]
        return x + branch(norm(x)) if self.before else norm(x + branch(x))

    def _attend(self, join: nn.Module, mix: nn.Module, x: Tensor) -> Tensor:
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in join(x).chunk(3, -1))
        weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
        return mix((weights @ value).transpose(1, 2).flatten(2))


LAYOUT: Mapping[type[nn.Module], str] = {MLP: "vector", CNN: "image", ResidualCNN: "image", Transformer: "tokens"}
"""What the activations of a net are; a recurrent net has its norms inside its cell."""


@dataclass(frozen=True)
class Model:
    """A kind of net: its class, what it takes, and whether nets of several seeds run faster stacked into one."""

    name: str
    net: type[nn.Module]
    kinds: tuple[str, ...]
    stacked: bool


MODELS = {
    "mlp": Model("MLP", MLP, ("features", "image"), True),
    "cnn": Model("CNN", CNN, ("image",), False),
    "residual_cnn": Model("Residual CNN", ResidualCNN, ("image",), False),
    "rnn": Model("RNN", Recurrent, ("sequence",), True),
    "irnn": Model("IRNN: rectifiers, begun as the identity", IdentityRecurrent, ("sequence",), True),
    "lstm": Model("LSTM", Recurrent, ("sequence",), True),
    "gru": Model("GRU", Recurrent, ("sequence",), True),
    "transformer": Model("Transformer", Transformer, ("sequence",), True),
}
"""All models, by their names in a link."""
ALONE = ("recurrent_batch_norm",)
"""Methods whose nets do not stack: this one looks into a tensor to know how far its running statistics reach."""


def fitting(model: str) -> list[str]:
    """The keys of all methods that a model can be built with: those of its layout or cells, and all on weights.

    Raises:
        NormcoreError: No such model.
    """
    if model not in MODELS:
        raise NormcoreError(f"race: no model is called {model!r}; there are {', '.join(MODELS)}")
    layout = LAYOUT.get(MODELS[model].net)
    if layout is None:
        inside = [norm for cell, norm in CELLS if cell == model and norm is not None]
    else:
        inside = [key for key, method in METHODS.items() if layout in method.layouts and not method.context]
    return inside + [key for key, method in METHODS.items() if method.family == "weight"]


def build(data: Data, plan: Plan, seed: int) -> nn.Module:
    """A net whose first effective weights depend on the model, its size and the seed alone, whatever its norm is.

    A method on weights would start the net elsewhere; two fixed numbers a unit, a scale and a shift, bring its first
    weights as close to those of the other nets as they can. For the standardizing and rescaling methods that is all
    the way; for others, such as an orthogonal parametrization, a difference stays.

    Raises:
        NormcoreError: No such model, norm, activation or setting, or a model that cannot take such data.
    """
    check(data, plan)
    net = MODELS[plan.model].net(data, plan)
    start(net, torch.Generator().manual_seed(seed), plan.init)
    if isinstance(net, IdentityRecurrent):
        net.begin()
    if plan.norm is not None and METHODS[plan.norm].family == "weight":
        for module in net.get_submodule("hidden").children():
            for name in [n for n in dict(module.named_parameters(recurse=False)) if n.startswith("weight")]:
                _reparametrize(module, plan, name)
    return net


def apart(data: Data, plan: Plan, seed: int) -> float:
    """How far the first effective weights under a method on weights lie from those without, as a share of their length.

    The largest share of all weights of the net; 0 where no method is on weights.
    """
    if plan.norm is None or METHODS[plan.norm].family != "weight":
        return 0.0
    hidden, plain = (
        build(data, each, seed).get_submodule("hidden") for each in (plan, replace(plan, norm=None, settings={}))
    )
    shares = [0.0]
    with torch.no_grad():
        for module, other in zip(hidden.children(), plain.children(), strict=True):
            for name, wanted in other.named_parameters(recurse=False):
                if name.startswith("weight"):
                    shares.append(float((getattr(module, name) - wanted).norm() / wanted.norm()))
    return max(shares)


def check(data: Data, plan: Plan) -> None:
    """Refuses a plan that cannot be built, in a sentence."""
    choices: tuple[tuple[str, str, Collection[str]], ...] = (
        ("model", plan.model, MODELS),
        ("activation", plan.activation, ACTIVATIONS),
        ("placement", plan.placement, PLACEMENTS),
        ("init", plan.init, STARTS),
    )
    for what, value, known in choices:
        if value not in known:
            raise NormcoreError(f"race: no {what} is called {value!r}; there are {', '.join(known)}")
    if plan.norm is not None and (plan.norm not in METHODS or METHODS[plan.norm].family == "gradient"):
        raise NormcoreError(
            f"race: no normalization method is called {plan.norm!r}; see normcore.METHODS; None is none"
        )
    if data.kind not in MODELS[plan.model].kinds:
        raise NormcoreError(
            f"race: a {plan.model} takes {' or '.join(MODELS[plan.model].kinds)}, and this task has {data.kind}"
        )


def start(net: nn.Module, generator: torch.Generator, init: str = "pytorch") -> None:
    """First weights as torch.nn draws them, uniform up to 1 / √fan-in (in cells 1 / √hidden), or in another way."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
                limit = module.weight[0].numel() ** -0.5
            elif isinstance(module, nn.RNNCellBase):
                limit = module.hidden_size**-0.5
            else:
                continue
            if init != "pytorch":
                draw(module, init, generator)
                continue
            for parameter in module.parameters(recurse=False):
                parameter.uniform_(-limit, limit, generator=generator)


class _Back(nn.Module):
    """Two numbers a unit that bring a method's first weights back to where they started from."""

    def __init__(self, wanted: Tensor, found: Tensor) -> None:
        super().__init__()
        flat, goal = found.flatten(1), wanted.flatten(1)
        middle, target = flat.mean(1, keepdim=True), goal.mean(1, keepdim=True)
        spread = (flat - middle).square().sum(1, keepdim=True)
        scale = ((flat - middle) * (goal - target)).sum(1, keepdim=True) / spread
        scale = torch.where(spread > 0, scale, torch.ones_like(scale))
        ones = (-1, *[1] * (found.ndim - 1))
        self.register_buffer("scale", scale.reshape(ones))
        self.register_buffer("shift", (target - scale * middle).reshape(ones))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight, unit by unit on its way back."""
        return weight * self.get_buffer("scale") + self.get_buffer("shift")


def _reparametrize(module: nn.Module, plan: Plan, name: str) -> None:
    wanted = getattr(module, name).detach().clone()
    reparametrize(module, str(plan.norm), name, **plan.settings)
    found = getattr(module, name).detach()
    if not torch.allclose(found, wanted, rtol=1e-6, atol=1e-7):
        nn.utils.parametrize.register_parametrization(module, name, _Back(wanted, found), unsafe=True)
