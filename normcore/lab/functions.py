"""Activation functions, and which part of the data falls where they pass everything on or nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Activation:
    """An activation function with its slope; `steepest` is the slope that counts as passing everything on."""

    name: str
    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    steepest: float = 1.0

    def shares(self, values: np.ndarray) -> tuple[float, float, float]:
        """How much lies where the slope is at most a tenth of the steepest, between, and at least nine tenths."""
        flat, linear = float(self.flat(values).mean()), float(self.linear(values).mean())
        return flat, 1 - flat - linear, linear

    def flat(self, values: np.ndarray) -> np.ndarray:
        """Where the function is saturated (or dead): what comes back is at most a tenth."""
        return self._relative(values) <= 0.1

    def linear(self, values: np.ndarray) -> np.ndarray:
        """Where the function is nearly a straight line that passes what comes back."""
        return self._relative(values) >= 0.9

    def _relative(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(self.slope(torch.as_tensor(values)).abs() / self.steepest)

    def __reduce__(self) -> Any:
        return ACTIVATIONS.__getitem__, (self.name,)


def _gelu_slope(x: Tensor) -> Tensor:
    return torch.special.ndtr(x) + x * (-x.square() / 2).exp() / (2 * torch.pi) ** 0.5


ACTIVATIONS: Mapping[str, Activation] = {
    function.name: function
    for function in (
        Activation("sigmoid", torch.sigmoid, lambda x: torch.sigmoid(x) * torch.sigmoid(-x), 0.25),
        Activation("tanh", torch.tanh, lambda x: 1 - torch.tanh(x).square()),
        Activation("ReLU", torch.relu, lambda x: (x > 0).double()),
        Activation("GELU", torch.nn.functional.gelu, _gelu_slope),
    )
}
