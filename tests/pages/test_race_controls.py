"""The Race page by its links: set up, run, stopped, changed, kept, taken along; and what cannot be raced."""

import csv
import io
import json
import time
import zipfile
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from explorer import race_buttons, race_setup, race_strip, race_view, turns
from explorer.archive import arrays
from explorer.desk import Desk
from explorer.table import as_csv
from normcore import NormcoreError
from normcore.lab.nets import MODELS
from normcore.lab.race import Race
from normcore.lab.tasks import TASKS

ROOT = Path(__file__).parents[2]
SMALL = {"steps": "50", "seeds": "2", "batch": "16", "width": "8"}
TABS = ("Curves", "Difference", "Held out", "Gradients", "Activations", "Numbers")


@pytest.fixture(autouse=True)
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """One thread for torch, as on the server; a desk for each test, for all tests are one session to Streamlit."""
    before, mine = torch.get_num_threads(), Desk()
    torch.set_num_threads(1)
    monkeypatch.setattr(race_view, "desk", lambda: mine)
    yield mine
    mine.close()
    torch.set_num_threads(before)


def race_page(**params: Any) -> AppTest:
    page = AppTest.from_file(str(ROOT / "explorer/frame.py"), default_timeout=60)
    for key, value in (SMALL | params).items():
        page.query_params[key] = value
    page.run()
    page.switch_page(str(ROOT / "pages/race.py")).run()
    assert not page.exception, page.exception
    return page


def finish(page: AppTest) -> AppTest:
    """Start the race and look at it until it is over."""
    page.button(key="go").click().run()
    deadline = time.monotonic() + 60
    while "Pause" in [button.label for button in page.button]:
        assert time.monotonic() < deadline, "the race does not end"
        time.sleep(0.05)
        page.run()
        assert not page.exception, page.exception
    return page


def pictures(page: AppTest) -> dict[str, dict[str, Any]]:
    """The figures by the first words of their descriptions."""
    sent = [json.loads(component.proto.json) for component in page.get("bidi_component")]
    return {one["alt"]: json.loads(one["figure"]) for one in sent}


def picture(page: AppTest, start: str) -> tuple[str, dict[str, Any]]:
    return next((alt, figure) for alt, figure in pictures(page).items() if alt.startswith(start))


def said(page: AppTest) -> str:
    return " ".join(element.value for element in [*page.markdown, *page.caption, *page.warning])


def drawn(values: Any) -> np.ndarray:
    if isinstance(values, dict):
        return np.frombuffer(b64decode(values["bdata"]), dtype=values["dtype"]).astype(float)
    return np.array(values, dtype=float)


def test_before_the_start_the_page_says_what_will_be_raced() -> None:
    page = race_page()
    assert page.title[0].value == "Which one trains better?"
    assert "3 contestants × 2 seeds × 50 steps × 122 parameters" in said(page)
    alt, _ = picture(page, "Training loss")
    assert "BatchNorm, LayerNorm, GroupNorm: nothing yet" in alt
    assert not page.warning


def test_a_race_runs_to_its_end_and_the_page_agrees_with_the_engine() -> None:
    page = finish(race_page(seed="3"))
    race = Race(
        contestants=["batch_norm", "layer_norm", ("group_norm", {"num_groups": 2})],
        seeds=(3, 4),
        steps=50,
        batch_size=16,
        width=8,
    )
    list(race)
    rows = race.results().summary()
    alt, figure = picture(page, "Mean training loss")
    for row, name in zip(rows, ("BatchNorm", "LayerNorm", "GroupNorm"), strict=True):
        assert f"{name} {row.final:.4g}" in alt
    verdict = race.results().verdict()[0].replace("layer_norm", "LayerNorm").replace("batch_norm", "BatchNorm")
    assert verdict in said(page)
    assert page.button(key="go").disabled
    assert [drawn(bar["x"])[0] for bar in figure["data"]] == pytest.approx(sorted(row.final for row in rows))


@pytest.mark.parametrize("tab", TABS)
def test_every_tab_shows_the_finished_race(tab: str) -> None:
    page = finish(race_page(show=tab))
    figures = {"Held out": 2, "Activations": 2, "Numbers": 0}.get(tab, 1)
    assert len(pictures(page)) == figures + 1  # and the standings
    assert all("step" in alt or "loss" in alt for alt in pictures(page))
    if tab == "Difference":
        assert "less that of BatchNorm" in picture(page, "Loss less")[0]


def test_the_table_is_the_curves_as_drawn() -> None:
    page = finish(race_page(smooth="0.5", over="epoch"))
    _, figure = picture(page, "Training loss")
    traces = {trace["name"]: trace for trace in figure["data"] if "name" in trace}
    other = race_page(smooth="0.5", over="epoch", show="Numbers")  # the same visitor comes back to the same race
    frame = other.dataframe[1].value
    text = as_csv({name: frame[name].tolist() for name in frame})
    rows = list(csv.DictReader(io.StringIO(text)))
    for name, trace in traces.items():
        mine = [row for row in rows if row["contestant"] == name]
        np.testing.assert_array_equal(drawn(trace["y"]), [float(row["mean training loss"]) for row in mine])
        np.testing.assert_array_equal(drawn(trace["x"]), [float(row["epoch"]) for row in mine])


def test_single_steps_reset_and_a_change_of_the_setup(desk: Desk) -> None:
    page = race_page()
    for _ in range(2):
        page.button(key="one").click().run()
        assert desk.runner is not None
        desk.runner.join(10)
        page.run()
    assert "up to step 1," in picture(page, "Training loss")[0]
    assert page.button(key="go").label == "Go on"
    page.select_slider(key="batch").set_value(32).run()
    assert page.button(key="go").label == "Start"
    assert "Below is the race before your change" in said(page)
    page.button(key="reset").click().run()
    assert "nothing yet" in picture(page, "Training loss")[0]


def test_a_kept_race_stays_gray_behind_the_next() -> None:
    page = finish(race_page(racer=["batch_norm", "none"]))
    page.button(key="keep").click().run()
    assert page.button(key="keep").disabled
    page.select_slider(key="rate").set_value(0.01).run()
    finish(page)
    _, figure = picture(page, "Training loss")
    assert [t["name"] for t in figure["data"] if t.get("legendgroup") == "race 1"] == ["race 1", "race 1"]
    page.button(key="forget").click().run()
    assert "race 1" not in json.dumps(picture(page, "Training loss")[1])


def test_a_kept_race_on_another_task_is_not_drawn_on_the_same_axis() -> None:
    page = finish(race_page(racer=["none"]))
    page.button(key="keep").click().run()
    page.selectbox(key="task").select(TASKS["moons"].name).run()
    finish(page)
    _, figure = picture(page, "Training loss")
    assert "race 1" not in json.dumps(figure)
    assert "Kept races on other tasks are not drawn: 1." in said(page)


def test_a_unit_is_only_named_when_it_is_known(desk: Desk) -> None:
    page = race_page(task=TASKS["adding"].name, racer=["none"], show="Curves")
    assert picture(page, "Training loss")[1]["layout"]["yaxis"]["title"]["text"].startswith("training loss, smoothed")
    page.button(key="one").click().run()
    assert desk.runner is not None
    desk.runner.join(10)
    page.run()
    assert "mean squared error" in picture(page, "Training loss")[1]["layout"]["yaxis"]["title"]["text"]


@pytest.mark.parametrize(("steps", "words"), [("200", "every 5 steps"), ("3200", "every 80 steps")])
def test_the_page_says_how_often_it_looks_at_the_held_out_examples(steps: str, words: str, desk: Desk) -> None:
    page = race_page(racer=["none"], show="Held out", steps=steps)
    page.button(key="one").click().run()
    assert desk.runner is not None
    desk.runner.join(10)
    page.run()
    assert f"looked at {words}; the first time is yet to come" in said(page)


def test_the_best_of_a_strip_has_lost_no_seed_unless_all_have() -> None:
    means, names = np.array([0.1, 0.5, 0.7]), ["low", "middle", "high"]
    assert race_strip._best(means, np.array([3, 0, 0]), names, 4) == "0.5 at middle"
    assert race_strip._best(means, np.array([3, 1, 2]), names, 4) == "0.1 at low, with 3 of 4 seeds diverged"
    gone = np.array([np.nan, 0.5, np.nan])
    assert race_strip._best(gone, np.array([4, 1, 0]), names, 4) == "0.5 at middle, with 1 of 4 seeds diverged"


def test_methods_race_with_themselves_under_other_settings() -> None:
    page = finish(race_page(racer=["batch_norm"], vary="batch sizes", batch_sizes=["16", "64"]))
    alt, _ = picture(page, "Mean training loss")
    assert "BatchNorm, batch size 16" in alt
    assert "BatchNorm, batch size 64" in alt
    many = race_page(vary="activations", activations=["relu", "tanh", "gelu"])
    assert "9 combinations were asked for; the first 5 race" in said(many)


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ({}, ["start from the same weights and see the same batches in the same order; what differs is the norm."]),
        (
            {"racer": ["batch_norm"], "vary": "batch sizes", "batch_sizes": ["16", "64"]},
            ["the same weights and see the same examples in the same order, in batches of different sizes; what "
             "differs is the batch size."],
        ),
        (
            {"racer": ["batch_norm", "none"], "vary": "depths", "depths": ["1", "2"]},
            ["start from weights of their own, for their nets differ in depth, and see the same batches"],
        ),
        (
            {"racer": ["none", "weight_norm"]},
            ["bring the first effective weights as close to those of the other nets as they can."],
        ),
        (
            {"racer": ["none", "weight_norm", "orthogonal_parametrization"]},
            ["as they can; for seed 0, Orthogonal", " of the weights' length away."],
        ),
    ],
)  # fmt: skip
def test_the_page_says_in_what_a_race_is_fair(link: dict[str, Any], words: list[str]) -> None:
    page = race_page(**link)
    at_first = said(page)
    page = finish(page)
    for word in words:
        assert word in said(page)
    assert ("bring the first effective weights" in said(page)) == ("weight_norm" in link.get("racer", []))
    assert words[0] in at_first or "weight_norm" in link["racer"]


def test_the_page_counts_only_pairs_that_came_through(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Race.__next__

    def lose(race: Race) -> Any:
        record = step(race)
        race._loss[1, 0, race.step - 1] = np.nan
        return record

    monkeypatch.setattr(Race, "__next__", lose)
    assert "N = 2 to 3," in said(finish(race_page(seeds="3")))


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ({"racer": ["foo"]}, "'foo'"),
        ({"batch": "63"}, "batch=63"),
        ({"task": "chess"}, "task=chess"),
        ({"rate": "nan"}, "rate=nan"),
        ({"seed": "-4"}, "seed=-4"),
        ({"steps": "1e9"}, "steps=1e9"),
        ({"model": "CNN"}, "model=CNN"),
    ],
)
def test_a_bad_link_falls_back_with_one_sentence(link: dict[str, Any], words: str) -> None:
    page = race_page(**link)
    (warning,) = page.warning
    assert words in warning.value
    assert not page.button(key="go").disabled


def test_what_goes_wrong_on_the_way_is_said_and_the_curves_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Race.__next__

    def stumble(race: Race) -> Any:
        if race.step == 30:
            raise NormcoreError("race: thirty steps are enough; try fewer")
        return step(race)

    monkeypatch.setattr(Race, "__next__", stumble)
    page = finish(race_page())
    (warning,) = page.warning
    assert warning.value == "race: thirty steps are enough; try fewer."
    assert "up to step 29" in picture(page, "Training loss")[0]
    page.select_slider(key="batch").set_value(8).run()
    assert not page.button(key="go").disabled


def test_buttons_follow_a_race_that_ends_while_the_page_is_drawn(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = race_buttons.buttons

    def slowly(*given: Any) -> None:
        drawn(*given)
        while desk.runner is not None and desk.runner.state().changing:
            time.sleep(0.01)

    monkeypatch.setattr(race_buttons, "buttons", slowly)
    page = race_page()
    page.button(key="go").click().run()
    assert desk.runner is not None and desk.runner.state().phase == "finished"
    assert "Pause" not in [button.label for button in page.button]


def test_a_race_that_waits_says_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    page = race_page()
    monkeypatch.setattr(turns.HALL, "seats", 0)
    page.button(key="go").click().run()
    (progress,) = page.get("progress")
    assert "0 wait before yours: it is number 1 in line" in progress.proto.text
    assert "go" not in [button.key for button in page.button]  # a click that comes twice must not start it again
    page.button(key="pause").click().run()
    assert page.button(key="go").label == "Go on"


def test_a_race_that_is_too_large_is_refused_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    page = finish(race_page())
    monkeypatch.setattr(race_setup, "HEAVIEST", 10_000)
    page.select_slider(key="batch").set_value(32).run()
    assert "times as much as fits" in said(page)
    assert page.button(key="go").disabled and page.button(key="one").disabled
    assert "up to step 49" in picture(page, "Training loss")[0]


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ({"seeds": "16", "batch": "512", "width": "128"}, "times as much computing as fits"),
        ({"seeds": "16", "batch": "64", "width": "32", "racer": ["none"]}, "times as much memory as fits"),
        ({"seeds": "16", "vary": "strip of batch sizes", "width": "16"}, "times as much memory as fits"),
        ({"seeds": "4", "batch": "64", "width": "32"}, ""),
    ],
)
def test_a_step_that_takes_too_long_or_too_much_is_refused_beforehand(link: dict[str, str], words: str) -> None:
    page = race_page(task=TASKS["text"].name, model=MODELS["transformer"].name, **link)
    assert words in said(page)
    assert page.button(key="go").disabled == bool(words)


@pytest.mark.parametrize(("knob", "best"), [("learning rates", "learning rate"), ("batch sizes", "batch size")])
def test_a_strip_fills_column_by_column_and_keeps_its_numbers(
    knob: str, best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, values = race_setup.STRIPS[f"strip of {knob}"]
    monkeypatch.setitem(race_setup.STRIPS, f"strip of {knob}", (name, values[::3]))  # type: ignore[index]
    page = finish(race_page(vary=f"strip of {knob}", racer=["batch_norm", "none"], seeds="1"))
    alt, figure = picture(page, "Final training loss")
    assert f"method and {best}, 3 of 3 done. Best by {best}: BatchNorm" in alt
    frame = page.dataframe[0].value
    costs = next(element.value for element in page.markdown if "What it costs" in element.value)
    slowest = 1e3 * frame["seconds a step of all seeds"].groupby(frame["contestant"]).max()
    assert f"{slowest['BatchNorm']:.3g} | 16 | 8 |" in costs
    assert f"{slowest['no norm']:.3g} | 0 | 0 |" in costs
    assert len(frame) == 2 * 3
    losses = frame["final loss"].to_numpy().reshape(3, 2).T
    sent = drawn(figure["data"][0]["z"]).reshape(2, 3)
    shown = 10**sent if np.nanmax(losses) > 10 * np.nanmin(losses) else sent
    np.testing.assert_allclose(shown[np.isfinite(losses)], losses[np.isfinite(losses)])


@pytest.mark.parametrize("name", ["The classic comparison", "Does a larger batch calm it?", "Ever smaller batches", ""])
def test_a_preset_sets_up_a_race_that_can_start(name: str) -> None:
    page = race_page(depth="3", activation="tanh")
    button = next(b for b in page.button if b.label == (name or "Who takes which learning rate?"))
    button.click().run()
    assert not page.warning and not page.exception
    assert not page.button(key="go").disabled
    assert page.selectbox(key="activation").value == "relu"
    if name == "The classic comparison":
        assert "3 contestants × 12 seeds × 800 steps × 752 parameters" in said(page)
        assert page.select_slider(key="num_groups").value == 5


def test_first_weights_and_the_place_of_norms_can_be_raced() -> None:
    page = race_page(racer=["layer_norm"], vary="first weights", first_weights=["he", "small"])
    assert "weights drawn in different ways" in said(page) and "the first weights" in said(page)
    alt, _ = picture(page, "Training loss")
    assert "LayerNorm, first weights he, LayerNorm, first weights small" in alt
    page = race_page(task="Memory", model="Transformer", racer=["layer_norm"], vary="places of the norms")
    assert "what differs is the place of the norms" in said(page)
    assert "vary=places of the norms" in race_page(vary="places of the norms").warning[0].value


@pytest.mark.parametrize("model", MODELS)
def test_every_model_and_task_can_be_set_up(model: str) -> None:
    for task in [task for task in TASKS.values() if task.kind in MODELS[model].kinds]:
        page = race_page(task=task.name, model=MODELS[model].name)
        assert not page.warning
        assert "parameters" in said(page)


def archive(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def test_a_visitor_races_on_data_of_their_own_and_a_bad_file_loses_nothing() -> None:
    page = race_page(task="My own data", racer=["batch_norm", "none"])
    assert "Choose a file in the sidebar" in page.warning[0].value
    assert page.button(key="go").disabled
    rows = np.random.default_rng(0).normal(size=(80, 3))
    rows[:, 2] = rows[:, 0] > rows[:, 1]
    upload = page.get("file_uploader")[0]
    upload.set_value(("mine.csv", "\n".join(",".join(map(str, row)) for row in rows).encode(), "")).run()
    assert not page.warning
    finish(page)
    alt, _ = picture(page, "Training loss")
    assert "up to step 49" in alt
    for name, data, words in (
        ("text.csv", b"1,2,3\n4,word,6\n", "word in line 2, column 2 is not a number"),
        ("few.csv", b"1,2\n3,4\n", "ten rows or more"),
        ("one.csv", b"1\n3\n", "one to predict and one to predict it from"),
        ("broken.npz", b"PK\x03\x04 and so on", "damaged archive"),
        ("x.npz", archive(x=np.zeros((20, 2))), "an .npz needs arrays called x and y"),
        ("same.npz", archive(x=np.zeros((20, 2)), y=np.zeros(20)), "y is 0 in every row"),
        ("small.csv", "\n".join(f"{i},{i % 2}" for i in range(15)).encode(), "batch_size=16 must be from 1 to 12"),
    ):
        page.get("file_uploader")[0].set_value((name, data, "")).run()
        assert not page.exception
        assert any(words in warning.value for warning in page.warning), (name, [w.value for w in page.warning])
        assert "up to step 49" in picture(page, "Training loss")[0], "the finished curves stay"


@pytest.mark.parametrize(("axes", "model"), [((4,), "MLP"), ((5, 2), "RNN"), ((1, 6, 6), "CNN")])
def test_arrays_are_features_sequences_or_images_by_their_axes(axes: tuple[int, ...], model: str) -> None:
    page = race_page(task="My own data", racer=["none", "layer_norm"])
    x = np.random.default_rng(0).normal(size=(60, *axes))
    page.get("file_uploader")[0].set_value(("mine.npz", archive(x=x, y=np.arange(60) % 3), "")).run()
    assert not page.exception
    assert [warning.value for warning in page.warning if "does not fit any more; it is now" not in warning.value] == []
    box = next(one for one in page.selectbox if one.label == "Model")
    assert model in box.options
    box.select(model).run()
    assert not page.warning and "parameters" in said(page)


def test_an_archive_is_judged_before_it_is_unpacked() -> None:
    huge = archive(x=np.zeros((4000, 1000)))
    with pytest.raises(NormcoreError, match="31 MB unpacked; at most 16 MB are taken"):
        arrays(huge, "huge.npz")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("x.npy", b"no array at all")
    with pytest.raises(NormcoreError, match="not an array"):
        arrays(file.getvalue(), "text.npz")
    objects = io.BytesIO()
    np.savez(objects, x=np.array([{}], dtype=object))
    with pytest.raises(NormcoreError, match="Python objects"):
        arrays(objects.getvalue(), "objects.npz")
