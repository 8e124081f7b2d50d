"""The Gradient flow page by its links: what it says is what it measured, and every switch can be flipped."""

import csv
import io
import json
import time
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from explorer import flow_live, flow_runs, flow_view, flow_words
from explorer.flow_live import Desks
from explorer.flow_setup import KEYS, STARTS, Setup, called
from explorer.flow_words import diagnosis, next_switch, said
from explorer.runner import Runner
from explorer.table import as_csv
from normcore import METHODS
from normcore.lab.flow import profile
from normcore.lab.flow_nets import STARTS as DRAWN
from normcore.lab.flow_nets import Wiring
from normcore.lab.flow_rates import Stability, rates
from normcore.lab.flow_remedies import Remedy, remedies, switches

ROOT = Path(__file__).parents[2]
SMALL = {"depth": "6", "width": "8", "batch": "8"}
HERE = Wiring(depth=6, width=8, batch=8)


@pytest.fixture(autouse=True)
def desks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desks]:
    """One thread for torch, as on the server; desks for each test, for all tests are one session to Streamlit."""
    before, mine = torch.get_num_threads(), Desks()
    torch.set_num_threads(1)
    monkeypatch.setattr(flow_live, "desks", lambda: mine)
    yield mine
    mine.close()
    torch.set_num_threads(before)


def flow_page(**params: Any) -> AppTest:
    page = AppTest.from_file(str(ROOT / "explorer/frame.py"), default_timeout=60)
    for key, value in (SMALL | params).items():
        page.query_params[key] = value
    page.run()
    page.switch_page(str(ROOT / "pages/gradient_flow.py")).run()
    assert not page.exception, page.exception
    return page


def text(page: AppTest) -> str:
    return " ".join(element.value for element in [*page.markdown, *page.caption])


def warnings(page: AppTest) -> str:
    return " ".join(element.value for element in page.warning)


def figures(page: AppTest) -> list[Any]:
    return [json.loads(json.loads(one.proto.json)["figure"]) for one in page.get("bidi_component")]


def values(data: Any) -> np.ndarray:
    """An array as it crosses the wire."""
    if isinstance(data, dict):
        return np.frombuffer(b64decode(data["bdata"]), dtype=data["dtype"]).astype(float)
    return np.array([np.nan if value is None else value for value in data], dtype=float)


def finish(page: AppTest, name: str) -> AppTest:
    """Start an experiment and look at it until it is over."""
    page.button(key=f"{name}_go").click().run()
    deadline = time.monotonic() + 60
    while "Pause" in [button.label for button in page.button]:
        assert time.monotonic() < deadline, "the experiment does not end"
        time.sleep(0.05)
        page.run()
        assert not page.exception, page.exception
    return page


def test_the_page_says_and_draws_what_was_measured() -> None:
    page = flow_page()
    found = profile(HERE)
    assert diagnosis(HERE, found) in text(page)
    layers, switched, singular = figures(page)
    np.testing.assert_allclose(values(layers["data"][0]["y"]), found.layers.gradient)
    np.testing.assert_allclose(values(layers["data"][2]["y"]), found.layers.spread)
    tried = switches(HERE)
    np.testing.assert_allclose(values(switched["data"][0]["x"]), [found.layers.ratio, *(ratio for _, ratio in tried)])
    np.testing.assert_allclose(values(singular["data"][0]["y"]), found.singular[found.singular >= found.floor])


def test_tables_hold_what_is_drawn() -> None:
    page = flow_page(numbers="true")
    frames = [element.value for element in page.dataframe]
    found = profile(HERE)
    read = list(csv.DictReader(io.StringIO(as_csv({name: frames[0][name].tolist() for name in frames[0]}))))
    assert [float(row["gradient at the output"]) for row in read] == found.layers.gradient.tolist()
    assert [float(row["gradient of the weights"]) for row in read] == found.layers.weights.tolist()
    assert frames[1]["singular value"].tolist() == found.singular.tolist()
    assert len(frames[2]) == 1 + len(switches(HERE))


def test_the_advice_is_flipped_by_a_click() -> None:
    page = flow_page()
    best = switches(HERE)[0][0]
    assert f"Try next: {best.name}" in text(page)
    page.button(key="flip").click().run()
    assert not page.exception, page.exception
    assert diagnosis(best.apply(HERE), profile(best.apply(HERE))) in text(page)


@pytest.mark.parametrize("wiring", [HERE, Wiring("rnn", depth=6, width=8, batch=8, activation="tanh")])
def test_every_remedy_reaches_its_control(wiring: Wiring) -> None:
    page = flow_page(net="MLP" if wiring.kind == "mlp" else "RNN", activation=wiring.activation)
    for remedy in remedies(wiring):
        for name, value in remedy.changes:
            if name == "norm" and len(remedy.changes) > 1:
                continue  # it is offered once the kind of net has changed
            key, words = KEYS.get(name, (name, {}))
            asked = words.get(value, value)
            widgets = [w for w in [*page.selectbox, *page.select_slider, *page.get("button_group")] if w.key == key]
            assert widgets, (remedy, key)
            assert str(asked) in [str(option) for option in widgets[0].options], (remedy, key)


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"start": "small"}, "The gradient vanishes"),
        ({"start": "large", "activation": "linear", "depth": "12"}, "The gradient explodes"),
        ({"start": "orthogonal", "activation": "linear"}, "The gradient arrives"),
        ({"net": "LSTM"}, "In its gates"),
        ({"net": "GRU", "norm": "layer_norm"}, "time step"),
        ({"norm": "rezero"}, "The gradient arrives"),
    ],
)
def test_every_verdict_is_that_of_the_numbers(params: dict[str, str], says: str) -> None:
    assert says in text(flow_page(**params))


def test_diagnosis_tells_of_dead_and_infinite_gradients() -> None:
    dead = profile(HERE)
    dead.layers.gradient[:2] = 0.0
    assert "to the others exactly 0 arrives" in diagnosis(HERE, dead)
    assert "4 of 6 layers get one" in diagnosis(HERE, dead)
    dead.layers.gradient[:] = 0.0
    assert "Nothing arrives" in diagnosis(HERE, dead)
    dead.layers.gradient[:] = np.inf
    assert "explodes beyond every number" in diagnosis(HERE, dead)


def test_advice_is_never_worse_than_what_is_there() -> None:
    found = profile(HERE)
    worse = ((Remedy("a"), found.layers.ratio / 10), (Remedy("b"), 0.0))
    assert next_switch(found, worse, 0) == (
        "None of the 2 switches measured with the same seed, 0, brings the ratio closer to 1.",
        None,
    )
    sentence, remedy = next_switch(found, ((Remedy("a"), 0.9),), 0)
    assert "Try next: a" in sentence
    assert remedy == Remedy("a")


def test_numbers_are_said_in_words() -> None:
    assert [said(v) for v in (0.2347, 1.17e-12, -3.0, 12345.0, np.nan)] == [
        "0.235",
        "1.17 × 10⁻¹²",
        "−3",
        "1.23 × 10⁴",
        "no number",
    ]


def test_stability_is_said_with_its_numbers() -> None:
    rows = [Stability("no norm", (0.1,), 3, 6, 0.2), Stability("layer norm", (0.1, 0.3), 0, 6, 0.15)]
    lines = flow_words.stable(rows, (0.1, 0.3), "sgd")
    assert "**no norm** stays stable at 1 of 2 rates (0.1); 3 of 6 runs diverged" in lines[0]
    assert "**layer norm** stays stable at 2 of 2 rates (0.1 to 0.3)" in lines[1]
    assert lines[-1] == "Of these, with sgd, layer norm stays stable at the most rates."
    gap = [Stability("no norm", (0.1, 1.0, 3.0), 3, 6, 0.2)]
    assert "at 3 of 4 rates (0.1, 1 to 3)" in flow_words.stable(gap, (0.1, 0.3, 1.0, 3.0), "sgd")[0]


def test_training_is_drawn_as_it_was_measured(desks: Desks) -> None:
    page = finish(flow_page(tab="While it learns", steps="20", course_open="true"), "learning")
    runner = desks["learning"].runner
    assert isinstance(runner, Runner)
    course = runner.state().results
    upper, lower = figures(page)
    np.testing.assert_allclose(
        values(upper["data"][0]["z"]).reshape(6, 20)
        if isinstance(upper["data"][0]["z"], dict)
        else upper["data"][0]["z"],
        np.log10(course.gradient[::-1]),
        rtol=1e-5,
    )
    assert lower["data"][0]["z"] != upper["data"][0]["z"]
    frame = page.dataframe[0].value
    assert frame["gradient at the output"].tolist() == course.gradient.T.reshape(-1).tolist()
    assert "over 20 steps" in text(page)
    page.select_slider(key="depth").set_value(7).run()
    assert "before your last change" in " ".join(one.value for one in page.info)


def test_remedies_are_compared(desks: Desks) -> None:
    page = finish(flow_page(tab="Every remedy, every depth", seeds="2"), "remedies")
    runner = desks["remedies"].runner
    assert isinstance(runner, Runner)
    found = runner.state().results
    assert found.done == found.ratio.size
    frame = page.dataframe[0].value
    assert frame["first over last gradient"].tolist() == found.columns()["first over last gradient"]
    curves, every = figures(page)
    drawn = next(trace for trace in curves["data"] if trace.get("name") == "as set up")
    np.testing.assert_allclose(values(drawn["y"]), found.middle()[0])
    assert len(every["layout"]["annotations"]) == np.isfinite(found.middle()).sum()


def test_what_is_shown_is_told_in_the_words_it_was_measured_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_runs, "rates", lambda cell, optimizer: rates(cell, optimizer, seeds=1, steps=2))
    monkeypatch.setattr(flow_runs, "STEPS", 2)
    page = finish(flow_page(tab="Cells and learning rates", by="adam"), "rates")
    assert "with adam" in text(page)
    page.session_state["by"] = "sgd"
    page.run()
    assert "before your last change" in " ".join(one.value for one in page.info)
    assert "with adam" in text(page) and "with sgd" not in text(page)


def test_remedies_of_layers_stay_those_of_layers() -> None:
    page = finish(flow_page(tab="Every remedy, every depth", seeds="1"), "remedies")
    page.select_slider(key="depth").set_value(7).run()
    assert not page.info
    page.selectbox(key="net").set_value("RNN").run()
    assert "before your last change" in " ".join(one.value for one in page.info)
    alts = [json.loads(one.proto.json)["alt"] for one in page.get("bidi_component")]
    assert alts and all("last layer's gradient" in alt for alt in alts)


def test_a_flip_empties_the_settings_of_what_it_puts_in(monkeypatch: pytest.MonkeyPatch) -> None:
    remedy = Remedy("LayerNorm", (("norm", "layer_norm"),))
    monkeypatch.setattr(flow_view, "switched", lambda wiring, seed: ((remedy, 1.0),))
    page = flow_page(norm="rms_norm", eps="0.001", start="small")
    eps = METHODS["rms_norm"].settings({"eps": 1e-3}, {})["eps"]
    before = replace(HERE, start="small", norm="rms_norm", norm_settings=(("eps", eps),))
    assert diagnosis(before, profile(before)) in text(page)
    page.button(key="flip").click().run()
    after = remedy.apply(before)
    assert after.norm_settings == () and diagnosis(after, profile(after)) in text(page)


def test_captions_tell_of_what_is_drawn_alone() -> None:
    page = finish(
        flow_page(tab="While it learns", steps="20", upper="saturated share", lower="saturated share"), "learning"
    )
    assert "leave out the last hundredth" not in text(page) and "after clipping" not in text(page)
    page.selectbox(key="lower").set_value("gradient of the weights").run()
    assert "Weights' gradients are those after clipping. The colors of gradient of the weights leave out" in text(page)


def test_cells_and_rates_wait_for_a_click() -> None:
    page = flow_page(tab="Cells and learning rates")
    assert "7 learning rates" in text(page)
    assert not figures(page)


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"depth": "7777"}, "depth=7777"),
        ({"start": "zeros"}, "start=zeros"),
        ({"net": "CNN"}, "net=CNN"),
        ({"norm": "layer_norm_2d"}, "norm=layer_norm_2d"),
        ({"net": "LSTM", "norm": "batch_norm"}, "norm=batch_norm"),
        ({"width": "4", "norm": "nothing"}, "norm=nothing"),
    ],
)
def test_a_bad_link_gets_a_sentence(params: dict[str, str], says: str) -> None:
    page = flow_page(**params)
    assert says in warnings(page)
    assert "The gradient" in text(page)


def test_the_controls_offer_all_there_is() -> None:
    page = flow_page()
    assert set(STARTS.values()) == set(DRAWN)
    offered = page.selectbox(key="norm").options
    fit = {key for key, m in METHODS.items() if m.family == "activation" and "vector" in m.layouts}
    assert set(offered) == {"none", *fit}
    clips = {key for key, m in METHODS.items() if m.family == "gradient" and not m.per_example}
    assert set(page.selectbox(key="clip").options) == {"none", *clips}
    assert called(HERE) == "MLP, 6 layers of 8, sigmoid, Xavier"
    assert Setup(HERE, 0, 1, "").unit == "layer"
