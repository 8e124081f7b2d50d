"""One contestant with all its seeds: their nets take a step together, stacked into one where that is faster."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from torch.nn import functional

from normcore.core import NormcoreError
from normcore.lab.cost import Cost, cost
from normcore.lab.nets import ALONE, MODELS, Plan, apart, build
from normcore.lab.tasks import Data
from normcore.registry import METHODS

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda parameters, **options: torch.optim.SGD(parameters, **options, fused=True),
    "momentum": lambda parameters, **options: torch.optim.SGD(parameters, **options, momentum=0.9, fused=True),
    "adam": lambda parameters, **options: torch.optim.Adam(parameters, **options, fused=True),
    "adamw": lambda parameters, **options: torch.optim.AdamW(parameters, **options, fused=True),
}
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda share: 1.0,
    "cosine": lambda share: 0.5 * (1 + float(torch.tensor(torch.pi * share).cos())),
    "warmup": lambda share: min(1.0, share / 0.1),
    "warmup_cosine": lambda share: min(1.0, share / 0.1) * SCHEDULES["cosine"](share),
}
"""The learning rate's factor after a share of all steps."""


@dataclass(frozen=True)
class Setup:
    """Everything in which contestants may differ."""

    norm: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str = "mlp"
    activation: str = "relu"
    depth: int = 1
    width: int = 50
    placement: str = "pre"
    init: str = "pytorch"
    batch_size: int = 64
    learning_rate: float = 1e-3
    optimizer: str = "adam"
    weight_decay: float = 0.0
    schedule: str = "constant"
    clip: str | None = None
    clip_settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        """What of it decides the net."""
        return Plan(**{each.name: getattr(self, each.name) for each in fields(Plan)})


@dataclass(frozen=True)
class Evaluation:
    """How the nets stand on the held-out examples, in evaluation mode: arrays of (seeds) or (seeds layers)."""

    loss: Tensor
    accuracy: Tensor
    mean: Tensor
    deviation: Tensor


class Team:
    """The nets of one contestant, one a seed."""

    def __init__(self, data: Data, setup: Setup, seeds: tuple[int, ...], steps: int) -> None:
        _check(setup)
        self.data, self.setup, self.steps = data, setup, steps
        self.nets = [build(data, setup.plan, seed) for seed in seeds]
        self.apart = apart(data, setup.plan, seeds[0])
        self.stacked = MODELS[setup.model].stacked and setup.norm not in ALONE
        if self.stacked:
            self.parameters, self.buffers = stack_module_state(self.nets)
            self.nets = self.nets[:1]
        everything = list(self.parameters.values()) if self.stacked else [p for n in self.nets for p in n.parameters()]
        options = {"lr": setup.learning_rate, "weight_decay": setup.weight_decay}
        self.optimizer = OPTIMIZERS[setup.optimizer](everything, **options)
        self.learned = everything
        self.layers = [name for name, p in self.nets[0].named_parameters() if p.ndim > 1]
        self.memory: list[dict[str, Any]] = [{} for _ in seeds]
        self.clip_settings = [_seeded(setup, seed) for seed in seeds]
        self.watched: tuple[Tensor, ...] = ()

    @property
    def parameters_each(self) -> int:
        """How many numbers each net learns."""
        return sum(p.numel() for p in self.learned) // len(self.memory)

    @cached_property
    def cost(self) -> Cost:
        """What the norm costs each net."""
        return cost(self.data, self.setup.plan, self.setup.batch_size)

    def step(self, x: Tensor, y: Tensor, done: int, watch: bool = False) -> tuple[Tensor, Tensor]:
        """A step on a batch for each seed (seeds n ...); the losses (seeds) and gradient norms (seeds layers).

        With `watch`, `watched` is what the clipping did to each seed's whole gradient: its length before and after,
        the angle between the two in radians, and whether anything changed.
        """
        self._be_in_training(True)
        found = self._losses(x, y)
        # Some methods have a parameter that a setting leaves out of the computation: its gradient is zero.
        gradients = torch.autograd.grad(found.sum(), self.learned, materialize_grads=True)
        for parameter, gradient in zip(self.learned, gradients, strict=True):
            # The fused optimizers read memory in order, whatever the strides say.
            parameter.grad = gradient.contiguous()
        norms = self._norms()
        raw = self._whole() if watch else None
        if self.setup.clip is not None:
            self._clip()
        if raw is not None:
            self.watched = _compared(raw, raw if self.setup.clip is None else self._whole())
        factor = SCHEDULES[self.setup.schedule](done / self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.setup.learning_rate * factor
        self.optimizer.step()
        return found.detach(), norms

    def evaluate(self) -> Evaluation:
        """All nets on the held-out examples."""
        self._be_in_training(False)
        with torch.no_grad():
            return Evaluation(*self._examined())

    def _be_in_training(self, mode: bool) -> None:
        for net in self.nets:
            if net.training is not mode:  # telling every module takes longer than some kernels
                net.train(mode)

    def _examined(self) -> tuple[Tensor, ...]:
        x, y = self.data.held_x, self.data.held_y
        if self.stacked:
            try:
                found: tuple[Tensor, ...] = torch.vmap(self._examine, (0, 0, None, None))(
                    self.parameters, self.buffers, x, y
                )
            except torch.linalg.LinAlgError:
                pass  # seed by seed, so that only those are lost whose weights have no singular values any more
            else:
                return found
        each = [self._examined_alone(seed, x, y) for seed in range(len(self.memory))]
        return tuple(torch.stack(parts) for parts in zip(*each, strict=True))

    def _examined_alone(self, seed: int, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        net = self.nets[0 if self.stacked else seed]
        try:
            return self._examine(*self._state(seed), x, y, net)
        except torch.linalg.LinAlgError:
            acts = len(getattr(net, "acts", "1"))
            return tuple(torch.full(size, torch.nan) for size in ((), (), (acts,), (acts,)))

    def _losses(self, x: Tensor, y: Tensor) -> Tensor:
        if self.stacked:
            try:
                # The loss of all nets at once is one kernel; mapped, it would be many.
                return losses(torch.vmap(self._answer)(self.parameters, self.buffers, x), y)
            except torch.linalg.LinAlgError:
                pass
        return torch.stack([self._loss_alone(seed, x[seed], y[seed]) for seed in range(len(self.memory))])

    def _loss_alone(self, seed: int, x: Tensor, y: Tensor) -> Tensor:
        """The loss of one seed; nan, with gradients of nan, where its weights have no singular values any more."""
        try:
            return loss(self._answer(*self._state(seed), x) if self.stacked else self.nets[seed](x), y)
        except torch.linalg.LinAlgError:
            return torch.nan * torch.stack([p.sum() for p in self._alone(seed)]).sum()

    def _state(self, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Parameters and buffers of one seed."""
        if not self.stacked:
            return dict(self.nets[seed].named_parameters()), dict(self.nets[seed].named_buffers())
        parameters, buffers = ({n: t[seed] for n, t in many.items()} for many in (self.parameters, self.buffers))
        return parameters, buffers

    def _answer(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        # No net here shares a parameter between two places, and looking for one takes time in every step.
        answer: Tensor = functional_call(self.nets[0], (parameters, buffers), (x,), tie_weights=False)
        return answer

    def _examine(
        self,
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        x: Tensor,
        y: Tensor,
        net: nn.Module | None = None,
    ) -> tuple[Tensor, ...]:
        """Loss, accuracy, and mean and standard deviation of what each activation function gives."""
        net = net or self.nets[0]
        seen: list[Tensor] = []
        acts = getattr(net, "acts", None)
        hooks = [act.register_forward_hook(lambda _, __, out: seen.append(out)) for act in acts or ()]
        try:
            answer = functional_call(net, (parameters, buffers), (x,))
        finally:
            for hook in hooks:
                hook.remove()
        right = (answer.argmax(-1) == y).float().mean() if y.dtype == torch.long else torch.full_like(answer[0, 0], 0.0)
        means = torch.stack([out.mean() for out in seen] or [answer.mean()])
        deviations = torch.stack([out.std(correction=0) for out in seen] or [answer.std(correction=0)])
        return loss(answer, y), right, means, deviations

    def _norms(self) -> Tensor:
        """The length of the gradient of each weight, by seed."""
        if self.stacked:
            rows = [_gradient(self.parameters[name]).flatten(1) for name in self.layers]
            return torch.stack([torch.linalg.vector_norm(row, dim=1) for row in rows], 1)
        each = [[_gradient(net.get_parameter(name)) for name in self.layers] for net in self.nets]
        return torch.stack([torch.stack([torch.linalg.vector_norm(g) for g in gradients]) for gradients in each])

    def _alone(self, seed: int) -> list[Tensor]:
        """What one seed learns, as if it were alone."""
        return [p[seed] for p in self.learned] if self.stacked else list(self.nets[seed].parameters())

    def _whole(self) -> Tensor:
        """All gradients of each seed as one vector, a copy in float64 (seeds parameters)."""
        gradients = [_gradient(p).detach().double() for p in self.learned]
        if self.stacked:
            return torch.cat([gradient.flatten(1) for gradient in gradients], 1)
        return torch.cat([gradient.flatten() for gradient in gradients]).reshape(len(self.memory), -1)

    def _clip(self) -> None:
        """Each seed's gradients through the clipping method, as if it were alone."""
        method = METHODS[str(self.setup.clip)]
        for seed, memory in enumerate(self.memory):
            if self.stacked:
                gradients = [_gradient(p)[seed] for p in self.learned]
            else:
                gradients = [_gradient(p) for p in self.nets[seed].parameters()]
            given: dict[str, Any] = {"state": memory} if memory else {}
            if "parameters" in method.inputs:
                given["parameters"] = [p.detach() for p in self._alone(seed)]
            normed = method(gradients, **self.clip_settings[seed], **given)
            for gradient, clipped in zip(gradients, normed.y, strict=True):
                gradient.copy_(clipped)
            self.memory[seed] = dict(normed.state)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        buffers = [dict(net.named_buffers()) for net in self.nets] if not self.stacked else [self.buffers]
        return {
            "learned": [p.detach().clone() for p in self.learned],
            "buffers": [{name: b.clone() for name, b in own.items()} for own in buffers],
            "optimizer": deepcopy(self.optimizer.state_dict()),
            "memory": deepcopy(self.memory),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state_dict` of the same contestant."""
        buffers = [dict(net.named_buffers()) for net in self.nets] if not self.stacked else [self.buffers]
        with torch.no_grad():
            for parameter, value in zip(self.learned, state["learned"], strict=True):
                parameter.copy_(value)
            for own, values in zip(buffers, state["buffers"], strict=True):
                for name, buffer in own.items():
                    buffer.copy_(values[name])
        self.optimizer.load_state_dict(deepcopy(state["optimizer"]))
        self.memory = deepcopy(state["memory"])


def loss(answer: Tensor, wanted: Tensor) -> Tensor:
    """Cross entropy in nats for classes, the mean squared error for numbers."""
    return losses(answer[None], wanted[None])[0]


def losses(answers: Tensor, wanted: Tensor) -> Tensor:
    """The `loss` of each net, given the answers of all (nets n outputs) and what was wanted of them (nets n)."""
    if wanted.dtype == torch.long:
        each = functional.cross_entropy(answers.flatten(0, 1), wanted.flatten(), reduction="none")
        return each.reshape(wanted.shape).mean(1)
    return (answers[..., 0] - wanted).square().mean(1)


def _seeded(setup: Setup, seed: int) -> dict[str, Any]:
    """The settings of the clipping for a seed of the race; a method that draws numbers draws others for each."""
    settings = dict(setup.clip_settings)
    for param in METHODS[setup.clip].params if setup.clip is not None else ():
        if param.name == "seed":
            settings["seed"] = settings.get("seed", param.default) + seed
    return settings


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None, "set in every step"
    return parameter.grad


def _compared(raw: Tensor, clipped: Tensor) -> tuple[Tensor, ...]:
    """Lengths of two vectors for each seed (seeds parameters), their angle, and whether they differ.

    The angle is taken between unit vectors by their chord, which is exact where they are nearly parallel.
    """
    before, after = _lengths(raw), _lengths(clipped)
    if raw is clipped:
        return before, after, torch.where(before.isfinite(), 0.0, torch.nan), torch.zeros(len(raw), dtype=torch.bool)
    fired = ((raw != clipped) & ~(raw.isnan() & clipped.isnan())).any(1)
    one, other = raw / before[:, None], clipped / after[:, None]
    angle = 2 * torch.atan2((one - other).norm(dim=1), (one + other).norm(dim=1))
    angle = torch.where((before > 0) & (after > 0), angle, torch.where(before.isfinite(), 0.0, torch.nan))
    return before, after, torch.where(fired, angle, torch.where(before.isfinite(), 0.0, torch.nan)), fired


def _lengths(vectors: Tensor) -> Tensor:
    """The length of each row, without overflow on the way."""
    largest = vectors.abs().amax(1, keepdim=True)
    scale = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
    return (vectors / scale).norm(dim=1) * scale[:, 0]


def _check(setup: Setup) -> None:
    """Refuses what no net can be trained with, in a sentence."""
    known: Mapping[str, Any]
    for what, value, known in (
        ("optimizer", setup.optimizer, OPTIMIZERS),
        ("schedule", setup.schedule, SCHEDULES),
    ):
        if value not in known:
            raise NormcoreError(f"race: no {what} is called {value!r}; there are {', '.join(known)}")
    for what, size, most in (("depth", setup.depth, 64), ("width", setup.width, 4096)):
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= most:
            raise NormcoreError(f"race: {what}={size!r} must be a whole number from 1 to {most}")
    for what, number in (("learning_rate", setup.learning_rate), ("weight_decay", setup.weight_decay)):
        if not isinstance(number, int | float) or not 0 <= number < float("inf"):
            raise NormcoreError(f"race: {what}={number!r} must be a finite number of at least 0")
    if setup.clip is not None:
        check_clip(setup.clip)


def check_clip(key: str) -> None:
    """Refuses what is no gradient method, and those that a race cannot feed, in a sentence."""
    if key not in METHODS or METHODS[key].family != "gradient":
        clips = ", ".join(key for key, method in METHODS.items() if method.family == "gradient")
        raise NormcoreError(f"race: no clipping method is called {key!r}; there are {clips}")
    if "examples" in METHODS[key].layouts:
        raise NormcoreError(
            f"race: {key} takes the gradient of every example by itself, and a race has only their mean"
        )
