"""Races as servants: in turn, in line, gone when nobody looks, and bit for bit what one alone gives."""

import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from waiting import until

from explorer import runner as house
from explorer.desk import CALM, Desk
from explorer.runner import Hall, Runner, State
from normcore import NormcoreError
from normcore.lab.race import Race


class Counting:
    """A race that only counts, and writes down whose turn it was."""

    def __init__(self, steps: int, log: list[str] | None = None, name: str = "", pause: float = 0.001) -> None:
        self.step, self.steps, self.log, self.name, self.pause = 0, steps, log, name, pause

    def __len__(self) -> int:
        return self.steps

    def __next__(self) -> int:
        time.sleep(self.pause)
        if self.log is not None:
            self.log.append(self.name)
        self.step += 1
        return self.step

    def results(self) -> int:
        return self.step


class Failing(Counting):
    """A race that fails at its fifth step."""

    def __next__(self) -> int:
        if self.step == 5:
            raise self.error
        return super().__next__()

    error: Exception = NormcoreError("race: five is too many; try four")


@pytest.fixture
def begun() -> Iterator[list[Runner]]:
    """Runners that are closed at the end, whatever happened."""
    runners: list[Runner] = []
    yield runners
    for one in runners:
        one.close()
        one.join(5)


def test_it_plays_pauses_steps_and_finishes(begun: list[Runner]) -> None:
    runner = Runner(lambda: Counting(60), 60, Hall())
    begun.append(runner)
    assert runner.state().phase == "ready" and not runner.alive
    runner.advance()
    until(lambda: runner.state().phase == "paused")
    assert runner.state().results == runner.state().step == 1
    runner.play()
    until(lambda: runner.state().step > 10)
    runner.pause()
    runner.join(0.5)
    assert not runner.alive
    at = runner.state()
    assert at.phase == "paused" and at.results == at.step < 60
    time.sleep(0.05)
    assert runner.state().step == at.step
    runner.play()
    until(lambda: runner.state().phase == "finished")
    assert runner.state().results == 60
    runner.play()
    assert runner.state().phase == "finished"
    until(lambda: not runner.alive)


def test_what_it_found_is_complete_when_it_is_stopped_between_two_turns(begun: list[Runner]) -> None:
    class Slow(Hall):
        """From the second turn on, nobody is called any more."""

        turns = 0

        def turn(self, who: object, going: Callable[[], bool]) -> bool:
            self.turns += 1
            if self.turns < 3:
                return super().turn(who, going)
            until(lambda: not going())
            return False

    hall = Slow()
    runner = Runner(lambda: Counting(400), 400, hall)
    begun.append(runner)
    runner.play()
    until(lambda: hall.turns == 3)
    assert runner.state().results < runner.state().step, "the second turn came before the next picture was due"
    runner.pause()
    until(lambda: not runner.alive)
    assert runner.state().phase == "paused" and runner.state().results == runner.state().step


def test_play_right_after_pause_goes_on(begun: list[Runner]) -> None:
    runner = Runner(lambda: Counting(400), 400, Hall())
    begun.append(runner)
    for _ in range(30):
        runner.play()
        time.sleep(0.003)
        runner.pause()
    runner.play()
    until(lambda: runner.state().phase == "finished")
    assert runner.state().results == 400


def test_a_speed_is_kept(begun: list[Runner]) -> None:
    runner = Runner(lambda: Counting(1000, pause=0), 1000, Hall())
    begun.append(runner)
    runner.set_speed(50)
    runner.play()
    time.sleep(0.6)
    assert 15 <= runner.state().step <= 35
    runner.set_speed(0)
    until(lambda: runner.state().phase == "finished", 3)


def test_slow_races_leave_their_seats_between_two_steps(begun: list[Runner]) -> None:
    hall = Hall(seats=2)
    slow = [Runner(lambda: Counting(100, pause=0), 100, hall) for _ in range(2)]
    quick = Runner(lambda: Counting(200), 200, hall)
    begun += [*slow, quick]
    for runner in slow:
        runner.set_speed(1)
        runner.play()
    until(lambda: all(runner.state().step for runner in slow))
    quick.play()
    until(lambda: quick.state().phase == "finished", 3)
    assert all(runner.state().phase == "running" and runner.state().step < 5 for runner in slow)
    steps = [runner.state().step for runner in slow]
    until(lambda: all(runner.state().step > step for runner, step in zip(slow, steps, strict=True)), 3)
    slow[0].pause()
    slow[0].join(0.5)
    state = slow[0].state()
    assert not slow[0].alive and state.phase == "paused" and state.results == state.step


def test_whoever_was_away_has_its_place_again() -> None:
    hall, names = Hall(seats=1), ["one", "two", "three"]
    for name in names:
        hall.enter(name)
    assert [hall.place(name) for name in names] == [0, 1, 2]
    with hall.away("one"):
        assert [hall.place(name) for name in names] == [0, 0, 1]
        assert hall.turn("two", lambda: True)
        hall.done("two")
    assert [hall.place(name) for name in names] == [0, 1, 2]


def test_a_released_race_is_gone_within_two_seconds_even_if_nobody_says_so(begun: list[Runner]) -> None:
    told = Runner(lambda: Counting(10**6), 10**6, Hall())
    untold = Runner(lambda: Counting(10**6), 10**6, Hall())
    begun += [told, untold]
    for runner in (told, untold):
        runner.play()
    until(lambda: told.state().step > 0 and untold.state().step > 0)
    told.close()
    told.join(0.3)
    assert not told.alive and untold.alive
    untold.join(house.LEASE + 0.5)
    assert not untold.alive
    told.play()
    told.beat()
    assert not told.alive, "what was given up stays so"
    untold.beat()
    assert untold.alive, "somebody looks again"
    step = untold.state().step
    until(lambda: untold.state().step > step)


@pytest.mark.parametrize("waits", [False, True])
def test_a_closed_desk_leaves_no_thread(waits: bool) -> None:
    before = threading.active_count()
    hall, desk = Hall(seats=1), Desk()
    blocker = Runner(lambda: Counting(10**6), 10**6, hall)
    if waits:
        blocker.play()
    desk.runner = Runner(lambda: Counting(10**6), 10**6, hall)
    desk.runner.play()
    time.sleep(0.1)
    assert desk.runner.state().phase == ("waiting" if waits else "running")
    desk.close()
    blocker.close()
    until(lambda: threading.active_count() <= before, 2)


def test_what_is_to_be_read_stands_still_for_a_second_while_a_race_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    now, desk = [100.0], Desk()
    monkeypatch.setattr("explorer.desk.time", SimpleNamespace(monotonic=lambda: now[0]))

    def shown(phase: str, results: Any) -> Any:
        return desk.readable(State(phase, 1, 9, results=results))

    assert [shown("running", found) for found in (None, "first", "second")] == [None, "first", "first"]
    now[0] += CALM
    assert [shown("running", found) for found in ("third", "fourth")] == ["third", "third"]
    assert shown("finished", "last") == "last"
    desk.begin("another", lambda: Counting(1), 1)
    assert shown("waiting", None) is None


def test_turns_are_short_and_fair(begun: list[Runner]) -> None:
    hall, log = Hall(), []
    for name in "abc":
        runner = Runner(lambda name=name: Counting(10**6, log, name, 0.004), 10**6, hall)  # type: ignore[misc]
        begun.append(runner)
        runner.play()
    until(lambda: len(log) > 150)
    turns = [log[0]]
    for name in log[1:150]:
        if name != turns[-1]:
            turns.append(name)
    middle = turns[6:]
    assert all(len(set(middle[i : i + 3])) == 3 for i in range(len(middle) - 2)), "one after the other"
    shares = [log[30:150].count(name) for name in "abc"]
    assert max(shares) - min(shares) <= 20


def test_never_two_at_once(begun: list[Runner]) -> None:
    inside, worst, hall = [0], [0], Hall()

    class Watched(Counting):
        def __next__(self) -> int:
            inside[0] += 1
            worst[0] = max(worst[0], inside[0])
            found = super().__next__()
            inside[0] -= 1
            return found

    for _ in range(4):
        begun.append(Runner(lambda: Watched(40), 40, hall))
        begun[-1].play()
    until(lambda: all(one.state().phase == "finished" for one in begun))
    assert worst[0] == 1


def test_forty_who_wait_each_know_their_place_and_all_arrive(begun: list[Runner]) -> None:
    hall = Hall(seats=2)
    for _ in range(40):
        begun.append(Runner(lambda: Counting(30, pause=0.0005), 30, hall, lease=60))
        begun[-1].play()
    places = [one.state().place for one in begun]
    waiting = [place for place in places if place]
    assert waiting == list(range(waiting[0], waiting[0] + len(waiting))) and len(waiting) >= 30
    assert all((one.state().phase == "waiting") >= bool(one.state().place) for one in begun[-5:])
    until(lambda: all(one.state().phase == "finished" for one in begun), 20)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NormcoreError("race: five is too many; try four"), "race: five is too many; try four."),
        (RuntimeError("/secret/path: matrix is singular"), "The race broke off at step 5"),
    ],
)
def test_what_goes_wrong_becomes_a_sentence_and_what_was_found_stays(
    error: Exception, said: str, begun: list[Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Failing, "error", error)
    hall = Hall()
    runner = Runner(lambda: Failing(60), 60, hall)
    begun.append(runner)
    runner.play()
    until(lambda: runner.state().phase == "broken off")
    state = runner.state()
    assert said in state.sentence and "secret" not in state.sentence
    assert state.results == 5
    other = Runner(lambda: Counting(5), 5, hall)
    begun.append(other)
    other.play()
    until(lambda: other.state().phase == "finished")


@pytest.mark.parametrize("jumps", [False, True])
def test_a_race_that_ends_before_its_last_step_is_finished(jumps: bool, begun: list[Runner]) -> None:
    class Short(Counting):
        def __next__(self) -> int:
            if self.step >= 5:
                self.step = self.steps if jumps else self.step
                raise StopIteration
            return super().__next__()

    runner = Runner(lambda: Short(60), 60, Hall())
    begun.append(runner)
    runner.play()
    until(lambda: not runner.state().going)
    state = runner.state()
    assert (state.phase, state.sentence) == ("finished", "")
    assert state.step == state.results == (60 if jumps else 5)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NormcoreError("race: five is too many; try four"), "race: five is too many; try four."),
        (RuntimeError("all is lost"), "the computation failed"),
    ],
)
def test_a_race_that_cannot_even_tell_its_results_gives_its_seat_back(
    error: Exception, said: str, begun: list[Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    def speechless(race: Failing) -> int:
        if race.step == 5:
            raise RuntimeError("nothing to tell")
        return race.step

    monkeypatch.setattr(Failing, "error", error)
    monkeypatch.setattr(Failing, "results", speechless)
    monkeypatch.setattr(house, "SHOWN", 60.0)  # the results of the first step alone
    hall = Hall(seats=1)
    begun += [Runner(lambda: Failing(60, pause=0.05), 60, hall), Runner(lambda: Counting(5), 5, hall)]
    for one in begun:
        one.play()
    until(lambda: begun[1].state().phase == "finished")
    state = begun[0].state()
    assert state.phase == "broken off" and state.results == 1
    assert said in state.sentence
    until(lambda: not begun[0].alive)


def test_a_race_that_cannot_be_made_says_why(begun: list[Runner]) -> None:
    runner = Runner(lambda: Race(task="nothing"), 10, Hall())  # type: ignore[arg-type, return-value]
    begun.append(runner)
    runner.play()
    until(lambda: runner.state().phase == "broken off")
    assert "no task is called 'nothing'" in runner.state().sentence


def test_the_wall_ends_a_race_with_a_sentence(begun: list[Runner]) -> None:
    runner = Runner(lambda: Counting(10**6), 10**6, Hall(), wall=0.1)
    begun.append(runner)
    runner.play()
    until(lambda: runner.state().phase == "broken off")
    state = runner.state()
    assert "computed for 0.1 seconds" in state.sentence and state.results > 0


def test_twenty_equal_races_at_once_are_each_the_one_alone(begun: list[Runner]) -> None:
    options: dict[str, Any] = {
        "contestants": ["batch_norm", "weight_norm"],
        "seeds": 2,
        "steps": 12,
        "batch_size": 16,
        "evaluate_every": 5,
    }
    alone = Race(**options)
    list(alone)
    hall = Hall(seats=20)
    for _ in range(20):
        begun.append(Runner(lambda: Race(**options), 12, hall, lease=60))  # type: ignore[arg-type, return-value]
    for one in begun:
        one.play()
    until(lambda: all(one.state().phase == "finished" for one in begun), 60)
    for one in begun:
        found = one.state().results
        np.testing.assert_array_equal(found.loss, alone.results().loss)
        np.testing.assert_array_equal(found.gradients[1], alone.results().gradients[1])
        np.testing.assert_array_equal(found.held[-1].accuracy, alone.results().held[-1].accuracy)


def test_a_desk_keeps_three_races_and_ends_the_one_before() -> None:
    desk = Desk()
    first = desk.begin("a", lambda: Counting(10**6), 10**6)
    first.play()
    second = desk.begin("b", lambda: Counting(5), 5)
    first.join(2)
    assert not first.alive and desk.runner is second
    for name in ("a", "b", "a", "c", "d"):
        desk.keep(name, name.upper())
    assert desk.kept == [("a", "A"), ("c", "C"), ("d", "D")]
    desk.close()
