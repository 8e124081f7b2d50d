"""Races in a process of their own, so that no page waits for one: `python -m explorer.worker` is that process.

The server tells it what its visitors want, and hears how their races stand. It ends with the server; if it ends alone,
another takes its place, and the races that it had say so.
"""

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from weakref import WeakValueDictionary

from explorer.runner import Racing, Runner, State

LOOK = 0.05
"""Seconds from one look at how the races stand to the next."""
AGAIN = 1.0
"""Seconds before a process that has ended is followed by another."""
ROOT = Path(__file__).parents[1]
ENDED = "The process that computed this race has ended; reset the race, and start it again."


class Worker:
    """The process, as the server sees it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = count()
        self._races: WeakValueDictionary[int, Remote] = WeakValueDictionary()
        self._begun: set[int] = set()
        self._orders: SimpleQueue[Any] = SimpleQueue()
        self.is_open = False
        self.process: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        """Start the process, and another one whenever it ends; on Windows races stay beside the pages."""
        if sys.platform == "win32":
            return  # where a socket cannot be handed over
        self.is_open = True
        threading.Thread(target=self._attend, args=(self._start(),), name="worker", daemon=True).start()

    def close(self) -> None:
        """Let it end."""
        with self._lock:
            self.is_open = False
            if self.process is not None:
                self.process.terminate()
                self.process.wait()

    def begin(self, make: Callable[[], Racing], steps: int) -> "Remote":
        """A race over there: `make`, a function that can be pickled, is called when it shall first take a step."""
        made = pickle.dumps(make)
        with self._lock:
            remote = Remote(self, next(self._numbers), steps)
            gone = self._begun - set(self._races.keys())  # nobody has them any more
            self._begun = self._begun - gone | {remote.number}
            self._races[remote.number] = remote
            for number in gone:
                self.tell(number, "close")
            self.tell(remote.number, "begin", made, steps)
        return remote

    def tell(self, number: int, order: str, *given: Any) -> None:
        """Order something, without waiting until it is heard."""
        self._orders.put((number, order, *given))

    def _attend(self, link: Connection | None) -> None:
        """Listen to the process, and to the next one, until it is no longer wanted."""
        while link is not None:
            with suppress(EOFError, OSError):
                while True:
                    self._hear(*link.recv())
            self._orders.put(None)
            link = None
            while self.is_open and link is None:
                time.sleep(AGAIN)
                with suppress(OSError):  # out of memory, or of whatever else a process takes
                    link = self._start()

    def _hear(self, number: int, told: tuple[Any, ...]) -> None:
        with self._lock:
            race = self._races.get(number)
        if race is not None:
            race.hear(*told)

    def _start(self) -> Connection | None:
        """A new process; the races of the one before are lost."""
        with self._lock:
            if not self.is_open:
                return None
            ours, theirs = socket.socketpair()
            with ours, theirs:
                command = [sys.executable, "-m", "explorer.worker", str(theirs.fileno())]
                environment = os.environ | {"OMP_NUM_THREADS": "1"}
                self.process = subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=[theirs.fileno()])
                link = Connection(ours.detach())
            self._orders = SimpleQueue()
            threading.Thread(target=_deliver, args=(self._orders, link), name="orders", daemon=True).start()
            lost = list(self._races.values())
        for race in lost:
            race.lose()
        return link


def _deliver(orders: "SimpleQueue[Any]", link: Connection) -> None:
    """Send orders, however long nobody reads them, until there are no more or nobody is there."""
    with suppress(OSError):
        while (order := orders.get()) is not None:
            link.send(order)


class Remote:
    """A race in the worker: to a page it is the same as a `Runner`."""

    def __init__(self, worker: Worker, number: int, steps: int) -> None:
        self.number, self._worker = number, worker
        self._lock = threading.Lock()
        self._state = State("ready", 0, steps)
        self._orders = 0  # how many were given that change what it does
        self._found = b""  # results that nobody has looked at yet
        self._speed = 0.0
        self._closed = False

    def play(self) -> None:
        """Go on, to the end."""
        self._order("running", "play")

    def advance(self, steps: int = 1) -> None:
        """Take some steps and pause."""
        self._order("running", "advance", steps)

    def pause(self) -> None:
        """Stop after the step that is being made."""
        self._order("paused", "pause")

    def close(self) -> None:
        """Give it up for good; what it found stays readable."""
        self.pause()
        with self._lock:
            self._closed = True
            self._state = replace(self._state, settled=True)
        self._worker.tell(self.number, "close")

    def set_speed(self, steps_a_second: float) -> None:
        """Go at most so many steps a second; 0 is as fast as it can."""
        if steps_a_second != self._speed:
            self._speed = steps_a_second
            self._worker.tell(self.number, "set_speed", steps_a_second)

    def beat(self) -> None:
        """Say that somebody looks."""
        self._worker.tell(self.number, "beat")

    def state(self) -> State:
        """How it stands, as far as has been heard."""
        with self._lock:
            if self._found:
                self._state = replace(self._state, results=pickle.loads(self._found))
                self._found = b""
            return self._state

    def _order(self, phase: str, order: str, *given: Any) -> None:
        """Order something, and count on its being done."""
        with self._lock:
            if not (self._state.over or self._closed):
                self._orders += 1
                if phase == "running" or self._state.going:
                    self._state = replace(self._state, phase=phase, place=0, settled=False)
                self._worker.tell(self.number, order, *given)

    def hear(self, orders: int, state: State, found: bytes) -> None:
        """How it stood after so many orders; what was ordered since is on its way."""
        with self._lock:
            now = self._state
            if now.over or self._closed:
                return
            self._found = found or self._found
            state = replace(state, results=now.results)
            late = orders < self._orders and not state.over
            self._state = replace(state, phase=now.phase, place=now.place, settled=False) if late else state

    def lose(self) -> None:
        """The process has ended."""
        with self._lock:
            if not self._state.over:
                self._state = replace(self._state, phase="broken off", sentence=ENDED, settled=True)


@dataclass
class Entry:
    """A race in the worker, how many orders that change what it does it has got, and what was last told of it."""

    runner: Runner
    orders: int = 0
    told: tuple[Any, ...] = ()
    found: Any = None


class Office:
    """The races in the worker, by their numbers."""

    def __init__(self, link: Connection) -> None:
        self._link = link
        self._entries: dict[int, Entry] = {}

    def serve(self) -> None:
        """Do as the server says, until it is gone."""
        threading.Thread(target=self._report, name="report", daemon=True).start()
        while True:
            try:
                number, order, *given = self._link.recv()
            except (EOFError, OSError):
                return
            if order == "begin":
                made, steps = given
                self._entries[number] = Entry(Runner(partial(_make, made), steps))
            elif number in self._entries:
                entry = self._entries[number]
                getattr(entry.runner, order)(*given)
                entry.orders += order in ("play", "advance", "pause")
                if order == "close":
                    del self._entries[number]

    def _report(self) -> None:
        """Tell how races stand whenever that has changed."""
        try:
            while True:
                time.sleep(LOOK)
                for number, entry in list(self._entries.items()):
                    self._tell(number, entry)
        except BaseException as error:
            if not isinstance(error, OSError):  # which means that the server is gone
                traceback.print_exc()
            os._exit(1)  # nobody would hear of a race any more; the server starts another process

    def _tell(self, number: int, entry: Entry) -> None:
        orders, settled = entry.orders, not entry.runner.alive
        state = replace(entry.runner.state(), settled=settled)
        now = (orders, state.phase, state.step, state.place, settled, id(state.results))
        if now != entry.told:
            found = b"" if state.results is entry.found else pickle.dumps(state.results)
            entry.told, entry.found = now, state.results
            self._link.send((number, (orders, replace(state, results=None), found)))


def _make(made: bytes) -> Racing:
    return pickle.loads(made)()


WORKER = Worker()

if __name__ == "__main__":
    import torch

    from normcore.lab.race import Race

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the server decides
    os.nice(10)
    torch.set_num_threads(1)
    next(Race(seeds=1, steps=1))  # the first optimizer of a process loads PyTorch's compiler
    Office(Connection(int(sys.argv[1]))).serve()
