"""First values that depend on data: what a batch shows, before training, about the scale of every preactivation."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from normcore.core import NormcoreError, plural, widen
from normcore.layer import _Reparametrization

LAYERS = (nn.Linear, nn.modules.conv._ConvNd)


def data_dependent_init(module: nn.Module, x: Any) -> nn.Module:
    """Sets gain and bias of all weight-normed layers so that on this batch every preactivation has mean 0, variance 1.

    For a layer that answers with t = v · x / ‖v‖, the gain becomes 1 / σ[t] and the bias -μ[t] / σ[t], with mean and
    population variance over the batch and all positions. The module runs once on x, without gradients and in the mode
    that it is in; each layer is set when x reaches it, and passes on what it then computes. A layer that is used
    several times is set at its first use. The directions v stay as they are.

    Args:
        module: A module with linear or convolution layers whose weight was put through
            ``reparametrize(layer, "weight_norm")``; its other layers stay as they are.
        x: A batch that the module takes.

    Returns:
        The same module.

    Raises:
        NormcoreError: There is no weight-normed layer, one has no bias or a single gain for all its units, x does not
            reach one, or a unit answers the same to the whole batch. Gains and biases are then as they were.

    Source: Salimans and Kingma 2016, arXiv:1602.07868, section 3.
    """
    layers = {id(part): (name, part) for name, part in module.named_modules() if _is_weight_normed(part)}
    if not layers:
        raise NormcoreError('data_dependent_init: no layer is weight-normed; try reparametrize(layer, "weight_norm")')
    for name, part in layers.values():
        _check(name, part)
    tensors = [tensor for _, part in layers.values() for tensor in (_gain(part), part.bias)]
    before = [tensor.detach().clone() for tensor in tensors]
    waiting = dict(layers)

    def start(part: nn.Module, _: Any) -> None:
        if id(part) in waiting:
            _gain(part).fill_(1.0)
            part.get_parameter("bias").fill_(0.0)

    def finish(part: nn.Module, _: Any, output: Tensor) -> Tensor | None:
        if id(part) not in waiting:
            return None
        name, _ = waiting.pop(id(part))
        return _set(name, part, output)

    hooks = [part.register_forward_pre_hook(start) for _, part in layers.values()]
    hooks += [part.register_forward_hook(finish) for _, part in layers.values()]
    done = False
    try:
        with torch.no_grad():
            module(x)
        if waiting:
            names = ", ".join(repr(name) for name, _ in waiting.values())
            raise NormcoreError(f"data_dependent_init: x does not reach {plural(len(waiting), 'layer')}: {names}")
        done = True
    finally:
        for hook in hooks:
            hook.remove()
        if not done:
            with torch.no_grad():
                for tensor, value in zip(tensors, before, strict=True):
                    tensor.copy_(value)
    return module


def _set(name: str, part: nn.Module, output: Tensor) -> Tensor:
    """Sets a layer from what it answers with a gain of 1 and no bias, and returns what it answers from now on."""
    axis = output.ndim - (part.get_parameter("parametrizations.weight.original").ndim - 1)
    others = [a for a in range(output.ndim) if a != axis]
    wide = widen(output)
    mean = wide.mean(others, keepdim=True)
    deviation = (wide - mean).square().mean(others, keepdim=True).sqrt()
    if not bool((deviation > 0).all()):
        raise NormcoreError(f"data_dependent_init: a unit of {name!r} has the same value on the whole batch")
    gain, bias = _gain(part), part.get_parameter("bias")
    gain.copy_(deviation.reciprocal().reshape(gain.shape))
    bias.copy_((-mean / deviation).reshape(bias.shape))
    return ((wide - mean) / deviation).to(output.dtype)


def _is_weight_normed(part: nn.Module) -> bool:
    if not isinstance(part, LAYERS) or not parametrize.is_parametrized(part, "weight"):
        return False
    last = part.parametrizations["weight"][-1]  # type: ignore[index]
    return isinstance(last, _Reparametrization) and last.method.key == "weight_norm"


def _check(name: str, part: nn.Module) -> None:
    if part.bias is None:
        raise NormcoreError(f"data_dependent_init: {name!r} has no bias, without which its mean cannot be set")
    if _gain(part).numel() < len(part.get_parameter("bias")):
        raise NormcoreError(f"data_dependent_init: {name!r} has one gain for all its units; it needs dim=0")


def _gain(part: nn.Module) -> nn.Parameter:
    """The gain of a weight-normed layer."""
    return part.parametrizations["weight"][-1].gain  # type: ignore[union-attr, index]
