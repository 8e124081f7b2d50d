"""Modules around methods: a layer for activations, a parametrization for weights."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from normcore.core import LETTERS, Method, NormcoreError, Slot, new_tensor
from normcore.registry import method


class NormLayer(nn.Module):
    """A normalization layer: any activation method with its gain, bias and running state. Made by `layer`."""

    weight: Tensor | None
    bias: Tensor | None

    def __init__(
        self, norm: Method, sizes: dict[str, int], layout: str, affine: bool, settings: dict[str, Any]
    ) -> None:
        super().__init__()
        self.method, self.layout, self.settings = norm, layout, settings
        self.channels = sizes["c"]
        for name, slot in norm.affine.items():
            value = nn.Parameter(new_tensor(_along_features(norm, slot, sizes, layout), sizes)) if affine else None
            self.register_parameter(name, value)
        self.tracks = bool(norm.state) and settings.get("track_running_stats", True)
        for name, slot in norm.state.items():
            self.register_buffer(name, new_tensor(slot, sizes) if self.tracks else None)

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes x, shaped by the layout; in training mode the running state takes a step."""
        arguments: dict[str, Any] = {name: self._parameters[name] for name in self.method.affine}
        if self.method.state:
            arguments["training"] = self.training
        if self.tracks:
            arguments["state"] = {name: self._buffers[name] for name in self.method.state}
        if x.ndim > 1 and x.ndim == len(LETTERS[self.layout]):
            channels = x.shape[LETTERS[self.layout].index("c")]
            if channels != self.channels:
                raise NormcoreError(
                    f"{self.method.key}: x has {channels} channels; this layer was made for {self.channels}"
                )
        normed = self.method(x, self.layout, **self.settings, **arguments)
        if self.tracks and self.training:
            with torch.no_grad():
                for name, value in normed.state.items():
                    self.get_buffer(name).copy_(value)
        return normed.y

    def reset_running_stats(self) -> None:
        """Puts the running state back to that of a new layer."""
        for name, slot in self.method.state.items():
            if self.tracks:
                self.get_buffer(name).fill_(slot.init)

    def extra_repr(self) -> str:
        settings = "".join(f", {name}={value!r}" for name, value in self.settings.items())
        return f"{self.method.key!r}, {self.channels}, layout={self.layout!r}{settings}"


def _along_features(norm: Method, slot: Slot, sizes: dict[str, int], layout: str) -> Slot:
    """Where the layer was given all feature sizes, a per-feature slot covers them all, as LayerNorm's paper has it."""
    return Slot(" ".join(sizes), slot.init) if slot.axes == "c" and len(sizes) > 1 else slot


def layer(
    key: str, channels: int | Sequence[int], layout: str = "image", affine: bool = True, **settings: Any
) -> NormLayer:
    """A module around an activation method, with parameters and buffers named as in torch.nn.

    Args:
        key: The method, such as "group_norm".
        channels: How many channels x has. For LayerNorm on images and their like, the sizes (c, h, w) give the paper's
            gain and bias for each feature; the number of channels alone gives one for each channel.
        layout: The axes of x: "vector" (n c), "signal" (n c l), "image" (n c h w), "volume" (n c d h w), "tokens" (n t c).
        affine: Whether it learns a gain and a bias (or whatever else the method learns).
        **settings: Hyper-parameters of the method.

    Raises:
        NormcoreError: No such method, layout or setting, or a value outside its domain.
    """
    norm = method(key, "activation")
    layout = norm.layout(layout, 0)
    sizes = _feature_sizes(norm, channels, layout)
    return NormLayer(norm, sizes, layout, affine, norm.settings(settings, sizes))


def _feature_sizes(norm: Method, channels: int | Sequence[int], layout: str) -> dict[str, int]:
    sizes = [channels] if isinstance(channels, int) else list(channels)
    letters = [letter for letter in LETTERS[layout] if letter not in "nt"]
    if len(sizes) not in (1, len(letters)) or not all(isinstance(s, int) and s >= 1 for s in sizes):
        raise NormcoreError(
            f"{norm.key}: channels={channels!r} must be a positive whole number or the sizes ({', '.join(letters)})"
        )
    return dict(zip(letters, sizes, strict=False))


class _Reparametrization(nn.Module):
    """The module that torch's parametrization calls for the weight."""

    def __init__(self, norm: Method, weight: Tensor, settings: dict[str, Any]) -> None:
        super().__init__()
        self.method, self.settings = norm, settings
        (unit,) = norm.bound(weight.shape, **settings)
        for name, slot in norm.affine.items():
            assert callable(slot.init)
            self.register_parameter(name, nn.Parameter(slot.init(weight.detach(), unit).clone()))

    def forward(self, weight: Tensor) -> Tensor:
        return self.method(weight, **self.settings, **dict(self.named_parameters())).y

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Assigning a weight stores it, and restarts what is learned beside it from there."""
        (unit,) = self.method.bound(weight.shape, **self.settings)
        with torch.no_grad():
            for name, slot in self.method.affine.items():
                assert callable(slot.init)
                self.get_parameter(name).copy_(slot.init(weight, unit))
        return weight


def reparametrize(module: nn.Module, key: str, name: str = "weight", **settings: Any) -> nn.Module:
    """Has a module compute its weight by a weight method, through torch.nn.utils.parametrize.

    Args:
        module: A linear or convolution layer, or any module with a weight of axes (o i), (o i l), (o i h w), (o i d h w).
        key: The method, such as "weight_norm".
        name: The parameter to replace.
        **settings: Hyper-parameters of the method.

    Returns:
        The same module; ``torch.nn.utils.parametrize.remove_parametrizations(module, name)`` undoes it.

    Raises:
        NormcoreError: No such method, parameter or setting, or a weight whose axes are not (o i ...).
    """
    norm = method(key, "weight")
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise NormcoreError(f"{key}: {type(module).__name__} has no parameter {name!r}")
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        raise NormcoreError(f"{key}: {type(module).__name__} stores its weight as (i o ...); only (o i ...) is defined")
    return parametrize.register_parametrization(module, name, _Reparametrization(norm, weight, settings))
