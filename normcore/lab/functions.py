"""Activation functions, and which part of the data falls where they pass everything on or nothing."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Activation:
    """An activation function with its slope, and the size of the slope where it is steepest."""

    name: str
    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    steepest: float = 1.0

    @property
    def passing(self) -> float:
        """The slope that counts as passing everything on: 1, or the steepest of a function that never reaches it."""
        return min(self.steepest, 1.0)

    def shares(self, values: np.ndarray) -> tuple[float, float, float]:
        """How much lies where the slope is at most a tenth of the steepest, between, and linear."""
        flat, linear = float(self.flat(values).mean()), float(self.linear(values).mean())
        return flat, 1 - flat - linear, linear

    def flat(self, values: np.ndarray) -> np.ndarray:
        """Where the function is saturated (or dead): the slope is at most a tenth of the steepest."""
        return self._size(values) <= 0.1 * self.steepest

    def linear(self, values: np.ndarray) -> np.ndarray:
        """Where the function is nearly a straight line: its slope is at least nine tenths of `passing`."""
        return self._size(values) >= 0.9 * self.passing

    def _size(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(self.slope(torch.as_tensor(values)).abs())

    def __reduce__(self) -> Any:
        return ACTIVATIONS.__getitem__, (self.name,)


def _gelu_slope(x: Tensor) -> Tensor:
    return torch.special.ndtr(x) + x * (-x.square() / 2).exp() / (2 * torch.pi) ** 0.5


GELU_STEEPEST = (1 + math.erf(1)) / 2 + math.exp(-1) / math.sqrt(math.pi)
"""The slope of GELU at √2, where its second derivative φ(x)(2 − x²) is 0."""

ACTIVATIONS: Mapping[str, Activation] = {
    function.name: function
    for function in (
        Activation("sigmoid", torch.sigmoid, lambda x: torch.sigmoid(x) * torch.sigmoid(-x), 0.25),
        Activation("tanh", torch.tanh, lambda x: 1 - torch.tanh(x).square()),
        Activation("ReLU", torch.relu, lambda x: (x > 0).double()),
        Activation("GELU", torch.nn.functional.gelu, _gelu_slope, GELU_STEEPEST),
    )
}
