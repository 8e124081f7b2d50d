"""The race engine: fair by construction, the same as a plain loop, and honest about what it measured."""

import csv
import json
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from normcore import NormcoreError
from normcore.lab import race as lab
from normcore.lab import tasks
from normcore.lab.cost import cost
from normcore.lab.load import load
from normcore.lab.nets import MODELS, Plan, build, fitting
from normcore.lab.race import Contestant, Race
from normcore.lab.results import Held, Results, _holm, course
from normcore.lab.tasks import TASKS, data, table
from normcore.lab.teams import SCHEDULES

SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"task": "threshold_sum", "width": 12, "depth": 2},
    "cnn": {"task": "digits", "width": 6, "depth": 2},
    "residual_cnn": {"task": "digits", "width": 6},
    "rnn": {"task": "adding", "width": 8},
    "irnn": {"task": "adding", "width": 8},
    "lstm": {"task": "memory", "width": 8},
    "gru": {"task": "adding", "width": 8},
    "transformer": {"task": "memory", "width": 8},
}
NORMS = {
    "rnn": "layer_norm",
    "irnn": "layer_norm",
    "lstm": "layer_norm",
    "gru": "layer_norm",
    "transformer": "layer_norm",
}


def run(steps: int = 6, **options: Any) -> Results:
    """A short race to its end."""
    race = Race(**{"seeds": 2, "steps": steps, "batch_size": 16, "evaluate_every": 3} | options)
    for _ in race:
        pass
    return race.results()


def plain_loop(
    task: str, plan: Plan, seed: int, batches: Sequence[torch.Tensor], optimizer_of: Callable[..., Any]
) -> list[float]:
    """The loop that everybody writes, for one net."""
    examples = data(task)
    net = build(examples, plan, seed).train()
    optimizer = optimizer_of(net.parameters(), lr=0.01)
    losses = []
    for chosen in batches:
        optimizer.zero_grad()
        answer = net(examples.x[chosen])
        wanted = examples.y[chosen]
        if examples.classes:
            loss = nn.functional.cross_entropy(answer, wanted)
        else:
            loss = nn.functional.mse_loss(answer[:, 0], wanted)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("normed", [False, True])
def test_a_race_is_a_plain_loop_for_every_seed(model: str, normed: bool) -> None:
    options = SMALL[model] | {"model": model, "seeds": (3, 8), "steps": 5, "batch_size": 16, "learning_rate": 0.01}
    norm = NORMS.get(model, "batch_norm") if normed else None
    # Adam makes much of rounding where gradients are tiny: one model is enough for it.
    optimizers = {"sgd": torch.optim.SGD} | ({"adam": torch.optim.Adam} if model == "mlp" else {})
    plan = Plan(model, norm, depth=options.get("depth", 1), width=options["width"])
    for name, optimizer in optimizers.items():
        race = Race(**options, contestants=[norm], optimizer=name)
        losses = run(**options, contestants=[norm], optimizer=name).loss
        for i, seed in enumerate(race.seeds):
            batches = [race._batches(step, 16)[i] for step in range(5)]
            expected = plain_loop(options["task"], plan, seed, batches, optimizer)
            np.testing.assert_allclose(losses[0, i], expected, rtol=2e-4)


def test_the_classic_comparison_is_that_of_a_plain_loop() -> None:
    """Threshold of a sum, 12 seeds, 50 epochs: BatchNorm is ahead early and restless late, GroupNorm ends lowest."""
    norms = {"batch_norm": nn.BatchNorm1d, "layer_norm": nn.LayerNorm, "group_norm": partial(nn.GroupNorm, 5)}
    seeds, steps, size = 12, 800, 64
    race = Race(contestants=["batch_norm", "layer_norm", ("group_norm", {"num_groups": 5})], seeds=seeds, steps=steps)
    list(race)
    ours = race.results()
    examples, epochs = data("threshold_sum"), steps // 16
    loss = np.empty((3, seeds, steps))
    for i, norm in enumerate(norms.values()):
        for seed in range(seeds):
            torch.manual_seed(100 * i + seed)
            net = nn.Sequential(nn.Linear(10, 50), norm(50), nn.ReLU(), nn.Linear(50, 2))
            adam = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
            order = torch.cat([torch.randperm(1000) for _ in range(epochs)])
            batches = [part for epoch in order.split(1000) for part in epoch.split(size)]
            for step, batch in enumerate(batches):
                adam.zero_grad()
                found = nn.functional.cross_entropy(net(examples.x[batch]), examples.y[batch])
                found.backward()
                adam.step()
                loss[i, seed, step] = found.item()
    theirs = Results(tuple(norms), ours.seeds, loss, (), (), (), np.zeros(3), (0,) * 3, 1e6)
    for one, other in zip(ours.summary(), theirs.summary(), strict=True):
        assert abs(one.final - other.final) < np.hypot(one.interval, other.interval)
    for results in (ours, theirs):
        batch, layer, group = results.summary(baseline=1)
        assert (results.loss[0, :, :80].mean(1) < results.loss[1:, :, :80].mean(2)).all()  # the first five epochs
        assert batch.fluctuation > 2 * max(layer.fluctuation, group.fluctuation)
        assert batch.wins == 0 and batch.p < 0.001
        assert group.difference < 0 and group.p < 0.05


def test_a_larger_batch_calms_batch_norm() -> None:
    sizes = [Contestant("batch_norm", overrides={"batch_size": size}, name=str(size)) for size in (64, 512)]
    race = Race(contestants=sizes, seeds=12, steps=400)
    list(race)
    small, large = race.results().summary()
    assert small.fluctuation > 2 * large.fluctuation
    assert course([small, large]).endswith(f"that of 512 least, by {large.fluctuation:.2g}.")


@pytest.mark.parametrize(("model", "cell"), [("rnn", nn.RNNCell), ("lstm", nn.LSTMCell), ("gru", nn.GRUCell)])
def test_a_recurrent_net_without_norms_is_the_one_of_torch(model: str, cell: type[nn.Module]) -> None:
    examples = data("adding")
    net = build(examples, Plan(model, width=5), 1)
    theirs = cell(2, 5)
    theirs.load_state_dict(net.get_submodule("hidden.0").state_dict())
    state = None
    for step in examples.x[:4].unbind(1):
        state = theirs(step, state)
    last = state[0] if isinstance(state, tuple) else state
    torch.testing.assert_close(net.get_submodule("answer")(last), net(examples.x[:4]))


@pytest.mark.parametrize("model", SMALL)
def test_first_weights_are_drawn_as_asked_and_have_no_biases_then(model: str) -> None:
    examples, width = data(SMALL[model]["task"]), 16
    net = build(examples, Plan(model, width=width, depth=2, init="orthogonal"), 0)
    again, other = (build(examples, Plan(model, width=width, depth=2, init="orthogonal"), s) for s in (0, 1))
    drawn = [(name, p.detach()) for name, p in net.named_parameters() if name != "place"]
    for name, parameter in drawn:
        if parameter.ndim == 1:
            assert not parameter.any()
            continue
        inside = "hidden" in name and model in ("rnn", "irnn", "lstm", "gru")
        gates = parameter.split(width) if inside else (parameter,)
        for gate in gates:
            values = torch.linalg.svdvals(gate.flatten(1))
            torch.testing.assert_close(values, torch.ones_like(values))
        assert torch.equal(parameter, again.get_parameter(name))
        assert torch.equal(parameter, other.get_parameter(name)) == (model == "irnn" and "weight_hh" in name)


def test_a_norm_starts_from_the_same_drawn_weights() -> None:
    plans = [Plan("mlp", norm, width=12, depth=2, init="he") for norm in (None, "batch_norm", "weight_norm")]
    nets = [build(data("threshold_sum"), plan, 3) for plan in plans]
    for layers in zip(*(net.get_submodule("hidden").children() for net in nets), strict=True):
        for one in layers[1:]:
            torch.testing.assert_close(one.weight, layers[0].weight)
    assert float(nets[0].get_parameter("hidden.1.weight").detach().std()) == pytest.approx((2 / 12) ** 0.5, rel=0.15)


def test_costs_are_those_that_can_be_counted_by_hand() -> None:
    found = {
        norm: cost(data("threshold_sum"), Plan("mlp", norm, settings, width=20, depth=2), 16)
        for norm, settings in [(None, {}), ("batch_norm", {}), ("layer_norm", {}), ("group_norm", {"num_groups": 4})]
    }
    assert [one.parameters for one in found.values()] == [0, 80, 80, 80]
    assert [one.statistics for one in found.values()] == [0, 2 * 20, 2 * 16, 2 * 16 * 4]
    weights = cost(data("threshold_sum"), Plan("mlp", "weight_norm", width=20, depth=2), 16)
    assert (weights.parameters, weights.statistics) == (40, 40)
    cells = cost(data("adding"), Plan("rnn", "layer_norm", width=8), 4)
    steps = data("adding").x.shape[1]
    assert cells.statistics % (4 * steps) == 0 and cells.statistics > 0


def test_twins_are_exactly_equal_and_nobody_feels_a_newcomer() -> None:
    twins = run(contestants=[Contestant("batch_norm", name="one"), Contestant("batch_norm", name="other")])
    assert (twins.loss[0] == twins.loss[1]).all()
    pair = run(contestants=["batch_norm", "layer_norm"])
    more = run(contestants=["group_norm", "batch_norm", "weight_norm", "layer_norm"])
    np.testing.assert_array_equal(pair.loss[0], more.loss[1])
    np.testing.assert_array_equal(pair.loss[1], more.loss[3])
    assert (pair.loss[0] != pair.loss[1]).any()


@pytest.mark.parametrize(
    "norm", ["batch_norm", "weight_norm", "weight_standardization", "scaled_weight_standardization", "spectral_norm"]
)
@pytest.mark.parametrize(("model", "task"), [("mlp", "threshold_sum"), ("cnn", "digits")])
def test_all_start_from_the_same_effective_weights(norm: str, model: str, task: str) -> None:
    examples = data(task)
    settings = {"n_power_iterations": 50} if norm == "spectral_norm" else {}
    plain, other = (build(examples, Plan(model, key, s), 5) for key, s in ((None, {}), (norm, settings)))
    for one, two in zip(plain.get_submodule("hidden"), other.get_submodule("hidden"), strict=True):
        torch.testing.assert_close(one.weight, two.weight, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one.bias, two.bias)
    assert not torch.equal(plain.answer.weight, build(examples, Plan(model), 6).answer.weight)


def test_results_say_how_far_a_method_on_weights_starts_from_the_others() -> None:
    keys = [None, "batch_norm", "weight_norm", "weight_standardization", "orthogonal_parametrization"]
    near = run(1, contestants=keys[:-1], width=6).apart
    assert near[:2] == (0.0, 0.0) and max(near) < 1e-4
    (far,) = run(1, contestants=keys[-1:], width=6).apart
    plain, other = (build(data("threshold_sum"), Plan("mlp", key, width=6), 0) for key in (None, keys[-1]))
    one, two = (net.get_submodule("hidden.0").weight.detach() for net in (plain, other))
    assert far == pytest.approx(float((one - two).norm() / one.norm())) and far > 0.01


def test_every_example_comes_once_an_epoch_in_an_order_of_the_seed() -> None:
    race = Race(seeds=(0, 1), batch_size=64, steps=100)
    total = len(race.data.x)
    stream = torch.cat([race._batches(step, 64)[0] for step in range(32)])
    for epoch in range(2):
        assert sorted(stream[epoch * total : (epoch + 1) * total].tolist()) == list(range(total))
    assert not torch.equal(*race._batches(0, 64))
    alone = Race(seeds=(1,), batch_size=64, steps=100)
    assert torch.equal(race._batches(20, 64)[1], alone._batches(20, 64)[0])
    for step in (0, 90, 3):  # far apart in epochs, as teams with batches of other sizes are
        assert torch.equal(race._batches(step, 64)[0], Race(seeds=1, batch_size=64, steps=100)._batches(step, 64)[0])
    in_order = Race("sorted_digits", "mlp", seeds=2)
    assert in_order._batches(1, 64).tolist() == [list(range(64, 128))] * 2
    assert (in_order.data.y.diff() >= 0).all()


def test_a_race_can_be_stopped_saved_and_gone_on_with() -> None:
    options: dict[str, Any] = {
        "contestants": ["batch_norm", "spectral_norm"],
        "seeds": 2,
        "steps": 8,
        "batch_size": 16,
        "evaluate_every": 4,
        "clip": "clip_by_global_norm",
    }
    whole = run(**options)
    first = Race(**options)
    list(islice(first, 3))
    second = Race(**options)
    second.load_state_dict(first.state_dict())
    list(first)
    list(second)
    for race in (first, second):
        np.testing.assert_array_equal(race.results().loss, whole.loss)
        np.testing.assert_array_equal(race.results().held[-1].loss, whole.held[-1].loss)
    with pytest.raises(NormcoreError, match="saved race"):
        Race(contestants=["batch_norm"]).load_state_dict(first.state_dict())


def test_a_diverged_seed_stays_on_record_and_harms_nobody() -> None:
    wild = Contestant(None, overrides={"learning_rate": 1e6, "optimizer": "sgd", "depth": 4, "activation": "linear"})
    together = run(12, task="mixed_scale", contestants=[wild, "layer_norm"])
    alone = run(12, task="mixed_scale", contestants=["layer_norm"])
    assert (together.diverged[0] > 0).all()
    assert (together.diverged[1] == -1).all()
    np.testing.assert_array_equal(together.loss[1], alone.loss[0])
    row, other = together.summary(baseline=1)
    assert row.diverged == 2 and row.seeds == 0 and row.pairs == 0
    assert other.diverged == 0 and np.isfinite(other.final)
    assert "no seed of both" in together.verdict(baseline=1)[0]
    marks = together.columns()["diverged"]
    assert sum(marks) == sum(12 - together.diverged[0])


def test_weights_without_singular_values_have_diverged_and_the_race_goes_on() -> None:
    wild = Contestant("spectral_norm_exact", overrides={"learning_rate": 1e30, "optimizer": "sgd"})
    together = run(6, contestants=[wild, "layer_norm"])
    assert (together.diverged[0] >= 0).all()
    assert np.isnan(together.held[-1].loss[0]).all() and together.held[-1].mean[0].shape == (2, 1)
    np.testing.assert_array_equal(together.loss[1], run(6, contestants=["layer_norm"]).loss[0])


@pytest.mark.parametrize(("model", "task"), [("mlp", "threshold_sum"), ("cnn", "digits")])
def test_one_seed_without_singular_values_takes_no_other_with_it(model: str, task: str) -> None:
    options: dict[str, Any] = {"task": task, "model": model, "width": 6, "contestants": ["spectral_norm_exact"]}
    options |= {"seeds": 3, "batch_size": 16, "watch": True}
    whole = run(3, **options)
    race = Race(steps=3, **options)
    next(race)
    with torch.no_grad():
        lost = next(p for p in race.teams[0]._alone(0) if p.ndim > 1)
        lost.fill_(torch.nan)
    list(race)
    results = race.results()
    assert results.diverged.tolist() == [[1, -1, -1]]
    np.testing.assert_allclose(results.loss[0, 1:], whole.loss[0, 1:], rtol=1e-5)
    assert np.isnan(results.held[-1].loss[0, 0]) and np.isnan(results.gradients[0][0, :, 1:]).all()
    np.testing.assert_allclose(results.held[-1].loss[0, 1:], whole.held[-1].loss[0, 1:], rtol=1e-5)
    assert results.watched is not None and np.isnan(results.watched.before[0, 0, 1:]).all()
    assert np.isfinite(results.watched.before[0, 1:]).all() and not results.watched.fired.any()


@pytest.mark.parametrize("model", ["mlp", "cnn", "lstm", "transformer"])
def test_every_method_that_fits_a_model_takes_a_step(model: str) -> None:
    options = SMALL[model] | {"model": model, "seeds": 2, "steps": 1, "batch_size": 16, "width": 8}
    keys = fitting(model)
    assert len(keys) == len(set(keys)) > 12
    assert np.isfinite(run(**options, contestants=[None, *keys]).loss).all()


def test_a_manifest_makes_the_same_race_again(tmp_path: Path) -> None:
    fast = Contestant("group_norm", {"num_groups": 5}, {"learning_rate": 0.01}, "fast")
    first = run(contestants=[fast, None], seeds=(4, 7), clip="clip_by_value", clip_settings={"clip_value": 0.1})
    first.to_json(tmp_path / "race.json")
    told = json.loads((tmp_path / "race.json").read_text())
    again = Race(**told["race"])
    list(again)
    np.testing.assert_array_equal(first.loss, again.results().loss)
    assert again.results().labels == ("fast", "none") and again.manifest == told["race"]
    assert run(task=table(np.eye(20), np.arange(20.0)), contestants=[None], batch_size=4).race["task"] is None


def made(loss: np.ndarray, held: tuple[Held, ...] = ()) -> Results:
    """Results as if these losses had been measured."""
    count, seeds, _ = loss.shape
    labels = tuple("abcd"[:count])
    return Results(labels, tuple(range(seeds)), loss, (), (), held, np.zeros(count), (0,) * count, 1e6)


def test_the_summary_is_what_its_words_say() -> None:
    generator = np.random.default_rng(0)
    loss = generator.normal(1.0, 0.1, (3, 6, 40))
    loss[1] -= 0.3
    results = made(loss)
    final = loss[:, :, -4:].mean(-1)
    rows = results.summary()
    for i, row in enumerate(rows):
        low, high = stats.t.interval(0.95, 5, final[i].mean(), stats.sem(final[i]))
        assert (row.final, row.interval) == pytest.approx((final[i].mean(), (high - low) / 2))
    assert rows[1].difference == pytest.approx((final[1] - final[0]).mean())
    assert rows[1].wins == 6 and rows[0].wins == 0
    raw = [stats.ttest_rel(final[i], final[0]).pvalue for i in (1, 2)]
    assert rows[1].p == pytest.approx(min(1, 2 * min(raw)))
    assert results.verdict()[0].startswith("b ends lower than a on 6 of 6 seeds (−0.3")
    assert "too little to tell them apart" in results.verdict()[1]
    early = loss[:, :, :4].mean((1, 2))
    assert [row.early for row in rows] == pytest.approx(early)
    assert course(rows).startswith(f"Over the first tenth of the steps b is lowest (mean loss {early[1]:.3g}; then ")
    rough = max(rows, key=lambda row: row.fluctuation)
    assert f"the loss of {rough.label} fluctuates most" in course(rows)
    assert not course(rows[:1])


def test_the_verdict_on_equal_contestants_is_that_they_are_equal() -> None:
    loss = np.random.default_rng(0).normal(1.0, 0.1, (3, 4, 40))
    loss[1] = loss[0]
    loss[2, 1:] = loss[0, 1:]
    loss[2, 0] = loss[0, 0] - 0.3
    twin, other = made(loss).verdict()
    assert twin == "b and a are equal to the last bit on all 4 seeds."
    assert other.startswith("c ends lower than a on 1 of 4 seeds, equal on 3 (−0.0")
    loss[2, 0] = loss[0, 0] + 0.3
    assert made(loss).verdict()[1].startswith("c ends higher than a on 1 of 4 seeds, equal on 3 (+0.0")
    assert made(loss[:2, :1]).verdict() == ("b and a are equal to the last bit on the one seed there is.",)


def test_holm_is_the_textbook_example() -> None:
    assert _holm([0.01, 0.04, 0.03, 0.005, float("nan")])[:4] == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_what_is_held_out_counts_the_seeds_that_came_through() -> None:
    loss = np.ones((2, 3, 20))
    loss[1, 2, 12:] = 1e7
    loss[0, :, 3] = np.nan
    numbers = np.array([[1.0, 2.0, 3.0], [4.0, 6.0, 500.0]])
    gone, row = made(loss, (Held(20, numbers, numbers / 1000, (), ()),)).summary()
    assert (row.seeds, row.held_loss, row.held_accuracy) == (2, 5.0, 0.005)
    assert np.isnan([gone.held_loss, gone.held_accuracy]).all()


def test_fluctuation_leaves_a_straight_descent_out() -> None:
    line = np.broadcast_to(np.linspace(2, 1, 60), (2, 60))
    wave = 0.1 * np.resize([1.0, -1.0], 60)
    calm, rough = made(np.stack([line, line + wave])).summary()
    assert calm.fluctuation == pytest.approx(0, abs=1e-12)
    assert rough.fluctuation == pytest.approx(0.1, rel=0.3)
    assert made(np.stack([line, line + wave])).summary(target=1.5)[0].steps_to_target == pytest.approx(31, abs=2)


def test_the_file_holds_the_plotted_numbers(tmp_path: Path) -> None:
    results = run(contestants=["batch_norm", None])
    results.to_csv(tmp_path / "race.csv")
    results.to_json(tmp_path / "race.json")
    rows = list(csv.DictReader((tmp_path / "race.csv").open()))
    again = np.array([float(row["loss"]) for row in rows]).reshape(results.loss.shape)
    np.testing.assert_array_equal(again, results.loss)
    assert [rows[0]["contestant"], rows[-1]["contestant"]] == ["batch_norm", "none"]
    assert '"label": "none"' in (tmp_path / "race.json").read_text()


def test_clipping_takes_every_seed_by_itself() -> None:
    free = run(contestants=["batch_norm"], optimizer="sgd", learning_rate=0.1)
    loose = run(
        contestants=["batch_norm"],
        optimizer="sgd",
        learning_rate=0.1,
        clip="clip_by_global_norm",
        clip_settings={"max_norm": 1e9},
    )
    tight = run(
        contestants=["batch_norm"],
        optimizer="sgd",
        learning_rate=0.1,
        clip="clip_by_global_norm",
        clip_settings={"max_norm": 1e-9},
    )
    np.testing.assert_allclose(free.loss, loose.loss)
    still = run(contestants=["batch_norm"], optimizer="sgd", learning_rate=0.0)
    np.testing.assert_allclose(tight.loss, still.loss, rtol=1e-5)
    assert np.abs(free.loss - tight.loss).max() > 1e-4


def test_a_clipping_that_draws_numbers_draws_others_for_each_seed() -> None:
    def noise(seeds: Sequence[int], **settings: Any) -> np.ndarray:
        options = {"contestants": [None], "optimizer": "sgd", "clip": "gradient_noise", "clip_settings": settings}
        race = Race(seeds=seeds, steps=1, batch_size=16, watch=True, **options)
        given: list[torch.Tensor] = []
        whole = race.teams[0]._whole
        race.teams[0]._whole = lambda: given.append(whole()) or given[-1]  # type: ignore[method-assign, func-returns-value]
        next(race)
        return (given[1] - given[0]).numpy()

    one, other = noise((0, 1))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.3
    np.testing.assert_allclose(noise((1,))[0], other, atol=1e-6)
    np.testing.assert_allclose(noise((0,), seed=1)[0], other, atol=1e-6)


@pytest.mark.parametrize("key", TASKS)
def test_a_task_is_the_same_for_everybody_and_holds_something_out(key: str) -> None:
    one, two, other = data(key), data(key), data(key, seed=1)
    assert torch.equal(one.x, two.x) and torch.equal(one.y, two.y)
    assert not torch.equal(one.x, other.x)
    assert one.kind == TASKS[key].kind
    assert len(one.held_x) >= 200 and len(one.held_x) == len(one.held_y)
    if one.classes:
        assert set(one.y.tolist()) <= set(range(one.classes))
    shown = {tuple(x.flatten().tolist()) for x in one.x}
    assert not any(tuple(x.flatten().tolist()) in shown for x in one.held_x[:50])


def test_the_text_is_the_story_and_its_letters_are_numbered_once() -> None:
    story = (Path(tasks.__file__).parent / "alice.txt").read_text(encoding="utf-8").lower()
    letters, examples = sorted(set(story)), data("text")
    for x, y in zip(examples.x[:20], examples.y[:20], strict=True):
        assert "".join(letters[at] for at in [*x.argmax(-1), y]) in story
        assert (x.sum(-1) == 1).all()
    assert tasks._story()[0] is tasks._story()[0]


@pytest.mark.parametrize("key", ["threshold_sum", "moons", "mixed_scale", "adding"])
def test_first_weights_have_nothing_to_do_with_the_examples(key: str) -> None:
    examples = data(key)
    values = examples.x.double().flatten()[:400]
    model = {"sequence": "rnn"}.get(examples.kind, "mlp")
    for seed in range(4):
        weights = next(p for p in build(examples, Plan(model), seed).parameters() if p.ndim > 1)
        weights = weights.detach().double().flatten()
        count = min(len(weights), len(values))
        for axes in (values[:count], values[::2][: count // 2]):  # also if every second number is a mark
            found = np.corrcoef(weights[: len(axes)].numpy(), axes.numpy())[0, 1]
            assert abs(found) < 4 / len(axes) ** 0.5


def test_weights_order_data_and_bad_batches_each_draw_from_a_stream_of_their_own() -> None:
    def numbers(start: int) -> tuple[float, ...]:
        return tuple(torch.rand(3, generator=torch.Generator().manual_seed(start)).tolist())

    streams = [{numbers(start + at) for at in range(20)} for start in (0, tasks.DATA, lab.ORDER, lab.SPOILING)]
    assert len(set.union(*streams)) == sum(map(len, streams)) == 80


def test_schedules_start_and_end_where_they_should() -> None:
    assert [SCHEDULES["cosine"](share) for share in (0.0, 1.0)] == pytest.approx([1.0, 0.0], abs=1e-6)
    assert [SCHEDULES["warmup"](share) for share in (0.0, 0.05, 0.5)] == pytest.approx([0.0, 0.5, 1.0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": "nothing"}, "no task is called 'nothing'"),
        ({"model": "nothing"}, "no model is called 'nothing'"),
        ({"contestants": ["nothing"]}, "no normalization method is called 'nothing'"),
        ({"contestants": ["clip_by_value"]}, "no normalization method is called 'clip_by_value'"),
        ({"contestants": []}, "there is no contestant"),
        ({"contestants": ["batch_norm", "batch_norm"]}, "two contestants are called 'batch_norm'"),
        ({"contestants": [7]}, "7 is no contestant"),
        ({"contestants": ["switchable_norm"]}, "layout='vector' is not defined"),
        ({"contestants": ["adain"], "task": "digits", "model": "cnn"}, "beside its input"),
        ({"contestants": [("group_norm", {"num_groups": 7})]}, "num_groups=7 must divide"),
        ({"model": "cnn"}, "a cnn takes image, and this task has features"),
        ({"model": "gru", "task": "adding", "contestants": ["batch_norm"]}, "no gru cell with batch_norm"),
        ({"batch_size": 100_000}, "batch_size=100000 must be from 1 to 1000"),
        ({"steps": 0}, "steps=0"),
        ({"seeds": (1, 1)}, "all different"),
        ({"width": 0}, "width=0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"optimizer": "nothing"}, "no optimizer is called"),
        ({"clip": "batch_norm"}, "no clipping method is called 'batch_norm'"),
        ({"init": "nothing"}, "no init is called 'nothing'"),
        ({"placement": "between"}, "no placement is called 'between'"),
        ({"colour": 1}, "nothing here is called 'colour'"),
    ],
)
def test_what_cannot_be_raced_is_refused_in_a_sentence(options: dict[str, Any], words: str) -> None:
    with pytest.raises(NormcoreError, match=words.replace("(", r"\(")):
        Race(**options)


@pytest.mark.parametrize("model", SMALL)
def test_the_load_of_a_step_grows_with_all_that_makes_it_slow(model: str) -> None:
    options = SMALL[model] | {"model": model, "contestants": [None], "seeds": 1, "batch_size": 400, "width": 16}
    once = load(Race(**options))
    for more in ({"seeds": 4}, {"batch_size": 800}, {"width": 64}, {"contestants": [None, "weight_norm"]}):
        other = load(Race(**options | more))
        assert other.multiplications > 1.5 * once.multiplications, more
        assert other.memory >= once.memory * (1 if "contestants" in more else 1.5), more
    assert load(Race(**options), 4) == load(Race(**options | {"seeds": 4}))
    if MODELS[model].kinds == ("sequence",):
        x = np.random.default_rng(0).normal(size=(100, 200, 2))
        short, long = (
            load(Race(**options | {"task": table(x[:, :t], x[:, 0, 0]), "batch_size": 50})) for t in (50, 200)
        )
        assert long.multiplications > 3.9 * short.multiplications
        assert long.memory > (6 if model == "transformer" else 3.9) * short.memory


def test_a_table_of_ones_own_is_judged_before_it_is_learned() -> None:
    x, y = np.random.default_rng(0).normal(size=(50, 3)), np.arange(50) % 2
    assert table(x, y).classes == 2
    assert table(x, x[:, 0]).classes == 0
    assert [table(np.zeros((12, *axes)), np.arange(12)).kind for axes in ((3,), (5, 2), (1, 4, 4))] == [
        "features",
        "sequence",
        "image",
    ]
    for bad, words in (
        ((x, y[:4]), "must be"),
        ((np.zeros((12, 2, 2, 2, 2)), y[:12]), "must be"),
        ((x * np.inf, y), "nan or infinity"),
        (([["a"] * 3] * 20, y[:20]), "not a number"),
        ((x, np.ones(50)), "in every row"),
        ((np.zeros((10, 26_000, 1)), y[:10]), "26,000 steps an example; at most 500"),
        ((np.zeros((10, 1, 80, 80)), y[:10]), "6,400 places an example; at most 4,096"),
        ((np.zeros((10, 8, 60, 60)), y[:10]), "28,800 numbers an example; at most 20,000"),
        ((np.zeros((10, 30_000)), y[:10]), "30,000 features an example; at most 20,000"),
    ):
        with pytest.raises(NormcoreError, match=words):
            table(*bad)
    assert np.isfinite(run(task=table(x, x[:, 0]), contestants=["layer_norm"]).loss).all()
