"""What gradient methods are written in: norms of lists of tensors, and the two ways in which gradients are changed.

A method that is called with a plain list leaves it alone and can be differentiated. A clipper calls it with `Owned`
gradients: the same two functions then overwrite them, and write down what the clipper's report is made of.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from normcore.core.errors import NormcoreError
from normcore.core.flat import in_turn, loops_for
from normcore.core.precision import full_precision
from normcore.core.statistics import widen

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
    """The `difference` that was made to each gradient, as tensors or as numbers."""

    pieces: Sequence[tuple[Tensor, ...] | list[float]]


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


def widest(tensors: Sequence[Tensor]) -> torch.dtype:
    """The precision in which statistics of all of them are: at least float32."""
    return torch.float64 if torch.float64 in {tensor.dtype for tensor in tensors} else torch.float32


def norms_of(gradients: Sequence[Tensor], norm_type: float = 2.0) -> Tensor:
    """The norm of each gradient, as one vector in at least float32; 0 for a gradient without elements."""
    if not gradients:
        return torch.zeros(0)
    kinds, wide = {gradient.dtype for gradient in gradients}, widest(gradients)
    full = [gradient if gradient.numel() else gradient.new_zeros(1) for gradient in gradients]
    if kinds == {wide} and not torch.is_grad_enabled():
        # In memory, row by row is faster for large tensors than what takes all tensors at once.
        large = [g.is_cpu and g.ndim > 1 and g.numel() >= LARGE and g.is_contiguous() for g in full]
        small = [g for g, alone in zip(full, large, strict=True) if not alone]
        others = iter(torch._foreach_norm(small, norm_type) if small else ())
        found = [
            torch.linalg.vector_norm(torch.linalg.vector_norm(g.flatten(1), norm_type, 1), norm_type)
            if alone
            else next(others)
            for g, alone in zip(full, large, strict=True)
        ]
    else:
        found = [torch.linalg.vector_norm(widen(gradient), norm_type) for gradient in full]
    together = kinds == {wide} and len({norm.device for norm in found}) == 1
    return torch.stack(found if together else [norm.to(found[0].device, wide) for norm in found])


def largest_of(gradients: Sequence[Tensor]) -> Tensor:
    """The largest absolute value of each gradient, as one vector in the widest precision of them; 0 for none."""
    found = [torch.maximum(g.amax(), -g.amin()) if g.numel() else g.new_zeros(()) for g in gradients]
    return torch.stack([value.to(found[0].device, widest(gradients)) for value in found])


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


def unit_counts(tensors: Sequence[Tensor]) -> list[int]:
    """How many output units each tensor has, as `unit_norms` takes them."""
    return [tensor.shape[0] if tensor.ndim > 1 else 1 for tensor in tensors]


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
    if isinstance(factors, Tensor) and factors.is_cpu and bool((factors == 1).all()):  # as in most steps
        return gradients
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for index in reversed(range(len(gradients))):  # the last ones, whose norms were taken last, are still in the cache
        groups.setdefault((gradients[index].device, gradients[index].dtype), []).append(index)
    for (device, dtype), indices in groups.items():
        chosen = [gradients[i] for i in indices]
        if dtype in (torch.float16, torch.bfloat16):
            torch._foreach_copy_(chosen, [_scaled(gradients[i], each[i]) for i in indices])
        elif isinstance(factors, list):
            torch._foreach_mul_(chosen, [each[i].to(device, dtype) for i in indices])
        elif factors.ndim:
            torch._foreach_mul_(chosen, list(factors.to(device, dtype)[indices]))
        else:
            torch._foreach_mul_(chosen, factors.to(device, dtype))
    return gradients


def multiply_in_turn(
    loop: str,
    gradients: list[Tensor],
    beside: list[Tensor],
    numbers: Sequence[float],
    counts: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Multiplies `Owned` gradients by a compiled loop; None where there is none, and nothing was done.

    Returns:
        The norms before, the factors, and what else the loop finds: of each tensor, or of as many units as it has.
    """
    if not isinstance(gradients, Owned) or not (loops := loops_for(gradients, beside, units=sum(counts or ()))):
        return None
    found = in_turn(getattr(loops, loop), 3, gradients, beside, numbers=numbers, counts=counts)
    norms, factors, others = found.to(gradients[0].dtype).unbind(1)
    gradients.change = Multiplied(norms, factors)
    if counts:
        gradients.change = Multiplied(list(norms.split(counts)), list(factors.split(counts)))
    return norms, factors, others


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


def replace(
    gradients: list[Tensor],
    function: Callable[..., Tensor],
    *beside: Sequence[Tensor],
    loop: Callable[[list[Tensor], list[Tensor]], Any] | None = None,
) -> list[Tensor]:
    """Each gradient through a function, together with its entry in each list beside it.

    The function gets them in at least float32, and writes into `out` unless that is None. It is called again for the
    report. A compiled loop can do it to `Owned` gradients with nothing beside them; it also writes down what they were.
    """
    if not isinstance(gradients, Owned):
        return [_called(function, *row) for row in zip(gradients, *beside, strict=True)]
    known = [*gradients.room, *[None] * len(gradients)]
    room = [roomy(gradient, there) for gradient, there in zip(gradients, known, strict=False)]
    gradients.room[: len(room)] = room
    if loop:
        loop(gradients, room)
        function = partial(_looped, loop)
    else:
        for gradient, copy, *others in zip(gradients, room, *beside, strict=True):
            copy.copy_(gradient)
            if widen(gradient) is gradient and gradient.numel():
                function(copy, *others, out=gradient)
            else:
                gradient.copy_(_called(function, copy, *others))
    gradients.change = Repeatable(room, function, beside)
    return gradients


def _looped(loop: Callable[[list[Tensor], list[Tensor]], Any], before: Tensor, out: None) -> Tensor:
    """What a loop makes of a gradient, which is left alone."""
    after = before.clone()
    loop([after], [torch.empty_like(after)])
    return after


def _called(function: Callable[..., Tensor], gradient: Tensor, *beside: Tensor) -> Tensor:
    return function(widen(gradient), *beside, out=None).to(gradient.dtype) if gradient.numel() else gradient.clone()


def numbers_of(memory: Sequence[Tensor], like: Tensor) -> Tensor:
    """Numbers that are remembered of each gradient, as one vector like another."""
    together = len({entry.device for entry in memory}) == 1
    return torch.stack(list(memory) if together else [entry.to(like.device) for entry in memory]).to(like)


def replaced(sums: Tensor) -> Replaced:
    """What `loops.spikes` found: how each gradient was replaced."""
    return Replaced(torch.cat([sums[:, :3].sqrt(), sums[:, 3:]], 1).tolist())


def replace_once(
    gradients: list[Tensor], function: Callable[..., tuple[Tensor, Tensor]], *beside: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """`replace` where a report cannot do it again; the function also gives what follows in the last list.

    Returns:
        The new gradients, and the new last list.
    """
    rows = zip(gradients, *beside, strict=True)
    made = [function(widen(g), *rest) if g.numel() else (g, rest[-1]) for g, *rest in rows]
    new = [y.to(g.dtype, copy=y is g) for (y, _), g in zip(made, gradients, strict=True)]
    if isinstance(gradients, Owned):
        gradients.change = Replaced([difference(g, y) for g, y in zip(gradients, new, strict=True)])
        for gradient, y in zip(gradients, new, strict=True):
            gradient.copy_(y)
    return (gradients if isinstance(gradients, Owned) else new), [memory for _, memory in made]


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
    bits = BITS[before.element_size()]
    changed = torch.count_nonzero(before.contiguous().view(bits) != after.contiguous().view(bits))
    one, two = widen(before).reshape(-1), widen(after).reshape(-1)
    norms = (torch.linalg.vector_norm(vector) for vector in (one, two, one - two))
    return (*norms, torch.dot(one, two), changed)


def parameters_or_zeros(parameters: Sequence[Tensor] | None, gradients: Sequence[Tensor]) -> list[Tensor]:
    """The parameters that the gradients belong to, or zeros where none were given."""
    return [torch.zeros_like(g) for g in gradients] if parameters is None else [p.detach() for p in parameters]


def generator(seed: int, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Randomness that depends on a seed and the number of the step alone, so that a state of one number restores it."""
    return torch.Generator(device).manual_seed(seed * 1_000_003 + step)
