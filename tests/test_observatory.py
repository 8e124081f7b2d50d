"""The observatory: what a race records of its gradients, what is made of it, and whether clipping saves the RNN."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from normcore import METHODS, NormcoreError
from normcore.lab import observatory
from normcore.lab.observatory import SCENES, course, good, layers, naive, norms, refusal, verdict
from normcore.lab.race import Contestant, Race
from normcore.lab.results import Results
from normcore.lab.tasks import SPOILS, data
from normcore.lab.teams import _compared

SMALL: dict[str, Any] = {"task": "digits", "model": "mlp", "depth": 2, "width": 8, "batch_size": 16, "optimizer": "sgd"}
FREE = Contestant(name="no clipping")


def clipped(key: str = "clip_by_global_norm", **settings: Any) -> Contestant:
    return Contestant(None, overrides={"clip": key, "clip_settings": settings}, name=key)


def watched(steps: int = 12, **options: Any) -> Results:
    race = Race(
        **SMALL | {"steps": steps, "seeds": 2, "watch": True, "learning_rate": 0.1, "evaluate_every": 50} | options
    )
    list(race)
    return race.results()


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_lengths_before_and_after_are_those_of_all_weights_and_biases(model: str) -> None:
    loose = Contestant(
        None, overrides={"clip": "clip_by_global_norm", "clip_settings": {"max_norm": 1e9}}, name="loose"
    )
    tight = [clipped(max_norm=0.05), loose, FREE]
    for step in (race := Race(**SMALL | {"model": model}, contestants=tight, seeds=2, steps=3, watch=True)):
        assert step.watched is not None
        for place, team in enumerate(race.teams):
            gradients = [p.grad.double() for p in team.learned if p.grad is not None]
            if not team.stacked:
                gradients = [torch.stack(pair) for pair in zip(*_halves(gradients), strict=True)]
            lengths = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt().numpy()
            np.testing.assert_allclose(step.watched.after[place], lengths, rtol=1e-9)
            if place:  # nothing is cut there, so what was before is what is after
                np.testing.assert_allclose(step.watched.before[place], lengths, rtol=1e-6)
                np.testing.assert_allclose(step.watched.scale[place], 1, rtol=1e-6)
        if step.step == 0:
            np.testing.assert_array_equal(step.watched.before[0], step.watched.before[2])
        assert step.watched.fired[0].all() and not step.watched.fired[2].any() and (step.watched.angle < 1e-5).all()
        np.testing.assert_allclose(step.watched.after[0], 0.05, rtol=1e-3)


def _halves(gradients: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    middle = len(gradients) // 2
    return [gradients[:middle], gradients[middle:]]


def test_the_angle_of_two_vectors_is_that_of_geometry() -> None:
    raw = torch.tensor([[10.0, 1.0], [3.0, 4.0], [0.0, 0.0], [1.0, float("inf")]], dtype=torch.float64)
    cut = torch.tensor([[1.0, 1.0], [0.3, 0.4], [0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    before, after, angle, fired = (x.tolist() for x in _compared(raw, cut))
    assert before[:3] == pytest.approx([101**0.5, 5, 0]) and after[:3] == pytest.approx([2**0.5, 0.5, 0])
    assert np.degrees(angle[:3]) == pytest.approx([45 - np.degrees(np.arctan(0.1)), 0, 0], abs=1e-6)
    assert np.isnan(angle[3]) and fired == [True, True, False, True]
    huge = torch.full((1, 4), 1e200, dtype=torch.float64)
    assert _compared(huge, huge)[0].item() == pytest.approx(2e200)


def test_watching_changes_no_bit_and_twins_stay_equal() -> None:
    plain = Race(**SMALL, contestants=[FREE, clipped(max_norm=0.1)], seeds=2, steps=8, learning_rate=0.1)
    list(plain)
    one = watched(8, contestants=[FREE, clipped(max_norm=0.1)])
    np.testing.assert_array_equal(plain.results().loss, one.loss)
    assert plain.results().watched is None
    twins = watched(8, contestants=[Contestant(None, name="a"), clipped(max_norm=0.1), Contestant(None, name="b")])
    assert one.watched is not None and twins.watched is not None
    for name in ("before", "after", "angle", "fired"):
        mine = getattr(twins.watched, name)
        np.testing.assert_array_equal(mine[0], mine[2])
        np.testing.assert_array_equal(mine[:2], getattr(one.watched, name))
    assert (twins.loss[0] == twins.loss[2]).all() and not twins.watched.fired[0].any()


def test_a_watched_race_can_be_saved_and_gone_on_with() -> None:
    options = SMALL | {"contestants": [clipped(max_norm=0.1)], "seeds": 2, "steps": 8, "watch": True}
    options |= {"spoil": "scaled_inputs", "spoil_every": 3}
    whole, first, second = (Race(**options) for _ in range(3))
    list(whole)
    list(islice(first, 3))
    second.load_state_dict(first.state_dict())
    list(second)
    for name in ("before", "after", "angle", "fired"):
        found, expected = (getattr(race.results().watched, name) for race in (second, whole))
        np.testing.assert_array_equal(found, expected)
    assert Race(**json.loads(json.dumps(whole.manifest))).manifest == whole.manifest


@pytest.mark.parametrize("kind", SPOILS)
def test_bad_batches_are_the_same_for_all_and_others_are_untouched(kind: str) -> None:
    race = Race(**SMALL, contestants=[FREE, clipped()], seeds=(0, 5), steps=200, spoil=kind, spoil_every=10)
    bad = race._bad
    assert bad is not None and not bad[:, :10].any()
    assert 0.04 < bad[:, 10:].mean() < 0.17 and (bad[0] != bad[1]).any()
    again = Race(**SMALL, contestants=[FREE], seeds=(5,), steps=200, spoil=kind, spoil_every=10)
    assert again._bad is not None and (again._bad[0] == bad[1]).all()
    step = int(np.flatnonzero(bad[0] & ~bad[1])[0])
    chosen = race._batches(step, 16)
    x, y = race._examples(chosen, step)
    twice = race._examples(chosen, step)
    assert torch.equal(x, twice[0]) and torch.equal(y, twice[1])
    assert torch.equal(x[1], race.data.x[chosen[1]]) and torch.equal(y[1], race.data.y[chosen[1]])
    if kind == "shuffled_labels":
        assert torch.equal(x[0], race.data.x[chosen[0]]) and sorted(y[0]) == sorted(race.data.y[chosen[0]])
        assert not torch.equal(y[0], race.data.y[chosen[0]])
    else:
        assert torch.equal(y[0], race.data.y[chosen[0]]) and not torch.equal(x[0], race.data.x[chosen[0]])
    if kind == "scaled_inputs":
        assert torch.equal(x[0], 30 * race.data.x[chosen[0]])
    np.testing.assert_array_equal(race.data.x, data("digits").x)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"spoil": "nothing"}, "spoil='nothing' must be one of"), ({"spoil_every": 0}, "spoil_every=0")],
)
def test_bad_batches_that_cannot_be_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(NormcoreError, match=words):
        Race(**SMALL, **options)


def test_every_gradient_method_races_or_says_why_not() -> None:
    keys = [key for key, method in METHODS.items() if method.family == "gradient"]
    offered = [key for key in keys if not refusal(key)]
    assert {"clip_by_value", "clip_by_global_norm"} <= set(offered)
    found = watched(3, contestants=[clipped(key) for key in offered], seeds=1)
    assert np.isfinite(found.loss).all() and found.watched is not None
    for key in set(keys) - set(offered):
        assert "every example by itself" in refusal(key)
        with pytest.raises(NormcoreError, match="every example by itself"):
            Race(**SMALL, contestants=[clipped(key)])


def test_layers_keep_the_largest_of_a_bin_and_a_robust_range() -> None:
    found = watched(30, contestants=[FREE])
    found.gradients[0][0, 1, 7] = 1e9
    found.gradients[0][0, 2, 3:6] = np.nan
    heat = layers(found, 0, 0, most=10)
    assert heat.width == 3 and heat.start.tolist() == list(range(0, 30, 3))
    for row, values in enumerate(found.gradients[0][0]):
        for place, start in enumerate(heat.start.tolist()):
            part = [v for v in values[start : start + 3].tolist() if np.isfinite(v)]
            assert heat.values[row, place] == max(part) if part else np.isnan(heat.values[row, place])
    assert heat.limits[1] < 1e9
    assert heat.names == ("hidden 1", "hidden 2", "answer")


def test_the_course_is_what_was_recorded_and_keeps_the_peaks() -> None:
    found = watched(120, contestants=[clipped(max_norm=0.3)], spoil="scaled_inputs", spoil_every=20)
    assert found.watched is not None and found.bad is not None
    whole = course(found, 0, 1)
    np.testing.assert_array_equal(whole.before, found.watched.before[0, 1])
    np.testing.assert_array_equal(whole.bad, np.flatnonzero(found.bad[1]))
    fired = found.watched.fired[0, 1]
    np.testing.assert_array_equal(whole.events, np.flatnonzero(fired))
    np.testing.assert_allclose(whole.rate, [fired[max(0, i - 49) : i + 1].mean() for i in range(120)])
    np.testing.assert_allclose(whole.scale, whole.after / whole.before)
    few = course(found, 0, 1, most=20)
    assert len(few.step) <= 40 and whole.before.max() in few.before and {0, 119} <= set(few.step.tolist())
    assert [len(column) for column in few.columns().values()] == [len(few.step)] * 8
    with pytest.raises(NormcoreError, match="watch=True"):
        course(Race(**SMALL, contestants=[FREE], steps=3).results(), 0, 0)


def test_what_came_after_a_divergence_is_not_shown() -> None:
    wild = Contestant(None, overrides={"learning_rate": 1e30}, name="wild")
    found = watched(12, contestants=[wild])
    at = found.diverged[0]
    assert (at > 0).all()
    run = course(found, 0, 0)
    assert run.lost == at[0] and run.step[-1] == at[0]
    assert len(norms(found, 0)) == sum(at + 1)


def test_layers_end_at_the_divergence() -> None:
    found = watched(12, contestants=[Contestant(None, overrides={"learning_rate": 1e30}, name="wild")])
    lost = int(found.diverged[0, 0])
    assert 0 < lost < 11
    found.gradients[0][0, :, : lost + 1] = 2.0
    found.gradients[0][0, :, lost + 1 :] = 1.0
    values = layers(found, 0, 0).values
    assert (values[:, : lost + 1] == 2.0).all() and np.isnan(values[:, lost + 1 :]).all()


def test_bad_batches_are_no_part_of_the_final_loss() -> None:
    loss = np.ones((2, 2, 100))
    bad = np.zeros((2, 100), bool)
    bad[0, [91, 95]] = bad[1, 90:] = True
    loss[:, bad] = 50.0
    loss[1, 0, 99] = 1e12
    found = replace(watched(2, contestants=[FREE, clipped()]), loss=loss, bad=bad)
    np.testing.assert_allclose(good(found).final(), [[1, 50], [np.nan, 50]])
    assert good(found).summary()[0].final == 25.5
    np.testing.assert_allclose(good(replace(found, bad=None)).final()[0], found.final()[0])
    told = verdict(found, [True, False], 2.0)
    assert told[0].endswith("1 learned something; mean loss at the end over good batches 25.5.")


def test_a_constant_answer_has_the_variance_or_the_entropy() -> None:
    y = data("adding").y.double()
    assert naive("adding") == pytest.approx(float(((y - y.mean()) ** 2).mean()))
    assert naive("adding") == pytest.approx(1 / 6, rel=0.05), "two uniform numbers"
    assert naive("digits") == pytest.approx(np.log(10), rel=0.01)


def test_on_the_adding_problem_the_unclipped_rnn_diverges_and_the_clipped_one_does_not() -> None:
    scene = SCENES["adding"]
    contestants = [FREE, clipped(max_norm=scene.threshold)]
    race = Race(**scene.race, contestants=contestants, seeds=6, steps=30, evaluate_every=30, watch=True)
    list(race)
    found = race.results()
    free, held = (found.diverged >= 0).sum(1).tolist()
    assert free >= 4 and held == 0, found.diverged
    told = verdict(found, [True, False], naive("adding"))
    assert told[0].startswith(f"Without clipping, {free} of 6 seeds diverged (at step 1")
    assert told[1].startswith("With clip_by_global_norm, 0 of 6 seeds diverged")
    assert told[-1].startswith("So most runs diverge without clipping and none with clip_by_global_norm")
    assert found.watched is not None
    assert np.nanmax(found.watched.before[0]) > 1e6 and found.watched.before[1].max() < 1e3


def made(loss: list[list[float]], diverged: list[list[bool]]) -> Results:
    """Results of races that ended so."""
    final = np.repeat(np.array(loss, dtype=float)[:, :, None], 10, -1)
    final[np.array(diverged)] = np.inf
    labels = ("none", "clip")
    return Results(labels, (0, 1, 2), final, (), (), (), np.zeros(2), (0, 0), 1e6)


@pytest.mark.parametrize(
    ("loss", "gone", "last"),
    [
        (
            [[1, 1, 1], [1, 1, 1]],
            [[1, 1, 1], [0, 0, 0]],
            "So most runs diverge without clipping and none with clip, though",
        ),
        ([[1, 1, 1], [0.5, 1, 1]], [[1, 1, 1], [0, 0, 0]], "So most runs diverge without clipping and none with clip."),
        ([[1, 1, 1], [1, 1, 1]], [[1, 0, 0], [0, 0, 0]], "So clip saves 1 of 1 runs from diverging here."),
        (
            [[1, 1, 1], [0.5, 0.5, 1]],
            [[0, 0, 0], [0, 0, 0]],
            "So clipping decides who learns here: clip on 2 more of 3",
        ),
        ([[0.5, 1, 1], [0.5, 1, 1]], [[0, 0, 0], [0, 0, 0]], "So clipping saved no run here."),
    ],
)
def test_the_verdict_follows_the_numbers(loss: Any, gone: Any, last: str) -> None:
    told = verdict(made(loss, np.array(gone, bool).tolist()), [True, False], 1.0)
    assert told[-1].startswith(last)
    assert told[0].startswith(f"Without clipping, {sum(gone[0])} of 3 seeds diverged")


def test_the_record_is_the_run(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    observatory.record(path, steps=5)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    options = dict(SCENES["digits"].race) | {"spoil": "scaled_inputs"}
    race = Race(**options, contestants=[None], seeds=1, steps=5, watch=True)
    expected = [step.watched.before[0, 0] for step in race if step.watched is not None]
    np.testing.assert_allclose([row["grad_norm"] for row in rows], expected, rtol=1e-5)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    sample = [json.loads(s) for s in (Path(__file__).parents[1] / "explorer/measured/gradients.jsonl").open()]
    np.testing.assert_allclose([row["grad_norm"] for row in sample[:5]], expected, rtol=1e-2)
