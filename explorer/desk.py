"""What a visitor has on the server: a race, and finished ones that are kept behind it."""

import time
from collections.abc import Callable
from typing import Any

from explorer.runner import Racing, Runner, State
from explorer.worker import WORKER, Remote

CALM = 1.0
"""Seconds for which what is to be read stands still while curves grow."""


class Desk:
    """What one visitor has on a server: the race at hand, and finished ones that are kept behind it."""

    MOST = 3

    def __init__(self) -> None:
        self.runner: Runner | Remote | None = None
        self.made_from = ""
        self.kept: list[tuple[str, Any]] = []
        self.number = 0
        self._shown: tuple[float, Any] = (0.0, None)

    def begin(self, made_from: str, make: Callable[[], Racing], steps: int) -> Runner | Remote:
        """Put a new race in the place of the one before, which ends. `make` can be pickled."""
        if self.runner is not None:
            self.runner.close()
        self.runner = WORKER.begin(make, steps) if WORKER.is_open else Runner(make, steps)
        self.made_from = made_from
        self._shown = (0.0, None)
        return self.runner

    def readable(self, state: State) -> Any:
        """What was found, the same for a second while it goes on: figures that change four times as often are noise."""
        since, shown = self._shown
        now = time.monotonic()
        if not state.going or shown is None or now - since >= CALM:
            self._shown = (now, state.results)
        return self._shown[1]

    def keep(self, name: str, results: Any) -> None:
        """Keep what was found; the oldest goes when there are too many."""
        others = [(known, old) for known, old in self.kept if known != name]
        self.kept = [*others[1 - self.MOST :], (name, results)]

    def close(self) -> None:
        """The visitor has gone."""
        if self.runner is not None:
            self.runner.close()
