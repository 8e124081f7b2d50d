"""Lists of large tensors through compiled loops: as flat parts, shared out among threads by their elements."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

from normcore.core.rows import LARGE, readable, unwatched
from normcore.core.team import share, threads_for


def loops_for(*lists: Sequence[Tensor]) -> ModuleType | None:
    """The compiled loops, if they can take these lists side by side and that is worth it.

    All tensors must be plain ones in memory of their own order, float32 or float64, those of a row alike.
    """
    rows = list(zip(*lists, strict=True))
    small = sum(row[0].numel() for row in rows) < LARGE
    if small or torch.is_grad_enabled() or not unwatched():
        return None
    for row in rows:
        for tensor in row:
            if not (
                readable(tensor, row[0].dtype)
                and tensor.shape == row[0].shape
                and tensor.is_contiguous()
                and not tensor.requires_grad
                and not is_functorch_wrapped_tensor(tensor)
            ):
                return None
    from normcore.core import compiled_gradients  # noqa: PLC0415 - a compiler takes a while to load

    return compiled_gradients


def in_parts(loop: Callable[..., Any], *lists: Sequence[Tensor]) -> list[list[Any]]:
    """What a loop gives for each row of the lists: one result a part, in the order of the parts."""
    arrays = [[tensor.numpy().reshape(-1) for tensor in row] for row in zip(*lists, strict=True)]
    starts = [0, *accumulate(len(row[0]) for row in arrays)]
    found: list[dict[int, Any]] = [{} for _ in arrays]

    def work(start: int, stop: int, _: int) -> None:
        i = bisect_right(starts, start) - 1
        while starts[i] < stop:
            low, high = max(start, starts[i]) - starts[i], min(stop, starts[i + 1]) - starts[i]
            if low < high:
                found[i][low] = loop(*(array[low:high] for array in arrays[i]))
            i += 1

    share(work, starts[-1], threads_for(starts[-1]))
    return [[result for _, result in sorted(parts.items())] for parts in found]
