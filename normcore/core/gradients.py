"""What gradient methods are written in: norms of lists of tensors, and the two ways in which gradients are changed.

A method that is called with a plain list leaves it alone and can be differentiated. A clipper calls it with `Owned`
gradients: the same two functions then overwrite them, and write down what the clipper's report is made of.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from normcore.core.errors import NormcoreError
from normcore.core.precision import full_precision
from normcore.core.statistics import widen

PART = 1 << 20
"""So many elements go through several operations at a time, which find them in a cache after the first."""
LARGE = 1 << 16
"""From so many elements on, a tensor's norm is taken row by row."""
NO_DIFFERENCE = (torch.zeros((), dtype=torch.float64),) * 5
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass
class Multiplied:
    """Gradients with these norms were multiplied by one factor, by one each, or by one each region of each.

    With `dropped` a factor of 0 made zeros of everything, whatever was there; else inf times 0 was nan.
    """

    norms: Any
    factors: Any
    norm_type: float = 2.0
    dropped: bool = False


@dataclass
class Replaced:
    """The `difference` that was made to each gradient."""

    pieces: list[tuple[Tensor, ...]]


@dataclass
class Repeatable:
    """Gradients as they were before a function changed them, and what it takes to do it again."""

    before: list[Tensor]
    function: Callable[..., Any]
    beside: tuple[Sequence[Tensor], ...]

    def pieces(self) -> list[tuple[Tensor, ...]]:
        """The `difference` that was made to each gradient."""
        rows = zip(self.before, *self.beside, strict=True)
        return [difference(before, _called(self.function, before, *others)) for before, *others in rows]


class Owned(list[Tensor]):
    """Gradients that may be overwritten, room for a copy of them, and what was done to them."""

    def __init__(self, room: list[Tensor] | None = None) -> None:
        super().__init__()
        self.room = [] if room is None else room
        self.change: Multiplied | Replaced | Repeatable | None = None


class Examples(Owned):
    """Gradients of single examples (n ...): they are added up as they are clipped."""


def norms_of(gradients: Sequence[Tensor], norm_type: float = 2.0) -> Tensor:
    """The norm of each gradient, as one vector in at least float32; 0 for a gradient without elements."""
    if not gradients:
        return torch.zeros(0)
    kinds = {gradient.dtype for gradient in gradients}
    wide = torch.float64 if torch.float64 in kinds else torch.float32
    full = [gradient if gradient.numel() else gradient.new_zeros(1) for gradient in gradients]
    if kinds == {wide} and not torch.is_grad_enabled():
        # In memory, row by row is faster for large tensors than what takes all tensors at once.
        large = [g.is_cpu and g.ndim > 1 and g.numel() >= LARGE and g.is_contiguous() for g in full]
        others = iter(torch._foreach_norm([g for g, alone in zip(full, large, strict=True) if not alone], norm_type))
        found = [
            torch.linalg.vector_norm(torch.linalg.vector_norm(g.flatten(1), norm_type, 1), norm_type)
            if alone
            else next(others)
            for g, alone in zip(full, large, strict=True)
        ]
    else:
        found = [torch.linalg.vector_norm(widen(gradient), norm_type) for gradient in full]
    return torch.stack([norm.to(found[0].device, wide) for norm in found])


def total(norms: Tensor, norm_type: float = 2.0) -> Tensor:
    """The norm of everything, from the norms of its parts."""
    return torch.linalg.vector_norm(norms, norm_type) if norms.numel() else norms.new_zeros(())


def shortening(limit: float | Tensor, norms: Tensor) -> Tensor:
    """The factors that bring lengths to a limit, but at most 1; a length of 0 has the factor 1, whatever the limit."""
    return inverse(norms, limit).clamp(max=1.0)


def inverse(norms: Tensor, limit: float | Tensor = 1.0) -> Tensor:
    """The factors that bring lengths to a limit; a length of 0 has the factor 1."""
    nothing = norms == 0
    return torch.where(nothing, 1.0, limit / torch.where(nothing, 1.0, norms))


def unit_norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The norm of each output unit, shaped (o 1 ...); a tensor of at most one axis is one unit."""
    return [
        torch.linalg.vector_norm(wide.flatten(1), dim=1).reshape(-1, *(1,) * (wide.ndim - 1))
        if wide.ndim > 1
        else torch.linalg.vector_norm(wide)
        for wide in map(widen, tensors)
    ]


def example_norms(key: str, gradients: Sequence[Tensor]) -> list[Tensor]:
    """The norm of each example's gradient, shaped (n 1 ...).

    Raises:
        NormcoreError: The tensors do not begin with one axis of examples that all share, or there are no examples.
    """
    counts = {gradient.shape[0] if gradient.ndim else 0 for gradient in gradients}
    if counts == {0} and all(gradient.ndim for gradient in gradients):
        raise NormcoreError(f"{key}: the batch has no examples; leave out this step, or draw another batch")
    if len(counts) > 1 or 0 in counts:
        said = ", ".join(str(tuple(gradient.shape)) for gradient in gradients[:4])
        raise NormcoreError(f"{key}: the gradients have shapes {said}; each must begin with the same batch axis")
    return [
        torch.linalg.vector_norm(widen(g).reshape(len(g), -1), dim=1).reshape(-1, *(1,) * (g.ndim - 1))
        for g in gradients
    ]


def multiply(gradients: list[Tensor], factors: Any, norms: Any, norm_type: float = 2.0) -> list[Tensor]:
    """Multiplies all gradients by one factor (0-dim), each by its own (a vector), or regions of each (a list).

    `norms` are those of what the factors belong to: of each gradient (a vector), or of its regions (a list).
    """
    if isinstance(gradients, Owned):
        gradients.change = Multiplied(norms, factors, norm_type)
    each = factors if isinstance(factors, list) else list(factors.expand(len(gradients)))
    if isinstance(gradients, Examples):
        return [_add_up(g, f) for g, f in zip(gradients, each, strict=True)]
    if not isinstance(gradients, Owned):
        return [_scaled(g, f).to(g.dtype) for g, f in zip(gradients, each, strict=True)]
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for index, gradient in enumerate(gradients):
        groups.setdefault((gradient.device, gradient.dtype), []).append(index)
    for (device, dtype), indices in groups.items():
        chosen = [gradients[i] for i in indices]
        if dtype in (torch.float16, torch.bfloat16):
            torch._foreach_copy_(chosen, [_scaled(gradients[i], each[i]) for i in indices])
        elif isinstance(factors, list) or factors.ndim:
            torch._foreach_mul_(chosen, [each[i].to(device, dtype) for i in indices])
        else:
            torch._foreach_mul_(chosen, factors.to(device, dtype))
    return gradients


def drop(gradients: list[Tensor], keep: Tensor, norms: Tensor) -> list[Tensor]:
    """All gradients as they are where `keep` is true, else zeros, whatever was in them."""
    if not isinstance(gradients, Owned):
        return [torch.where(keep.to(g.device), g, torch.zeros((), dtype=g.dtype, device=g.device)) for g in gradients]
    gradients.change = Multiplied(norms, keep.to(norms.dtype), dropped=True)
    for gradient in gradients:
        if not gradient.is_cpu:  # looking at the value would wait for the device
            gradient.masked_fill_(~keep.to(gradient.device), 0.0)
        elif not keep:
            gradient.zero_()
    return gradients


def _scaled(gradient: Tensor, factor: Tensor) -> Tensor:
    wide = widen(gradient)
    return wide * factor.to(wide.device, wide.dtype)


def _add_up(gradient: Tensor, factor: Tensor) -> Tensor:
    """The sum over examples of the gradients times their factors."""
    wide = widen(gradient)
    weights = factor.to(wide.device, wide.dtype).reshape(-1)
    with full_precision(wide):
        return (weights @ wide.reshape(len(wide), -1)).reshape(wide.shape[1:])


def replace(gradients: list[Tensor], function: Callable[..., Tensor], *beside: Sequence[Tensor]) -> list[Tensor]:
    """Each gradient through a function, together with its entry in each list beside it.

    The function gets them in at least float32, and writes into `out` unless that is None. It is called again for the
    report.
    """
    rows = zip(gradients, *beside, strict=True)
    if not isinstance(gradients, Owned):
        return [_called(function, *row) for row in rows]
    room = gradients.room
    for i, (gradient, *others) in enumerate(rows):
        room[i : i + 1] = [roomy(gradient, room[i] if i < len(room) else None).copy_(gradient)]
        if widen(gradient) is gradient and gradient.numel():
            function(room[i], *others, out=gradient)
        else:
            gradient.copy_(_called(function, room[i], *others))
    gradients.change = Repeatable(room[: len(gradients)], function, beside)
    return gradients


def _called(function: Callable[..., Tensor], gradient: Tensor, *beside: Tensor) -> Tensor:
    return function(widen(gradient), *beside, out=None).to(gradient.dtype) if gradient.numel() else gradient.clone()


def replace_once(
    gradients: list[Tensor], function: Callable[..., tuple[Tensor, Tensor]], *beside: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """`replace` where a report cannot do it again; the function also gives what follows in the last list.

    What it makes of an entry of the first axis depends on that entry alone, so that it may be called for a few at a
    time. It may overwrite the entries of the last list if the gradients are `Owned`.

    Returns:
        The new gradients, and the new last list.
    """
    rows = list(zip(gradients, *beside, strict=True))
    if not isinstance(gradients, Owned):
        made = [function(widen(g), *rest) if g.numel() else (g, rest[-1]) for g, *rest in rows]
        return [y.to(g.dtype, copy=y is g) for (y, _), g in zip(made, gradients, strict=True)], [new for _, new in made]
    pieces = []
    for gradient, *others in rows:
        found = []
        for part, *rest in in_parts(gradient, *others) if gradient.numel() else ():
            y, memory = function(widen(part), *rest)
            y = y.to(part.dtype)
            found.append(difference(part, y))
            part.copy_(y)
            if memory is not rest[-1]:
                rest[-1].copy_(memory)
        pieces.append(_joined(found))
    gradients.change = Replaced(pieces)
    return gradients, beside[-1]


def in_parts(gradient: Tensor, *beside: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """A gradient some rows at a time, with those of the tensors beside it; a number goes with all of them.

    Several operations on so few elements find them in the caches. A gradient that is to be differentiated, or lies on
    another device, comes in one piece.
    """
    rows = max(1, PART * len(gradient) // max(1, gradient.numel())) if gradient.ndim else 1
    if not gradient.is_cpu or torch.is_grad_enabled() or not gradient.ndim or len(gradient) <= rows:
        yield gradient, *beside
        return
    count = -(-len(gradient) // rows)
    split = ([other] * count if not other.ndim else other.split(rows) for other in beside)
    yield from zip(gradient.split(rows), *split, strict=True)


def multiply_decayed(
    gradients: list[Tensor], weights: list[Tensor], weight_decay: float, factors: Tensor
) -> list[Tensor]:
    """Each gradient plus its decayed weights, times its own factor."""

    def decayed(gradient: Tensor, weight: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
        return (gradient + weight_decay * weight.to(gradient)) * factor.to(gradient), factor

    return replace_once(gradients, decayed, weights, list(factors))[0]


def roomy(tensor: Tensor, room: Tensor | None) -> Tensor:
    """Room for a copy of a tensor: what there is, if it fits."""
    if room is None or (room.shape, room.dtype, room.device, room.stride()) != (
        tensor.shape,
        tensor.dtype,
        tensor.device,
        tensor.stride(),
    ):
        room = torch.empty_like(tensor)
    return room


def difference(before: Tensor, after: Tensor) -> tuple[Tensor, ...]:
    """Norm before, norm after, norm of the difference, inner product, and how many elements changed."""
    if not before.numel():
        return NO_DIFFERENCE
    if after is before:
        norm = torch.linalg.vector_norm(widen(before))
        return norm, norm, 0.0 * norm, norm.square(), torch.zeros((), dtype=torch.long, device=norm.device)
    bits = BITS[before.element_size()]
    changed = torch.count_nonzero(before.contiguous().view(bits) != after.contiguous().view(bits))
    one, two = widen(before).reshape(-1), widen(after).reshape(-1)
    norms = (torch.linalg.vector_norm(vector) for vector in (one, two, one - two))
    return (*norms, torch.dot(one, two), changed)


def _joined(parts: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """The `difference` of a whole from those of its parts; one without any has no elements."""
    if len(parts) < 2:
        return parts[0] if parts else NO_DIFFERENCE
    columns = [torch.stack(column) for column in zip(*parts, strict=True)]
    norms = (torch.linalg.vector_norm(column) for column in columns[:3])
    return (*norms, *(column.sum() for column in columns[3:]))


def parameters_or_zeros(parameters: Sequence[Tensor] | None, gradients: Sequence[Tensor]) -> list[Tensor]:
    """The parameters that the gradients belong to, or zeros where none were given."""
    return [torch.zeros_like(g) for g in gradients] if parameters is None else [p.detach() for p in parameters]


def generator(seed: int, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Randomness that depends on a seed and the number of the step alone, so that a state of one number restores it."""
    return torch.Generator(device).manual_seed(seed * 1_000_003 + step)
