"""At which learning rates a recurrent cell stays stable: without a norm, clipped, and with layer norm inside."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from normcore.core import NormcoreError
from normcore.lab.observatory import naive
from normcore.lab.strips import Strip, StripResults

RATES: Mapping[str, tuple[float, ...]] = {
    "adam": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3),
    "sgd": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
}
"""The learning rates to try with each optimizer."""
STABLE = 2.0
"""How many times the loss of the best constant answer a stable run may end at."""
CELLS = ("rnn", "lstm", "gru")
SEEDS, STEPS = 3, 60


def rates(cell: str, optimizer: str = "sgd", seeds: int = SEEDS, steps: int = STEPS) -> Strip:
    """Races of one cell on the adding problem over 30 steps, at one learning rate after the other.

    Raises:
        NormcoreError: No such cell or optimizer.
    """
    if cell not in CELLS or optimizer not in RATES:
        known = f"{', '.join(CELLS)}; {', '.join(RATES)}"
        raise NormcoreError(f"flow: cell={cell!r} with optimizer={optimizer!r} cannot be; there are {known}")
    clipped = {"clip": "clip_by_global_norm", "clip_settings": {"max_norm": 1.0}}
    contestants = [
        {"norm": None, "name": "no norm"},
        {"norm": None, "name": "no norm, clipped", "overrides": clipped},
        {"norm": "layer_norm", "name": "layer norm"},
    ]
    race = {"task": "adding", "model": cell, "contestants": contestants, "seeds": seeds, "steps": steps}
    race |= {"optimizer": optimizer, "batch_size": 32, "width": 32, "evaluate_every": steps}
    return Strip("learning_rate", RATES[optimizer], race)


@dataclass(frozen=True)
class Stability:
    """What a contestant bears: the learning rates at which every seed came through, and ended near or below a guess.

    A guess is the best constant answer. `best` is its lowest mean final loss, nan where no rate was stable.
    """

    label: str
    good: tuple[float, ...]
    diverged: int
    runs: int
    best: float


def stability(found: StripResults) -> tuple[Stability, ...]:
    """What each contestant bears, of the rates that have been raced."""
    result = []
    for i, label in enumerate(found.labels):
        final, lost = found.final[i, : found.done], found.lost[i, : found.done]
        fine = ~lost.any(-1) & (np.where(np.isnan(final), np.inf, final) <= STABLE * naive("adding")).all(-1)
        good = tuple(float(found.values[j]) for j in np.flatnonzero(fine))
        best = float(final[fine].mean(-1).min()) if fine.any() else float("nan")
        result.append(Stability(label, good, int(lost.sum()), int(lost.size), best))
    return tuple(result)
