"""What gradient methods remember: how they recall and move it, and what a state has to look like."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from normcore.core.errors import NormcoreError


def check_state(key: str, state: Any, remembers: Mapping[str, str], example: Mapping[str, Any]) -> None:
    """Refuses a state that the method cannot have made; `example` is one that it has made.

    Raises:
        NormcoreError: No mapping, an entry that the method does not know, or one of another kind than its own.
    """
    if not isinstance(state, Mapping):
        raise NormcoreError(f"{key}: the state is {type(state).__name__}; it must be a mapping, {{}} to begin with")
    known = ", ".join(remembers) or "nothing"
    for name, value in state.items():
        if name not in remembers:
            raise NormcoreError(f"{key}: the state has {name!r}; this method remembers {known}")
        like = example.get(name)
        if isinstance(like, list):
            wanted = "a list of tensors"
            fits = isinstance(value, list) and all(entry is None or isinstance(entry, Tensor) for entry in value)
        elif isinstance(like, int):
            wanted, fits = "a whole number", isinstance(value, int) and not isinstance(value, bool)
        else:
            axes = like.ndim if isinstance(like, Tensor) else 0
            wanted = f"a tensor of {axes} axes"
            fits = isinstance(value, Tensor) and value.ndim == axes
        if not fits:
            kind = f"a tensor of {value.ndim} axes" if isinstance(value, Tensor) else f"{type(value).__name__}"
            raise NormcoreError(f"{key}: the state's {name!r} is {kind}; it must be {wanted}")


def recalled(
    key: str, state: Mapping[str, Any], name: str, gradients: Sequence[Tensor], first: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """What is remembered of each gradient; one that has not been seen yet begins with what `first` makes of it.

    Raises:
        NormcoreError: The state remembers another number of gradients, or one of another shape.
    """
    known = state.get(name) or [None] * len(gradients)
    if len(known) != len(gradients):
        raise NormcoreError(
            f"{key}: the state remembers {len(known)} gradients, not {len(gradients)}; start with an empty one"
        )
    found = [first(g) if entry is None else entry for entry, g in zip(known, gradients, strict=True)]
    for entry, gradient in zip(found, gradients, strict=True):
        if entry.ndim and entry.shape != gradient.shape:
            raise NormcoreError(
                f"{key}: the state remembers a gradient of shape {tuple(entry.shape)}, not {tuple(gradient.shape)}; "
                "start with an empty one"
            )
    return found


def moved_toward(before: Tensor | None, value: Tensor, beta: float) -> Tensor:
    """A running average moved toward a value; it begins with the first, and one that is not finite leaves it alone."""
    value = value.detach().double()
    old = value if before is None else before.to(value.device)
    moved = torch.where(old.isfinite(), beta * old + (1 - beta) * value, value)
    return torch.where(value.isfinite(), moved, old)
