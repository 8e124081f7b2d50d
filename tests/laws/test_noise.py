"""The compiled noise: its bits are SplitMix64's, its numbers Box's and Muller's, and nobody shares them out twice."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.utils.flop_counter import FlopCounterMode

from normcore import METHODS, clipper
from normcore.core import compiled_noise, flat, team
from normcore.core.compiled_noise import CHUNK

SHAPES = ((3,), (70, 150), (0, 2), (), (60, 25), (2 * CHUNK + 1,))
GOLDEN, WORD = 0x9E3779B97F4A7C15, 2**64 - 1


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of a thousand numbers take the loop."""
    monkeypatch.setattr(flat, "LARGE", 1000)
    monkeypatch.setattr(team, "PIECE", 1000)


def mixed(z: int) -> int:
    """SplitMix64 as its authors wrote it, on whole numbers of Python."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & WORD
    return z ^ (z >> 31)


def literal(seed: int, step: int) -> list[np.ndarray]:
    """The noise of the shapes, number by number in double precision."""
    key = mixed(mixed(seed + GOLDEN & WORD) + step & WORD)
    found, start = [], 0
    for i, shape in enumerate(SHAPES):
        size = int(np.prod(shape))
        values: list[float] = []
        for chunk in range(0, size, CHUNK):
            first = start + i * CHUNK + chunk
            words = [mixed(key + GOLDEN * (first + j + 1) & WORD) for j in range(CHUNK // 2)]
            uniform = [float(np.float32(w % 2**32) + np.float32(0.5)) / 2**32 for w in words]
            radius = np.sqrt(-2 * np.log(uniform))
            angle = 2 * np.pi * np.array([w >> 32 for w in words]) / 2**32
            values += [*(radius * np.cos(angle)), *(radius * np.sin(angle))]
        found.append(np.array(values[:size]).reshape(shape))
        start += size
    return found


def drawn(seed: int = 0, step: int = 0, shapes: tuple[tuple[int, ...], ...] = SHAPES) -> list[np.ndarray]:
    """The noise as the method adds it, with deviation 1."""
    given = [torch.zeros(shape, dtype=torch.float64) for shape in shapes]
    settings = {"eta": 1.0, "gamma": 0.0, "seed": seed, "state": {"step": step}}
    return [noise.numpy() for noise in METHODS["gradient_noise"](given, **settings).y]


def test_the_bits_are_those_of_splitmix64() -> None:
    low, high = np.empty(5, np.uint32), np.empty(5, np.uint32)
    compiled_noise.draw(np.uint64(1234567), 0, low, high)
    published = (
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    )
    assert [int(a) + int(b) * 2**32 for a, b in zip(low, high, strict=True)] == list(published)


def test_normal_numbers_to_the_ends_of_their_range() -> None:
    ends = [0, 1, 2, 2**30 - 1, 2**30, 2**31 - 1, 2**31, 3 * 2**30, 2**32 - 2, 2**32 - 1]
    some = np.random.default_rng(0).integers(0, 2**32, 5000)
    low, high = (np.array([*ends, *order], np.uint32) for order in (some, some[::-1]))
    one, other = np.empty(len(low), np.float32), np.empty(len(low), np.float32)
    compiled_noise.normals(low, high, one, other, np.float32(2))
    radius = 2 * np.sqrt(-2 * np.log((low.astype(np.float32) + np.float32(0.5)).astype(float) / 2**32))
    angle = 2 * np.pi * high.astype(float) / 2**32
    np.testing.assert_allclose(one, radius * np.cos(angle), atol=2e-5)
    np.testing.assert_allclose(other, radius * np.sin(angle), atol=2e-5)
    assert np.isfinite(one).all() and np.abs(one).max() > 12


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_noise_is_the_same_on_any_number_of_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    for noise, expected in zip(drawn(3, 4), literal(3, 4), strict=True):
        np.testing.assert_allclose(noise, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_clipper_adds_it_in_place_and_reports_it(dtype: torch.dtype) -> None:
    clip = clipper("gradient_noise", eta=0.5, seed=2)
    for step in range(3):
        given = [torch.nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in SHAPES]
        before = [torch.randn(shape).to(dtype) for shape in SHAPES]
        before[1][0, 0] = float("nan") if step == 2 else 0.0
        for parameter, gradient in zip(given, before, strict=True):
            parameter.grad = gradient.clone()
        report = clip(given)
        expected = METHODS["gradient_noise"](before, eta=0.5, seed=2, state={"step": step}).y
        for parameter, gradient in zip(given, expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, equal_nan=True)
        for row, old, new in zip(report.per_tensor, before, expected, strict=True):
            size, norm = max(1, old.numel()), float(new.double().norm())
            assert row.norm_before == pytest.approx(float(old.double().norm()), rel=1e-5, nan_ok=True)
            assert row.norm_after == pytest.approx(norm, rel=1e-2 if dtype is torch.bfloat16 else 1e-5, nan_ok=True)
            changed = int((new != old).logical_and(~old.isnan()).sum())
            # In half precision a nan may come back with other bits.
            assert row.fraction * size == pytest.approx(changed, abs=1.1 if dtype is torch.bfloat16 else 1e-6)
        if step < 2:
            one, other = (torch.cat([t.double().flatten() for t in tensors]) for tensors in (before, expected))
            cosine = float(one @ other / one.norm() / other.norm())
            assert report.angle == pytest.approx(float(np.arccos(cosine)), rel=1e-3)


def test_who_watches_sees_the_same_noise() -> None:
    expected = drawn(5, 6)
    with FlopCounterMode(display=False):
        watched = drawn(5, 6)
    for one, other in zip(watched, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_noise_is_normal_and_independent() -> None:
    shapes = ((300, 500), (150_000,))
    noise = np.concatenate([tensor.ravel() for tensor in drawn(1, 1, shapes)])
    assert stats.kstest(noise, "norm").pvalue > 0.01
    others = {
        "the next number": noise[1:],
        "the other coordinate": noise[CHUNK // 2 :],
        "the next chunk": noise[CHUNK:],
        "the other tensor": noise[150_000:],
        "the next step": np.concatenate([tensor.ravel() for tensor in drawn(1, 2, shapes)]),
        "the next seed": np.concatenate([tensor.ravel() for tensor in drawn(2, 1, shapes)]),
    }
    for name, other in others.items():
        pairs = noise[: len(other)], other
        for one, two in (pairs, (pairs[0] ** 2 - 1, (pairs[1] ** 2 - 1) / 2)):
            assert abs(np.mean(one * two)) < 4 / np.sqrt(len(other)), name
