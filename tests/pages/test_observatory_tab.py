"""The observatory and the own log by their links: set up, run, judged; and what cannot be."""

import csv
import io
import json
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from explorer import observatory_view
from explorer.observatory_view import Watch
from explorer.table import as_csv
from normcore.lab import gradient_log, log_file, observatory
from normcore.lab.race import Race

ROOT = Path(__file__).parents[2]
SMALL = {"scene": "Digits, with bad batches", "steps_digits": "50", "seeds": "2", "bad_every": "10"}
RECORDED = ROOT / "explorer/measured/gradients.jsonl"


@pytest.fixture(autouse=True)
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """One thread for torch, as on the server; a desk for each test, for all tests are one session to Streamlit."""
    before, mine = torch.get_num_threads(), Watch()
    torch.set_num_threads(1)
    monkeypatch.setattr(observatory_view, "desk", lambda: mine)
    yield mine
    mine.close()
    torch.set_num_threads(before)


def _tab(which: str) -> None:
    import streamlit as st  # noqa: PLC0415 - the script of AppTest is this function's text alone

    from explorer import controls  # noqa: PLC0415
    from explorer.log_view import own_log  # noqa: PLC0415
    from explorer.observatory_view import observatory as watched  # noqa: PLC0415

    controls.begin()
    {"observatory": watched, "log": own_log}[which]()
    for sentence in controls.notices():
        st.warning(sentence)


def tab(which: str, **params: Any) -> AppTest:
    page = AppTest.from_function(_tab, default_timeout=60, args=(which,))
    for key, value in params.items():
        page.query_params[key] = value
    page.run()
    assert not page.exception, page.exception
    return page


def finish(page: AppTest, button: str = "go") -> AppTest:
    """Start it and look at it until it is over."""
    page.button(key=button).click().run()
    deadline = time.monotonic() + 90
    while "Pause" in [one.label for one in page.button]:
        assert time.monotonic() < deadline, "it does not end"
        time.sleep(0.1)
        page.run()
        assert not page.exception, page.exception
    return page


def pictures(page: AppTest) -> list[tuple[str, dict[str, Any]]]:
    sent = [json.loads(component.proto.json) for component in page.get("bidi_component")]
    return [(one["alt"], json.loads(one["figure"])) for one in sent]


def said(page: AppTest) -> str:
    return " ".join(element.value for element in [*page.markdown, *page.caption, *page.warning])


def drawn(values: Any) -> np.ndarray:
    if isinstance(values, dict):
        found = np.frombuffer(b64decode(values["bdata"]), dtype=values["dtype"]).astype(float)
        return found.reshape([int(n) for n in values["shape"].split(",")]) if "shape" in values else found
    return np.array(values, dtype=float)


def race() -> Race:
    """The race that the small link asks for."""
    clips = (("clip_by_global_norm", {"max_norm": 4.0}), ("clip_by_value", {"clip_value": 4.0}))
    contestants = [{"name": "no clipping"}]
    contestants += [{"overrides": {"clip": k, "clip_settings": s}, "name": k} for k, s in clips]
    options = dict(observatory.SCENES["digits"].race) | {"spoil": "scaled_inputs", "spoil_every": 10}
    found = Race(**options, contestants=contestants, seeds=2, steps=50, watch=True)
    list(found)
    return found


def test_before_the_start_it_says_what_will_be_raced() -> None:
    page = tab("observatory", **SMALL)
    assert "3 variants × 2 seeds × 50 steps" in said(page) and "Press **Start**" in said(page)
    assert not page.warning and not pictures(page)


def test_what_is_drawn_is_what_the_engine_recorded_and_what_the_file_holds() -> None:
    page = finish(tab("observatory", **SMALL))
    found = race().results()
    assert found.watched is not None and found.bad is not None
    ((alt, figure),) = pictures(page)
    assert alt.startswith("Clip by Global Norm at 4, seed 0, 4 layers over 50 steps")
    run = observatory.course(found, 1, 0)
    shown = {trace.get("name", trace["type"]): trace for trace in figure["data"]}
    np.testing.assert_allclose(drawn(shown["before clipping"]["y"]), run.before, rtol=1e-6)
    np.testing.assert_allclose(drawn(shown["after clipping"]["y"]), run.after, rtol=1e-6)
    heat = observatory.layers(found, 1, 0)
    np.testing.assert_allclose(drawn(shown["heatmap"]["customdata"]), heat.values, rtol=1e-6)
    assert f"clipping fired in {len(run.events)} steps" in alt
    for sentence in observatory.verdict(found, [True, False, False], observatory.naive("digits"))[:1]:
        assert sentence in said(page)
    page.session_state["watch"] = "Numbers"
    page.run()
    frame = page.dataframe[0].value
    np.testing.assert_array_equal(frame["norm before"].to_numpy(), run.before)
    rows = list(csv.DictReader(io.StringIO(as_csv(run.columns()))))
    assert [float(row["scale"]) for row in rows] == run.scale.tolist()


def test_a_what_if_counts_and_the_button_makes_it_real(desk: Watch) -> None:
    page = finish(tab("observatory", **SMALL, watch="Threshold", threshold="1.3"))
    found = race().results()
    recorded = observatory.norms(found, 0)
    ((alt, figure),) = pictures(page)
    assert f"{(recorded > 1.3).sum():,} above the threshold 1.3" in alt
    assert drawn(figure["data"][0]["y"]).sum() == len(recorded)
    assert gradient_log.what_if(recorded, 1.3).sentence in said(page)
    assert "clipping would have changed the later ones too" in said(page)
    page = finish(page, "real")
    results = desk.runner.state().results  # type: ignore[union-attr]
    assert results.labels == ("no clipping", "Clip by Global Norm at 1.3")
    assert results.race["contestants"][1]["overrides"]["clip_settings"] == {"max_norm": 1.3}
    assert not page.button(key="real").disabled
    page.select_slider(key="limit_digits").set_value(2.0).run()
    assert page.button(key="real").disabled


def test_the_real_run_forgets_what_was_set_for_its_method_alone(desk: Watch) -> None:
    own = {"clip_by_global_norm_max_norm": "2.5", "clip_by_global_norm_eps": "0.01"}
    page = finish(tab("observatory", **SMALL, **own, watch="Threshold", threshold="1.3"))
    set_before = desk.runner.state().results.race["contestants"][1]["overrides"]  # type: ignore[union-attr]
    assert set_before["clip_settings"] == {"max_norm": 2.5, "eps": 0.01}
    page = finish(page, "real")
    results = desk.runner.state().results  # type: ignore[union-attr]
    assert results.labels == ("no clipping", "Clip by Global Norm at 1.3")
    assert results.race["contestants"][1]["overrides"]["clip_settings"] == {"max_norm": 1.3}


def test_all_losses_are_shown_with_who_stands_where() -> None:
    page = finish(tab("observatory", **SMALL, watch="Losses"))
    curves, standings = pictures(page)
    assert curves[0].startswith("Training loss up to step 49, mean over 2 seeds at the end: no clipping")
    rows = observatory.good(race().results()).summary()
    assert f"no clipping {rows[0].final:.4g}" in standings[0] and f"at 4 {rows[2].final:.4g}" in standings[0]
    assert "Bad batches are left out of these means." in said(page)


def test_one_step_at_a_time_and_reset(desk: Watch) -> None:
    page = tab("observatory", **SMALL)
    page.button(key="one").click().run()
    deadline = time.monotonic() + 30
    while desk.runner is None or desk.runner.state().going:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    page.run()
    assert "over 1 steps" in pictures(page)[0][0]
    page.button(key="reset").click().run()
    assert not pictures(page) and desk.runner is None


def test_a_link_that_asks_for_what_is_not_there_gets_a_sentence() -> None:
    page = tab("observatory", **SMALL | {"raced": ["nothing", "clip_by_value"], "limit_digits": "77777"})
    told = " ".join(warning.value for warning in page.warning)
    assert "'nothing'" in told and "limit_digits=77777" in told


def test_the_sample_log_is_judged_at_once() -> None:
    page = tab("log", log_threshold="4")
    log = log_file.read(RECORDED.read_bytes())
    advice = gradient_log.advise(log.norm)
    assert all(reason in said(page) for reason in advice.reasons)
    assert f"clip the global norm at {advice.threshold:g}" in said(page)
    assert gradient_log.what_if(log.norm, 4).sentence in said(page)
    (_, histogram), (alt, course) = pictures(page)
    found = gradient_log.histogram(log.norm)
    np.testing.assert_array_equal(drawn(histogram["data"][0]["y"]), found.counts)
    median = next(trace for trace in course["data"] if trace.get("name") == "median")
    rolling = gradient_log.rolling(log.step, log.norm)
    np.testing.assert_allclose(drawn(median["y"]), rolling.values[1], rtol=1e-6)
    assert f"{len(gradient_log.spikes(log.step, log.norm).step)} spikes" in alt


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "step,grad_norm\n" + "".join(f"{i},{25 + 7 * i % 50}\n" for i in range(50)),
            "Recommended: clip the global norm at",
        ),
        ("step,grad_norm\n0,1\n1,2\n", "at least 20 say something"),
        ("nonsense", "send a CSV or JSON lines file"),
        ("step,loss\n" + "".join(f"{i},{1 + i % 3}\n" for i in range(50)), "choose one of step, loss"),
    ],
)
def test_pasted_text_is_read_or_refused_in_a_sentence(text: str, words: str) -> None:
    page = tab("log", log="pasted text")
    assert not pictures(page) and not page.warning
    page.text_area(key="log_text").input(text).run()
    assert not page.exception
    assert words in said(page)
