"""The same race at one learning rate after the other, or one batch size: who gets along with which."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from normcore.lab.cost import Cost
from normcore.lab.race import Race, Step


@dataclass(frozen=True)
class StripResults:
    """What a strip has come to: losses at the end (contestants values seeds), nan where one diverged or is to come.

    `lost` says where a seed diverged; the first `done` values have been raced. `seconds` (contestants values) are those
    of a step of all seeds, and `costs` (values contestants) what the norms cost.
    """

    knob: str
    values: tuple[Any, ...]
    labels: tuple[str, ...]
    seeds: tuple[int, ...]
    final: np.ndarray
    lost: np.ndarray
    seconds: np.ndarray
    costs: tuple[tuple[Cost, ...], ...]
    done: int

    def columns(self) -> dict[str, list[Any]]:
        """A row for each contestant, value and seed that has been raced."""
        cells = [(i, j, k) for j in range(self.done) for i in range(len(self.labels)) for k in range(len(self.seeds))]
        return {
            "contestant": [self.labels[i] for i, _, _ in cells],
            self.knob.replace("_", " "): [self.values[j] for _, j, _ in cells],
            "seed": [self.seeds[k] for _, _, k in cells],
            "final loss": [float(self.final[cell]) for cell in cells],
            "diverged": [bool(self.lost[cell]) for cell in cells],
            "seconds a step of all seeds": [float(self.seconds[i, j]) for i, j, _ in cells],
            "parameters of the norm": [self.costs[j][i].parameters for i, j, _ in cells],
            "statistics of a batch": [self.costs[j][i].statistics for i, j, _ in cells],
        }


class Strip(Iterator[Step]):
    """Races with other values of one knob, one after the other; it goes step by step as a `Race` does.

    Args:
        knob: What differs from race to race, such as "learning_rate" or "batch_size".
        values: Its values.
        race: All else that `Race` takes.
    """

    def __init__(self, knob: str, values: Sequence[Any], race: Mapping[str, Any]) -> None:
        self.knob, self.values, self.options = knob, tuple(values), dict(race)
        self.step, self._done = 0, 0
        self._race = self._next_race()
        shape = (len(self._race.contestants), len(self.values), len(self._race.seeds))
        self._final, self._lost = np.full(shape, np.nan), np.zeros(shape, dtype=bool)
        self._seconds, self._costs = np.full(shape[:2], np.nan), list[tuple[Cost, ...]]()

    def __len__(self) -> int:
        return len(self.values) * self._race.steps

    def __next__(self) -> Step:
        if self._done == len(self.values):
            raise StopIteration
        record = next(self._race)
        self.step += 1
        if self._race.step == self._race.steps:
            found = self._race.results()
            self._final[:, self._done], self._lost[:, self._done] = found.final(), found.diverged >= 0
            self._seconds[:, self._done] = found.seconds
            self._costs.append(found.costs)
            self._done += 1
            if self._done < len(self.values):
                self._race = self._next_race()
        return record

    def results(self) -> StripResults:
        """What has come of it so far."""
        labels = tuple(contestant.label for contestant in self._race.contestants)
        return StripResults(
            self.knob,
            self.values,
            labels,
            self._race.seeds,
            self._final.copy(),
            self._lost.copy(),
            self._seconds.copy(),
            tuple(self._costs),
            self._done,
        )

    def _next_race(self) -> Race:
        return Race(**self.options | {self.knob: self.values[self._done]})
