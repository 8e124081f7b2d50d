"""The Failure gallery: a question first, then what happens; links restore both."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from explorer.failure_view import SHOW
from explorer.table import as_csv
from normcore.lab.failures import FAILURES, Failure

ROOT = Path(__file__).parents[2]
every_failure = pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)


def open_page(file: str = "failures.py", **params: Any) -> AppTest:
    page = AppTest.from_file(str(ROOT / "explorer/frame.py"), default_timeout=60).run()
    for key, value in params.items():
        page.query_params[key] = value
    page.switch_page(str(ROOT / f"pages/{file}")).run()
    assert not page.exception, page.exception
    return page


def text(page: AppTest) -> str:
    boxes = [*page.markdown, *page.success, *page.info, *page.warning, *page.subheader, *page.caption]
    return " ".join(element.value for element in boxes)


def test_the_question_comes_first() -> None:
    page = open_page()
    first = next(iter(FAILURES.values()))
    assert page.title[0].value == "What goes wrong?"
    assert first.question in text(page)
    assert page.radio[0].value is None
    assert not page.get("bidi_component") and first.why not in text(page)
    assert not page.warning
    assert "few samples" not in text(page) and "norm layers" in page.code[0].value


@every_failure
def test_an_answer_reveals_what_happens(failure: Failure) -> None:
    page = open_page(failure=failure.title)
    for place, answer in enumerate((*failure.answers, SHOW)):
        page.radio[0].set_value(answer).run()
        assert not page.exception
        shown = failure.show()
        said = page.success if place == shown.answer else page.info
        assert shown.said in said[0].value and failure.answers[shown.answer] in said[0].value
    assert failure.why in text(page) and failure.remedy in text(page)
    assert [w.value for w in page.warning] == [f"{f.sentence} {f.remedy}" for f in failure.found()]
    (component,) = page.get("bidi_component")
    sent = json.loads(component.proto.json)
    assert shown.said in sent["alt"]
    assert [trace["name"] for trace in json.loads(sent["figure"])["data"]] == list(shown.series)
    assert failure.code in [code.value for code in page.code]
    assert len(component.proto.json) < 100_000


@every_failure
def test_what_is_shown_reads_back_from_the_csv(failure: Failure) -> None:
    shown = failure.show()
    columns = {failure.axes[0]: shown.x, **shown.series}
    head, *rows = csv.reader(io.StringIO(as_csv(columns)))
    assert head == list(columns)
    read = np.array([[float(value) for value in row] for row in rows]).T
    np.testing.assert_array_equal(read, list(columns.values()))
    page = open_page(failure=failure.title, **{f"answer_{failure.key}": SHOW, "below": "Numbers"})
    (table,) = page.dataframe
    np.testing.assert_array_equal(table.value.to_numpy(dtype=float).T, list(columns.values()))


@every_failure
def test_its_link_leads_to_a_page_that_understands_it(failure: Failure) -> None:
    page = open_page(failure.page, **failure.link)
    assert not [warning.value for warning in page.warning if "link" in warning.value]


def test_a_link_restores_failure_and_answer() -> None:
    page = open_page(failure="Statistics over padding", answer_padding="1.5 and 0.5")
    assert page.radio[0].value == "1.5 and 0.5"
    assert "It is otherwise" in page.info[0].value


@pytest.mark.parametrize(("key", "value"), [("failure", "Nothing"), ("answer_one_value", "Forty-two")])
def test_a_bad_link_gets_a_sentence(key: str, value: str) -> None:
    page = open_page(**{key: value})
    (warning,) = page.warning
    assert value in warning.value and warning.value.endswith(".")
    assert FAILURES["one_value"].question in text(page)
    assert page.radio[0].value is None
