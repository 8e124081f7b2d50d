"""Work of our own on the threads that PyTorch has: a second team would have to fight them for the processor."""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch

PIECE = 2**19
"""Elements that are worth handing to another thread."""

Work = Callable[[int, int, int], Any]


def threads_for(elements: int) -> int:
    """How many threads are worth waking for so many elements."""
    return max(1, min(torch.get_num_threads(), elements // PIECE))


def share(work: Work, total: int, threads: int) -> None:
    """Calls ``work(start, stop, thread)`` on a part of ``range(total)`` in each thread.

    The work has to let go of the interpreter's lock. A thread that OpenMP does not give leaves its part to the others.
    """
    if threads == 1 or total == 1:
        work(0, total, 0)
        return
    step = -(-total // threads)
    starts, names = iter(range(0, total, step)), iter(range(threads))
    failed: list[BaseException] = []

    def take(_: Any = None) -> None:
        try:
            thread = next(names)
            for start in starts:
                work(start, min(start + step, total), thread)
        except BaseException as error:
            failed.append(error)

    parallel = _parallel()
    if parallel:
        parallel(_BODY(take), None, threads, 0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(take, range(threads)))
    if failed:
        raise failed[0]


_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@cache
def _parallel() -> Callable[..., None] | None:
    """OpenMP's way to run a function on each thread of PyTorch's team; None where another library keeps it."""
    try:
        parallel = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).GOMP_parallel
    except (OSError, AttributeError):
        return None
    parallel.argtypes, parallel.restype = (_BODY, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
    return parallel
