"""What a race draws: means, bands and smoothing against plain loops, crosses where seeds diverged, words for all."""

import json
from itertools import islice
from typing import Any

import numpy as np
import pytest
from scipy import stats

from normcore.figures import assemble
from normcore.figures.race import Line, curves, layers, standings, strip
from normcore.lab import curves as drawn
from normcore.lab.race import Contestant, Race
from normcore.lab.results import Results
from normcore.lab.strips import Strip

TITLES = ("step", "loss")


def made(loss: np.ndarray, **more: Any) -> Results:
    """Results as if these losses (contestants seeds steps) had been measured."""
    count, seeds, _ = loss.shape
    labels = tuple("abcde"[:count])
    known = {"batch_sizes": (32,) * count, "examples": 320}
    seconds = np.full(count, 0.5)
    return Results(labels, tuple(range(seeds)), loss, (), (), (), seconds, (0,) * count, 1e6, **known | more)


@pytest.fixture
def noisy() -> np.ndarray:
    return np.random.default_rng(0).normal(2.0, 0.3, (3, 5, 1500))


def line(curve: drawn.Curve, **more: Any) -> Line:
    return Line(
        curve.label,
        "#e2914e",
        "dash",
        curve.x,
        curve.mean,
        curve.low,
        curve.high,
        curve.seeds,
        curve.singles,
        curve.lost,
        **more,
    )


def test_smoothing_is_the_debiased_average_of_a_plain_loop_and_leaves_a_constant_alone(noisy: np.ndarray) -> None:
    found = drawn.smoothed(noisy, 0.9)
    for at in (0, 1, 7, 1499):
        weights = 0.9 ** np.arange(at, -1, -1.0)
        expected = (noisy[1, 2, : at + 1] * weights).sum() / weights.sum()
        assert found[1, 2, at] == pytest.approx(expected)
    np.testing.assert_allclose(drawn.smoothed(np.full((2, 50), 3.0), 0.98), 3.0)
    assert drawn.smoothed(noisy, 0) is noisy


def test_curves_are_smoothed_before_they_are_thinned(noisy: np.ndarray) -> None:
    whole = drawn.smoothed(noisy, 0.95)
    for curve, expected in zip(drawn.losses(made(noisy), smoothing=0.95), whole, strict=True):
        assert len(curve.x) <= drawn.MOST
        assert curve.step[0] == 0 and curve.step[-1] == 1499
        np.testing.assert_array_equal(curve.singles, expected[:, curve.step])
        np.testing.assert_allclose(curve.mean, expected[:, curve.step].mean(0))


@pytest.mark.parametrize("band", drawn.BANDS)
def test_bands_are_what_their_names_say(noisy: np.ndarray, band: str) -> None:
    (curve, *_) = drawn.losses(made(noisy[:, :, :20]), band=band)
    for at in (0, 13):
        values = noisy[0, :, at]
        spread = values.std(ddof=1)
        expected = {
            "95 % confidence": stats.t.interval(0.95, 4, values.mean(), spread / np.sqrt(5)),
            "standard deviation": (values.mean() - spread, values.mean() + spread),
            "least to greatest": (values.min(), values.max()),
            "none": (values.mean(), values.mean()),
        }[band]
        assert (curve.low[at], curve.high[at]) == pytest.approx(expected)
    assert (curve.seeds == 5).all()


def test_an_axis_counts_what_it_says() -> None:
    loss = np.ones((2, 1, 11))
    results = made(loss, batch_sizes=(32, 64))
    ends = {across: [c.x[-1] for c in drawn.losses(results, across)] for across in drawn.ACROSS}
    assert ends == {"step": [10, 10], "epoch": [1.0, 2.0], "examples": [320, 640], "time": [5.0, 5.0]}


def test_differences_are_paired_by_seed_and_exactly_zero_for_twins(noisy: np.ndarray) -> None:
    noisy[2] = noisy[0]
    other, twin = drawn.differences(made(noisy), 0, smoothing=0.9)
    assert (other.label, twin.label) == ("b", "c")
    assert (twin.mean == 0).all() and (twin.low == 0).all()
    paired = drawn.smoothed(noisy[1] - noisy[0], 0.9)[:, other.step]
    np.testing.assert_allclose(other.mean, paired.mean(0))


def test_a_diverged_seed_ends_with_a_cross_and_the_others_go_on(noisy: np.ndarray) -> None:
    loss = noisy[:, :, :40].copy()
    loss[1, 3, 17:] = np.nan
    loss[2, :, 5:] = 1e9
    one, two, three = drawn.losses(made(loss))
    assert one.lost == () and len(three.lost) == 5
    assert two.lost == ((3, 16.0, pytest.approx(loss[1, 3, 16])),)
    assert two.seeds[16] == 5 and two.seeds[17] == 4
    np.testing.assert_allclose(two.mean[20], np.delete(loss[1, :, 20], 3).mean())
    assert np.isfinite(three.mean[:5]).all() and np.isnan(three.mean[5:]).all()
    figure = curves([line(c) for c in (one, two, three)], TITLES)
    crosses = [trace for trace in figure.data if trace.marker.symbol == "x"]
    assert [len(trace.x) for trace in crosses] == [1, 5]
    assert crosses[0].hovertext[0] == "<b>b</b><br>seed 3 diverged after step 16"


def test_a_runaway_does_not_squash_the_others() -> None:
    loss = np.ones((2, 2, 30))
    loss[1, :, 10:] = 5e4
    figure = curves([line(c) for c in drawn.losses(made(loss))], TITLES)
    assert figure.layout.yaxis.range == (0, 4.0)
    calm = curves([line(c) for c in drawn.losses(made(loss[:1]))], TITLES)
    assert calm.layout.yaxis.range is None


def test_a_figure_has_thick_means_bands_faint_seeds_and_words(noisy: np.ndarray) -> None:
    lines = [line(curve) for curve in drawn.losses(made(noisy[:2]), smoothing=0.9)]
    figure = curves(lines, TITLES, ghosts={"race 1": lines, "race 2": lines[:1]}, zero="a", limits=(0, 3000))
    assert [t.name for t in figure.data if t.showlegend is not False] == ["race 1", "race 2", "a", "b"]
    named = [trace for trace in figure.data if trace.hovertemplate]
    assert all("%{y" in trace.hovertemplate and "step" in trace.hovertemplate for trace in named)
    assert "N = %{customdata[2]}" in named[-1].hovertemplate
    assert sum(trace.fill == "toself" for trace in figure.data) == 2
    assert figure.layout.xaxis.range == (0, 3000) and figure.layout.annotations[0].text == "a"
    bare = [line(curve) for curve in drawn.losses(made(noisy[:2, :1]), band="none")]
    assert len(curves(bare, TITLES, log="xy").data) == 2


def test_a_band_goes_along_its_low_end_and_back_along_its_high_one_where_it_is_known() -> None:
    low, high = np.array([-1.0, 1.0, 2.0, np.nan]), np.array([3.0, 4.0, 5.0, np.nan])
    curve = Line("a", "#e2914e", "solid", np.arange(4.0), low + 1, low, high, np.array([2, 2, 2, 0]))
    for log, x, y in (("", [0, 1, 2, 2, 1, 0], [-1, 1, 2, 5, 4, 3]), ("y", [1, 2, 2, 1], [1, 2, 5, 4])):
        (band,) = (trace for trace in curves([curve], TITLES, log=log).data if trace.fill == "toself")
        assert list(band.x) == x and list(band.y) == y


def test_standings_begin_with_the_best_and_say_who_has_none() -> None:
    figure = standings(
        ["a", "b", "c"],
        ["#111111"] * 3,
        np.array([0.5, np.nan, 0.2]),
        np.array([0.1, np.nan, np.nan]),
        ["A", "B", "C"],
        "loss",
    )
    assert list(figure.layout.yaxis.categoryarray) == ["b", "a", "c"]  # Plotly counts from below
    assert [bar.text[0] for bar in figure.data] == ["0.2", "0.5 ± 0.1", "diverged ✕"]
    assert [bar.error_x.array[0] for bar in figure.data] == [0.0, 0.1, 0.0]


def test_layers_are_the_means_over_seeds_that_are_still_there() -> None:
    wild = Contestant(None, overrides={"learning_rate": 1e30, "optimizer": "sgd"}, name="wild")
    race = Race(contestants=["weight_norm", wild], seeds=3, steps=9, batch_size=16, evaluate_every=3, depth=2)
    list(race)
    results = race.results()
    found = drawn.gradients(results)
    assert found.rows[:2] == (("weight_norm", "hidden 1"), ("weight_norm", "hidden 1 gain"))
    np.testing.assert_allclose(found.values[0], results.gradients[0][:, 0].mean(0), rtol=1e-6)
    assert np.isnan(found.values[-1][-1])
    spreads = drawn.activations(results, "deviation")
    assert spreads.step.tolist() == [3, 6, 9] and spreads.rows[1] == ("weight_norm", "activation 2")
    np.testing.assert_allclose(spreads.values[1, 2], results.held[2].deviation[0][:, 1].mean())
    figure = layers(found.rows, found.step, found.values, "gradient norm")
    assert figure.data[0].hovertext[1][0].startswith("weight_norm · hidden 1 gain, 0<br>")
    assert len(figure.layout.shapes) == 1


def test_a_strip_is_a_race_for_each_value_and_marks_what_diverged() -> None:
    options: dict[str, Any] = {"contestants": [None, "batch_norm"], "seeds": 2, "steps": 5, "width": 8}
    options |= {"optimizer": "sgd", "task": "mixed_scale", "depth": 3}
    rates = (0.01, 1e30, 0.1)
    run = Strip("learning_rate", rates, options)
    assert len(run) == 15
    for _ in islice(run, 7):
        pass
    early = run.results()
    assert early.done == 1 and np.isnan(early.final[:, 1:]).all()
    list(run)
    found = run.results()
    assert found.done == 3 and run.step == 15
    for place, rate in enumerate(rates):
        race = Race(**options, learning_rate=rate)
        list(race)
        np.testing.assert_array_equal(found.final[:, place], race.results().final())
        np.testing.assert_array_equal(found.lost[:, place], race.results().diverged >= 0)
    assert found.lost[0, 1].all() and np.isnan(found.final[0, 1]).all()
    columns = found.columns()
    assert columns["learning rate"][:4] == [0.01] * 4 and len(columns["seed"]) == 12
    assert (found.seconds > 0).all() and len(found.costs) == 3
    assert columns["parameters of the norm"][:4] == [0, 0, 6 * 8, 6 * 8]
    assert columns["statistics of a batch"][:4] == [0, 0, 3 * 8, 3 * 8]
    mean, lost = np.nanmean(np.where(found.lost, np.inf, found.final), -1), found.lost.sum(-1)
    figure = strip(mean, lost, 2, 2, found.labels, ["0.01", "1e30", "0.1"], "learning rate")
    crosses = [a for a in figure.layout.annotations if "✕ 2" in a.text]
    assert [(a.x, a.y) for a in crosses][:1] == [(1, 0)]
    assert "yet to come" in figure.data[0].hovertext[0][2]
    assert "2 of 2 seeds diverged" in figure.data[0].hovertext[0][1]


def test_the_table_of_curves_is_the_curves(noisy: np.ndarray) -> None:
    found = drawn.losses(made(noisy), "epoch", smoothing=0.9)
    columns = drawn.columns(found, "training loss", "epoch")
    assert list(columns)[:3] == ["contestant", "step", "epoch"]
    np.testing.assert_array_equal(columns["mean training loss"], np.concatenate([c.mean for c in found]))
    assert {len(values) for values in columns.values()} == {3 * 600}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hidden.0.weight", "hidden 1"),
        ("hidden.2.parametrizations.weight.original", "hidden 3"),
        ("hidden.0.parametrizations.weight.0.gain", "hidden 1 gain"),
        ("answer.weight", "answer"),
        ("hidden.0.weight_ih", "hidden 1 weight ih"),
        ("place", "place"),
    ],
)
def test_layers_are_spoken_of_by_their_place(name: str, said: str) -> None:
    assert drawn.spoken(name) == said


def test_a_figure_is_the_same_whether_or_not_plotly_checks_it(
    noisy: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def figures() -> list[Any]:
        lines = [line(curve) for curve in drawn.losses(made(noisy), "step", "standard deviation", 0.5, 100)]
        bars = standings(["a"], ["#3366aa"], np.array([1.0]), np.array([np.nan]), ["words"], "loss")
        return [json.loads(figure.to_json()) for figure in (curves(lines, TITLES, zero="a"), bars)]

    checked = figures()
    monkeypatch.setattr(assemble, "CHECKED", False)
    assert figures() == checked
