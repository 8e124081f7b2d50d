"""The Statistics page: every method and input is shown, the numbers are those of the CSV, bad input gets a sentence."""

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from explorer import source, statistics_view
from explorer.statistics_view import NAMES
from explorer.table import as_csv
from normcore import METHODS
from normcore.core import LAYOUTS
from normcore.figures import distributions
from normcore.lab.functions import ACTIVATIONS
from normcore.lab.inputs import made
from normcore.lab.numbers import Numbers, measure

ROOT = Path(__file__).parents[2]
PARTS = ("Mean and deviation by region", "γ, β and the activation function", "Backward", "Table")


def open_page(**params: Any) -> AppTest:
    page = AppTest.from_file(str(ROOT / "pages/distributions.py"), default_timeout=60)
    for key, value in params.items():
        page.query_params[key] = value
    page.run()
    assert not page.exception, page.exception
    return page


def figures(page: AppTest) -> list[dict[str, Any]]:
    return [json.loads(element.proto.json) for element in page.get("bidi_component")]


def alerts(page: AppTest) -> str:
    return " ".join(element.value for element in page.warning)


def headings(page: AppTest) -> list[str]:
    return [m.value.removeprefix("## ") for m in page.markdown if m.value.startswith("## ")]


def said(page: AppTest) -> str:
    return " ".join(element.value for element in [*page.markdown, *page.caption])


@pytest.mark.parametrize("layout", [layout for family in ("activation", "weight") for layout in LAYOUTS[family]])
def test_every_method_is_shown_in_every_layout(layout: str) -> None:
    activation = layout in LAYOUTS["activation"]
    offered = [m for m in METHODS.values() if (m.family == "activation") == activation]
    key = "method" if activation else "weight_method"
    for number, first in enumerate(range(0, len(offered), 4)):
        chosen = offered[first : first + 4]
        part = PARTS[number % len(PARTS)]
        page = open_page(layout=layout, part=part, N=2, **{key: [method.key for method in chosen]})
        defined = [method for method in chosen if layout in method.layouts]
        assert headings(page) == [method.name for method in defined]
        assert ("is not defined" in alerts(page)) == (len(defined) < len(chosen))


@pytest.mark.parametrize("name", source.SOURCES)
@pytest.mark.parametrize("part", PARTS)
def test_every_input_is_shown_in_every_part(name: str, part: str) -> None:
    page = open_page(input=name, part=part)
    assert len(headings(page)) >= 2
    drawn = {"Table": 0, "Backward": 3, PARTS[1]: 2}.get(part, len(headings(page)))
    assert len(figures(page)) == len(headings(page)) + drawn
    for component in figures(page):
        assert len(component["alt"]) > 20
    assert page.caption[0].value.endswith(".") or page.sidebar.caption


def test_all_methods_share_their_axes() -> None:
    for chosen in (["batch_norm", "layer_norm"], ["instance_norm", "dynamic_tanh", "rms_norm", "group_norm"]):
        page = open_page(method=chosen, part="Table")
        layouts = [json.loads(component["figure"])["layout"] for component in figures(page)]
        assert len(layouts) == len(chosen)
        for axis in ("xaxis", "xaxis2"):
            assert len({tuple(layout[axis]["range"]) for layout in layouts}) == 1


def test_few_regions_are_ridges_and_many_are_bands() -> None:
    page = open_page(method=["batch_norm", "instance_norm"], part="Table")
    ridges, bands = (json.loads(component["figure"])["data"] for component in figures(page))
    assert len([trace for trace in ridges if trace.get("fill")]) == 2 * 6  # one a channel, before and after
    levels = [trace for trace in bands if trace.get("fill")]
    assert len(levels) == 2 * len(distributions.BANDS)
    numbers = shown(page, "instance_norm")
    for side, found in ((levels[:3], numbers.before), (levels[3:], numbers.after)):
        x = read(side[0]["x"]).reshape(24, 5)  # the outermost band holds all values, and a hole parts any two boxes
        assert np.isnan(x[:, 4]).all()
        assert x[:, 0] == pytest.approx(found.low, rel=1e-6) and x[:, 1] == pytest.approx(found.high, rel=1e-6)


def test_the_maps_show_the_measured_means_and_deviations_and_no_rounding() -> None:
    for measured in ("before", "after"):
        page = open_page(method=["instance_norm"], measured=measured)
        mean, deviation = json.loads(figures(page)[1]["figure"])["data"]
        numbers = shown(page, "instance_norm")
        found = getattr(numbers, measured)
        assert read(mean["z"]).ravel() == pytest.approx(found.mean, abs=1e-9)
        assert read(deviation["z"]).ravel() == pytest.approx(found.std, abs=1e-9)
        assert (np.abs(read(mean["z"])).max() == 0) == (measured == "after")  # 1e-16 would have the strongest color
        assert mean["zmin"] == -mean["zmax"] and deviation["zmin"] == 0


def shown(page: AppTest, key: str) -> Numbers:
    """What the page measures, once more from its controls."""
    sizes = tuple(page.get_by_key(letter).value for letter in "NCHW")
    return measure(key, made("channel offsets", sizes, "image", 0))


def read(numbers: Any) -> np.ndarray:
    """Numbers as they are sent: typed arrays in base64."""
    if not isinstance(numbers, dict):
        return np.array(numbers, dtype=float)
    flat = np.frombuffer(base64.b64decode(numbers["bdata"]), numbers["dtype"])
    return flat.reshape([int(size) for size in numbers["shape"].split(",")] if "shape" in numbers else -1)


def test_the_numbers_on_the_page_are_those_that_numpy_finds_in_the_download() -> None:
    page = open_page(method=["batch_norm", "layer_norm"], by="its own regions", part="Table")
    listed = page.dataframe[0].value
    values = page_values(page)
    for method, key in (("BatchNorm", "batch_norm"), ("LayerNorm", "layer_norm")):
        regions = np.array([int(row[f"{key} region"]) for row in values])
        for side, column in (("before", "before"), ("after", key)):
            numbers = np.array([float(row[column]) for row in values])
            rows = listed[(listed["Method"] == method) & (listed["Side"] == side)]
            assert len(rows) == len(set(regions)) + 1
            for position, (_, row) in enumerate(rows.iterrows()):
                inside = numbers[regions == position] if position < len(set(regions)) else numbers
                assert row[NAMES["size"]] == len(inside)
                assert row[NAMES["mean"]] == pytest.approx(inside.mean(), abs=1e-12)
                assert row[NAMES["std"]] == pytest.approx(inside.std())
                assert row[NAMES["low"]] == inside.min()
                assert row[NAMES["high"]] == inside.max()
                fourth = ((inside - inside.mean()) ** 4).mean() / inside.var() ** 2
                assert row[NAMES["kurtosis"]] == pytest.approx(fourth)
                assert row[NAMES["dead"]] == pytest.approx((inside <= 0).mean())
                sigmoid = 1 / (1 + np.exp(-inside))
                assert row[NAMES["saturated"]] == pytest.approx((sigmoid * (1 - sigmoid) <= 0.025).mean())
        after = np.array([float(row[key]) for row in values])
        means = [after[regions == region].mean() for region in set(regions)]
        assert np.abs(means).max() < 1e-9
        assert "after: mean 0, deviation 1" in said(page)


def page_values(page: AppTest) -> list[dict[str, str]]:
    """The rows of the second download, as a visitor would open them."""
    scene = statistics_view.Scene(*_scene(page))
    return list(csv.DictReader(io.StringIO(as_csv(statistics_view._values(scene)))))


def _scene(page: AppTest) -> tuple[Any, ...]:
    """What the page computes from, once more from its controls."""
    sizes = tuple(page.get_by_key(letter).value for letter in "NCHW")
    given = made("channel offsets", sizes, "image", 0)
    keys = page.get_by_key("method").value
    return given, [measure(key, given) for key in keys], {key: {} for key in keys}, "sigmoid"


def test_padding_pulls_a_plain_norm_away_and_a_mask_mends_it() -> None:
    page = open_page(input="padded sentences", method=["batch_norm", "masked_batch_norm"], part="Table")
    captions = [m.value for m in page.markdown if "after: " in m.value]
    assert "after: mean 0, deviation 1" not in captions[0]
    assert "after: mean 0, deviation 1" in captions[1]
    both = open_page(input="padded sentences", method=["batch_norm"], count="padding too", part="Table")
    assert "after: mean 0, deviation 1" in said(both)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gain_and_bias_move_the_shares(activation: str) -> None:
    def shares(**params: Any) -> dict[str, list[float]]:
        page = open_page(part=PARTS[1], method=["batch_norm"], activation=activation, **params)
        (figure,) = [json.loads(c["figure"]) for c in figures(page) if '"barmode":"stack"' in c["figure"]]
        return {name: [trace["x"][i] for trace in figure["data"]] for i, name in enumerate(figure["data"][0]["y"])}

    plain, moved = shares(), shares(gain="8.0", bias="-2.0")
    assert list(plain) == ["before", "BatchNorm"]
    assert list(moved) == ["before", "BatchNorm", "BatchNorm, γ and β"]
    assert moved["BatchNorm"] == plain["BatchNorm"]
    assert moved["BatchNorm, γ and β"] != plain["BatchNorm"]
    assert all(sum(parts) == pytest.approx(100) for parts in moved.values())


def test_every_preset_has_what_it_needs() -> None:
    page = open_page()
    presets = [button for button in page.button if button.label]
    assert len(presets) >= 5
    for number in range(len(presets)):
        page.button[number].click().run()
        assert not page.exception, presets[number].label
        assert len(headings(page)) >= 2, presets[number].label
        assert "not defined" not in alerts(page), presets[number].label


@pytest.mark.parametrize(
    ("link", "told"),
    [
        ({"input": "nothing"}, "input=nothing"),
        ({"method": "no_such"}, "'no_such'"),
        ({"by": "token"}, "by=token"),
        ({"activation": "cube"}, "activation=cube"),
        ({"N": "99999"}, "N=99999"),
        ({"seed": "-1"}, "seed=-1"),
        ({"part": PARTS[2], "region": "77"}, "region=77"),
        ({"part": PARTS[1], "gain": "nan"}, "gain=nan"),
    ],
)
def test_a_bad_link_falls_back_with_a_sentence(link: dict[str, str], told: str) -> None:
    page = open_page(**link)
    assert told in alerts(page)
    assert headings(page) == ["BatchNorm", "LayerNorm", "InstanceNorm"]


@pytest.mark.parametrize("where", [{"method": "weight_norm"}, {"layout": "conv2d", "weight_method": "batch_norm"}])
def test_a_method_for_other_layouts_is_said_to_exist(where: dict[str, str]) -> None:
    page = open_page(part="Table", **where)
    assert "layouts: " in alerts(page)
    assert "No method here" not in alerts(page)
    assert headings(page)


def test_the_way_back_is_what_numpy_finds_in_its_tables() -> None:
    page = open_page(part=PARTS[2], method="batch_norm", way_back="true")
    jacobian, gradients, epsilon = (frame.value for frame in page.dataframe)
    drawn = [json.loads(component["figure"]) for component in figures(page)]
    assert len(jacobian) == int(len(jacobian) ** 0.5) ** 2
    leaving = gradients.iloc[:, -1].to_numpy()
    gap = np.abs(leaving - gradients["and without its part along y"].to_numpy()).max()
    assert f"at most {gap:.1e}".replace("-", "−") in said(page)
    heights = np.frombuffer(base64.b64decode(drawn[3]["data"][0]["y"]["bdata"]))
    assert heights.tolist() == epsilon["Mean deviation after"].tolist()


def test_too_many_values_are_cut_and_said() -> None:
    page = open_page(N=64, C=64, H=32, W=32, method="layer_norm", part="Table")
    assert "(4, 64, 32, 32)" in alerts(page)


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_an_upload_is_shown_and_a_bad_one_leaves_everything_else_as_it_was() -> None:
    chosen = {"input": "my own file", "method": ["rms_norm", "group_norm"], "activation": "GELU", "part": PARTS[1]}
    page = open_page(**chosen, gain="2.0")
    assert "Choose a file" in alerts(page)
    upload = page.get("file_uploader")[0]
    upload.set_value(("mine.npy", saved(np.random.default_rng(0).normal(size=(3, 4, 5, 5))), "")).run()
    assert "mine.npy: 3 × 4 × 5 × 5 values." in said(page)
    assert not page.warning
    for name, data, told in (
        ("bad.npy", b"\x93NUMPY" + bytes(40), "damaged"),
        ("objects.npy", b"\x80\x04N.", "pickle"),
        ("t.csv", b"1,2\n3,four\n", "four in line 2"),
    ):
        page.get("file_uploader")[0].set_value((name, data, "")).run()
        assert not page.exception
        assert alerts(page).count(told) == 1
        assert headings(page) == ["RMSNorm", "GroupNorm"]
        assert page.get_by_key("gain").value == 2.0
        assert page.get_by_key("activation").value == "GELU"
        assert page.get_by_key("input").value == "my own file"
    page.get("file_uploader")[0].set_value(("good.csv", b"1,2,4\n3,4,7\n5,9,1\n", "")).run()
    assert "good.csv: 3 × 3 values." in said(page)
