"""The Equality page: what it says is measured, and its tables hold every number on it."""

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from explorer import controls
from normcore import METHODS
from normcore.describe import KINDS, kind

ROOT = Path(__file__).parents[2]
MOVES = "What moves their output?"
EVERY = "every method that fits"


def equality(**params: Any) -> AppTest:
    page = AppTest.from_file(str(ROOT / "explorer/frame.py"), default_timeout=60)
    for key, value in params.items():
        page.query_params[key] = value
    page.run()
    page.switch_page(str(ROOT / "pages/equality.py")).run()
    assert not page.exception, page.exception
    return page


def text(page: AppTest) -> str:
    return " ".join(element.value for element in [*page.markdown, *page.caption, *page.subheader, *page.info])


def figures(page: AppTest) -> list[Any]:
    sent = [json.loads(part.proto.json) for part in page.get("bidi_component")]
    return [(part["alt"], json.loads(part["figure"])) for part in sent]


def dataframe(page: AppTest, column: str) -> Any:
    return next(frame.value for frame in page.dataframe if column in frame.value.columns)


def test_the_first_visit_shows_a_dozen_and_a_pair() -> None:
    page = equality()
    alt = [alt for alt, _ in figures(page)]
    assert alt[0].startswith("12 methods compared in pairs by the outputs")
    assert "LayerNorm and GroupNorm" in text(page) and "two different methods" in text(page)


def test_an_identity_snaps_when_its_condition_is_met() -> None:
    before, after = equality(), equality(num_groups="1")
    assert "GroupNorm has num_groups=2 instead of 1" in text(before)
    assert "Equal here: **GroupNorm** = **LayerNorm**" in text(after) and "The condition is met" in text(after)
    assert "The same numbers, but not the same layer" in text(after)
    assert "2 × 96 learned parameters" in text(after) and "2 × 6 learned parameters" in text(after)


def test_make_it_so_sets_the_sliders() -> None:
    page = equality(one="batch_norm", other="instance_norm")
    assert "4 samples instead of 1" in text(page)
    page.button(key="make_0").click().run()
    assert not page.exception
    assert "one method under two names" in text(page)


@pytest.mark.parametrize("place", range(6))
def test_every_preset_shows_two_equal_methods(place: int) -> None:
    page = equality()
    [button for button in page.button if button.key is None][place].click().run()
    assert not page.exception and not page.warning
    assert "Output**: :blue[:material/equal: the same]" in text(page), page.button[place].label


def test_the_largest_difference_on_screen_is_that_of_the_table() -> None:
    page = equality(one="batch_norm", other="rms_norm", pairs="true")
    values = dataframe(page, "|difference|")
    difference = np.abs(values["BatchNorm"] - values["RMSNorm"])
    assert difference.to_numpy() == pytest.approx(values["|difference|"].to_numpy(), abs=0)
    assert f"Largest difference **{difference.max():.3g}**" in text(page)
    pairs = dataframe(page, "largest |difference|")
    row = pairs[(pairs["method"] == "batch_norm") & (pairs["other method"] == "rms_norm")]
    assert row["largest |difference|"].item() == difference.max()
    assert len(pairs) == 66


def test_the_matrix_is_drawn_from_the_numbers_of_the_table() -> None:
    page = equality(pairs="true")
    numbers = figures(page)[0][1]["data"][0]["z"]
    drawn = np.frombuffer(base64.b64decode(numbers["bdata"]), numbers["dtype"]).reshape(12, 12)
    pairs = dataframe(page, "largest |difference|")
    keys = list(dict.fromkeys([*pairs["method"], *pairs["other method"]]))
    for _, row in pairs.iterrows():
        shown = drawn[keys.index(row["method"]), keys.index(row["other method"])]
        expected = np.nan if row["equal"] else np.clip(np.log10(row["largest |difference|"]), -2, 1)
        assert shown == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("layout", ["vector", "signal", "image", "volume", "tokens", "linear", "conv2d"])
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_every_method_of_a_layout_is_compared(layout: str, mode: str) -> None:
    activation = layout in ("vector", "signal", "image", "volume", "tokens")
    family = [m for m in METHODS.values() if (m.family == "activation") == activation]
    fitting = [method for method in family if layout in method.layouts]
    for tab in ("Which are equal?", MOVES):
        page = equality(layout=layout, mode=mode, set=EVERY, tab=tab)
        assert figures(page)[0][0].startswith(f"{len(fitting)} methods")
        left_out = [method.name for method in family if method not in fitting]
        assert all(name in text(page) for name in left_out)


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("Weights", "Gradients")])
def test_a_kind_shows_its_methods(name: str) -> None:
    members = [m for m in METHODS.values() if kind(m) == name and "image" in m.layouts]
    assert figures(equality(set=name))[0][0].startswith(f"{len(members)} methods")


def test_the_second_tab_measures_beside_what_is_declared() -> None:
    page = equality(tab=MOVES, changes="true")
    assert "A weight times c" in text(page) and "0.3333 of what it was" in text(page)
    frame = dataframe(page, "what is done")
    assert frame[frame["declared"]]["stays"].all()
    assert set(frame[~frame["stays"]]["what is done"]) >= {"other samples replaced", "samples in another order"}
    gradients = dataframe(page, "gradient ×, weight × 3")
    assert gradients["gradient ×, weight × 3"].iloc[0] == pytest.approx(1 / 3, rel=1e-3)


def test_evaluation_is_another_question() -> None:
    training, evaluation = equality(tab=MOVES, changes="true"), equality(tab=MOVES, changes="true", mode="evaluation")

    def stays(page: AppTest, key: str, what: str) -> bool:
        frame = dataframe(page, "what is done")
        return bool(frame[(frame["method"] == key) & (frame["what is done"] == what)]["stays"].item())

    assert stays(training, "batch_norm", "everything × 3") and not stays(evaluation, "batch_norm", "everything × 3")
    assert not stays(training, "batch_norm", "other samples replaced")
    assert stays(evaluation, "batch_norm", "other samples replaced")


@pytest.mark.parametrize(
    ("params", "said"), [({"one": "no_norm"}, "no_norm"), ({"set": "nothing"}, "nothing"), ({"N": "0"}, "N=0")]
)
def test_a_bad_link_gets_a_sentence(params: dict[str, str], said: str) -> None:
    page = equality(**params)
    assert said in " ".join(warning.value for warning in page.warning)
    assert figures(page)


def test_a_setting_that_a_method_cannot_take_leaves_it_out_with_a_sentence() -> None:
    page = equality(set="a selection", among=["l1_batch_norm", "ada_norm"], layout="vector", scale="False")
    assert "AdaNorm is left out. ada_norm: scale=False must be" in text(page)


def test_one_method_alone_and_a_method_beside_itself() -> None:
    assert "One method alone" in text(equality(set="a selection", among="layer_norm"))
    assert "equals itself" in text(equality(one="layer_norm", other="layer_norm"))


def test_reach_puts_only_what_a_control_offers() -> None:
    params = {param.name: param for param in METHODS["batch_renorm"].params}
    sizes = {"n": 4, "c": 6, "h": 4, "w": 4}
    assert controls.reach(params["eps"], 1e-5, sizes) == {"eps": 1e-5}
    assert controls.reach(params["eps"], 3e-5, sizes) == {}
    groups = METHODS["group_norm"].params[0]
    assert controls.reach(groups, 6, sizes) == {"num_groups": 6} and controls.reach(groups, 4, sizes) == {}


def test_csv_reads_back_as_the_same_numbers() -> None:
    from explorer.table import as_csv  # noqa: PLC0415

    frame = dataframe(equality(pairs="true"), "largest |difference|")
    rows = list(csv.DictReader(io.StringIO(as_csv({name: frame[name].to_numpy() for name in frame.columns}))))
    assert [float(row["largest |difference|"]) for row in rows] == frame["largest |difference|"].tolist()
