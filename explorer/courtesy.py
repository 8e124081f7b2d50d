"""One answer at a time: Python computes for one visitor at a time anyway, and who shares it with ten others waits
longer than who stands in line. Looks at races come after pages, and leave them time.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 0.3
"""Seconds in line after which one goes ahead beside the others: somebody's answer may take long."""
BUSY = 1.0
"""Seconds after an answer in which more pages are expected."""
LEFT = 4.0
"""How many times as long as a look took nobody looks again while pages are expected."""
LONGEST = 0.6
"""Seconds for which that, and other looks, may keep a look waiting."""


class Courtesy:
    """Where pages and looks stand in line."""

    def __init__(self) -> None:
        self._turn, self._look = threading.Semaphore(), threading.Semaphore()
        self._lock = threading.Lock()
        self._pages = 0
        self._answered, self._free = -BUSY, 0.0
        self._quiet = threading.Event()
        self._quiet.set()
        self._mine = threading.local()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """While a page is being answered."""
        self._count(1)
        self._enter()
        try:
            yield
        finally:
            self._leave()
            self._answered = time.monotonic()
            self._count(-1)

    @contextmanager
    def resting(self) -> Iterator[None]:
        """While an answer waits for something else, it keeps nobody."""
        if not getattr(self._mine, "inside", False):
            yield
            return
        self._leave()
        self._count(-1)
        try:
            yield
        finally:
            self._count(1)
            self._enter()

    @contextmanager
    def looking(self) -> Iterator[None]:
        """A look at a race, when no page is being answered, or soon; one that is part of an answer waits for nobody."""
        if getattr(self._mine, "inside", False):
            yield
            return
        first = self._look.acquire(timeout=LONGEST)
        self._quiet.wait(PATIENCE)
        now = time.monotonic()
        if now - self._answered < BUSY:
            time.sleep(min(max(0.0, self._free - now), LONGEST))
        self._enter()
        begun = time.monotonic()
        try:
            yield
        finally:
            self._leave()
            over = time.monotonic()
            self._free = over + LEFT * (over - begun)
            if first:
                self._look.release()

    def _enter(self) -> None:
        self._mine.inside, self._mine.turn = True, self._turn.acquire(timeout=PATIENCE)

    def _leave(self) -> None:
        if self._mine.turn:
            self._turn.release()
        self._mine.inside = self._mine.turn = False

    def _count(self, change: int) -> None:
        with self._lock:
            self._pages += change
            if self._pages:
                self._quiet.clear()
            else:
                self._quiet.set()


COURTESY = Courtesy()
