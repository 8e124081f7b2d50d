"""The Clipping page: its numbers are those of numpy, its plots those of its tables, and every variant can be chosen."""

import base64
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from normcore import METHODS
from normcore.lab import cliff, vectors
from normcore.lab.vectors import Variant

ROOT = Path(__file__).parents[2]
ANSWERING = [key for key, reason in vectors.refusals().items() if not reason]
KINDS = {"f8": np.float64, "f4": np.float32, "i1": np.int8, "i2": np.int16, "i4": np.int32, "i8": np.int64}
CLIFF = {"tab": "The cliff"}


def open_page(**params: Any) -> AppTest:
    page = AppTest.from_file(str(ROOT / "explorer/frame.py"), default_timeout=60)
    for key, value in params.items():
        page.query_params[key] = value
    page.run()
    page.switch_page(str(ROOT / "pages/clipping.py")).run()
    assert not page.exception, page.exception
    return page


def words(page: AppTest) -> str:
    return " ".join(element.value for element in [*page.markdown, *page.caption])


def figures(page: AppTest) -> list[dict[str, Any]]:
    return [json.loads(json.loads(part.proto.json)["figure"]) for part in page.get("bidi_component")]


def values(sent: Any) -> np.ndarray:
    """The numbers of a trace as the browser reads them."""
    if isinstance(sent, dict):
        found = np.frombuffer(base64.b64decode(sent["bdata"]), KINDS[sent["dtype"]])
        return found.reshape([int(size) for size in sent["shape"].split(",")]) if "shape" in sent else found
    return np.array(sent, dtype=float)


def test_the_first_look_shows_the_point() -> None:
    page = open_page()
    assert page.title[0].value == "What does clipping do to a gradient?"
    assert "Clip by Value** makes it (1, 1): 1.41 long, 0.141 of what it was, turned by **39°**" in words(page)
    assert "Clip by Global Norm** makes it (0.995, 0.0995)" in words(page)
    assert "in the same direction" in words(page)


def test_the_arrows_are_the_rows_of_the_table() -> None:
    page = open_page(first="-7.5", second="3", clip_at="2")
    rows = page.dataframe[0].value
    drawn = {
        trace["name"]: (values(trace["x"])[1], values(trace["y"])[1])
        for trace in figures(page)[0]["data"]
        if "name" in trace
    }
    assert len(drawn) == len(rows)
    for name, x, y in zip(rows["vector"], rows["first number"], rows["second number"], strict=True):
        assert drawn[name] == (x, y)
    value = rows[rows["vector"] == "Clip by Value"].iloc[0]
    np.testing.assert_array_equal([value["first number"], value["second number"]], np.clip([-7.5, 3], -2, 2))
    before, after = np.array([-7.5, 3]), np.array([-2, 2])
    cosine = before @ after / np.linalg.norm(before) / np.linalg.norm(after)
    assert value["turned (degrees)"] == pytest.approx(math.degrees(math.acos(cosine)))


def test_a_field_is_what_its_table_says() -> None:
    page = open_page(field="true", variant="clip_by_value")
    rows = page.dataframe[1].value
    dots = figures(page)[2]["data"][1]
    np.testing.assert_array_equal(values(dots["x"]), rows["first after"])
    np.testing.assert_array_equal(values(dots["y"]), rows["second after"])
    np.testing.assert_array_equal(
        np.clip(rows[["first number", "second number"]], -1, 1), rows[["first after", "second after"]]
    )


def test_what_is_not_finite_is_said() -> None:
    page = open_page(second_is="infinite")
    assert "Clip by Global Norm** makes it (0, nan)" in words(page)
    assert "what was finite is lost with it" in words(page)
    assert "Clip by Value** makes it (1, 1): finite again" in words(page)
    page = open_page(second_is="not a number", variant=["clip_by_value", "clip_by_global_norm", "zero_nans"])
    assert "and what was finite is 1 (was 10); a step with it" in words(page)
    assert words(page).count("what was finite is lost with it") == 1
    page = open_page(second_is="infinite", variant=["zero_nans"])
    assert "what is not finite is still there, as it was" in words(page)


@pytest.mark.parametrize("first", range(0, len(ANSWERING), 6))
@pytest.mark.parametrize("tab", ["Two numbers", "The cliff"])
def test_every_variant_can_be_chosen(first: int, tab: str) -> None:
    keys = ANSWERING[first : first + 6]
    page = open_page(variant=keys, tab=tab)
    assert not page.warning, [warning.value for warning in page.warning]
    for key in keys:
        assert f"**{METHODS[key].name}**" in words(page)
    labels = {select.key for select in page.select_slider}
    for key in keys:
        params = [param for param in METHODS[key].params if hasattr(param.domain, "low")]
        assert {f"{key}_{param.name}" for param in params} <= labels


def test_a_link_means_the_same_on_every_tab() -> None:
    for tab in ("Two numbers", "A real network"):
        page = open_page(tab=tab, clip_by_global_norm_max_norm="the shared threshold")
        assert not page.warning, [warning.value for warning in page.warning]


def test_a_choice_that_another_control_has_made_impossible_is_left_out() -> None:
    def script() -> None:
        import streamlit as st  # noqa: PLC0415 - the script of AppTest is this function's text alone

        from explorer import controls  # noqa: PLC0415

        controls.begin()
        offered = ["a", "b"] if st.checkbox("few") else ["a", "b", "c", "d"]
        st.markdown(",".join(controls.several("Letters", offered, "letters", ["a"], 3)))
        for sentence in controls.notices():
            st.warning(sentence)

    for chosen, left in ((["b", "c", "d"], "b"), (["c"], "a")):
        page = AppTest.from_function(script).run()
        page.multiselect(key="letters").set_value(chosen).run()
        assert page.markdown[0].value == ",".join(chosen) and not page.warning
        page.checkbox[0].check().run()
        assert not page.exception and page.markdown[0].value == left
        gone = ", ".join(one for one in chosen if one not in "ab")
        assert page.warning[0].value == f"Letters: {gone} cannot be chosen any more; it is now {left}."


def test_a_variant_has_settings_of_its_own() -> None:
    page = open_page(clip_by_global_norm_max_norm="2.5")
    rows = page.dataframe[0].value.set_index("vector")
    assert rows.loc["Clip by Global Norm", "length"] == pytest.approx(2.5, rel=1e-5)
    assert rows.loc["Clip by Value", "first number"] == 1


def test_the_paths_on_the_cliff_are_those_of_the_lab_and_of_the_table() -> None:
    page = open_page(**CLIFF, path_table="true", descent_steps="20")
    path = cliff.descend(Variant("clip_by_global_norm", {"max_norm": 0.05}), (5.0, -2.2), 2.0, 20)
    assert f"(at best {path.loss.min():.3g})".replace("-", "−") in words(page)
    rows = page.dataframe[0].value
    rows = rows[rows["path"] == "Clip by Global Norm"]
    np.testing.assert_array_equal(rows["loss"], path.loss)
    curve = next(trace for trace in figures(page)[2]["data"] if trace["name"] == "Clip by Global Norm")
    np.testing.assert_array_equal(values(curve["y"]), path.loss)
    land = page.dataframe[1].value
    shown = values(figures(page)[1]["data"][0]["z"])
    np.testing.assert_array_equal(shown.ravel(), land["loss"].to_numpy().astype(np.float32))


def test_a_step_a_reset_and_a_roll() -> None:
    page = open_page(**CLIFF, until_40="2")
    jumped = "went 6.29 far"
    assert jumped not in words(page)
    page.button("one_step").click().run()
    assert page.select_slider("until_40").value == 3
    assert jumped in words(page)
    assert "After 3 steps, 0 of them clipped" in words(page)
    page.button("roll_reset").click().run()
    assert page.select_slider("until_40").value == 0
    assert len(re.findall("starts at", words(page))) == 3
    page.button("roll").click().run()
    assert page.button("stand").label == "Pause"
    assert "roll" not in [button.key for button in page.button]  # a click that comes twice must not roll again
    assert page.select_slider("until_40").value > 0
    page.button("stand").click().run()
    assert page.button("roll").label == "Roll"


@pytest.mark.parametrize(
    "link",
    [{"first": "99"}, {"clip_at": "-1"}, {"variant": "no_such"}, {**CLIFF, "w": "nan"}, {**CLIFF, "until_40": "41"}],
)
def test_a_bad_link_gets_a_sentence(link: dict[str, str]) -> None:
    page = open_page(**link)
    assert len(page.warning) == 1
    assert list(link.values())[-1] in page.warning[0].value


@pytest.mark.parametrize("tab", ["A real network", "Your own log"])
def test_the_other_tabs_stand(tab: str) -> None:
    assert len(open_page(tab=tab).markdown) > 1
