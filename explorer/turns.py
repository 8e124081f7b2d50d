"""Turns at one processor: whoever computes for visitors stands in line here, and a few at a time take short turns."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SEATS = 4
"""How many take turns at once; more would only make all of them crawl, so they wait in line."""


class Hall:
    """Where all races of a server take turns, first come, first served; `seats` at a time, the others wait in line."""

    def __init__(self, seats: int = SEATS) -> None:
        self.seats = seats
        self._lock = threading.Lock()
        self._line: list[object] = []
        self._away: set[object] = set()
        self._asking: deque[tuple[object, threading.Event]] = deque()
        self._holder: object | None = None

    def enter(self, who: object) -> None:
        """Stand in line."""
        with self._lock:
            if who not in self._line:
                self._line.append(who)

    def leave(self, who: object) -> None:
        """Make room for the next."""
        with self._lock:
            if who in self._line:
                self._line.remove(who)
            self._asking = deque(ask for ask in self._asking if ask[0] is not who)
            if self._holder is who:
                self._holder = None
            self._call()

    @contextmanager
    def away(self, who: object) -> Iterator[None]:
        """While this one needs no turn, the next has its seat; its place in line stays its own."""
        with self._lock:
            self._away.add(who)
            self._call()
        try:
            yield
        finally:
            with self._lock:
                self._away.discard(who)

    def place(self, who: object) -> int:
        """How many have to leave before this one gets a seat; 0 if it has one, or needs none."""
        with self._lock:
            present = self._present()
            return max(0, present.index(who) - self.seats + 1) if who in present else 0

    def turn(self, who: object, going: Callable[[], bool]) -> bool:
        """Wait for a turn; False if it stopped `going` before that. Every turn ends with `done`."""
        called = threading.Event()
        with self._lock:
            self._asking.append((who, called))
            self._call()
        while not called.wait(0.05):
            if not going():
                with self._lock:
                    if not called.is_set():
                        self._asking = deque(ask for ask in self._asking if ask[0] is not who)
                        return False
            with self._lock:
                self._call()
        return True

    def done(self, who: object) -> None:
        """Give the turn on."""
        with self._lock:
            if self._holder is who:
                self._holder = None
            self._call()

    def _present(self) -> list[object]:
        """The line without those who are away."""
        return [who for who in self._line if who not in self._away]

    def _call(self) -> None:
        """Whoever has a seat and has asked for the longest time is next."""
        if self._holder is not None:
            return
        seated = self._present()[: self.seats]
        for ask in self._asking:
            if ask[0] in seated:
                self._asking.remove(ask)
                self._holder = ask[0]
                ask[1].set()
                return


HALL = Hall()
