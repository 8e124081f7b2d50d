"""Work of our own on the threads that PyTorch has: a second team would have to fight them for the processor."""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch

PIECE, PARTS = 2**17, 32
"""Elements that are worth handing to another thread, and the most parts that work is shared out in."""
Team = tuple[int, int, int, int, int, int]
"""Where OpenMP's `parallel` is (0 without it), how many threads there are, how much work in how many parts, and
from which part to which they go."""


def parts_for(elements: int) -> int:
    """In how many parts so many elements are worked on: the same on any number of threads, and so are the sums then."""
    return max(1, min(PARTS, elements // PIECE))


def team(total: int, parts: int) -> Team:
    """Threads that go through ``range(total)``, as `normcore.core.compiler.shared` wants them."""
    threads = torch.get_num_threads() if parts > 1 else 1  # OpenMP makes threads anew for a team of another size
    parallel = _parallel() if threads > 1 else 0
    return parallel, threads if parallel else 1, total, parts, 0, parts


def share(loop: Callable[..., Any], total: int, parts: int, *given: Any) -> None:
    """Has threads go through ``range(total)`` by a compiled loop, part by part.

    In a forked process the threads are gone, for this as for PyTorch's own steps: it has to set their number to 1.
    """
    lent = team(total, parts)
    if lent[1] > 1 or parts == 1 or torch.get_num_threads() == 1:
        loop(lent, *given)
        return
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(lambda part: loop((0, 1, total, parts, part, part + 1), *given), range(parts)))


@cache
def _parallel() -> int:
    """Where OpenMP's way lies to run a function on each thread of PyTorch's team; 0 where another library keeps it."""
    try:
        parallel = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).GOMP_parallel
    except (OSError, AttributeError):
        return 0
    return ctypes.cast(parallel, ctypes.c_void_p).value or 0
