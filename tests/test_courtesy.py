"""Who goes before whom on the server: answers one at a time, and looks at races after them."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from explorer import courtesy as house
from explorer.courtesy import Courtesy


class Visit:
    """A thread that goes in somewhere and stays until it is let go."""

    def __init__(self, into: Callable[[], AbstractContextManager[None]]) -> None:
        self._into, self._over, self.inside = into, threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._stay)
        self.thread.start()

    def _stay(self) -> None:
        with self._into():
            self.inside.set()
            self._over.wait(10)

    def leave(self) -> None:
        self._over.set()
        self.thread.join(10)


@pytest.fixture
def begin() -> Iterator[Callable[[Callable[[], AbstractContextManager[None]]], Visit]]:
    """Visits that end with the test."""
    visits: list[Visit] = []

    def one(into: Callable[[], AbstractContextManager[None]]) -> Visit:
        visits.append(Visit(into))
        return visits[-1]

    yield one
    for visit in visits:
        visit.leave()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house, "PATIENCE", 60.0)


def test_answers_come_one_at_a_time(begin: Callable[..., Visit]) -> None:
    hall = Courtesy()
    first = begin(hall.answering)
    assert first.inside.wait(5)
    second = begin(hall.answering)
    assert not second.inside.wait(0.2)
    first.leave()
    assert second.inside.wait(5)


def test_a_long_answer_does_not_keep_the_others_for_ever(
    begin: Callable[..., Visit], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house, "PATIENCE", 0.1)
    hall = Courtesy()
    first = begin(hall.answering)
    assert first.inside.wait(5)
    second = begin(hall.answering)
    assert second.inside.wait(5)
    second.leave()
    first.leave()
    monkeypatch.setattr(house, "PATIENCE", 60.0)
    third = begin(hall.answering)
    assert third.inside.wait(5)
    assert not begin(hall.answering).inside.wait(0.2), "whoever went ahead without a turn has none to give back"


def test_an_answer_that_rests_keeps_nobody(begin: Callable[..., Visit]) -> None:
    hall, resting, over, again = Courtesy(), threading.Event(), threading.Event(), threading.Event()

    def page() -> None:
        with hall.answering():
            with hall.resting():
                resting.set()
                over.wait(5)
            again.set()

    thread = threading.Thread(target=page)
    thread.start()
    assert resting.wait(5)
    other = begin(hall.answering)
    assert other.inside.wait(5)
    over.set()
    assert not again.wait(0.2), "after its rest it stands in line"
    other.leave()
    assert again.wait(5)
    thread.join(5)
    assert begin(hall.looking).inside.wait(5), "it is gone"


def test_who_rests_without_an_answer_changes_nothing(begin: Callable[..., Visit]) -> None:
    hall = Courtesy()
    with hall.resting():
        assert begin(hall.answering).inside.wait(5)


def test_a_look_waits_for_pages_but_not_as_part_of_an_answer(begin: Callable[..., Visit]) -> None:
    hall = Courtesy()

    def both() -> None:
        with hall.answering(), hall.looking():
            pass

    thread = threading.Thread(target=both)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    page = begin(hall.answering)
    assert page.inside.wait(5)
    look = begin(hall.looking)
    assert not look.inside.wait(0.2)
    later = begin(hall.answering)
    assert not later.inside.wait(0.2)
    page.leave()
    assert later.inside.wait(5) and not look.inside.wait(0.2), "pages go first, also those that came later"
    later.leave()
    assert look.inside.wait(5)


def test_looks_leave_time_while_pages_are_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house, "BUSY", 60.0)
    monkeypatch.setattr(house, "LONGEST", 60.0)
    hall = Courtesy()
    hall._answered = -1e9  # nobody has asked for a page yet

    def two_looks() -> float:
        with hall.looking():
            time.sleep(0.3)
        begun = time.monotonic()
        with hall.looking():
            return time.monotonic() - begun

    assert two_looks() < 0.9 * house.LEFT * 0.3, "nobody asks for a page"
    with hall.answering():
        pass
    assert two_looks() >= 0.9 * house.LEFT * 0.3
