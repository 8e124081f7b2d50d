"""Gradient flow: known answers for linear nets, autograd held against finite differences, remedies and their order."""

import math
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from normcore import METHODS, NormcoreError
from normcore.lab.flow import Batches, forward, learned, profile, slope, steepest
from normcore.lab.flow_nets import STARTS, Stack, Unrolled, Wiring, build, fitting, functions
from normcore.lab.flow_rates import STABLE, rates, stability
from normcore.lab.flow_remedies import Comparison, compared, counted, distance, ratio, remedies, switches
from normcore.lab.flow_tasks import adding, digits
from normcore.lab.flow_training import Training
from normcore.lab.observatory import naive
from normcore.lab.strips import StripResults
from normcore.penalties import orthogonal_regularization

LINEAR = Wiring(activation="linear", start="orthogonal", depth=12, width=8, batch=6)


def weights_of(net: Stack | Unrolled) -> list[torch.nn.Parameter]:
    """The weights of all layers of a stack."""
    assert isinstance(net, Stack)
    return [layer.get_parameter("weight") for layer in net.hidden]


def test_a_linear_orthogonal_net_keeps_every_length() -> None:
    found = profile(LINEAR)
    np.testing.assert_allclose(found.singular, 1.0, rtol=1e-12)
    np.testing.assert_allclose(found.layers.gradient, found.layers.gradient[-1], rtol=1e-12)
    assert found.layers.ratio == pytest.approx(1.0, rel=1e-12)
    assert found.layers.slope == pytest.approx(1.0)
    assert not found.layers.flat.any()


@pytest.mark.parametrize("scale", [0.5, 1.25, 3.0])
def test_scaled_weights_multiply_the_gradient_once_a_layer(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    orthogonal = STARTS["orthogonal"]
    monkeypatch.setitem(STARTS, "small", lambda w, g: orthogonal(w, g).mul_(scale))
    found = profile(replace(LINEAR, start="small"))
    between = LINEAR.depth - 1
    assert found.layers.ratio == pytest.approx(scale**between, rel=1e-10)
    assert found.layers.factor == pytest.approx(scale, rel=1e-10)
    np.testing.assert_allclose(found.singular, scale**between, rtol=1e-10)
    assert ratio(replace(LINEAR, start="small"), 0) == pytest.approx(scale**between, rel=1e-10)


@pytest.mark.parametrize(
    "wiring",
    [
        Wiring(depth=4, width=5, batch=3, activation="tanh"),
        Wiring(depth=4, width=5, batch=6, activation="gelu", norm="batch_norm", residual=True),
        Wiring(depth=4, width=5, batch=3, activation="silu", norm="rezero"),
        Wiring("rnn", depth=4, width=5, batch=3, activation="tanh", norm="layer_norm"),
        Wiring("lstm", depth=4, width=5, batch=3),
        Wiring("gru", depth=4, width=5, batch=3, weights="weight_norm"),
    ],
)
def test_gradients_and_jacobian_are_those_of_finite_differences(wiring: Wiring) -> None:
    net, (x, y) = build(wiring, 1), Batches(wiring, 1).next()
    found = profile(wiring, 1)
    seen, probes, _ = forward(net, wiring, x, y)
    size, step = probes.shape[-1], 1e-6

    def moved(layer: int, sample: int, unit: int, by: float) -> tuple[torch.Tensor, float]:
        """The first example's last output and the loss, with one output moved."""
        changed = torch.zeros_like(probes)
        changed[layer, sample, unit] = by
        seen.outputs.clear()
        answer = net(x, changed, seen)
        flat = torch.nn.functional
        loss = flat.mse_loss(answer[:, 0], y) if wiring.recurrent else flat.cross_entropy(answer, y)
        return seen.outputs[-1][0].detach(), float(loss.detach())

    jacobian = torch.stack([(moved(0, 0, i, step)[0] - moved(0, 0, i, -step)[0]) / (2 * step) for i in range(size)], 1)
    np.testing.assert_allclose(found.singular, np.linalg.svd(jacobian.numpy(), compute_uv=False), atol=1e-7)
    for layer in (0, wiring.depth - 1):
        slopes = [
            (moved(layer, n, i, step)[1] - moved(layer, n, i, -step)[1]) / (2 * step)
            for n in range(len(x))
            for i in range(size)
        ]
        assert found.layers.gradient[layer] == pytest.approx(np.linalg.norm(slopes), rel=1e-5)


@pytest.mark.parametrize("kind", ["mlp", "lstm"])
def test_a_jacobian_is_no_larger_than_a_jacobian(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    grad, sizes = torch.autograd.grad, []

    def spied(*given: Any, **options: Any) -> Any:
        found = grad(*given, **options)
        sizes.extend(part.numel() for part in found if options.get("is_grads_batched"))
        return found

    monkeypatch.setattr(torch.autograd, "grad", spied)
    wiring = Wiring(kind, depth=4, width=6, batch=50, activation="tanh")
    found = profile(wiring)
    assert sizes == [len(found.singular) ** 2]


def test_layers_are_those_of_a_loop_in_numpy() -> None:
    wiring = Wiring(depth=3, width=7, batch=5, start="large")
    net, (x, y) = build(wiring, 4), Batches(wiring, 4).next()
    assert isinstance(net, Stack)
    found = profile(wiring, 4).layers
    h, weights, outputs, slopes = x.numpy(), [weight.detach().numpy() for weight in weights_of(net)], [], []
    for weight in weights:
        h = 1 / (1 + np.exp(-h @ weight.T))
        outputs.append(h)
        slopes.append(h * (1 - h))
    logits = h @ net.answer.weight.detach().numpy().T
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert found.loss == pytest.approx(-np.log(shares[np.arange(5), y.numpy()]).mean())
    back = (shares - np.eye(10)[y.numpy()]) / 5 @ net.answer.weight.detach().numpy()
    for at in (2, 1, 0):
        assert found.gradient[at] == pytest.approx(np.linalg.norm(back))
        below = x.numpy() if at == 0 else outputs[at - 1]
        assert found.weights[at] == pytest.approx(np.linalg.norm((back * slopes[at]).T @ below))
        assert found.spread[at] == pytest.approx(outputs[at].std())
        assert found.slope[at] == pytest.approx(np.sqrt((slopes[at] ** 2).mean()))
        assert found.flat[at] == pytest.approx((slopes[at] <= 0.025).mean())
        back = (back * slopes[at]) @ weights[at]
    assert found.flat.max() > 0


def test_sigmoids_multiply_by_at_most_a_quarter() -> None:
    assert steepest("sigmoid") == pytest.approx(0.25)
    assert steepest("tanh") == pytest.approx(1.0)
    assert slope("relu", torch.tensor([-1.0, 2.0])).tolist() == [0.0, 1.0]
    found = profile(Wiring(start="orthogonal", width=16, depth=20)).layers
    assert 0 < found.ratio <= 0.25**19
    assert (found.slope <= 0.25).all()


@pytest.mark.parametrize(("kind", "gates"), [("rnn", 1), ("lstm", 4), ("gru", 3)])
def test_every_gate_starts_orthogonal_and_states_are_heard(kind: str, gates: int) -> None:
    wiring = Wiring(kind, depth=5, width=6, activation="tanh", start="orthogonal")
    net = build(wiring, 0)
    assert isinstance(net, Unrolled)
    matrices = net.matrices()[0]
    assert len(matrices) == gates
    for matrix in matrices:
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(6, dtype=torch.float64), atol=1e-12, rtol=0)
    seen, probes, _ = forward(net, wiring, *Batches(wiring, 0).next())
    assert len(seen.outputs) == len(probes) == 5
    assert [len(heard) for heard in seen.inputs] == [{"rnn": 1, "lstm": 5, "gru": 2}[kind]] * 5


def test_the_forget_bias_is_that_of_the_forget_gate() -> None:
    """With all weights nearly 0 the state is multiplied by σ(bias) once a step, and nothing else reaches the first."""
    wiring = Wiring("lstm", depth=9, width=5, start="small", forget=2.0)
    gradient = profile(wiring).layers.gradient
    np.testing.assert_allclose(gradient[:-2] / gradient[1:-1], 1 / (1 + math.exp(-2)), rtol=0.03)
    assert "forget bias 1" in [remedy.name for remedy in remedies(wiring)]
    assert "forget bias 1" not in [remedy.name for remedy in remedies(replace(wiring, kind="gru"))]


@pytest.mark.parametrize("kind", ["mlp", "rnn", "lstm", "gru"])
def test_every_norm_and_weight_method_flows(kind: str) -> None:
    methods = [key for key, method in METHODS.items() if method.family == "weight"] if kind in ("mlp", "rnn") else []
    for wiring in (
        *(Wiring(kind, depth=3, width=8, batch=8, activation="tanh", norm=norm) for norm in fitting(kind)),
        *(Wiring(kind, depth=3, width=8, batch=8, activation="tanh", weights=key) for key in methods),
    ):
        found = profile(wiring)
        assert np.isfinite(found.layers.gradient).all(), wiring
        assert found.layers.gradient[-1] > 0, wiring
    assert len(functions("lstm")) == 0


@pytest.mark.parametrize("start", STARTS)
def test_first_weights_have_the_variance_that_is_told(start: str) -> None:
    net = build(Wiring(depth=2, width=64, start=start), 0)
    assert isinstance(net, Stack)
    weight = weights_of(net)[1]
    told = {"he": 2, "pytorch": 1 / 3, "small": 0.01, "large": 9}.get(start, 1) / 64
    assert float(weight.detach().var()) == pytest.approx(told, rel=0.06)
    assert not any(layer.get_parameter("bias").any() for layer in net.hidden)


def test_training_is_a_plain_loop_with_penalty_and_clipping() -> None:
    wiring = Wiring(depth=3, width=6, activation="tanh", batch=4, penalty="so", strength=0.1)
    wiring = replace(wiring, clip="clip_by_global_norm", clip_settings=(("max_norm", 0.05),), learning_rate=0.3)
    training = Training(wiring, 2, 5)
    list(training)
    course = training.results()
    net, batches = build(wiring, 2), Batches(wiring, 2)
    optimizer = torch.optim.SGD(learned(net), lr=0.3)
    for step in range(5):
        x, y = batches.next()
        optimizer.zero_grad()
        plain = torch.nn.functional.cross_entropy(net(x, torch.zeros(3, 4, 6, dtype=torch.float64)), y)
        penalty = torch.stack([orthogonal_regularization(weight) for weight in weights_of(net)]).sum()
        (plain + 0.1 * penalty).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.05)
        assert course.loss[step] == pytest.approx(float(plain.detach()), rel=1e-9)
        expected = [float(torch.as_tensor(weight.grad).norm()) for weight in weights_of(net)]
        np.testing.assert_allclose(course.weights[:, step], expected, rtol=1e-5)
        optimizer.step()
    assert course.gradient.shape == (3, 5)
    assert course.lost == -1


def test_a_net_that_diverges_stops_and_says_when() -> None:
    wiring = Wiring("rnn", depth=30, activation="relu", start="large", learning_rate=3.0, width=16)
    training = Training(wiring, 0, 50)
    list(training)
    course = training.results()
    assert 0 <= course.lost < 50
    assert len(course.step) == course.lost + 1
    assert not np.isfinite(course.loss[-1]) or not np.isfinite(course.gradient[:, -1]).all()


def test_a_training_that_measured_nothing_has_results(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(Wiring(depth=3, width=4, batch=4), 0, 5)
    assert training.results().gradient.shape == (3, 0)

    def broken() -> None:
        raise torch.linalg.LinAlgError

    monkeypatch.setattr(training, "_one", broken)
    assert list(training) == []
    course = training.results()
    assert course.lost == 0 and len(course.step) == len(course.loss) == 0


def test_switches_come_in_the_order_of_their_distance_from_one() -> None:
    wiring = Wiring(depth=10, width=8)
    tried = switches(wiring)
    far = [abs(math.log10(found)) if found > 0 else math.inf for _, found in tried]
    assert far == sorted(far)
    assert {remedy.name for remedy, _ in tried} == {one.name for one in remedies(wiring) if not one.learns}
    for remedy, found in tried[:3]:
        assert found == pytest.approx(profile(remedy.apply(wiring)).layers.ratio, rel=1e-12)
    assert distance(0.0) == distance(math.nan) == math.inf


def test_what_is_flipped_is_not_offered_again() -> None:
    wiring = Wiring(depth=10, width=8)
    for remedy in remedies(wiring):
        after = remedy.apply(wiring)
        assert after != wiring
        names = [one.name for one in remedies(after)]
        assert remedy.name not in names or "depth" in dict(remedy.changes) or "batch" in dict(remedy.changes)
    assert "LayerNorm" in [one.name for one in remedies(Wiring("gru"))]
    assert "BatchNorm" not in [one.name for one in remedies(Wiring("gru"))]


def test_a_comparison_measures_every_cell() -> None:
    wiring = Wiring(width=8, batch=8)
    comparison = Comparison(wiring, (2, 5), (3, 7))
    list(comparison)
    found = comparison.results()
    assert found.names == tuple(one.name for one in compared(wiring, 0))
    assert found.done == found.ratio.size == len(comparison)
    for i, remedy in enumerate(comparison.remedies):
        for j, depth in enumerate((2, 5)):
            expected = [ratio(remedy.apply(replace(wiring, depth=depth)), seed) for seed in (3, 7)]
            np.testing.assert_allclose(found.ratio[i, j], expected, rtol=1e-12)
            assert found.middle()[i, j] == pytest.approx(math.sqrt(expected[0] * expected[1]))
    columns = found.columns()
    assert columns["first over last gradient"] == pytest.approx(list(np.moveaxis(found.ratio, 1, 0).ravel()))
    assert len({len(values) for values in columns.values()}) == 1


def test_what_does_not_count_leaves_a_comparison_as_it_is() -> None:
    plain = Wiring(width=6, batch=4)
    other = replace(plain, depth=7, learning_rate=3.0, optimizer="adam", penalty="so", clip="clip_by_value")
    assert counted(other, 0) == counted(plain, 0) == plain
    assert counted(other, 5) != counted(plain, 5) == counted(replace(plain, depth=7), 5)
    found = []
    for wiring in (plain, other):
        comparison = Comparison(wiring, (3,), (0,))
        list(comparison)
        found.append(comparison.results())
    assert found[0].names == found[1].names
    np.testing.assert_array_equal(found[0].ratio, found[1].ratio)


def test_after_training_the_remedies_that_learn_are_compared_too() -> None:
    wiring = Wiring(width=6, batch=4)
    comparison = Comparison(wiring, (3,), (0,), after=2)
    list(comparison)
    found = comparison.results()
    assert {"clipping", "orthogonal penalty", "larger batch"} <= set(found.names)
    training = Training(replace(wiring, depth=3), 0, 3)
    last = list(training)[-1]
    assert found.ratio[0, 0, 0] == pytest.approx(last.ratio, rel=1e-12)


def test_stability_counts_rates_at_which_all_seeds_came_through() -> None:
    near, over = naive("adding"), 2.01 * naive("adding")
    final = np.array([[[near, near], [near, over], [near, np.nan]], [[near, near], [near / 2, near / 2], [near, near]]])
    lost = np.isnan(final)
    seconds = np.ones(final.shape[:2])
    found = StripResults("learning_rate", (0.1, 0.3, 1.0), ("none", "normed"), (0, 1), final, lost, seconds, (), 3)
    none, normed = stability(found)
    assert none.good == (0.1,)
    assert (none.diverged, none.runs) == (1, 6)
    assert normed.good == (0.1, 0.3, 1.0)
    assert normed.best == pytest.approx(near / 2)
    assert stability(replace(found, done=1))[0].good == (0.1,)
    assert STABLE == 2.0


def test_a_strip_of_cells_runs() -> None:
    strip = rates("rnn", "adam", seeds=1, steps=2)
    assert len(list(islice(strip, 3))) == 3
    assert strip.results().done == 1
    with pytest.raises(NormcoreError, match="cell='transformer'"):
        rates("transformer")


def test_tasks_are_what_they_are_called() -> None:
    data = adding(12)
    assert data.x[:, :, 1].sum(1).tolist() == [2.0] * len(data.x)
    torch.testing.assert_close(data.y, (data.x[:, :, 0] * data.x[:, :, 1]).sum(1))
    assert float(digits().x.mean()) == pytest.approx(0, abs=1e-12)
    assert float(digits().x.std(correction=0)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kind": "cnn"}, "kind='cnn'"),
        ({"norm": "layer_norm_2d"}, "norm='layer_norm_2d'"),
        ({"kind": "gru", "norm": "batch_norm"}, "norm='batch_norm'"),
        ({"depth": 1}, "depth=1 must be a whole number from 2"),
        ({"depth": 10_000}, "depth=10000"),
        ({"kind": "lstm", "depth": 100, "width": 64, "batch": 512}, "make 13,107,200 numbers in one pass"),
        ({"start": "zero"}, "start='zero'"),
        ({"clip": "layer_norm"}, "clip='layer_norm'"),
    ],
)
def test_what_cannot_be_built_says_so(changes: dict[str, object], says: str) -> None:
    with pytest.raises(NormcoreError, match=says):
        profile(replace(Wiring(), **changes))  # type: ignore[arg-type]
    with pytest.raises(NormcoreError, match="optimizer='lion'"):
        Training(Wiring(depth=2, optimizer="lion"), 0, 2)
