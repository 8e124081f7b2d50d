"""What a race measured: curves as arrays, and what they say, with its uncertainty."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch import __version__ as torch_version

from normcore.core import NormcoreError
from normcore.lab.cost import Cost

LATE = 0.1
"""The share of all steps, the last ones, over which a final loss is averaged, and the first ones for an early loss."""
LEVEL = 0.95


@dataclass(frozen=True)
class Held:
    """How all contestants stood on the held-out examples after a step: arrays (contestants seeds)."""

    step: int
    loss: np.ndarray
    accuracy: np.ndarray
    mean: tuple[np.ndarray, ...]
    deviation: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, step: int, teams: Any) -> "Held":
        """From one evaluation a contestant."""

        def together(name: str) -> np.ndarray:
            return np.stack([_numbers(getattr(team, name)) for team in teams])

        means, deviations = (tuple(_numbers(getattr(t, name)) for t in teams) for name in ("mean", "deviation"))
        return cls(step, together("loss"), together("accuracy"), means, deviations)


@dataclass(frozen=True)
class Watched:
    """The whole gradient before and after clipping, in each step: arrays (contestants seeds ...).

    `before` and `after` are its lengths, `angle` lies between the two in radians, `fired` says whether anything
    changed. Of a gradient that is not finite there is no angle.
    """

    before: np.ndarray
    after: np.ndarray
    angle: np.ndarray
    fired: np.ndarray

    @classmethod
    def empty(cls, *shape: int) -> "Watched":
        """Room for what is to come."""
        return cls(np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, bool))

    @property
    def scale(self) -> np.ndarray:
        """The length after clipping as a share of that before; 1 where there was none."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.before == 0, 1.0, self.after / self.before)

    def part(self, index: Any) -> "Watched":
        """A copy of the same part of all arrays."""
        before, after, angle, fired = (array[index].copy() for array in vars(self).values())
        return Watched(before, after, angle, fired)


@dataclass(frozen=True)
class Row:
    """One contestant in the table.

    Losses are means over the last tenth of the steps and over the seeds that did not diverge; intervals are the half
    widths of 95 % confidence intervals over seeds (Student's t). `difference` is that to the baseline, paired by
    seed; `p` its two-sided t-test, corrected for the number of comparisons (Holm 1979). `early` is the mean loss over
    the first tenth of the steps; `fluctuation` is the standard deviation of what is left of the last tenth of a curve
    after its straight line. `norm_parameters` and `statistics` are those of `Cost`.
    """

    label: str
    final: float
    interval: float
    seeds: int
    diverged: int
    difference: float
    difference_interval: float
    wins: int
    losses: int
    pairs: int
    p: float
    early: float
    fluctuation: float
    held_loss: float
    held_accuracy: float
    steps_to_target: float
    seconds_per_step: float
    parameters: int
    norm_parameters: int
    statistics: int


@dataclass(frozen=True)
class Results:
    """The curves of a race: `loss` (contestants seeds steps) before each step, `gradients` (seeds layers steps).

    `watched` is there if the race was asked to watch, `bad` (seeds steps) says which batches were bad, if some are.
    `apart` says for each contestant how far a method on weights lets a net start from the others (`nets.apart`), and
    `costs` what its norms cost.
    """

    labels: tuple[str, ...]
    seeds: tuple[int, ...]
    loss: np.ndarray
    gradients: tuple[np.ndarray, ...]
    layers: tuple[tuple[str, ...], ...]
    held: tuple[Held, ...]
    seconds: np.ndarray
    parameters: tuple[int, ...]
    limit: float
    batch_sizes: tuple[int, ...] = ()
    examples: int = 0
    classes: int = 0
    race: Mapping[str, Any] = field(default_factory=dict)
    watched: Watched | None = None
    bad: np.ndarray | None = None
    apart: tuple[float, ...] = ()
    costs: tuple[Cost, ...] = ()

    @property
    def diverged(self) -> np.ndarray:
        """The first step (contestants seeds) at which a loss was no number or beyond the limit; -1 for none."""
        wrong = ~(np.abs(self.loss) < self.limit)
        return np.where(wrong.any(-1), wrong.argmax(-1), -1) if wrong.size else np.full(wrong.shape[:2], -1)

    @property
    def late(self) -> slice:
        """The last tenth of the steps."""
        steps = self.loss.shape[-1]
        return slice(steps - max(1, round(LATE * steps)), steps)

    @property
    def first(self) -> slice:
        """The first steps, as many as the late ones."""
        return slice(self.loss.shape[-1] - self.late.start)

    def final(self) -> np.ndarray:
        """The mean loss over the last tenth of the steps (contestants seeds); nan where it diverged."""
        means = self.loss[:, :, self.late].mean(-1)
        return np.where(self.diverged < 0, means, np.nan)

    def summary(self, baseline: int = 0, target: float | None = None) -> tuple[Row, ...]:
        """The table: one row a contestant, compared with a baseline seed by seed.

        Args:
            baseline: Which contestant the others are compared with.
            target: A loss; `steps_to_target` is the mean step at which the mean over the twentieth of the steps before
                first lies below it. Left out, it is the baseline's final loss.

        Raises:
            NormcoreError: No step was made, or there is no such contestant.
        """
        if not self.loss.shape[-1]:
            raise NormcoreError("race: no step was made yet, so there is nothing to sum up")
        if not 0 <= baseline < len(self.labels):
            raise NormcoreError(f"race: baseline={baseline!r} must be from 0 to {len(self.labels) - 1}")
        final = self.final()
        target = float(np.nanmean(final[baseline])) if target is None and np.isfinite(final[baseline]).any() else target
        differences = [row - final[baseline] for row in final]
        tests = [_test(d[np.isfinite(d)]) if i != baseline else np.nan for i, d in enumerate(differences)]
        corrected = _holm(tests)
        rows = []
        for i, label in enumerate(self.labels):
            paired = differences[i][np.isfinite(differences[i])]
            mean, interval = _interval(final[i])
            difference, difference_interval = _interval(differences[i])
            held, through = self.held[-1] if self.held else None, self.diverged[i] < 0
            rows.append(
                Row(
                    label=label,
                    final=mean,
                    interval=interval,
                    seeds=int(np.isfinite(final[i]).sum()),
                    diverged=int((self.diverged[i] >= 0).sum()),
                    difference=difference,
                    difference_interval=difference_interval,
                    wins=int((paired < 0).sum()),
                    losses=int((paired > 0).sum()),
                    pairs=len(paired),
                    p=corrected[i],
                    early=_mean(self.loss[i, :, self.first].mean(-1)[through]),
                    fluctuation=_mean(_fluctuation(self.loss[i, :, self.late])[through]),
                    held_loss=_mean(held.loss[i][through]) if held else np.nan,
                    held_accuracy=_mean(held.accuracy[i][through]) if held else np.nan,
                    steps_to_target=self._reached(i, target),
                    seconds_per_step=float(self.seconds[i]),
                    parameters=self.parameters[i],
                    norm_parameters=self.costs[i].parameters if self.costs else 0,
                    statistics=self.costs[i].statistics if self.costs else 0,
                )
            )
        return tuple(rows)

    def _reached(self, contestant: int, target: float | None) -> float:
        """The mean over seeds of the first step whose running mean lies below the target; nan if a seed never does."""
        if target is None:
            return np.nan
        width = max(1, self.loss.shape[-1] // 20)
        sums = np.cumsum(np.pad(self.loss[contestant], ((0, 0), (1, 0))), axis=1)
        below = (sums[:, width:] - sums[:, :-width]) / width <= target
        return float((below.argmax(1) + width - 1).mean()) if below.any(1).all() else np.nan

    def columns(self) -> dict[str, list[Any]]:
        """Every training loss as a row: contestant, seed, step, loss, and whether it had diverged by then."""
        shape = self.loss.shape
        steps = np.broadcast_to(np.arange(shape[-1]), shape)
        since = self.diverged[:, :, None]
        return {
            "contestant": np.repeat(self.labels, shape[1] * shape[2]).tolist(),
            "seed": np.tile(np.repeat(self.seeds, shape[2]), shape[0]).tolist(),
            "step": steps.ravel().tolist(),
            "loss": self.loss.ravel().tolist(),
            "diverged": ((since >= 0) & (steps >= since)).ravel().tolist(),
        }

    def to_csv(self, path: str | Path) -> None:
        """Write `columns` to a file, every number in full."""
        columns = self.columns()
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))

    def to_json(self, path: str | Path, baseline: int = 0) -> None:
        """Write the summary to a file, with all that makes the same race again: ``Race(**file["race"])``."""
        Path(path).write_text(self.as_json(baseline), encoding="utf-8")

    def as_json(self, baseline: int = 0) -> str:
        """The text of `to_json`."""
        rows = [
            {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in vars(row).items()}
            for row in self.summary(baseline)
        ]
        told = {"torch": str(torch_version), "steps": self.loss.shape[-1], "seeds": self.seeds, "race": dict(self.race)}
        return json.dumps(told | {"rows": rows}, indent=1, allow_nan=False)

    def verdict(self, baseline: int = 0) -> tuple[str, ...]:
        """What the race showed, a sentence for each contestant but the baseline."""
        return sentences(self.summary(baseline), baseline)


def sentences(rows: Sequence[Row], baseline: int = 0) -> tuple[str, ...]:
    """A summary in words, a sentence for each row but the baseline's."""
    return tuple(_sentence(row, rows[baseline].label) for i, row in enumerate(rows) if i != baseline)


def course(rows: Sequence[Row]) -> str:
    """Who is ahead early on, and whose loss fluctuates most at the end, in a sentence; "" for one contestant."""
    early = sorted((row for row in rows if np.isfinite(row.early)), key=lambda row: row.early)
    late = sorted((row for row in rows if np.isfinite(row.fluctuation)), key=lambda row: row.fluctuation)
    if min(len(early), len(late)) < 2:
        return ""
    return (
        f"Over the first tenth of the steps {early[0].label} is lowest (mean loss {early[0].early:.3g}; then "
        f"{early[1].label}, {early[1].early:.3g}); over the last, the loss of {late[-1].label} fluctuates most, by "
        f"{late[-1].fluctuation:.2g} around its own line, that of {late[0].label} least, by {late[0].fluctuation:.2g}."
    )


def _sentence(row: Row, baseline: str) -> str:
    if not row.pairs:
        return f"{row.label} and {baseline} cannot be compared: no seed of both came through."
    equal = row.pairs - row.wins - row.losses
    if equal == row.pairs:
        where = f"all {row.pairs} seeds" if row.pairs > 1 else "the one seed there is"
        return f"{row.label} and {baseline} are equal to the last bit on {where}."
    lower = row.difference < 0
    way = "lower" if lower else "higher"
    wins = row.wins if lower else row.losses
    size = f"{row.difference:+.2g} ± {row.difference_interval:.1g}".replace("-", "−")
    if row.pairs == 1:
        return f"{row.label} ends {way} than {baseline} on the one seed there is ({size.partition(' ')[0]})."
    ties = f", equal on {equal}" if equal else ""
    start = f"{row.label} ends {way} than {baseline} on {wins} of {row.pairs} seeds{ties} ({size})"
    return f"{start}." if row.p < 1 - LEVEL else f"{start}: too little to tell them apart with so many seeds."


def _numbers(x: Tensor) -> np.ndarray:
    found: np.ndarray = x.detach().double().numpy()
    return found


def _mean(values: np.ndarray) -> float:
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else np.nan


def quantile(freedom: int) -> float:
    """How many standard errors a confidence interval reaches to each side: Student's t at `LEVEL`."""
    from scipy import special  # noqa: PLC0415 - takes long to load; scipy.stats takes much longer, at every call too

    return float(special.stdtrit(freedom, (1 + LEVEL) / 2))


def _interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and half width of the confidence interval over what is finite."""
    kept = values[np.isfinite(values)]
    if len(kept) < 2:
        return _mean(values), np.nan
    half = quantile(len(kept) - 1) * kept.std(ddof=1) / np.sqrt(len(kept))
    return float(kept.mean()), float(half)


def _test(differences: np.ndarray) -> float:
    """Two-sided p of Student's t-test that paired differences are 0; 1 where all of them are."""
    if len(differences) < 2:
        return np.nan
    if np.ptp(differences) == 0:
        return 1.0 if differences[0] == 0 else 0.0
    from scipy import special  # noqa: PLC0415

    t = differences.mean() / (differences.std(ddof=1) / np.sqrt(len(differences)))
    return float(2 * special.stdtr(len(differences) - 1, -abs(t)))


def _holm(tests: list[float]) -> list[float]:
    """Holm's step-down correction; what is nan stays nan."""
    order = sorted((p, i) for i, p in enumerate(tests) if not np.isnan(p))
    corrected, highest = [np.nan] * len(tests), 0.0
    for rank, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        corrected[i] = highest
    return corrected


def _fluctuation(curves: np.ndarray) -> np.ndarray:
    """By curve, the standard deviation around its own straight line."""
    steps = np.arange(curves.shape[-1])
    if len(steps) < 3:
        return np.full(len(curves), np.nan)
    around = curves - curves.mean(-1, keepdims=True)
    centered = steps - steps.mean()
    slopes = (around @ centered) / (centered @ centered)
    spread: np.ndarray = (around - slopes[:, None] * centered).std(-1, ddof=2)
    return spread
