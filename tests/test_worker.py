"""Races in a process of their own: as they are beside the pages, and never longer there than somebody wants them."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import waiting

from explorer.desk import Desk
from explorer.runner import LEASE, Racing, State
from explorer.worker import AGAIN, ENDED, WORKER, Remote, Worker
from normcore.lab.flow_nets import Wiring
from normcore.lab.flow_rates import rates
from normcore.lab.flow_remedies import Comparison
from normcore.lab.flow_training import Training
from normcore.lab.observatory import SCENES
from normcore.lab.race import Race
from normcore.lab.strips import Strip
from normcore.lab.tasks import table

OPTIONS = {"contestants": ["batch_norm", "weight_norm"], "seeds": 2, "batch_size": 16, "evaluate_every": 5}
SHORT, LONG = partial(Race, **OPTIONS, steps=12), partial(Race, **OPTIONS, steps=100_000)  # type: ignore[arg-type]
START = """
import time
from explorer.worker import Worker
worker = Worker()
worker.open()
print(worker.process.pid, flush=True)
time.sleep(60)
"""

until = partial(waiting.until, seconds=120)  # a process takes long to start

pytestmark = pytest.mark.xdist_group("worker")  # one process for all of these tests


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """One process for all tests here; it takes seconds to start."""
    opened = Worker()
    opened.open()
    yield opened
    opened.close()
    assert opened.process is not None and opened.process.poll() is not None


def looked_at(race: Remote, condition: Callable[[], bool]) -> None:
    """Wait for something while somebody looks."""

    def seen() -> bool:
        race.beat()
        return condition()

    until(seen)


def test_a_race_over_there_is_the_one_alone(worker: Worker) -> None:
    alone = SHORT()
    list(alone)
    race = worker.begin(SHORT, 12)
    assert race.state().phase == "ready"
    race.play()
    assert race.state().going, "what is ordered counts at once"
    looked_at(race, lambda: race.state().phase == "finished")
    found = race.state().results
    assert race.state().step == 12 and race.state().results is found
    np.testing.assert_array_equal(found.loss, alone.results().loss)
    np.testing.assert_array_equal(found.held[-1].accuracy, alone.results().held[-1].accuracy)
    race.play()
    assert race.state().phase == "finished"


@pytest.mark.parametrize(
    ("make", "steps"),
    [
        (partial(Race, **dict(SCENES["adding"].race) | {"steps": 2, "watch": True, "contestants": [None]}), 2),
        (partial(Race, table([[0.0], [1.0]] * 8, [0, 1] * 8), steps=2, batch_size=4, seeds=1), 2),
        (
            partial(Strip, "learning_rate", (0.1, 0.01), {"steps": 2, "seeds": 1, "contestants": [None, "layer_norm"]}),
            4,
        ),
        (partial(Training, Wiring(depth=2), 0, 2), 2),
        (partial(Comparison, Wiring(depth=2), (2, 3), (0,), 0), 2),
        (partial(rates, "rnn", "sgd"), 1),
    ],
    ids=["watched", "own data", "strip", "flow", "remedies", "rates"],
)
def test_whatever_is_run_on_a_page_runs_there(worker: Worker, make: Callable[[], Racing], steps: int) -> None:
    race = worker.begin(make, steps)
    race.advance(1)
    looked_at(race, lambda: not race.state().going)
    assert race.state().sentence == "" and race.state().results is not None


def test_it_steps_pauses_at_once_and_goes_on(worker: Worker) -> None:
    race = worker.begin(LONG, 100_000)
    race.advance(3)
    looked_at(race, lambda: race.state().phase == "paused")
    assert race.state().step == 3 and race.state().results.loss.shape[-1] == 3
    race.play()
    looked_at(race, lambda: race.state().step > 10)
    race.pause()
    phases, deadline = [], time.monotonic() + 0.5
    while time.monotonic() < deadline:
        phases.append(race.state().phase)
        time.sleep(0.001)
    assert set(phases) == {"paused"}, "an older message does not start it again"
    until(lambda: not race.state().changing)
    stopped = race.state()
    assert stopped.results.loss.shape[-1] == stopped.step
    race.set_speed(20)
    race.play()
    time.sleep(0.6)
    assert race.state().step - stopped.step <= 20
    looked_at(race, lambda: race.state().step - stopped.step >= 2)
    race.close()
    race.play()
    assert race.state().phase == "paused", "what was given up stays so"


def test_an_older_message_does_not_undo_an_order() -> None:
    race = Remote(Worker(), 0, 10)
    race.play()
    race.hear(1, State("running", 4, 10, settled=False), b"")
    race.pause()
    assert race.state().phase == "paused" and race.state().changing
    race.hear(1, State("running", 5, 10, settled=False), b"")
    assert (race.state().phase, race.state().step, race.state().changing) == ("paused", 5, True)
    race.hear(2, State("paused", 6, 10, settled=False), b"")
    assert race.state().changing, "its last step is still to be told"
    race.hear(2, State("paused", 6, 10), pickle.dumps("found"))
    assert not race.state().changing and race.state().results == "found"


def test_nobody_looks_and_it_waits_until_somebody_does(worker: Worker) -> None:
    race = worker.begin(LONG, 100_000)
    race.play()
    looked_at(race, lambda: race.state().step > 0)
    time.sleep(LEASE + 1)
    step = race.state().step
    time.sleep(1)
    assert race.state().step == step
    looked_at(race, lambda: race.state().step > step)
    race.close()


def test_those_who_wait_know_their_place(worker: Worker) -> None:
    races = [worker.begin(LONG, 100_000) for _ in range(7)]
    for race in races:
        race.play()

    def placed() -> bool:
        for race in races:
            race.beat()
        return [race.state().place for race in races] == [0, 0, 0, 0, 1, 2, 3]

    until(placed)
    assert [race.state().phase for race in races[3:5]] == ["running", "waiting"]
    for race in races:
        race.close()


def test_what_cannot_be_made_says_why(worker: Worker) -> None:
    race = worker.begin(partial(Race, task="nothing"), 10)
    race.play()
    looked_at(race, lambda: race.state().over)
    assert "no task is called 'nothing'" in race.state().sentence


def test_a_race_that_nobody_has_any_more_is_closed(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[tuple[object, ...]] = []
    tell = worker.tell
    monkeypatch.setattr(worker, "tell", lambda *order: (orders.append(order), tell(*order)))
    number = worker.begin(LONG, 10).number
    kept = [worker.begin(SHORT, 12)]

    def closed() -> bool:
        kept.append(worker.begin(SHORT, 12))
        return (number, "close") in orders

    until(closed)
    assert not any((race.number, "close") in orders for race in kept)


def test_visitors_who_begin_at_once_all_begin(worker: Worker) -> None:
    with ThreadPoolExecutor(8) as pool:
        races = list(pool.map(lambda _: worker.begin(SHORT, 12), range(200)))
    assert len({race.number for race in races}) == 200


def test_nobody_waits_for_a_process_that_does_not_read(worker: Worker) -> None:
    assert worker.process is not None
    race = worker.begin(LONG, 100_000)
    worker.process.send_signal(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: [race.beat() for _ in range(2000)]).result(30)
    finally:
        worker.process.send_signal(signal.SIGCONT)


def test_no_process_follows_one_that_was_closed() -> None:
    other = Worker()
    other.open()
    process = other.process
    assert process is not None
    process.kill()
    other.close()
    time.sleep(AGAIN + 0.5)
    assert other.process is process and not other.is_open


def test_another_process_follows_one_that_ended(worker: Worker) -> None:
    lost, process = worker.begin(LONG, 100_000), worker.process
    assert process is not None
    lost.play()
    looked_at(lost, lambda: lost.state().results is not None)
    process.kill()
    until(lambda: lost.state().phase == "broken off")
    assert lost.state().sentence == ENDED and lost.state().results.loss.shape[-1] > 0
    until(lambda: worker.process is not process)
    race = worker.begin(SHORT, 12)
    race.play()
    looked_at(race, lambda: race.state().phase == "finished")


def test_the_process_ends_with_a_killed_server() -> None:
    command, root = [sys.executable, "-c", START], Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        number = int(server.stdout.readline())
        time.sleep(1)
        server.send_signal(signal.SIGKILL)

    def gone() -> bool:
        try:
            return Path(f"/proc/{number}/stat").read_text().split()[2] == "Z"
        except OSError:
            return True

    until(gone)


def test_a_desk_uses_the_process_where_there_is_one(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    assert not isinstance(desk.begin("here", SHORT, 12), Remote)
    monkeypatch.setattr("explorer.desk.WORKER", worker)
    race = desk.begin("there", SHORT, 12)
    assert isinstance(race, Remote) and not WORKER.is_open
    race.play()
    looked_at(race, lambda: race.state().phase == "finished")
    desk.close()
    assert os.getpriority(os.PRIO_PROCESS, worker.process.pid) > os.getpriority(os.PRIO_PROCESS, 0)  # type: ignore[union-attr]
