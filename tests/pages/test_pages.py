"""Every page by its own file: what it shows, what links do to it, what bad links do to it."""

import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from explorer.controls import LARGEST
from normcore import METHODS
from normcore.core import LAYOUTS
from normcore.lab.probe import probe

ROOT = Path(__file__).parents[2]
BAD_LINKS = {
    "num_groups=7": "num_groups=7",
    "num_groups=two": "num_groups=two",
    "N=-1": "N=-1",
    "N=1e9": "N=1e9",
    "C=1e999": "C=1e999",
    "C=nan": "C=nan",
    "method=foo": "'foo'",
    "layout=cube": "layout=cube",
    "light=everything": "light=everything",
    "eps=-3": "eps=-3",
    "light=one element&n=99": "n=99",
}


def open_page(name: str = "pages/regions.py", **params: Any) -> AppTest:
    page = AppTest.from_file(str(ROOT / name), default_timeout=60)
    for key, value in params.items():
        page.query_params[key] = value
    page.run()
    assert not page.exception, page.exception
    return page


def pictures(page: AppTest) -> list[dict[str, Any]]:
    return [json.loads(element.proto.json) for element in page.get("bidi_component")]


def alerts(page: AppTest) -> str:
    return " ".join(element.value for element in page.warning)


def headings(page: AppTest) -> list[str]:
    return [m.value.removeprefix("## ") for m in page.markdown if m.value.startswith("## ")]


def test_the_first_visit_shows_the_four_classics() -> None:
    page = open_page()
    assert headings(page) == ["BatchNorm", "LayerNorm", "InstanceNorm", "GroupNorm"]
    assert len(pictures(page)) == 4
    assert not page.warning


@pytest.mark.parametrize(
    ("layout", "family"), [(layout, family) for family in ("activation", "weight") for layout in LAYOUTS[family]]
)
def test_every_method_is_shown_in_every_layout(layout: str, family: str) -> None:
    offered = [m for m in METHODS.values() if (m.family == "activation") == (family == "activation")]
    key = "method" if family == "activation" else "weight_method"
    views = list(product(("every region", "one element"), ("With its numbers", "Flat view", "Code")))
    for number, start in enumerate(range(0, len(offered), 4), list(LAYOUTS[family]).index(layout)):
        chosen = offered[start : start + 4]
        light, below = views[number % len(views)]  # from layout to layout, every method comes by in other views
        page = open_page(layout=layout, light=light, below=below, **{key: [method.key for method in chosen]})
        assert headings(page) == [method.name for method in chosen]
        defined = [method for method in chosen if layout in method.layouts]
        assert len(pictures(page)) == len(defined)
        assert ("is not defined for" in alerts(page)) == (len(defined) < len(chosen))


@pytest.mark.parametrize(("link", "said"), BAD_LINKS.items())
def test_a_bad_link_falls_back_with_one_sentence(link: str, said: str) -> None:
    page = open_page(**dict(part.split("=", 1) for part in link.split("&")))
    (warning,) = page.warning
    assert said in warning.value
    assert warning.value.endswith(".")
    assert len(pictures(page)) == 4


def test_a_link_with_the_words_of_a_control_is_no_bad_link() -> None:
    page = open_page(method=["batch_norm"], momentum="cumulative average", below="Code")
    assert not page.warning, page.warning[0].value
    assert "momentum=None" in " ".join(block.value for block in page.code)


def test_a_link_sets_every_control() -> None:
    page = open_page(
        method=["group_norm"], C="12", num_groups="3", light="one element", n="2", c="5", eps="0.001", below="Code"
    )
    assert headings(page) == ["GroupNorm"]
    assert not page.warning
    (picture,) = pictures(page)
    assert "(4, 12, 4, 4)" in picture["alt"]
    assert "12 statistics, each over 64 values" in picture["alt"]
    assert picture["blocks"]["picked"] is not None
    assert "num_groups=3, eps=0.001" in page.code[0].value


def test_a_change_that_breaks_another_setting_moves_it_and_says_so() -> None:
    page = open_page(method=["group_norm"], num_groups="3")
    page.select_slider(key="C").set_value(8).run()
    assert not page.exception
    assert page.select_slider(key="num_groups").value in (2, 4)
    assert "Num groups 3" in alerts(page)
    assert page.select_slider(key="N").value == 4


def test_an_element_outside_a_smaller_tensor_moves_inside() -> None:
    page = open_page(light="one element", n="3", H="4")
    page.select_slider(key="N").set_value(2).run()
    assert not page.exception
    assert page.slider(key="n").value == 1
    assert "Sample n 3" in alerts(page)


@pytest.mark.parametrize("name", ["GroupNorm paper", "ResNet stage", "BERT-base", "One sample", "Batch of two"])
def test_presets_set_the_tensor(name: str) -> None:
    page = open_page()
    next(button for button in page.button if button.label == name).click().run()
    assert not page.exception
    assert ("holds two values" in alerts(page)) == (name == "Batch of two")
    shown = " ".join(picture["alt"] for picture in pictures(page))
    sizes = {
        "GroupNorm paper": "(4, 6, 4, 4)",
        "ResNet stage": "(32, 256, 56, 56)",
        "BERT-base": "(8, 128, 768)",
        "One sample": "(1, 6, 4, 4)",
        "Batch of two": "(2, 6)",
    }
    assert sizes[name] in shown


def test_measured_influence_says_what_it_was_measured_on() -> None:
    small = open_page(show="measured")
    assert all(picture["blocks"]["palette"] == "influence" for picture in pictures(small))
    assert not any("Measured on" in caption.value for caption in small.caption)
    large = open_page(show="measured", N="32", C="256", H="56", W="56", num_groups="32")
    assert sum("Measured on a small tensor" in caption.value for caption in large.caption) == 4


@pytest.mark.parametrize("show", ["declared", "measured"])
@pytest.mark.parametrize("layout", [*LAYOUTS["activation"], *LAYOUTS["weight"]])
def test_the_largest_sizes_answer(layout: str, show: str) -> None:
    largest = {letter.upper(): str(size) for letter, size in LARGEST.items()}
    page = open_page(layout=layout, show=show, **largest)
    assert not [warning.value for warning in page.warning if "link" in warning.value]
    assert pictures(page)


def test_evaluation_cuts_the_ties_of_batch_norm() -> None:
    page = open_page(method=["batch_norm"], mode="evaluation")
    assert "no statistic of this tensor" in pictures(page)[0]["alt"]
    assert any("seen 20 batches" in caption.value for caption in page.caption)


def test_coincidences_are_said_with_their_difference() -> None:
    page = open_page(method=["layer_norm", "group_norm"], num_groups="6")
    said = " ".join(m.value for m in page.markdown)
    assert "With 6 groups of 1 channel this is InstanceNorm." in said
    assert "2 × 96 learned parameters here, 2 × 6 learned parameters there" in said


def test_the_flat_view_says_the_same_as_the_picture() -> None:
    page = open_page(method=["group_norm"], light="one element", n="1", c="0", below="Flat view")
    (table,) = [element.proto.body for element in page.get("html") if "<table>" in element.proto.body]
    assert table.count("<b>") == 3  # three channels of one group, at one position
    assert table.count("●") == 1
    assert 'scope="col"' in table
    assert "<caption>" in table


def test_the_flat_view_gives_true_shares_of_influence() -> None:
    index = (1, 5, 1, 3)
    at = dict(zip("nchw", map(str, index), strict=True))
    page = open_page(method=["layer_norm"], show="measured", below="Flat view", **at)
    (table,) = [element.proto.body for element in page.get("html") if "<table>" in element.proto.body]
    influence = probe("layer_norm", (4, 6, 4, 4), "image", index).influence
    others = influence.clone()
    others[index] = 0
    shares = (100 * others / others.max())[1, :5, 1, 3]
    row = table.split('<th scope="row">sample 1</th>')[1].split("</tr>")[0]
    shown = [int(cell.split("&nbsp;%")[0]) for cell in re.findall(r">(\d+&nbsp;%)", row)]
    assert shown == pytest.approx(shares.tolist(), abs=1.5)
    assert table.count("itself") == 1


def test_the_flat_view_can_be_cut_anywhere() -> None:
    page = open_page(method=["positional_norm"], below="Flat view")
    tables = []
    for level in (0, 5):
        page.select_slider(key="slice").set_value(level).run()
        tables += [element.proto.body for element in page.get("html") if "<table>" in element.proto.body]
    assert "row 0, column 0" in tables[0]
    assert "row 1, column 1" in tables[1]
    assert "<b>1</b>" in tables[0]
    assert "<b>6</b>" in tables[1]


@pytest.mark.parametrize("key", ["batch_norm", "layer_norm", "instance_norm", "group_norm"])
def test_the_home_page_shows_one_live_picture(key: str) -> None:
    page = open_page("explorer/frame.py", picture=key)  # its links to other pages need the navigation
    (picture,) = pictures(page)
    assert METHODS[key].name in picture["alt"]
    assert any(METHODS[key].why in m.value for m in page.markdown)


@pytest.mark.parametrize(
    ("layout", "methods", "name", "value"),
    [
        ("vector", ["l2_norm", "rms_norm"], "eps_place", "maximum"),
        ("image", ["local_response_norm", "linf_batch_norm"], "k", "0.4"),
        ("image", ["l1_batch_norm", "pair_norm"], "scale", "False"),
        ("tokens", ["l1_batch_norm", "qk_norm"], "scale", "True"),
        ("image", ["divisive_norm", "local_contrast_norm"], "window", "1"),
    ],
)
def test_a_setting_offers_only_what_all_methods_take(layout: str, methods: list[str], name: str, value: str) -> None:
    page = open_page(layout=layout, method=methods, **{name: value})
    assert len(pictures(page)) == 2
    assert not page.exception


@pytest.mark.parametrize("control", ["method", "layout", "N", "light"])
def test_what_a_link_says_is_shown_as_it_is(control: str) -> None:
    page = open_page(**{control: "[sign in](https://evil.example) www.evil.example $x$"})
    assert "`[sign in](https://evil.example) www.evil.example $x$`" in alerts(page)


def test_a_list_that_was_cleared_says_what_is_shown_instead() -> None:
    page = open_page()
    page.multiselect(key="method").set_value([]).run()
    assert "No methods are chosen; shown: batch_norm, layer_norm" in alerts(page)
    assert not open_page(method="").warning
