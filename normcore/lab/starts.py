"""First weights: the ways to draw them, by the names that people give them."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

STARTS: Mapping[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "xavier": lambda w, g: nn.init.normal_(w, 0.0, (2 / (w.shape[0] + w.shape[1])) ** 0.5, generator=g),
    "he": lambda w, g: nn.init.normal_(w, 0.0, (2 / w.shape[1]) ** 0.5, generator=g),
    "lecun": lambda w, g: nn.init.normal_(w, 0.0, w.shape[1] ** -0.5, generator=g),
    "orthogonal": lambda w, g: nn.init.orthogonal_(w, generator=g),
    "pytorch": lambda w, g: nn.init.uniform_(w, -(w.shape[1] ** -0.5), w.shape[1] ** -0.5, generator=g),
    "small": lambda w, g: nn.init.normal_(w, 0.0, 0.1 * w.shape[1] ** -0.5, generator=g),
    "large": lambda w, g: nn.init.normal_(w, 0.0, 3 * w.shape[1] ** -0.5, generator=g),
}
"""First weights (o i), all with mean 0: variance 2 / (i + o), 2 / i, 1 / i, orthonormal, 1 / 3i, 0.01 / i, 9 / i."""


def draw(module: nn.Module, start: str, generator: torch.Generator) -> None:
    """First weights for the module's own parameters, each gate of a cell by itself; biases start at 0."""
    for parameter in module.parameters(recurse=False):
        if parameter.ndim == 1:
            parameter.zero_()
            continue
        for gate in parameter.split(getattr(module, "hidden_size", len(parameter))):
            gate.copy_(STARTS[start](torch.empty_like(gate).flatten(1), generator).reshape(gate.shape))
