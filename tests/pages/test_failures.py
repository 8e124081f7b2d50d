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
from normcore.lab.failures import FAILURES, Failure, audited

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


def test_the_rows_of_the_audit_scroll_and_its_sentences_wrap() -> None:
    rows, sentences, *_ = open_page().code
    assert not rows.proto.wrap_lines and sentences.proto.wrap_lines
    assert f"{rows.value}\n\n{sentences.value}" == str(audited())


@pytest.mark.parametrize(
    ("file", "params", "said"),
    [
        ("batch.py", {"which": "chosen ones", "tensor": "vector", "among": "2"}, "they become +1 and −1"),
        ("distributions.py", {"input": "padded sentences", "method": ["batch_norm", "layer_norm"]}, "is padding"),
        ("distributions.py", {"input": "mixed scales", "layout": "image", "method": ["layer_norm"]}, "unlike scale"),
    ],
)
def test_other_pages_warn_too(file: str, params: dict[str, Any], said: str) -> None:
    about = {"about": "Swap a neighbor"} if file == "batch.py" else {}
    (warning,) = open_page(file, **params, **about).warning
    assert said in warning.value


@pytest.mark.parametrize(
    ("file", "params"),
    [
        ("equality.py", {"H": "1", "W": "1"}),
        ("batch.py", {"about": "Swap a neighbor", "tensor": "vector", "among": "2"}),
    ],
)
def test_many_warnings_are_folded_into_one(file: str, params: dict[str, str]) -> None:
    page = open_page(file, **params)
    folded = [e for e in page.expander if "degenerate" in e.label]
    assert len(folded) == 1 and not page.warning
    assert "Every region holds" in " ".join(line.value for line in folded[0].markdown)
