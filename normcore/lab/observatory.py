"""What is watched of gradients while a real net is trained: scenes, layers over steps, when clipping fired, and how.

``python -m normcore.lab.observatory FILE`` records the gradient norms of a scene as JSON lines, one step a line.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from normcore.core import NormcoreError
from normcore.lab.curves import spoken, thinned
from normcore.lab.race import Race
from normcore.lab.results import Results
from normcore.lab.tasks import data
from normcore.lab.teams import check_clip

ROLL = 50
"""Over so many of the last steps the rate of clipping is taken."""
LEARNED = 0.95
"""Below this share of a constant answer's loss something was learned."""
CELL = {"weight_ih": "from input", "weight_hh": "from past"}
"""What the weights of a recurrent cell take in."""
ROBUST = (2.0, 98.0)
"""Percentiles of all norms at which the colors end."""


@dataclass(frozen=True)
class Scene:
    """A net in training that is worth watching: its name, what happens there, and the race's options."""

    name: str
    about: str
    race: Mapping[str, Any]
    threshold: float
    """Where the shared threshold stands at first."""


SCENES = {
    "adding": Scene(
        "RNN on the adding problem",
        "A recurrent net adds the two marked numbers among 30. Its rectifiers are begun as the identity (Le, Jaitly "
        "and Hinton 2015), so a step too far makes every later step on the way back larger: gradients explode.",
        {
            "task": "adding",
            "model": "irnn",
            "width": 32,
            "batch_size": 32,
            "learning_rate": 0.02,
            "optimizer": "sgd",
        },
        1.0,
    ),
    "digits": Scene(
        "Digits, with bad batches",
        "A net of three hidden layers learns handwritten digits. Now and then a batch is bad, at random steps that are "
        "the same for all variants.",
        {
            "task": "digits",
            "model": "mlp",
            "depth": 3,
            "width": 32,
            "batch_size": 32,
            "learning_rate": 0.05,
            "optimizer": "momentum",
        },
        4.0,
    ),
}


def refusal(key: str) -> str:
    """Why a gradient method cannot be raced, in a sentence; "" where it can."""
    try:
        check_clip(key)
    except NormcoreError as error:
        return str(error).removeprefix("race: ")
    return ""


@cache
def naive(task: str) -> float:
    """The loss of always answering the best constant: the variance of the numbers, or the entropy of the classes."""
    examples = data(task)
    if not examples.classes:
        return float(examples.y.double().var(correction=0))
    shares = torch.bincount(examples.y, minlength=examples.classes).double() / len(examples.y)
    return float(-(shares[shares > 0] * shares[shares > 0].log()).sum())


@dataclass(frozen=True)
class Layers:
    """The longest gradient of each layer in each bin of steps: `values` (layers bins), nan where nothing is finite.

    A bin begins at `start`, all bins are `width` steps long. `limits` is a robust range for the colors.
    """

    names: tuple[str, ...]
    start: np.ndarray
    width: int
    values: np.ndarray
    limits: tuple[float, float]


def layers(results: Results, contestant: int, seed: int, most: int = 160) -> Layers:
    """The norm of the gradient of each weight before clipping, for one contestant and the seed in this place.

    After a divergence there is nothing.
    """
    found = results.gradients[contestant][seed].astype(float)
    lost = int(results.diverged[contestant, seed])
    if lost >= 0:
        found[:, lost + 1 :] = np.nan
    width = max(1, -(-found.shape[1] // most))
    start = np.arange(0, found.shape[1], width)
    known = np.where(np.isfinite(found), found, -1.0)
    values = np.maximum.reduceat(known, start, axis=1) if found.shape[1] else known
    values = np.where(values < 0, np.nan, values)
    positive = values[np.isfinite(values) & (values > 0)]
    low, high = np.percentile(positive, ROBUST).tolist() if positive.size else (0.1, 10.0)
    if high <= low:
        low, high = low / 2, high * 2
    names = tuple(CELL.get(name.rpartition(".")[2], spoken(name)) for name in results.layers[contestant])
    return Layers(names, start, width, values, (low, high))


@dataclass(frozen=True)
class Course:
    """One contestant and seed over the steps: arrays (points) of what its clipping did.

    `rate` is the share of the last `ROLL` steps in which it fired. `events` are all steps in which it did, `bad` those
    with a bad batch, `lost` the step at which the run diverged, -1 for none.
    """

    step: np.ndarray
    before: np.ndarray
    after: np.ndarray
    scale: np.ndarray
    angle: np.ndarray
    rate: np.ndarray
    events: np.ndarray
    bad: np.ndarray
    lost: int

    def columns(self) -> dict[str, Any]:
        """The very numbers, a row a point."""
        fired = np.isin(self.step, self.events)
        return {
            "step": self.step,
            "norm before": self.before,
            "norm after": self.after,
            "scale": self.scale,
            "angle, degrees": self.angle,
            "clipped": fired,
            f"share clipped, last {ROLL} steps": self.rate,
            "bad batch": np.isin(self.step, self.bad),
        }


def course(results: Results, contestant: int, seed: int, most: int = 400) -> Course:
    """What clipping did to one contestant's run with the seed in this place; angles in degrees.

    Of more than `most` steps those are kept that are evenly spaced, and the longest gradient between any two.

    Raises:
        NormcoreError: The race did not watch, or has made no step.
    """
    watched = results.watched
    if watched is None or not watched.before.shape[-1]:
        raise NormcoreError("observatory: nothing was watched; race with watch=True and make a step")
    before, after, fired = (a[contestant, seed] for a in (watched.before, watched.after, watched.fired))
    lost = int(results.diverged[contestant, seed])
    count = len(before) if lost < 0 else lost + 1
    totals = np.concatenate([[0], np.cumsum(fired)])
    ends = np.arange(1, len(before) + 1)
    starts = np.maximum(0, ends - ROLL)
    rate = (totals[ends] - totals[starts]) / (ends - starts)
    kept = _kept(before[:count], most)
    bad = np.zeros(0, int) if results.bad is None else np.flatnonzero(results.bad[seed][:count])
    return Course(
        kept,
        before[kept],
        after[kept],
        watched.scale[contestant, seed][kept],
        np.degrees(watched.angle[contestant, seed][kept]),
        rate[kept],
        np.flatnonzero(fired[:count]),
        bad,
        lost,
    )


def _kept(values: np.ndarray, most: int) -> np.ndarray:
    """Evenly spaced places, and of what lies between them the largest value."""
    if len(values) <= most:
        return np.arange(len(values))
    even = thinned(len(values), most // 2)
    known = np.where(np.isfinite(values), values, -np.inf)
    peaks = [a + int(known[a:b].argmax()) for a, b in pairwise(even.tolist())]
    return np.unique(np.concatenate([even, peaks]))


def norms(results: Results, contestant: int) -> np.ndarray:
    """All lengths of the whole gradient before clipping that a contestant's runs had, up to where they diverged."""
    assert results.watched is not None, "asked of a race that watches"
    found = results.watched.before[contestant]
    lost = results.diverged[contestant][:, None]
    kept: np.ndarray = found[(lost < 0) | (np.arange(found.shape[1]) <= lost)]
    return kept


class Good(Results):
    """The same results, judged by their good batches alone: a bad one says nothing about what was learned."""

    def final(self) -> np.ndarray:
        """The mean loss over the good ones of the last tenth of the steps (contestants seeds); nan where it diverged.

        Where all of them were bad, all of them count.
        """
        found = super().final()
        if self.bad is None:
            return found
        good = ~self.bad[:, self.late]
        loss = self.loss[:, :, self.late]
        some = np.where(good, loss, 0.0).sum(-1) / np.maximum(1, good.sum(-1))
        return np.where(np.isfinite(found) & good.any(-1), some, found)


def good(results: Results) -> Good:
    """Results whose final losses leave the bad batches out."""
    return Good(**vars(results))


def verdict(results: Results, free: Sequence[bool], usual: float) -> tuple[str, ...]:
    """Who came through and who learned anything, in sentences; bad batches are left out of the losses.

    Args:
        results: What a race measured.
        free: For each contestant whether it runs without clipping.
        usual: The loss of always answering the best constant; a run that ends less than 5 % below it learned nothing.
    """
    seeds, told = len(results.seeds), []
    lost, final = results.diverged, good(results).final()
    over = "" if results.bad is None else " over good batches"
    learned = np.where(np.isfinite(final), final, np.inf) < LEARNED * usual
    for i, label in enumerate(results.labels):
        gone = np.sort(lost[i][lost[i] >= 0])
        start = f"{'Without clipping' if free[i] else f'With {label}'}, {len(gone)} of {seeds} seeds diverged"
        if len(gone):
            start += f" (at step {_span(gone)})"
        if len(gone) < seeds:
            mean = float(final[i][np.isfinite(final[i])].mean())
            start += f" and {int(learned[i].sum())} learned something; mean loss at the end{over} {mean:.3g}"
        told.append(f"{start}.")
    told.append(
        f"Always answering the same has a loss of {usual:.3g}; less than 5 % below it counts as nothing learned."
    )
    return (*told, *_compared(lost, learned, free, results))


def _span(steps: np.ndarray) -> str:
    return f"{steps[0]:,}" if steps[0] == steps[-1] else f"{steps[0]:,} to {steps[-1]:,}"


def _compared(lost: np.ndarray, learned: np.ndarray, free: Sequence[bool], results: Results) -> tuple[str, ...]:
    """What clipping changed here, if it is raced against none."""
    bare = next((i for i, one in enumerate(free) if one), None)
    clipped = [i for i, one in enumerate(free) if not one]
    if bare is None or not clipped:
        return ()
    seeds = len(results.seeds)
    gone = [int((row >= 0).sum()) for row in lost]
    best = min(clipped, key=lambda i: gone[i])
    if gone[bare] > seeds / 2 and gone[best] == 0:
        slow = "" if learned[best].any() else ", though none of its runs learned anything in so few steps"
        return (f"So most runs diverge without clipping and none with {results.labels[best]}{slow}.",)
    if gone[bare] > gone[best]:
        return (f"So {results.labels[best]} saves {gone[bare] - gone[best]} of {gone[bare]} runs from diverging here.",)
    best = max(clipped, key=lambda i: int(learned[i].sum()))
    more = int(learned[best].sum()) - int(learned[bare].sum())
    if more > 0:
        return (f"So clipping decides who learns here: {results.labels[best]} on {more} more of {seeds} seeds.",)
    return ("So clipping saved no run here.",)


def record(path: str | Path, scene: str = "digits", steps: int = 400, spoil: str = "scaled_inputs") -> None:
    """Write the gradient norms of a real run without clipping, seed 0, as JSON lines, one step a line."""
    options = dict(SCENES[scene].race) | {"spoil": spoil if scene == "digits" else None}
    race = Race(**options, contestants=[None], seeds=1, steps=steps, evaluate_every=steps, watch=True)
    with Path(path).open("w", encoding="utf-8") as file:
        for step in race:
            assert step.watched is not None, "this race watches"
            row = {"step": step.step, "loss": float(step.loss[0, 0]), "grad_norm": float(step.watched.before[0, 0])}
            file.write(json.dumps({k: float(f"{v:.6g}") if k != "step" else v for k, v in row.items()}) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    record(sys.argv[1], *sys.argv[2:3])  # type: ignore[arg-type]
