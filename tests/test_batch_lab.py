"""What the Batch page measures: held against torch.nn, numpy and literal loops."""

from typing import Any

import numpy as np
import pytest
import torch

from normcore import METHODS, NormcoreError
from normcore.core import LETTERS
from normcore.lab import neighbors, padding, running, sampling

ACTIVATIONS = [key for key, method in METHODS.items() if method.family == "activation"]


@pytest.mark.parametrize("momentum", [0.1, 1.0, None])
@pytest.mark.parametrize("population", running.POPULATIONS)
def test_the_timeline_is_that_of_torch(momentum: float | None, population: str) -> None:
    seen = running.timeline("batch_norm", momentum, 4, population, switch=30, steps=50, seed=3)
    norm = torch.nn.BatchNorm1d(1, momentum=momentum, affine=False, dtype=torch.float64)
    noise = torch.randn(50, 4, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64).numpy()
    for step in range(50):
        x = seen.population_mean[step] + np.sqrt(seen.population_var[step]) * noise[step]
        trained = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
        y = norm.train(step < 30)(torch.from_numpy(x)).detach().numpy()
        evaluated = norm.eval()(torch.from_numpy(x)).detach().numpy()
        found = {
            "batch_mean": x.mean(),
            "batch_var": x.var(),
            "batch_var_unbiased": x.var(ddof=1),
            "running_mean": norm.running_mean.item(),
            "running_var": norm.running_var.item(),
            "gap": np.sqrt(np.mean((trained - evaluated) ** 2)),
            "output_mean": y.mean(),
            "output_std": y.std(),
        }
        for name, value in found.items():
            np.testing.assert_allclose(getattr(seen, name)[step], value, rtol=1e-9, atol=1e-12, err_msg=name)
    assert seen.training.tolist() == [True] * 30 + [False] * 20


def test_the_populations_stay_drift_and_jump() -> None:
    seen = {name: running.timeline("batch_norm", 0.1, 2, name) for name in running.POPULATIONS}
    assert len(set(seen["stays"].population_mean)) == 1
    assert len(set(seen["jumps"].population_mean)) == 2
    assert len(set(seen["drifts"].population_mean)) == running.STEPS
    slow = running.timeline("batch_norm", 0.1, 64, "drifts")
    lag = (slow.population_mean - slow.running_mean)[50:]
    # A population that moves by s a step is followed at a distance of s · (1 - momentum) / momentum.
    assert lag.mean() == pytest.approx(3 / (running.STEPS - 1) * 9, rel=0.2)


@pytest.mark.parametrize("key", running.remembering())
def test_every_remembering_method_has_a_timeline(key: str) -> None:
    settings = neighbors.fitting(METHODS[key], (4, 1), "vector", {})
    seen = running.timeline(key, 0.1, 4, switch=6, steps=12, **settings)
    assert np.isfinite(seen.gap).all()
    assert len(set(seen.running_mean[5:])) == 1
    assert len(set(seen.running_mean[:6])) == 6


@pytest.mark.parametrize("momentum", [0.1, 0.9, None])
@pytest.mark.parametrize("key", running.remembering())
def test_a_habit_foretells_the_timeline(key: str, momentum: float | None) -> None:
    settings = neighbors.fitting(METHODS[key], (8, 1), "vector", {"ghost_batch_size": 2})
    habit = running.habit(key, momentum, 8, **settings)
    seen = running.timeline(key, momentum, 8, "jumps", steps=12, seed=5, **settings)
    noise = torch.randn(12, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64).numpy()
    mean, var, count = 0.0, 1.0, 0
    size = 8 // habit.updates
    assert habit.divisor == (8 if key == "moving_average_batch_norm" else size - 1)
    assert size == (2 if key == "ghost_batch_norm" else 8)
    for step in range(12):
        x = seen.population_mean[step] + np.sqrt(seen.population_var[step]) * noise[step]
        for part in x.reshape(-1, size):
            count += 1
            weight = 1 / count if momentum is None else momentum
            if step == 0 and not habit.first:
                weight = 1.0
                assert habit.full
            mean += weight * (part.mean() - mean)
            var += weight * (((part - part.mean()) ** 2).sum() / habit.divisor - var)
        assert seen.running_mean[step] == pytest.approx(mean)
        assert seen.running_var[step] == pytest.approx(var)


@pytest.mark.parametrize("key", running.remembering())
def test_a_habit_tells_who_normalizes_with_the_batch_alone(key: str) -> None:
    found = running.habit(key, 0.1, 8)
    assert found.normalizes == (key not in ("batch_renorm", "moving_average_batch_norm"))
    assert found.past == (not found.normalizes)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("layer_norm", 0.1, 4), "keeps no"),
        (("batch_norm", 0.1, 1), "at least 2"),
        (("batch_norm", 0.1, 4, "x"), "try"),
    ],
)
def test_a_bad_timeline_is_refused_in_a_sentence(arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(NormcoreError, match=said):
        running.timeline(*arguments)


def test_a_swap_moves_batch_norm_by_what_numpy_says() -> None:
    x = neighbors.samples((64 + 5, 8), "vector", 0).numpy()
    before, after = x[1:5], x[1:5].copy()
    after[2] = 10 * x[0]
    y, moved = ((a - a.mean(0)) / np.sqrt(a.var(0) + 1e-5) for a in (before, after))
    found = neighbors.swap("batch_norm", (4, 8), "vector", 2, "ten times as large")
    assert found.change == pytest.approx(np.sqrt(np.mean((moved - y)[0] ** 2) / np.mean(y[0] ** 2)))
    assert found.largest == pytest.approx(np.abs((moved - y)[0]).max())


@pytest.mark.parametrize("key", ACTIVATIONS)
def test_a_swap_is_felt_exactly_where_samples_share_a_statistic(key: str) -> None:
    method = METHODS[key]
    shape, layout = ((4, 8, 3, 3), "image") if "image" in method.layouts else ((4, 3, 8), "tokens")
    if layout not in method.layouts:
        shape, layout = (4, 8), "vector"
    settings = neighbors.fitting(method, shape, layout, {})
    mine = [tuple(channel if letter == "c" else 0 for letter in LETTERS[layout]) for channel in range(8)]
    for training in (True, False) if method.state else (True,):
        bounds = method.bound(shape, layout, training, **settings)
        shared = any((bound.members(index)[:, 0] == 1).any() for bound in bounds for index in mine)
        found = neighbors.swap(key, shape, layout, 1, "shifted by 5", training, **settings)
        # Batch Renorm takes the batch's share back as long as nothing is clipped.
        assert found.noticed == shared or key == "batch_renorm", (training, found)


def test_a_stranger_in_another_ghost_batch_is_not_felt() -> None:
    swap = {n: neighbors.swap("ghost_batch_norm", (8, 4), "vector", n, ghost_batch_size=4).noticed for n in range(1, 8)}
    assert [n for n, noticed in swap.items() if noticed] == [1, 2, 3]


@pytest.mark.parametrize("neighbor", [0, 4, -1])
def test_only_another_sample_can_be_swapped(neighbor: int) -> None:
    with pytest.raises(NormcoreError, match="1 to 3"):
        neighbors.swap("batch_norm", (4, 8), "vector", neighbor)


@pytest.mark.parametrize("source", sampling.SOURCES)
def test_sources_have_mean_0_and_deviation_1(source: str) -> None:
    x = sampling.SOURCES[source]((20000, 2, 4), torch.Generator().manual_seed(0)).numpy()
    assert x.mean() == pytest.approx(0, abs=0.02)
    assert x.std() == pytest.approx(1, abs=0.03)


def test_the_error_of_a_mean_is_one_over_root_m() -> None:
    found = sampling.errors("normal", "mean", draws=4000)
    np.testing.assert_allclose(found.error, found.samples**-0.5, rtol=0.05)
    np.testing.assert_allclose(found.most, 1.96 * found.samples**-0.5, rtol=0.08)
    np.testing.assert_allclose(found.expected, found.values**-0.5)
    alike = sampling.errors("images", "mean", draws=2000)
    np.testing.assert_allclose(alike.error, np.sqrt((0.5 + 0.5 / 16) / alike.samples), rtol=0.06)
    assert alike.values.max() <= sampling.MOST


@pytest.mark.parametrize("statistic", sampling.STATISTICS)
def test_the_ways_to_take_a_batch_against_a_loop(statistic: str) -> None:
    found = sampling.ways("skewed", statistic, 16, 4, 2, draws=30)
    x = sampling._drawn("skewed", 16, 30, 1).numpy()[..., 0]
    taken = {
        mode: [part.mean(0) if statistic == "mean" else part.std(0) - 1 for part in np.split(x, n)]
        for mode, n in (("whole", 1), ("ghosts", 4), ("micro", 2))
    }
    np.testing.assert_allclose(found.error, [np.sqrt(np.mean(np.square(parts))) for parts in taken.values()])
    np.testing.assert_allclose(found.most, [np.quantile(np.abs(parts), 0.95) for parts in taken.values()], rtol=0.1)
    assert found.averaged == pytest.approx(np.sqrt(np.mean(np.mean(taken["micro"], 0) ** 2)))
    assert found.samples.tolist() == [16, 4, 8]


def test_accumulated_gradients_against_a_literal_loop() -> None:
    found = sampling.accumulated("batch_norm", 8, channels=3, seed=5)
    x, target = neighbors.samples((16, 3), "vector", 5).split(8)
    start = torch.randn(3, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    norm = torch.nn.BatchNorm1d(3, affine=False, dtype=torch.float64)
    gradients = []
    for size in (8, 4, 2):
        weight = start.clone().requires_grad_()
        for part, wanted in zip(x.split(size), target.split(size), strict=True):
            (((norm(part @ weight) - wanted) ** 2).mean() * size / 8).backward()
        gradients.append(weight.grad.numpy())
    for got, gradient in zip(found.gradient, gradients, strict=False):
        assert got == pytest.approx(np.linalg.norm(gradient - gradients[0]) / np.linalg.norm(gradients[0]))
    assert found.parts.tolist() == [1, 2, 4, 8]


@pytest.mark.parametrize("key", [key for key in ACTIVATIONS if "vector" in METHODS[key].layouts])
def test_accumulation_changes_only_those_whose_samples_meet(key: str) -> None:
    found = sampling.accumulated(key, 8)
    shared = any(len(set(bound.members((0, 0))[:, 0].tolist())) > 2 for bound in METHODS[key].bound((8, 8), "vector"))
    assert (found.gradient[1] > 1e-9) == shared


def test_ghost_batches_within_a_micro_batch_stay_what_they_were() -> None:
    found = sampling.accumulated("ghost_batch_norm", 32, ghost_batch_size=8)
    assert (found.gradient[:3] < 1e-12).all()
    assert found.gradient[3] > 0.1


def test_padded_sentences_hold_what_they_say() -> None:
    x, mask = padding.padded_sentences((3, 1, 5), 4, torch.Generator().manual_seed(0), fill=7.0)
    assert x.shape == (3, 5, 4)
    assert mask.sum(1).tolist() == [3, 1, 5]
    assert (x[~mask] == 7).all()
    assert (x[mask] != 7).all()
    with pytest.raises(NormcoreError, match="at least 1"):
        padding.padded_sentences((3, 0), 4, torch.Generator())


@pytest.mark.parametrize("key", ["batch_norm", "instance_norm", "layer_norm", "masked_batch_norm"])
def test_padding_against_numpy(key: str) -> None:
    lengths = (6, 2, 4)
    tensor, mask = padding.padded_sentences(lengths, padding.CHANNELS, torch.Generator().manual_seed(0), -5.0)
    x, real = tensor.numpy(), mask.numpy()
    shifts, ratios, moved, reference = [], [], [], []
    tokens = [x[i, :n] for i, n in enumerate(lengths)]
    pairs = [(x[i], tokens[i]) for i in range(3)]
    if "batch" in key:
        pairs = [(x.reshape(-1, 8), x[real])]
    if key == "masked_batch_norm":
        pairs = [(x[real], x[real])]
    if key == "layer_norm":
        pairs = [(x[real].T, x[real].T)]
    for used, alone in pairs:
        shifts.append((used.mean(0) - alone.mean(0)) / alone.std(0))
        ratios.append(used.std(0) / alone.std(0))
        moved.append((alone - used.mean(0)) / np.sqrt(used.var(0) + 1e-5))
        reference.append((alone - alone.mean(0)) / np.sqrt(alone.var(0) + 1e-5))
    found = padding.compare(key, lengths, -5.0)
    moved, reference = (np.concatenate(values) for values in (moved, reference))
    assert found.output == pytest.approx(np.sqrt(np.mean((moved - reference) ** 2) / np.mean(reference**2)), abs=1e-12)
    assert found.std_ratio == pytest.approx(np.mean(ratios))
    assert found.mean_shift == pytest.approx(np.sqrt(np.mean(np.square(shifts))), abs=1e-12)


@pytest.mark.parametrize("key", [key for key in ACTIVATIONS if "tokens" in METHODS[key].layouts])
def test_without_padding_nothing_moves(key: str) -> None:
    found = padding.compare(key, padding.MIXES["all alike"](8))
    assert (found.output or 0.0) < 1e-12
    assert (found.mean_shift or 0.0) == 0.0
    if not found.shared or found.masked:
        assert padding.compare(key, padding.MIXES["one long"](8), -5.0).output == pytest.approx(0.0, abs=1e-12)
