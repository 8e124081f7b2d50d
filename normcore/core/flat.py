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
from normcore.core.team import share, threads_for

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
    """What a loop finds in each tensor, shared out by elements: (threads tensors columns), zeros to begin with."""
    given = _laid(lists)
    total = int(given.starts[-1])
    threads = threads_for(total)
    found = torch.zeros(threads, len(lists[0]), columns, dtype=torch.float64, device="cpu")
    room, known = found.numpy(), _alike(numbers)
    share(lambda start, stop, thread: loop(start, stop, given, room[thread], *known), total, threads)
    increment_version(lists[0])
    return found


def in_turn(
    loop: Loop,
    columns: int,
    *lists: Sequence[Tensor],
    numbers: Sequence[Any] = (),
    counts: Sequence[int] | None = None,
) -> Tensor:
    """What a loop finds as it takes tensor by tensor: what it reads twice is then in the cache.

    `counts` says how many units a tensor has, one without it; what is found has a row for each unit (at least one for
    each tensor). No more threads are at work than one large tensor leaves something to do.
    """
    sizes = list(map(Tensor.numel, lists[0]))
    threads = max(1, min(threads_for(sum(sizes)), int(UNEVEN * sum(sizes) / max(1, *sizes))))
    hands: list[list[int]] = [[] for _ in range(threads)]
    loads = [0] * threads
    for i in sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True):
        least = loads.index(min(loads))
        hands[least].append(i)
        loads[least] += sizes[i]
    given, firsts, orders = _laid(lists), _numbers(_starts(counts or [1] * len(sizes))), list(map(_numbers, hands))
    found = torch.zeros(max(int(firsts[-1]), len(sizes)), columns, dtype=torch.float64, device="cpu")
    room, known = found.numpy(), _alike(numbers)

    def work(start: int, stop: int, _: int) -> None:
        for order in orders[start:stop]:
            loop(order, given, firsts, room, *known)

    share(work, threads, threads)
    increment_version(lists[0])
    return found


UNEVEN = 1.5
"""How much longer than its share the busiest thread may work."""


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
