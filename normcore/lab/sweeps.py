"""Many races as one table: methods × batch sizes × learning rates × seeds, on any executor, resumed after a kill."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from normcore.core import NormcoreError
from normcore.lab.race import Race

ATTEMPTS = 3
"""How often in a row workers may die before a piece is done."""
DEATHS = ("BrokenProcessPool", "BrokenExecutor", "KilledWorker", "CommClosedError")
"""What executors call a worker that died, by name: Dask is not installed everywhere."""


@dataclass(frozen=True)
class Row:
    """How one net ended: losses are means over the last tenth of the steps, nan where it diverged."""

    contestant: str
    batch_size: int
    learning_rate: float
    seed: int
    loss: float
    held_loss: float
    held_accuracy: float
    diverged: int
    seconds_per_step: float


@dataclass(frozen=True)
class Piece:
    """The result of one piece of a sweep: one contestant at one batch size and learning rate, with all seeds."""

    rows: tuple[Row, ...]
    done: int
    total: int
    fresh: bool


def sweep(
    contestants: Sequence[Any] = ("batch_norm", "layer_norm", "group_norm"),
    batch_sizes: Sequence[int] = (64,),
    learning_rates: Sequence[float] = (1e-3,),
    seeds: int | Sequence[int] = 4,
    path: str | Path | None = None,
    executor: Executor | None = None,
    workers: int | None = None,
    **race: Any,
) -> Iterator[Piece]:
    """Runs every combination and yields each as it is done, in whatever order that is.

    What is done is appended to `path` as a JSON line under a hash of its configuration; what stands there already is
    not run again, and comes first. A worker that dies takes nothing with it but the piece that it was at, which is
    tried again.

    Args:
        contestants: As for `Race`.
        batch_sizes, learning_rates, seeds: What is combined with them; all seeds of a combination run together.
        path: A file of JSON lines to keep results in.
        executor: Any `concurrent.futures.Executor`, such as that of a Dask client; a pool of processes if left out.
        workers: How many processes that pool has; all cores if left out.
        **race: What else `Race` takes, such as `task`, `model`, `steps`.

    Raises:
        NormcoreError: A combination that cannot be raced, before anything runs; or workers died time and again.
    """
    numbers = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    pieces = {}
    for given, size, rate in product(contestants, batch_sizes, learning_rates):
        options = {**race, "contestants": [given], "seeds": numbers, "batch_size": size, "learning_rate": rate}
        one = Race(**options)  # refuses here what would fail there
        pieces[_hash(one, options)] = options | {"evaluate_every": options.get("steps", len(one))}
    known = read(path) if path is not None else {}
    done = 0
    for key in [key for key in pieces if key in known]:
        done += 1
        yield Piece(known[key], done, len(pieces), fresh=False)
    waiting = {key: options for key, options in pieces.items() if key not in known}
    for key, rows in _run(waiting, executor, workers):
        if path is not None:
            _append(Path(path), key, rows)
        done += 1
        yield Piece(rows, done, len(pieces), fresh=True)


def run(options: Mapping[str, Any]) -> tuple[Row, ...]:
    """One piece, from start to end, on one thread."""
    torch.set_num_threads(1)
    race = Race(**options)
    for _ in race:
        pass
    results = race.results()
    final, diverged, held = results.final(), results.diverged, results.held[-1]
    setup = race.teams[0].setup
    return tuple(
        Row(
            results.labels[0],
            setup.batch_size,
            setup.learning_rate,
            seed,
            float(final[0, i]),
            float(held.loss[0, i]),
            float(held.accuracy[0, i]),
            int(diverged[0, i]),
            float(results.seconds[0]),
        )
        for i, seed in enumerate(results.seeds)
    )


def read(path: str | Path) -> dict[str, tuple[Row, ...]]:
    """The finished pieces in a file, by the hash of their configuration; a line that a kill cut short is left out."""
    found = {}
    for line in Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[entry["key"]] = tuple(Row(**row) for row in entry["rows"])
    return found


def _append(path: Path, key: str, rows: tuple[Row, ...]) -> None:
    text = path.read_bytes() if path.exists() else b""
    broken = bool(text) and not text.endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if broken else "") + json.dumps({"key": key, "rows": [vars(row) for row in rows]}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _hash(race: Race, options: Mapping[str, Any]) -> str:
    """A name for a configuration: everything that its result depends on."""
    (contestant,), (team,) = race.contestants, race.teams
    said = [repr(team.setup), contestant.label, race.seeds, race.steps, str(options.get("task", ""))]
    if not isinstance(options.get("task", ""), str):
        said[-1] = hashlib.sha256(race.data.x.numpy().tobytes() + race.data.y.numpy().tobytes()).hexdigest()
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def _run(
    pieces: Mapping[str, Mapping[str, Any]], executor: Executor | None, workers: int | None
) -> Iterator[tuple[str, tuple[Row, ...]]]:
    """Pieces as they are done; those whose worker died are handed in again, to a new pool where the pool was ours."""
    pool = executor or _pool(workers)
    running = {pool.submit(run, options): key for key, options in pieces.items()}
    deaths = 0
    try:
        while running:
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            lost = []
            for future in finished:
                key = running.pop(future)
                error = None if future.cancelled() else future.exception()
                if future.cancelled() or type(error).__name__ in DEATHS:  # a cluster cancels what a lost worker held
                    lost.append(key)
                elif error is None:
                    deaths = 0
                    yield key, future.result()
                else:
                    raise error
            if not lost:
                continue
            deaths += 1
            if deaths > ATTEMPTS:
                raise NormcoreError(f"sweep: workers died {deaths} times without finishing a piece; is memory short?")
            if executor is None:
                lost += running.values()
                running = {}
                pool.shutdown(wait=False, cancel_futures=True)
                pool = _pool(workers)
            running |= {pool.submit(run, pieces[key]): key for key in lost}
    finally:
        for future in running:
            future.cancel()
        if executor is None:
            pool.shutdown(wait=False, cancel_futures=True)


def _pool(workers: int | None) -> ProcessPoolExecutor:
    # Spawned, for a fork of a process that has threads may hang.
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))


def table(
    pieces: Sequence[Piece], value: Callable[[Row], float] = lambda row: row.loss
) -> dict[tuple[Any, ...], float]:
    """The mean over seeds of a value by (contestant, batch size, learning rate); nan where a seed diverged."""
    found: dict[tuple[Any, ...], list[float]] = {}
    for piece in pieces:
        for row in piece.rows:
            key = (row.contestant, row.batch_size, row.learning_rate)
            found.setdefault(key, []).append(float("nan") if row.diverged >= 0 else value(row))
    return {key: sum(values) / len(values) for key, values in found.items()}
