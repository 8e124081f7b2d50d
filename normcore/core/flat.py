"""Lists of large tensors through compiled loops, shared out among threads by their elements or tensor by tensor."""

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd.graph import increment_version

from normcore.core.rows import LARGE, SHORT, readable, unwatched
from normcore.core.team import parts_for, share

Loop = Callable[..., None]


class Lists(NamedTuple):
    """Lists of tensors side by side, as the compiled loops find them.

    `like` is an empty array of their precision, `bits` one of whole numbers as wide; `starts` says where each tensor
    begins when all of a list are laid end to end, and `addresses` (tensors lists) where it lies in memory.
    """

    like: Any
    bits: Any
    starts: Any
    addresses: Any


def large(tensors: Sequence[Tensor]) -> bool:
    """Whether a list has so many numbers that loops are worth it."""
    return sum(map(Tensor.numel, tensors)) >= LARGE


def loops_for(*lists: Sequence[Tensor], units: int = 0) -> ModuleType | None:
    """The compiled loops, if they can take these lists side by side and that is worth it.

    All tensors must be plain ones in memory of their own order, of one precision, float32 or float64, and none of the
    first list may lie where another does. With `units`, so many parts of them are looked at one by one.
    """
    first = lists[0]
    total = sum(map(Tensor.numel, first))
    if torch.is_grad_enabled() or total < max(LARGE, SHORT * units) or not unwatched():
        return None
    for some in lists:
        for tensor, beside in zip(some, first, strict=True):
            if not (
                readable(tensor, first[0].dtype)
                and tensor.is_contiguous()
                and not tensor.requires_grad
                and not is_functorch_wrapped_tensor(tensor)
                and (tensor is beside or tensor.shape == beside.shape)
            ):
                return None
    places = sorted((t.data_ptr(), t.data_ptr() + t.element_size() * t.numel()) for t in first if t.numel())
    if any(end > start for (_, end), (start, _) in pairwise(places)):
        return None
    from normcore.core import compiled_gradients  # noqa: PLC0415 - a compiler takes a while to load

    return compiled_gradients


def in_parts(loop: Loop, columns: int, *lists: Sequence[Tensor], numbers: Sequence[Any] = ()) -> Tensor:
    """What a loop finds in each tensor, shared out by elements: (parts tensors columns), zeros to begin with."""
    given = _laid(lists)
    total = int(given.starts[-1])
    parts = parts_for(total)
    found = torch.zeros(parts, len(lists[0]), columns, dtype=torch.float64, device="cpu")
    share(loop, total, parts, given, found.numpy(), *_alike(numbers))
    increment_version(lists[0])
    return found


def in_turn(
    loop: Loop,
    columns: int,
    *lists: Sequence[Tensor],
    numbers: Sequence[Any] = (),
    counts: Sequence[int] | None = None,
) -> Tensor:
    """What a loop finds as it takes tensor by tensor, large ones first: what it reads twice is then in the cache.

    `counts` says how many units a tensor has, one without it; what is found has a row for each unit (at least one for
    each tensor).
    """
    sizes = list(map(Tensor.numel, lists[0]))
    order = _numbers(sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True))
    firsts = _numbers(_starts(counts or [1] * len(sizes)))
    found = torch.zeros(max(int(firsts[-1]), len(sizes)), columns, dtype=torch.float64, device="cpu")
    share(loop, len(sizes), len(sizes), order, _laid(lists), firsts, found.numpy(), *_alike(numbers))
    increment_version(lists[0])
    return found


def _laid(lists: Sequence[Sequence[Tensor]]) -> Lists:
    starts = _numbers(_starts(map(Tensor.numel, lists[0])))
    addresses = _numbers([list(map(Tensor.data_ptr, row)) for row in zip(*lists, strict=True)])
    like = lists[0][0].numpy().reshape(-1)[:0]
    return Lists(like, like.view(f"i{like.itemsize}"), starts, addresses)


def _starts(sizes: Iterable[int]) -> list[int]:
    return [0, *accumulate(sizes)]


def _numbers(given: list[Any]) -> Any:
    return torch.tensor(given, dtype=torch.int64, device="cpu").numpy()


def _alike(numbers: Sequence[Any]) -> list[Any]:
    """Numbers as float64, so that no loop is compiled once more because somebody wrote 1 instead of 1.0."""
    return [float(number) if isinstance(number, int) else number for number in numbers]
