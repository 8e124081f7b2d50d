"""Modules around methods: a layer for activations, a parametrization for weights."""

import json
import numbers
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from normcore.core import (
    EMPTY,
    LETTERS,
    Bound,
    Method,
    NormcoreError,
    Normed,
    Part,
    Slot,
    Window,
    autocasts,
    bounds_of,
    counts,
    new_tensor,
    shift_away,
)
from normcore.registry import method


class _MethodModule(nn.Module):
    """A module that calls a method: an input is checked once, and those like it go straight to the mathematics."""

    def __init__(self, norm: Method, layout: str, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.method, self.layout, self.settings = norm, layout, settings
        self._fixed = {**settings, **({"layout": layout} if "layout" in norm.inputs else {})}
        self._said = json.dumps(settings)
        self._checked: tuple[Any, ...] = ()
        self._bound: tuple[Bound | Window | Part, ...] = ()

    def _call(self, x: Tensor, arguments: Mapping[str, Any], context: Mapping[str, Tensor] = EMPTY) -> Normed:
        arguments = {**self._fixed, **arguments, **context}
        if torch.compiler.is_compiling():
            return self.method.compute(x, *self._bounds(x), **arguments)
        known = (x.shape, x.dtype, x.device, x.layout, self.training) if isinstance(x, Tensor) else ()
        if known and known == self._checked and not context:
            mathematics = self.method.compute if autocasts(x) else self.method.fn
            return mathematics(x, *self._bound, **arguments)
        self._check(x, context)
        normed = self.method(x, **{"layout": self.layout, **arguments})
        self._checked, self._bound = known, self._bounds(x)
        return normed

    def _bounds(self, x: Tensor) -> tuple[Bound | Window | Part, ...]:
        training = self.training or not self.method.state
        shape = tuple(operator.index(size) for size in x.shape)
        return bounds_of(self.method.fn.__module__, shape, self.layout, training, self.settings, self._said)

    def _learned(self) -> dict[str, Any]:
        """What the method is given beside its input: asking a module for a parameter takes longer than some kernels,
        but one that is parametrized is not among its own."""
        own = self._parameters
        return {name: own[name] if name in own else getattr(self, name) for name in self.method.affine}

    def _check(self, x: Tensor, context: Mapping[str, Tensor]) -> None:
        """What the method itself cannot know."""


class NormLayer(_MethodModule):
    """A normalization layer: any activation method with its gain, bias and running state. Made by `layer`."""

    weight: Tensor | None
    bias: Tensor | None

    def __init__(
        self, norm: Method, sizes: dict[str, int], layout: str, affine: bool, settings: dict[str, Any]
    ) -> None:
        super().__init__(norm, layout, settings)
        self.features = sizes
        for name, slot in norm.affine.items():
            self.register_parameter(name, nn.Parameter(self._new(slot)) if affine else None)
        self.tracks = bool(norm.state) and settings.get("track_running_stats", True)
        self.shift_first = False
        for name, slot in norm.state.items():
            self.register_buffer(name, self._new(slot) if self.tracks else None)

    def _new(self, slot: Slot) -> Tensor:
        return new_tensor(slot, self.features | counts(self.settings), settings=self.settings)

    def forward(self, x: Tensor, *unnamed: Any, **context: Tensor) -> Tensor:
        """Normalizes x, shaped by the layout; in training mode the running state takes a step.

        `context` are the tensors that the method takes beside its input, by name: see its `context`.
        """
        if unnamed:
            known = " and ".join(f"{name}=" for name in self.method.context)
            raise NormcoreError(f"{self.method.key}: beside x it takes {known + ', by name' if known else 'nothing'}")
        arguments = self._learned()
        if self.method.state:
            arguments["training"] = self.training
        state: dict[str, Any] = {}
        if self.tracks:
            arguments["state"] = state = {name: self._buffers[name] for name in self.method.state}
        shifts = self.shift_first and (self.training or not self.tracks)
        if shifts:
            self._check(x, context)
            x, origin = shift_away(x, self._bounds(x), alike=self.tracks)
            if self.tracks:
                arguments["state"] = {**state, "running_mean": state["running_mean"] - origin}
        normed = self._call(x, arguments, context)
        if self.tracks and self.training:
            for name, value in normed.state.items():
                state[name].copy_(value + origin if shifts and name == "running_mean" else value)
        return normed.y

    def _check(self, x: Tensor, context: Mapping[str, Tensor]) -> None:
        if not isinstance(x, Tensor):
            raise NormcoreError(f"{self.method.key}: x is {type(x).__name__}; it must be a floating-point tensor")
        given = dict(zip(LETTERS[self.layout], x.shape, strict=False))
        wrong = {letter: size for letter, size in self.features.items() if given.get(letter, size) != size}
        if not context.keys() <= self.method.context.keys():
            known = ", ".join(self.method.context) or "nothing"
            raise NormcoreError(f"{self.method.key}: beside x it takes {known}, not {', '.join(context)}")
        if wrong:
            made, found = (", ".join(f"{letter}={of[letter]}" for letter in wrong) for of in (self.features, given))
            raise NormcoreError(f"{self.method.key}: x has {found}; this layer was made for {made}")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if "running_mean" in self.method.state and "num_batches_tracked" not in self.method.state:
            state_dict.pop(f"{prefix}num_batches_tracked", None)  # a BatchNorm's counter, as torchvision drops it
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def reset_running_stats(self) -> None:
        """Puts the running state back to that of a new layer."""
        for name, slot in self.method.state.items():
            if self.tracks:
                self.get_buffer(name).copy_(self._new(slot))

    def extra_repr(self) -> str:
        settings = "".join(f", {name}={value!r}" for name, value in self.settings.items())
        sizes = tuple(self.features.values())
        shifts = ", shift_first=True" if self.shift_first else ""
        return f"{self.method.key!r}, {sizes if len(sizes) > 1 else sizes[0]}, layout={self.layout!r}{settings}{shifts}"


def layer(
    key: str,
    channels: int | Sequence[int],
    layout: str = "image",
    affine: bool = True,
    shift_first: bool = False,
    **settings: Any,
) -> NormLayer:
    """A module around an activation method, with parameters and buffers named as in torch.nn.

    Args:
        key: The method, such as "group_norm".
        channels: How many channels x has. For LayerNorm on images and their like, the sizes (c, h, w) give the paper's
            gain and bias for each feature; the number of channels alone gives one for each channel.
        layout: The axes of x: "vector" (n c), "signal" (n c l), "image" (n c h w), "volume" (n c d h w) or
            "tokens" (n t c).
        affine: Whether it learns a gain and a bias (or whatever else the method learns).
        shift_first: Whether a value of each region is subtracted first, for one pass more over x. It saves the digits
            that float32 kernels lose to a mean far above the deviation, for methods that a shift leaves alone.
        **settings: Hyper-parameters of the method.

    Raises:
        NormcoreError: No such method, layout or setting, or a value outside its domain.
    """
    norm = method(key, "activation")
    for name, flag in (("affine", affine), ("shift_first", shift_first)):
        if not isinstance(flag, bool):
            raise NormcoreError(f"{key}: {name}={flag!r} must be True or False")
    layout = norm.layout(layout, 0)
    sizes = _feature_sizes(norm, channels, layout)
    made = NormLayer(norm, sizes, layout, affine, norm.settings(settings, sizes))
    if shift_first and "shift" not in norm.invariances(**settings):
        raise NormcoreError(f"{key}: shift_first=True needs a method that a shift leaves alone; {key} is none")
    made.shift_first = shift_first
    return made


def _feature_sizes(norm: Method, channels: int | Sequence[int], layout: str) -> dict[str, int]:
    sizes = list(channels) if isinstance(channels, Sequence) else [channels]
    letters = [letter for letter in LETTERS[layout] if letter not in "nt"]
    if len(sizes) not in (1, len(letters)) or not all(_positive(size) for size in sizes):
        raise NormcoreError(
            f"{norm.key}: channels={channels!r} must be a positive whole number or the sizes ({', '.join(letters)})"
        )
    return {letter: int(size) for letter, size in zip(letters, sizes, strict=False)}


def _positive(size: Any) -> bool:
    return isinstance(size, numbers.Integral) and not isinstance(size, bool) and int(size) >= 1


class _Reparametrization(_MethodModule):
    """The module that torch's parametrization calls for the weight."""

    def __init__(self, norm: Method, weight: Tensor, settings: dict[str, Any]) -> None:
        super().__init__(norm, norm.layout(None, weight.ndim), settings)
        for name, value in self._starts(weight, norm.affine).items():
            self.register_parameter(name, nn.Parameter(value))
        for name, value in self._starts(weight, norm.state).items():
            self.register_buffer(name, value)

    def _starts(self, weight: Tensor, slots: Mapping[str, Slot]) -> dict[str, Tensor]:
        """First values of what is learned and remembered beside the weight: those that suit this weight."""
        bounds = self.method.bound(weight.shape, **self.settings)
        return {name: slot.start(weight, *bounds).clone() for name, slot in slots.items() if callable(slot.init)}

    def forward(self, weight: Tensor) -> Tensor:
        beside = self._learned()
        if self.method.state:
            # Copies: the next step must not change what a gradient that is still to come was computed from.
            beside |= {"state": {name: b.clone() for name, b in self.named_buffers()}, "training": self.training}
        normed = self._call(weight, beside)
        if self.training and self.method.state:
            with torch.no_grad():
                for name in self.method.state:
                    self.get_buffer(name).copy_(normed.state[name])
        return normed.y

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Assigning a weight stores it, and restarts what is learned and remembered beside it from there."""
        with torch.no_grad():
            for name, value in self._starts(weight, {**self.method.affine, **self.method.state}).items():
                getattr(self, name).copy_(value)
        return weight


def reparametrize(module: nn.Module, key: str, name: str = "weight", **settings: Any) -> nn.Module:
    """Has a module compute its weight by a weight method, through torch.nn.utils.parametrize.

    Args:
        module: A linear or convolution layer, or any module with a weight of axes (o i), (o i l), (o i h w) or
            (o i d h w).
        key: The method, such as "weight_norm".
        name: The parameter to replace.
        **settings: Hyper-parameters of the method.

    Returns:
        The same module; ``torch.nn.utils.parametrize.remove_parametrizations(module, name)`` undoes it.

    Raises:
        NormcoreError: No such method, parameter or setting, or a weight whose axes are not (o i ...).
    """
    norm = method(key, "weight")
    owned = isinstance(module, nn.Module) and isinstance(name, str)
    owned = owned and (
        name in module._parameters or name in module._buffers or parametrize.is_parametrized(module, name)
    )
    weight = getattr(module, name) if owned else None
    if not isinstance(weight, Tensor) or nn.parameter.is_lazy(weight):
        raise NormcoreError(f"{key}: {type(module).__name__} has no parameter {name!r} with a shape")
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        raise NormcoreError(f"{key}: {type(module).__name__} stores its weight as (i o ...); only (o i ...) is defined")
    return parametrize.register_parametrization(module, name, _Reparametrization(norm, weight, settings))
