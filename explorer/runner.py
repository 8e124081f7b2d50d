"""Races as the visitors' servants: each in a thread of its own, all of them taking short turns at one processor.

On a server they live in a process of their own (`explorer.worker`); without one, beside the pages.

A thread lives only while there is something to compute and somebody looks: the page says so by `beat`, and a race that
nobody looks at stops within `LEASE` seconds and goes on when somebody does again.
"""

import atexit
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol
from weakref import WeakSet

from explorer.turns import HALL, Hall
from normcore import NormcoreError

SLICE = 0.02
"""Seconds of a turn; a step that takes longer is finished."""
NAP = 0.05
"""Seconds between two steps beyond which a slow race leaves its seat to others in the meantime."""
LEASE = 2.0
"""Seconds that a race goes on without anybody looking."""
WALL = 300.0
"""Seconds of computing that one race may take."""
SHOWN = 0.2
"""Seconds from one picture of the results to the next."""


class Racing(Protocol):
    """What a runner runs: an iterator with a length that knows its step and its results so far."""

    step: int

    def __len__(self) -> int: ...
    def __next__(self) -> Any: ...
    def results(self) -> Any: ...


@dataclass(frozen=True)
class State:
    """How a race stands. `phase` is "ready", "waiting", "running", "paused", "finished" or "broken off".

    It is `settled` unless the last order is still being carried out.
    """

    phase: str
    step: int
    steps: int
    place: int = 0
    sentence: str = ""
    results: Any = None
    settled: bool = True

    @property
    def going(self) -> bool:
        """Whether it goes on by itself."""
        return self.phase in ("waiting", "running")

    @property
    def changing(self) -> bool:
        """Whether there is more to be seen soon."""
        return self.going or not (self.settled or self.over)

    @property
    def over(self) -> bool:
        """Whether it will not go on."""
        return self.phase in ("finished", "broken off")


_OVER = object()
_EVERY: "WeakSet[Runner]" = WeakSet()


class Runner:
    """One race: made, run, paused and given up from any thread; what it found is read as a whole, whenever."""

    def __init__(
        self, make: Callable[[], Racing], steps: int, hall: Hall = HALL, wall: float = WALL, lease: float = LEASE
    ) -> None:
        self._make, self._hall, self._wall, self._lease = make, hall, wall, lease
        self._lock = threading.Lock()
        self._race: Racing | None = None
        self._thread: threading.Thread | None = None
        self._wanted = 0  # up to which step it shall go
        self._speed = 0.0  # steps a second; 0 is as fast as it can
        self._spent = 0.0
        self._seen = time.monotonic()
        self._state = State("ready", 0, steps)
        self._closed = False
        _EVERY.add(self)

    def play(self) -> None:
        """Go on, to the end."""
        self._go(self._state.steps)

    def advance(self, steps: int = 1) -> None:
        """Take some steps and pause."""
        self._go(min(self._state.steps, self._state.step + steps))

    def pause(self) -> None:
        """Stop after the step that is being made."""
        with self._lock:
            self._wanted = 0
            if self._state.going:
                self._tell(phase="paused", place=0)

    def set_speed(self, steps_a_second: float) -> None:
        """Go at most so many steps a second; 0 is as fast as it can."""
        self._speed = steps_a_second

    def beat(self) -> None:
        """Say that somebody looks."""
        with self._lock:
            self._seen = time.monotonic()
        if self._wanted > self._state.step and not self.alive:
            self._go(self._wanted)

    def close(self) -> None:
        """Give it up for good; what it found stays readable."""
        with self._lock:
            self._closed, self._wanted = True, 0
            if self._state.going:
                self._tell(phase="paused", place=0)

    def state(self) -> State:
        """How it stands now."""
        with self._lock:
            if self._state.going:
                place = self._hall.place(self)
                self._tell(phase="waiting" if place else "running", place=place)
            return self._state

    @property
    def alive(self) -> bool:
        """Whether it has a thread."""
        return self._thread is not None and self._thread.is_alive()

    def join(self, seconds: float) -> None:
        """Wait until its thread is gone."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _go(self, wanted: int) -> None:
        with self._lock:
            if self._closed or self._state.over:
                return
            self._wanted, self._seen = wanted, time.monotonic()
            self._tell(phase="running")
            if not self.alive:
                self._thread = threading.Thread(target=self._run, name="race", daemon=True)
                self._hall.enter(self)
                self._thread.start()

    def _going(self) -> bool:
        """Whether another step is wanted and somebody waits for it."""
        return self._wanted > self._state.step and time.monotonic() - self._seen < self._lease

    def _run(self) -> None:
        """The thread: turn after turn, while it shall go on."""
        ended = False
        try:
            for step in self._turns():
                if step >= self._state.steps:
                    self._set(phase="finished")
                elif self._spent > self._wall:
                    self._break_off(_over(self._wall, step, self._state.steps))
            ended = True
        except NormcoreError as error:
            ended = True
            self._break_off(f"{error}.")
        finally:
            # Whatever else went wrong goes on to the log by itself; the visitor gets a sentence.
            try:
                if not ended:
                    self._break_off(f"The race broke off at step {self._state.step:,}: the computation failed there.")
            finally:
                self._hall.leave(self)
                self._again()

    def _turns(self) -> Iterator[int]:
        """Makes the race if there is none yet, takes turns, and tells the step after each, the last one if it is over.

        A race may end before its last step: a net that has diverged has nothing more to show.
        """
        shown, told, due = 0.0, 0, time.monotonic()
        while self._going() and not self._state.over:
            if not self._hall.turn(self, self._going):
                break
            begun, over = time.monotonic(), False
            try:
                if self._race is None:
                    self._race = self._make()
                race = self._race
                while self._going() and time.monotonic() - begun < SLICE and time.monotonic() >= due:
                    over = next(race, _OVER) is _OVER
                    due = max(due, begun) + (1 / self._speed if self._speed else 0.0)
                    with self._lock:
                        self._state = replace(self._state, step=race.step)
                    if over:
                        break
                slow = due - time.monotonic() > NAP
                last = over or slow or race.step >= self._wanted or not self._going()
                if race.step and (last or begun - shown > SHOWN):
                    shown, told = begun, race.step
                    self._set(results=race.results())
            finally:
                self._spent += time.monotonic() - begun
                self._hall.done(self)
            yield self._state.steps if over else race.step
            if slow:
                self._nap(due)
            else:
                time.sleep(max(0.0, due - time.monotonic()))
        if self._race is not None and self._race.step > told and not self._state.over:
            self._set(results=self._race.results())  # it was stopped between two turns

    def _nap(self, due: float) -> None:
        """Lets others have the seat until the next step is due."""
        with self._hall.away(self):
            while self._going() and (left := due - time.monotonic()) > 0:
                time.sleep(min(NAP, left))

    def _again(self) -> None:
        """What was asked for while the thread was ending is begun again; what was not, is paused."""
        with self._lock:
            self._thread = None
            again = self._going() and not self._state.over
            if not again and self._state.going and self._wanted <= self._state.step:
                self._tell(phase="paused", place=0)
        if again:
            self._go(self._wanted)

    def _break_off(self, sentence: str) -> None:
        """It does not go on; what it found stays, or what was known of it before if it cannot even tell that."""
        found = self._state.results
        try:
            if self._race is not None and self._race.step:
                found = self._race.results()
        finally:
            self._set(phase="broken off", sentence=sentence, results=found)

    def _set(self, **changes: Any) -> None:
        with self._lock:
            self._tell(**changes)

    def _tell(self, **changes: Any) -> None:
        """A new state, told whole; the lock is held."""
        self._state = replace(self._state, **changes)


@atexit.register
def _end() -> None:
    """A thread that still computes while Python ends would bring it down with a crash."""
    for runner in list(_EVERY):
        runner.close()
        runner.join(1.0)


def _over(wall: float, step: int, steps: int) -> str:
    return (
        f"The race was stopped at step {step:,} of {steps:,}: it had computed for {wall:g} seconds, the most that one "
        "race gets. Fewer steps, seeds or contestants would fit."
    )
