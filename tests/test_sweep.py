"""Sweeps: every combination once, nothing finished is lost, whatever dies."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from normcore import NormcoreError
from normcore.__main__ import main
from normcore.lab import sweeps as module
from normcore.lab.race import Race
from normcore.lab.sweeps import Piece, read, sweep, table

SMALL: dict[str, Any] = {
    "contestants": ["batch_norm", None],
    "batch_sizes": [8, 16],
    "learning_rates": [0.01, 0.1],
    "seeds": 2,
    "steps": 3,
    "width": 4,
}


@pytest.fixture(autouse=True)
def plain_main(monkeypatch: pytest.MonkeyPatch) -> None:
    """A spawned worker imports the main module again, and what other tests leave there may not be importable."""
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))


def threads(**options: Any) -> list[Piece]:
    """A sweep on threads of this process."""
    with ThreadPoolExecutor(1) as pool:
        return list(sweep(**SMALL | options, executor=pool))


def test_every_combination_is_the_race_that_it_names() -> None:
    pieces = threads()
    assert [piece.done for piece in pieces] == list(range(1, 9)) and {piece.total for piece in pieces} == {8}
    rows = [row for piece in pieces for row in piece.rows]
    keys = {(row.contestant, row.batch_size, row.learning_rate, row.seed) for row in rows}
    assert len(keys) == len(rows) == 16
    race = Race(contestants=[None], seeds=2, steps=3, width=4, batch_size=16, learning_rate=0.1)
    list(race)
    mine = sorted(
        (row.seed, row.loss) for row in rows if (row.contestant, row.batch_size, row.learning_rate) == ("none", 16, 0.1)
    )
    assert [loss for _, loss in mine] == race.results().final()[0].tolist()
    assert table(pieces)["none", 16, 0.1] == pytest.approx(np.mean([loss for _, loss in mine]))


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sweep.jsonl"
    first = threads(path=path, contestants=["batch_norm"])
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:3]) + "\n" + lines[3][:40])  # a kill cut the last line short
    assert len(read(path)) == 3
    ran: list[Mapping[str, Any]] = []
    real = module.run
    monkeypatch.setattr(module, "run", lambda options: (ran.append(options), real(options))[1])
    again = threads(path=path, contestants=["batch_norm"])
    assert len(ran) == 1
    assert [piece.fresh for piece in again] == [False, False, False, True]
    assert {p.rows[0].loss for p in again} == {p.rows[0].loss for p in first}
    assert len(read(path)) == 4
    threads(path=path, contestants=["batch_norm"], steps=4)
    assert len(ran) == 5, "other settings are another sweep"


def test_what_cannot_be_raced_is_refused_before_anything_runs(tmp_path: Path) -> None:
    path = tmp_path / "sweep.jsonl"
    with pytest.raises(NormcoreError, match="batch_size=2000 must be from 1 to 1000"):
        threads(path=path, batch_sizes=[8, 2000])
    assert not path.exists()


def test_a_diverged_seed_is_no_number_in_the_table() -> None:
    pieces = threads(
        task="mixed_scale",
        learning_rates=[1e6],
        contestants=[None],
        optimizer="sgd",
        activation="linear",
        steps=12,
        depth=3,
    )
    assert all(np.isnan(value) for value in table(pieces).values())
    assert all(row.diverged >= 0 for piece in pieces for row in piece.rows)


def test_a_worker_that_dies_takes_no_finished_piece_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pools, done = [], []
    real = module._pool

    def watched(workers: int | None) -> Any:
        pools.append(real(workers))
        return pools[-1]

    monkeypatch.setattr(module, "_pool", watched)
    for piece in sweep(**SMALL, path=tmp_path / "sweep.jsonl", workers=1):
        done.append(piece)
        if piece.done == 2:
            for worker in pools[0]._processes.values():
                os.kill(worker.pid, signal.SIGKILL)
    assert len(pools) == 2
    assert len({piece.rows[0] for piece in done}) == 8 == len(read(tmp_path / "sweep.jsonl"))


def test_workers_that_always_die_end_it_with_a_sentence() -> None:
    class Hopeless(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            return super().submit(_die)

    with Hopeless(1) as pool, pytest.raises(NormcoreError, match="workers died 4 times"):
        list(sweep(**SMALL, executor=pool))


def test_a_piece_that_a_cluster_cancels_is_handed_in_again() -> None:
    class Forgetful(ThreadPoolExecutor):
        forgot = 0

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            if self.forgot:
                return super().submit(fn, *args, **kwargs)
            self.forgot += 1
            future: Future[Any] = Future()
            future.cancel()
            future.set_running_or_notify_cancel()
            return future

    with Forgetful(1) as pool:
        pieces = list(sweep(**SMALL, executor=pool))
    assert pool.forgot == 1 and len({piece.rows[0] for piece in pieces}) == 8


def _die() -> None:
    from concurrent.futures.process import BrokenProcessPool  # noqa: PLC0415

    raise BrokenProcessPool


def test_sixty_of_sixty_on_a_cluster_that_loses_a_worker(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    options = SMALL | {"contestants": ["batch_norm", "layer_norm", None], "batch_sizes": [8, 16, 32, 64, 128]}
    options |= {"learning_rates": [0.001, 0.01, 0.1, 1.0], "seeds": 1}
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client:
        pieces = []
        for piece in sweep(**options, path=tmp_path / "sweep.jsonl", executor=client.get_executor()):
            pieces.append(piece)
            if piece.done == 10:
                os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
    assert len(pieces) == 60 == len(read(tmp_path / "sweep.jsonl"))


def test_the_command_writes_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "sweep.jsonl")
    command = ["sweep", path, "--norm", "none", "--batch-size", "8", "--seeds", "1", "--steps", "2", "--workers", "1"]
    assert main(command) == 0
    assert "1/1  none  batch 8  learning rate 0.001  loss" in capsys.readouterr().out
    assert main(command) == 0
    assert "(known)" in capsys.readouterr().out
    assert json.loads(Path(path).read_text())["rows"][0]["contestant"] == "none"
    assert main([*command[:2], "--norm", "nothing"]) == 2
    assert "no normalization method is called 'nothing'" in capsys.readouterr().err
    shown = subprocess.run(
        [sys.executable, "-m", "normcore", "sweep", "--help"], capture_output=True, text=True, check=True
    )
    assert "--learning-rate" in shown.stdout
