"""The catalogue and the page of each method: nothing on them is written twice, and every method has them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from explorer import gallery, reference, ways
from normcore import METHODS, describe
from normcore.describe import KINDS, kind

ROOT = Path(__file__).parents[2]


def open_page(**params: Any) -> AppTest:
    """A page by its address in the link, with the navigation around it that its links need."""
    page = AppTest.from_file(str(ROOT / "explorer/frame.py"), default_timeout=60)
    for key, value in params.items():
        page.query_params[key] = value
    return page


def catalogue(**params: Any) -> AppTest:
    page = open_page(**params).run()
    page.switch_page(str(ROOT / "pages/catalogue.py")).run()
    assert not page.exception, page.exception
    return page


def shown(page: AppTest) -> list[str]:
    """The names on the cards."""
    return [link.proto.label.strip("*") for link in page.get("page_link") if link.proto.label.startswith("**")]


def text(page: AppTest) -> str:
    return " ".join(element.value for element in [*page.markdown, *page.caption, *page.subheader, *page.info])


def test_every_method_has_a_card_with_a_picture() -> None:
    page = catalogue()
    assert sorted(shown(page)) == sorted(method.name for method in METHODS.values())
    pictures = [element.proto.body for element in page.get("html") if "data:image/svg+xml" in element.proto.body]
    assert len(pictures) == len(METHODS)
    counts = [int(match) for match in re.findall(r":gray\[(\d+)\]", text(page))]
    assert sum(counts) == len(METHODS)


@pytest.mark.parametrize(
    ("words", "expected"), [("wu he 2018", "GroupNorm"), ("1607.06450", "LayerNorm"), ("GROUP", "GroupNorm")]
)
def test_search_finds_by_name_author_year_and_paper(words: str, expected: str) -> None:
    found = shown(catalogue(find=words))
    assert expected in found
    assert len(found) < len(METHODS)


def test_a_search_without_an_answer_says_so() -> None:
    page = catalogue(find="nothing is called so")
    assert shown(page) == []
    assert "No method here matches" in text(page)


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_shows_its_methods_only(name: str) -> None:
    assert sorted(shown(catalogue(kind=name))) == sorted(m.name for m in METHODS.values() if kind(m) == name)


def test_the_family_tree_has_every_method() -> None:
    page = catalogue(**{"as": "Family tree"})
    (component,) = page.get("bidi_component")
    figure = json.loads(json.loads(component.proto.json)["figure"])
    assert sorted(figure["data"][-1]["text"]) == sorted(method.name for method in METHODS.values())
    assert '"$ink"' in json.dumps(figure)


def method_page(key: str, **params: Any) -> AppTest:
    page = open_page(key=key, **params).run()
    page.switch_page(str(ROOT / "pages/method.py")).run()
    assert not page.exception, page.exception
    return page


@pytest.mark.parametrize("key", METHODS)
def test_every_method_has_its_page(key: str) -> None:
    page, method = method_page(key), METHODS[key]
    assert page.title[0].value == method.name
    assert method.paper.title in text(page)
    assert method.why in text(page)
    assert page.get("bidi_component")
    assert all(f"`{param.name}`" in text(page) for param in method.params)
    assert "Largest change" in text(page)
    found = reference.measured("oracles").get(key, {})
    assert ("Largest difference" in text(page)) == bool(found)
    assert ("Laws only" in text(page)) == (not found)
    assert ("Formula only" in text(page)) == (bool(found) and not any(map(reference.by_package, found)))
    assert all(sentence in text(page) for sentence in describe.equalities(method))
    led = {link.proto.query_string for link in page.get("page_link")}
    related = {*method.builds_on, *(m.key for m in METHODS.values() if key in m.builds_on)}
    assert {f"key={other}" for other in related | {identity.other for identity in method.equals}} <= led
    assert ("Momentum is the weight of the old value" in text(page)) == any(
        "momentum" in block.value for block in page.code if block.value.startswith(("import keras", "import flax"))
    )
    headings = [heading.value for heading in page.subheader]
    assert ("What it costs" in headings) == (key in reference.measured("costs"))
    assert not any("costs" in heading for heading in headings if heading != "What it costs")
    assert ("What is left where it stays" in text(page)) <= ("| stays |" in text(page))
    assert ("gain 1 and bias 0" in text(page)) == bool(method.affine)
    assert ("in training, on a new layer" in text(page)) == bool(method.state and method.family == "activation")


def test_the_box_of_methods_goes_by_name_and_the_link_by_key() -> None:
    page = method_page("group_norm")
    box = page.selectbox[0]
    assert box.value == "group_norm"
    assert box.options == sorted((method.name for method in METHODS.values()), key=str.lower)
    assert len(set(box.options)) == len(METHODS)
    box.set_value("rms_norm").run()
    assert page.title[0].value == "RMSNorm"
    assert page.query_params["key"] in ("rms_norm", ["rms_norm"])


def test_going_through_a_kind_meets_each_of_its_methods_once() -> None:
    for name in KINDS:
        members = [method for method in METHODS.values() if kind(method) == name]
        walked = [members[0]]
        while following := ways.neighbors(walked[-1])[1]:
            assert ways.neighbors(following)[0] is walked[-1]
            walked.append(following)
        assert walked == members


@pytest.mark.parametrize(
    ("oracle", "is_one"),
    [
        ("torch.nn.BatchNorm", True),
        ("onnx BatchNormalization", True),
        ("timm EvoNorm2dB0", True),
        ("jax.nn.selu", True),
        ("numpy.linalg.svd", True),
        ("timm's formula", False),
        ("paper's formula on torch.nn.LayerNorm", False),
        ("literal loop", False),
        ("batch_norm", False),
        ("normcore batch_norm", False),
        ("a search over all shares", False),
    ],
)
def test_a_package_is_told_from_a_formula(oracle: str, is_one: bool) -> None:
    assert reference.by_package(oracle) is is_one


def test_the_catalogue_counts_who_was_checked_by_whom() -> None:
    counts = [int(number) for number in re.findall(r"\d+", gallery.checks())]
    assert sum(counts) == len(METHODS)
    packages = [k for k, found in reference.measured("oracles").items() if any(map(reference.by_package, found))]
    assert f"{len(packages)} checked against another package" in gallery.checks()
    assert gallery.checks() in text(catalogue())


def test_cards_of_one_picture_are_told_apart() -> None:
    facts = {key: gallery.distinguishing(key) for key in METHODS}
    assert facts["batch_norm"] == ["mean", "variance"]
    assert facts["masked_batch_norm"] == ["mean", "variance", "given: mask"]
    assert facts["linf_batch_norm"] == ["mean", "top deviation"]
    assert facts["batch_renorm"][2:] == ["scale correction", "shift correction"]
    assert facts["rezero"] == ["given: residual"]


def test_a_wrong_key_falls_back_with_a_sentence() -> None:
    page = method_page("no_such_norm")
    assert page.title[0].value == METHODS["batch_norm"].name
    assert "no_such_norm" in " ".join(warning.value for warning in page.warning)


def test_a_citation_names_every_author() -> None:
    cited = reference.citation(METHODS["rms_norm"])
    assert cited.startswith("@misc{zhang2019,")
    assert "author = {Biao Zhang and Rico Sennrich}" in cited
    assert "eprint = {1910.07467}" in cited


def test_what_was_measured_speaks_of_methods_that_exist() -> None:
    checked = reference.measured("oracles")
    assert set(checked) <= set(METHODS)
    assert {method.key for method in METHODS.values() if not method.key.startswith("_")} >= set(checked)
