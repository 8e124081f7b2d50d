"""The Batch page by its links: every tab with its figure and table, and the same numbers in both."""

import csv
import io
import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from explorer.table import as_csv
from normcore import METHODS
from normcore.figures import theme
from normcore.lab import neighbors, running, sampling

ROOT = Path(__file__).parents[2]
TABS = ("Over time", "Batch size", "Accumulation", "Swap a neighbor", "Padding")


def batch_page(tab: str = "Over time", **params: Any) -> AppTest:
    page = AppTest.from_file(str(ROOT / "explorer/frame.py"), default_timeout=60)
    for key, value in (params | {"about": tab}).items():
        page.query_params[key] = value
    page.run()
    page.switch_page(str(ROOT / "pages/batch.py")).run()
    assert not page.exception, page.exception
    return page


def picture(page: AppTest) -> dict[str, Any]:
    (component,) = page.get("bidi_component")
    sent = json.loads(component.proto.json)
    return {"alt": sent["alt"], **json.loads(sent["figure"])}


def rows(page: AppTest) -> dict[str, list[str]]:
    """The table as a reader of the CSV has it."""
    frame = page.dataframe[0].value
    read = list(csv.reader(io.StringIO(as_csv({name: frame[name].tolist() for name in frame}))))
    return {name: [row[place] for row in read[1:]] for place, name in enumerate(read[0])}


def drawn(values: Any) -> np.ndarray:
    """The numbers of a trace, which Plotly sends as text or packed."""
    if isinstance(values, dict):
        return np.frombuffer(b64decode(values["bdata"]), dtype=values["dtype"]).astype(float)
    return np.array(values, dtype=float)


def said(page: AppTest) -> str:
    return " ".join(element.value for element in [*page.markdown, *page.caption, *page.warning])


@pytest.mark.parametrize("tab", TABS)
def test_each_tab_has_one_figure_one_table_and_a_download(tab: str) -> None:
    page = batch_page(tab)
    assert page.title[0].value == "Who else decides my output?"
    assert len(page.subheader) == 1
    assert picture(page)["alt"]
    assert len(page.dataframe) == 1
    assert len(page.get("download_button")) == 1
    assert not page.warning
    assert theme.NEUTRAL["$ink"] not in page.get("bidi_component")[0].proto.json  # it follows light and dark


def test_the_timeline_draws_its_table() -> None:
    page = batch_page(layer="ghost_batch_norm", batch="8", ghost="4", momentum="0.3", population="jumps", switch="40")
    table, figure = rows(page), picture(page)
    traces = {(trace["name"], trace.get("yaxis", "y")): drawn(trace["y"]) for trace in figure["data"]}
    columns = {
        ("mean of the batch", "y"): "batch mean",
        ("variance of the batch ÷ 8", "y2"): "batch variance ÷ 8",
        ("variance of the batch ÷ 7", "y2"): "batch variance ÷ 7",
        ("running", "y"): "running mean",
        ("running", "y2"): "running variance",
        ("running, momentum 0.7", "y2"): "running variance, momentum 0.7",
        ("gap, training to evaluation", "y3"): "gap of the outputs",
    }
    for trace, name in columns.items():
        np.testing.assert_array_equal(traces[trace], np.array(table[name], dtype=float))
    expected = running.timeline("ghost_batch_norm", 0.3, 8, "jumps", 40, ghost_batch_size=4)
    np.testing.assert_array_equal(np.array(table["running variance"], dtype=float), expected.running_var)
    unbiased, biased = (np.array(table[f"batch variance ÷ {n}"], dtype=float) for n in (7, 8))
    np.testing.assert_allclose(unbiased * 7, biased * 8)
    assert table["mode"].count("training") == 40
    assert page.metric[0].value == f"{biased[:40].mean():.3g}"


@pytest.mark.parametrize(("momentum", "here", "there"), [("0.1", "0.1", "0.9"), ("0.97", "0.97", "0.03")])
def test_both_conventions_of_momentum_are_said(momentum: str, here: str, there: str) -> None:
    page = batch_page(momentum=momentum)
    assert f"PyTorch and here: `momentum={here}`" in said(page)
    assert f"Keras, TensorFlow, Flax: `momentum={there}`" in said(page)
    pytorch, keras = (block.value for block in page.code)
    assert f"momentum={here}" in pytorch
    assert f"momentum={there}" in keras


def test_a_cumulative_average_is_offered() -> None:
    page = batch_page(momentum="cumulative average", population="stays", switch="100")
    table = rows(page)
    means = np.array(table["batch mean"], dtype=float)
    np.testing.assert_allclose(np.array(table["running mean"], dtype=float)[-1], means.mean())
    assert "momentum=None" in said(page)
    assert not page.warning


@pytest.mark.parametrize("momentum", ["0.1", "cumulative average"])
@pytest.mark.parametrize("key", running.remembering())
def test_what_normalizes_and_is_remembered_is_said_only_where_it_holds(key: str, momentum: str) -> None:
    page = batch_page(layer=key, batch="8", ghost="4", momentum=momentum)
    own, parts, late = (key == name for name in ("batch_renorm", "ghost_batch_norm", "moving_average_batch_norm"))
    biased = "Variance ÷ 8" + ("" if own or parts else ": is remembered" if late else ": normalizes")
    unbiased = "Variance ÷ 7" + ("" if parts or late else ": is remembered")
    assert [metric.label for metric in page.metric[:2]] == [biased, unbiased]
    assert ("2 parts, and each normalized with its variance ÷ 4" in said(page)) == parts
    assert ("the variance of each part ÷ 3" in said(page)) == parts
    assert ("depends on what is remembered" in said(page)) == (own or late)
    if momentum == "0.1":
        rule = "running ← 0.9 · running + 0.1 · " + ("part, 2 times a step" if parts else "batch")
        assert rule in said(page)
        assert ("the first counts in full" in said(page)) == late
    else:
        assert f"every {'part' if parts else 'batch'} counts the same" in said(page)
    assert not page.warning


def test_every_glyph_of_the_legend_is_its_own_and_the_gap_starts_at_0() -> None:
    figure = picture(batch_page())
    shown = [trace for trace in figure["data"] if trace.get("showlegend")]
    looks = [str((trace.get("marker"), trace.get("line"))) for trace in shown]
    assert len(set(looks)) == len(looks) == len({trace["name"] for trace in shown})
    assert figure["layout"]["yaxis3"]["rangemode"] == "tozero"


@pytest.mark.parametrize(
    ("tab", "link"),
    [
        ("Over time", {"momentum": "cumulative average", "beside": "nothing"}),
        ("Over time", {"momentum": "0.5", "beside": "cumulative average"}),
        ("Over time", {"momentum": "1"}),
    ],
)
def test_a_link_that_the_page_writes_gets_no_notice(tab: str, link: dict[str, str]) -> None:
    page = batch_page(tab, **link)
    assert not page.warning
    assert page.select_slider(key="momentum").value == link["momentum"]


def test_one_micro_batch_is_compared_with_nothing() -> None:
    assert "average over the micro-batches" not in said(batch_page("Batch size", micro="1"))
    page = batch_page("Batch size", values="images", samples="64")
    error = float(rows(page)["error, root mean square"][-3])
    assert f"{error * 1024**0.5:.2f} times 1/√m for m = 1024" in said(page)
    assert error * 1024**0.5 > 2.5


def test_a_spike_that_leaves_the_picture_is_written_into_it() -> None:
    page = batch_page("Accumulation", accumulate=["batch_norm", "layer_norm"])
    table, figure = rows(page), picture(page)
    largest = max(map(float, table["difference of the gradient"]))
    assert largest > figure["layout"]["yaxis"]["range"][1]
    (note,) = figure["layout"]["annotations"]
    assert note["text"] == f"above the picture:<br>BatchNorm at 16: {largest:.0%}"
    alone = picture(batch_page("Accumulation", accumulate="layer_norm"))
    assert not alone["layout"].get("annotations")


def test_errors_are_those_of_the_table_with_one_over_root_m_beside() -> None:
    page = batch_page("Batch size", samples="64", ghosts="16", micro="8", values="skewed")
    table, figure = rows(page), picture(page)
    traces = {trace["name"]: trace for trace in figure["data"]}
    errors = np.array(table["error, root mean square"], dtype=float)
    many = np.array(table["values that share, m"], dtype=float)
    np.testing.assert_array_equal(drawn(traces["measured error"]["y"]), errors[:-3])
    np.testing.assert_allclose(np.array(table["1/√m"], dtype=float), many**-0.5)
    np.testing.assert_allclose(drawn(traces["1/√m"]["y"]), many[:-3] ** -0.5)
    points = [traces[name] for name in ("the batch of 64 whole", "ghost batches of 16", "8 micro-batches of 8")]
    assert [float(drawn(point["y"])[0]) for point in points] == errors[-3:].tolist()
    assert f"{sampling.ways('skewed', 'mean', 64, 16, 8).averaged:.3f}" in said(page)


def test_accumulation_draws_its_table() -> None:
    page = batch_page("Accumulation", accumulate=["batch_norm", "rms_norm"], whole="16")
    table, figure = rows(page), picture(page)
    assert [trace["name"] for trace in figure["data"]] == ["BatchNorm", "RMSNorm"]
    both = np.concatenate([drawn(trace["y"]) for trace in figure["data"]])
    np.testing.assert_array_equal(both, np.array(table["difference of the gradient"], dtype=float))
    assert "another one for BatchNorm." in said(page)


def bar_values(figure: dict[str, Any]) -> dict[str, float]:
    values: dict[str, float] = {}
    for trace in figure["data"]:
        values |= dict(zip(trace["y"], drawn(trace["x"]) + trace["base"], strict=True))
    return values


@pytest.mark.parametrize("layout", ["vector", "signal", "image", "volume", "tokens"])
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_a_swap_is_measured_for_every_method(layout: str, mode: str) -> None:
    page = batch_page("Swap a neighbor", tensor=layout, mode=mode)
    table, values = rows(page), bar_values(picture(page))
    fitting = [m for m in METHODS.values() if m.family == "activation" and layout in m.layouts]
    assert sorted(table["method"]) == sorted(method.name for method in fitting)
    moves = dict(zip(table["method"], map(float, table["move, share of the output"]), strict=True))
    for name, move in moves.items():
        assert values.get(name, 0.0) == (move if move > neighbors.ROUNDING else 0.0)
    if mode == "evaluation":
        assert table["changed"].count("yes") == 0
    else:
        assert 0 < table["changed"].count("yes") < len(fitting) / 2


def test_chosen_methods_alone_are_swapped() -> None:
    page = batch_page("Swap a neighbor", which="chosen ones", chosen=["layer_norm", "batch_norm"])
    assert rows(page)["method"] == ["BatchNorm", "LayerNorm"]
    assert set(bar_values(picture(page))) == {"BatchNorm", "LayerNorm"}


@pytest.mark.parametrize("moves", ["output", "mean", "standard deviation"])
@pytest.mark.parametrize("lengths", ["all alike", "spread evenly", "one long"])
def test_padding_draws_its_table(lengths: str, moves: str) -> None:
    page = batch_page("Padding", lengths=lengths, moves=moves)
    table, values = rows(page), bar_values(picture(page))
    column = {
        "output": "outputs of real tokens move by, share",
        "mean": "mean moves by, in standard deviations",
        "standard deviation": "standard deviation is multiplied by",
    }[moves]
    known = dict(zip(table["method"], table[column], strict=True))
    assert {"BatchNorm", "Masked BatchNorm", "InstanceNorm", "GroupNorm"} <= set(values)
    for name, value in values.items():
        if known[name] not in ("", "nan"):
            assert value == pytest.approx(float(known[name]), abs=neighbors.ROUNDING)
    share = {"all alike": "0%", "spread evenly": "44%", "one long": "77%"}[lengths]
    assert f"{share} of the positions are padding" in said(page)


@pytest.mark.parametrize(
    ("tab", "link"),
    [
        ("Over time", {"momentum": "2"}),
        ("Over time", {"layer": "layer_norm"}),
        ("Batch size", {"samples": "7"}),
        ("Accumulation", {"accumulate": "no_such_norm"}),
        ("Swap a neighbor", {"neighbor": "8"}),
        ("Swap a neighbor", {"tensor": "conv2d"}),
        ("Padding", {"holds": "x"}),
    ],
)
def test_a_bad_link_gets_a_sentence_and_the_page(tab: str, link: dict[str, str]) -> None:
    page = batch_page(tab, **link)
    (warning,) = page.warning
    assert next(iter(link.values())) in warning.value
    assert picture(page)["data"]


def test_a_smaller_batch_takes_the_neighbor_along_and_says_so() -> None:
    page = batch_page("Swap a neighbor", neighbor="7")
    page.select_slider(key="among").set_value(4).run()
    assert not page.exception
    assert page.select_slider(key="neighbor").value == 3
    assert "does not fit any more" in said(page)
