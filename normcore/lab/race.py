"""A fair race: same first weights, same batches in the same order, many seeds; only the contestants differ."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from normcore.core import NormcoreError
from normcore.lab import tasks
from normcore.lab.results import Held, Results, Watched
from normcore.lab.teams import Evaluation, Setup, Team

TOO_LARGE = 1e6
"""A loss beyond this counts as diverged, as one that is not a number does."""
ORDER = 1 << 30
"""Keeps the seeds of the batch order apart from those of the first weights; torch looks at 32 bits of a seed."""
SPOILING = 2 << 30
"""Keeps those of the bad batches apart from both."""
SPARED = 10
"""So many first steps have good batches, so that training can begin."""


@dataclass(frozen=True)
class Contestant:
    """One side of a race: a method (None: no normalization) with its settings, and whatever else shall differ.

    `overrides` are arguments of `Race` with other values: ``{"learning_rate": 0.1, "activation": "tanh"}``.
    """

    norm: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None

    @property
    def label(self) -> str:
        """What it is called in tables and plots."""
        differing = [f"{name}={value}" for name, value in {**self.settings, **self.overrides}.items()]
        return self.name or " ".join([self.norm or "none", *differing])


@dataclass(frozen=True)
class Step:
    """One step of all contestants: training losses (contestants seeds), each before its step.

    `gradients` are the lengths of the gradients of all weights before clipping, (seeds layers) for each contestant.
    `held` is there at the steps after which the held-out examples were looked at; `watched` (contestants seeds) and
    `bad` (seeds) in races that watch and in those with bad batches.
    """

    step: int
    loss: np.ndarray
    gradients: tuple[np.ndarray, ...]
    held: tuple[Evaluation, ...] | None
    watched: Watched | None = None
    bad: np.ndarray | None = None


class Race(Iterator[Step]):
    """Trains all contestants side by side, one record a step; it can be stopped, saved and gone on with at any step.

    Args:
        task: One of `tasks.TASKS`, or `tasks.Data` of your own.
        model: One of `nets.MODELS`.
        contestants: Keys of methods (None for none), ``(key, settings)`` pairs, `Contestant`, or its fields by name.
        seeds: How many, or which. A seed decides first weights and the order of examples.
        steps: How many optimizer steps.
        evaluate_every: After how many steps the held-out examples are looked at; always after the last.
        watch: Whether the whole gradient before and after clipping is recorded in every step.
        spoil: One of `tasks.SPOILS`: what is wrong with the bad batches; None for no bad batches.
        spoil_every: One batch in so many is bad, drawn for each seed and step; the same for all contestants.
        **setup: What holds for all contestants unless they override it: the fields of `teams.Setup`.

    Raises:
        NormcoreError: Something that cannot be built or trained, in a sentence.
    """

    def __init__(
        self,
        task: str | tasks.Data = "threshold_sum",
        model: str = "mlp",
        contestants: Sequence[Any] = ("batch_norm", "layer_norm", "group_norm"),
        seeds: int | Sequence[int] = 4,
        steps: int = 800,
        evaluate_every: int = 50,
        watch: bool = False,
        spoil: str | None = None,
        spoil_every: int = 50,
        **setup: Any,
    ) -> None:
        self.task = task if isinstance(task, str) else None
        self.data = task if isinstance(task, tasks.Data) else tasks.data(task)
        self.contestants = tuple(_contestant(given) for given in contestants)
        self.seeds = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
        self.steps, self.evaluate_every, self.step = steps, evaluate_every, 0
        self.watch, self.spoil, self.spoil_every = bool(watch), spoil, spoil_every
        _check(self)
        self.common = common = _setup(Setup(model=model), setup)
        setups = [
            _setup(replace(common, norm=c.norm, settings=dict(c.settings)), c.overrides) for c in self.contestants
        ]
        for one in setups:
            if not isinstance(one.batch_size, int) or not 1 <= one.batch_size <= len(self.data.x):
                raise NormcoreError(
                    f"race: batch_size={one.batch_size!r} must be from 1 to {len(self.data.x)}, all there is"
                )
        self.teams = [Team(self.data, one, self.seeds, steps) for one in setups]
        count = (len(self.teams), len(self.seeds))
        self._loss = np.full((*count, steps), np.nan)
        self._seconds = np.zeros(len(self.teams))
        self._gradients = [
            np.full((len(self.seeds), len(team.layers), steps), np.nan, np.float32) for team in self.teams
        ]
        self._watched = Watched.empty(*count, steps) if self.watch else None
        self._bad = None if spoil is None else np.stack([self._spoiled(seed) for seed in self.seeds])
        self._held: list[Held] = []
        self._orders: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return self.steps

    def __next__(self) -> Step:
        if self.step >= self.steps:
            raise StopIteration
        done = self.step
        for i, team in enumerate(self.teams):
            x, y = self._examples(self._batches(done, team.setup.batch_size), done)
            begun = time.perf_counter()
            losses, norms = team.step(x, y, done, self.watch)
            self._seconds[i] += time.perf_counter() - begun
            self._loss[i, :, done] = losses.numpy()
            self._gradients[i][:, :, done] = norms.numpy()
            if self._watched is not None:
                for array, found in zip(vars(self._watched).values(), team.watched, strict=True):
                    array[i, :, done] = found.numpy()
        self.step += 1
        held = None
        if self.step % self.evaluate_every == 0 or self.step == self.steps:
            held = tuple(team.evaluate() for team in self.teams)
            self._held.append(Held.of(self.step, held))
        watched = None if self._watched is None else self._watched.part(np.s_[..., done])
        bad = None if self._bad is None else self._bad[:, done]
        return Step(done, self._loss[:, :, done], tuple(g[:, :, done] for g in self._gradients), held, watched, bad)

    def results(self) -> Results:
        """All that was measured so far."""
        return Results(
            labels=tuple(contestant.label for contestant in self.contestants),
            seeds=self.seeds,
            loss=self._loss[:, :, : self.step].copy(),
            gradients=tuple(g[:, :, : self.step].copy() for g in self._gradients),
            layers=tuple(tuple(team.layers) for team in self.teams),
            held=tuple(self._held),
            seconds=self._seconds / max(1, self.step),
            parameters=tuple(team.parameters_each for team in self.teams),
            limit=TOO_LARGE,
            batch_sizes=tuple(team.setup.batch_size for team in self.teams),
            examples=len(self.data.x),
            classes=self.data.classes,
            race=self.manifest,
            watched=None if self._watched is None else self._watched.part(np.s_[..., : self.step]),
            bad=None if self._bad is None else self._bad[:, : self.step].copy(),
            apart=tuple(team.apart for team in self.teams),
            costs=tuple(team.cost for team in self.teams),
        )

    @property
    def manifest(self) -> dict[str, Any]:
        """What this race was made from, as plain values: ``Race(**manifest)`` is the same race.

        Data of your own cannot be told in words: `task` is None there, and they are to be given again.
        """
        shared = {f.name: getattr(self.common, f.name) for f in fields(Setup) if f.name not in ("norm", "settings")}
        return {
            "task": self.task,
            "contestants": [
                {
                    "norm": one.norm,
                    "settings": dict(one.settings),
                    "overrides": dict(one.overrides),
                    "name": one.name,
                }
                for one in self.contestants
            ],
            "seeds": list(self.seeds),
            "steps": self.steps,
            "evaluate_every": self.evaluate_every,
            "watch": self.watch,
            "spoil": self.spoil,
            "spoil_every": self.spoil_every,
            **shared,
            "clip_settings": dict(self.common.clip_settings),
        }

    def _examples(self, chosen: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The chosen examples (seeds n), spoiled for the seeds whose turn it is."""
        x, y = self.data.x[chosen], self.data.y[chosen]
        if self._bad is not None:
            for place in np.flatnonzero(self._bad[:, step]).tolist():
                generator = torch.Generator().manual_seed(SPOILING + 1_000_003 * self.seeds[place] + step)
                x[place], y[place] = tasks.SPOILS[str(self.spoil)].change(x[place], y[place], generator)
        return x, y

    def _spoiled(self, seed: int) -> np.ndarray:
        """Which steps (steps) of a seed have a bad batch; the first `SPARED` have none."""
        generator = torch.Generator().manual_seed(SPOILING + 1_000_003 * seed - 1)
        bad: np.ndarray = (torch.rand(self.steps, generator=generator) < 1 / self.spoil_every).numpy()
        bad[:SPARED] = False
        return bad

    def _batches(self, step: int, size: int) -> Tensor:
        """Which examples (seeds n) are seen in a step: epoch follows epoch without a gap, each in its own order."""
        total = len(self.data.x)
        first, parts = step * size, []
        while size:
            epoch, at = divmod(first, total)
            take = min(size, total - at)
            parts.append(self._order(epoch)[:, at : at + take])
            first, size = first + take, size - take
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]

    def _order(self, epoch: int) -> Tensor:
        """All examples in the order of an epoch (seeds n)."""
        total = len(self.data.x)
        if self.data.ordered:
            return torch.arange(total).expand(len(self.seeds), total)
        if epoch not in self._orders:
            generators = [torch.Generator().manual_seed(ORDER + 1_000_003 * seed + epoch) for seed in self.seeds]
            self._orders[epoch] = torch.stack([torch.randperm(total, generator=one) for one in generators])
            if len(self._orders) > 2 * len(self.teams):  # with batches of other sizes, teams are in other epochs
                del self._orders[next(iter(self._orders))]
        return self._orders[epoch]

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the race depends on, and what was measured so far."""
        return {
            "step": self.step,
            "teams": [team.state_dict() for team in self.teams],
            "loss": self._loss.copy(),
            "gradients": [g.copy() for g in self._gradients],
            "held": list(self._held),
            "seconds": self._seconds.copy(),
            "watched": None if self._watched is None else self._watched.part(...),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state_dict` of a race that was made alike.

        Raises:
            NormcoreError: It comes from another race.
        """
        if len(state["teams"]) != len(self.teams) or state["loss"].shape != self._loss.shape:
            raise NormcoreError(
                f"race: the saved race has {state['loss'].shape} contestants, seeds and steps; "
                f"this one {self._loss.shape}"
            )
        for team, saved in zip(self.teams, state["teams"], strict=True):
            team.load_state_dict(saved)
        self.step, self._held = state["step"], list(state["held"])
        self._loss, self._seconds = state["loss"].copy(), state["seconds"].copy()
        self._gradients = [g.copy() for g in state["gradients"]]
        if self._watched is not None and state["watched"] is not None:
            self._watched = state["watched"].part(...)


def _contestant(given: Any) -> Contestant:
    if isinstance(given, Contestant):
        return given
    if given is None or isinstance(given, str):
        return Contestant(given)
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], Mapping):
        return Contestant(given[0], given[1])
    if isinstance(given, Mapping) and set(given) <= {f.name for f in fields(Contestant)}:
        return Contestant(**given)
    raise NormcoreError(f"race: {given!r} is no contestant; try a key, (key, settings), a Contestant, or None for none")


def _setup(base: Setup, given: Mapping[str, Any]) -> Setup:
    known = {f.name for f in fields(Setup)}
    for name in given:
        if name not in known:
            raise NormcoreError(f"race: nothing here is called {name!r}; there are {', '.join(sorted(known))}")
    return replace(base, **given)


def _check(race: Race) -> None:
    if race.spoil is not None and race.spoil not in tasks.SPOILS:
        raise NormcoreError(f"race: spoil={race.spoil!r} must be one of {', '.join(tasks.SPOILS)}, or None for none")
    counts = {"steps": race.steps, "evaluate_every": race.evaluate_every, "spoil_every": race.spoil_every}
    for what, number in counts.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise NormcoreError(f"race: {what}={number!r} must be a whole number of at least 1")
    if not race.seeds or len(set(race.seeds)) != len(race.seeds):
        raise NormcoreError(f"race: seeds={race.seeds!r} must be one or more, all different")
    labels = [contestant.label for contestant in race.contestants]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if not labels or twice:
        raise NormcoreError(f"race: {f'two contestants are called {twice!r}' if twice else 'there is no contestant'}")
