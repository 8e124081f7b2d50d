"""Clippers: what they do to gradients in place, held against torch, and what their report says."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from agreement import agrees
from cases import GRADIENTS, samples
from torch import nn

from normcore import Method, clipper

SHAPES = ((3,), (2, 3), (), (2, 1, 3), (4,))


def parameters(
    seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float64, skipped: int = 2
) -> list[nn.Parameter]:
    """Parameters with random gradients; one has none."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for number, shape in enumerate(SHAPES):
        parameter = nn.Parameter(torch.zeros(shape, dtype=dtype))
        if number != skipped:
            parameter.grad = (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)
        made.append(parameter)
    return made


def flat(given: list[nn.Parameter]) -> np.ndarray:
    return np.concatenate([p.grad.double().numpy().ravel() for p in given if p.grad is not None])


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("norm_type", [1, 2, 3, 0.5, math.inf])
def test_clipping_by_norm_is_torchs(norm_type: float, scale: float) -> None:
    for seed in range(3):
        ours, theirs = parameters(seed, scale), parameters(seed, scale)
        expected = torch.nn.utils.clip_grad_norm_(theirs, 2.0, norm_type)
        report = clipper("clip_by_global_norm", max_norm=2.0, norm_type=norm_type)(ours)
        agrees("clip_by_global_norm", "torch.nn.utils.clip_grad_norm_", flat(ours), flat(theirs))
        assert report.norm_before == pytest.approx(float(expected), rel=1e-9)
        assert ours[2].grad is None


@pytest.mark.parametrize("clip_value", [0.0, 0.5, 100.0])
def test_clipping_by_value_is_torchs(clip_value: float) -> None:
    ours, theirs = parameters(), parameters()
    torch.nn.utils.clip_grad_value_(theirs, clip_value)
    clipper("clip_by_value", clip_value=clip_value)(ours)
    agrees("clip_by_value", "torch.nn.utils.clip_grad_value_", flat(ours), flat(theirs), tolerance=0.0)


def test_one_sided_limits_leave_the_other_side_alone() -> None:
    given = nn.Parameter(torch.zeros(4))
    given.grad = torch.tensor([-9.0, -0.5, 0.5, 9.0])
    clipper("clip_by_value", lower=-math.inf, upper=1.0)(given)
    assert given.grad.tolist() == [-9.0, -0.5, 0.5, 1.0]
    clipper("clip_by_value", lower=-2.0, upper=0.25)(given)
    assert given.grad.tolist() == [-2.0, -0.5, 0.25, 0.25]


def pair(first: float, second: float) -> nn.Parameter:
    parameter = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    parameter.grad = torch.tensor([first, second], dtype=torch.float64)
    return parameter


def test_clipping_by_value_turns_the_gradient_and_clipping_by_norm_does_not() -> None:
    report = clipper("clip_by_value", clip_value=1.0)(pair(10, 1))
    assert math.degrees(report.angle) == pytest.approx(45 - math.degrees(math.atan(0.1)), abs=1e-9)
    assert math.degrees(report.angle) == pytest.approx(39.29, abs=0.005)
    assert report.fraction == 0.5
    report = clipper("clip_by_global_norm", max_norm=1.0)(pair(10, 1))
    assert report.angle == pytest.approx(0, abs=1e-12)
    assert report.fraction == 1.0 and report.fired


@pytest.mark.parametrize("method", GRADIENTS, ids=lambda method: method.key)
def test_the_report_has_the_numbers_of_numpy(method: Method) -> None:
    for settings in samples(method, "bias"):
        given = parameters(scale=3.0)
        before = flat(given)
        parts = [p.grad.numpy().ravel().copy() for p in given if p.grad is not None]
        order = settings.get("norm_type", 2.0)
        report = clipper(method.key, **settings)(given)
        after = flat(given)
        pairs = [(before, after, report)] + [
            (old, p.grad.numpy().ravel(), tensor)
            for old, p, tensor in zip(parts, [p for p in given if p.grad is not None], report.per_tensor, strict=True)
        ]
        for old, new, numbers in pairs:
            assert numbers.norm_before == pytest.approx(np.linalg.norm(old, order), rel=1e-9)
            assert numbers.norm_after == pytest.approx(np.linalg.norm(new, order), rel=1e-9, abs=1e-12)
            assert numbers.scale == pytest.approx(numbers.norm_after / numbers.norm_before)
            assert numbers.fraction == pytest.approx(np.mean(old != new))
            lengths = np.linalg.norm(old) * np.linalg.norm(new)
            cosine = np.clip(old @ new / lengths, -1, 1) if lengths else 1.0
            assert math.cos(numbers.angle) == pytest.approx(cosine, abs=1e-9)
        assert report.fired == bool((before != after).any())


@pytest.mark.parametrize("method", GRADIENTS, ids=lambda method: method.key)
def test_clipping_twice_changes_nothing_more(method: Method) -> None:
    for settings in samples(method, "bias"):
        given, clip = parameters(scale=10.0), clipper(method.key, **settings)
        clip(given)
        once = flat(given)
        clip(given)
        slack = clip.settings.get("eps", 0.0) / max(clip.settings.get("max_norm", 1.0), 1e-12)
        np.testing.assert_allclose(flat(given), once, rtol=slack + 1e-12)


@pytest.mark.parametrize("method", GRADIENTS, ids=lambda method: method.key)
def test_small_gradients_are_left_alone(method: Method) -> None:
    given = parameters(scale=1e-3)
    before = flat(given)
    report = clipper(method.key)(given)
    assert np.array_equal(flat(given), before)
    assert (report.fired, report.fraction, report.scale, report.angle) == (False, 0.0, 1.0, 0.0)


@pytest.mark.parametrize("method", GRADIENTS, ids=lambda method: method.key)
def test_anything_that_holds_parameters_will_do(method: Method) -> None:
    clip = clipper(method.key)
    listed, generated, single = parameters(scale=9.0), parameters(scale=9.0), parameters(scale=9.0)
    report = clip(listed)
    assert clip(p for p in generated) == report
    assert len(clip(single[0]).per_tensor) == 1
    assert np.array_equal(flat(listed), flat(generated))
    hollow = nn.Parameter(torch.ones(0))
    hollow.grad = torch.ones(0)
    assert clip([*generated, hollow]).norm_before == report.norm_after
    for nothing in ([], [nn.Parameter(torch.ones(2))], iter(())):
        empty = clip(nothing)
        assert (empty.norm_before, empty.scale, empty.fired, empty.per_tensor) == (0.0, 1.0, False, ())


@pytest.mark.parametrize("method", GRADIENTS, ids=lambda method: method.key)
def test_gradients_keep_their_place_and_precision(method: Method) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        given = parameters(scale=9.0, dtype=dtype)
        places = [p.grad for p in given]
        clipper(method.key)(given)
        assert all(p.grad is place for p, place in zip(given, places, strict=True))
        assert {p.grad.dtype for p in given if p.grad is not None} == {dtype}
        wide = parameters(scale=9.0, dtype=dtype)
        for p in wide:
            p.grad = None if p.grad is None else p.grad.clone()
        exact = [nn.Parameter(p.detach().double()) for p in wide]
        for p, q in zip(exact, wide, strict=True):
            p.grad = None if q.grad is None else q.grad.double()
        clipper(method.key)(exact)
        np.testing.assert_allclose(flat(given), flat(exact), rtol=2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("strange", [math.nan, math.inf, -math.inf])
def test_gradients_that_are_not_finite_end_as_in_torch(strange: float) -> None:
    ours, theirs = pair(strange, 1.0), pair(strange, 1.0)
    torch.nn.utils.clip_grad_norm_([theirs], 1.0)
    report = clipper("clip_by_global_norm")(ours)
    assert np.array_equal(ours.grad.numpy(), theirs.grad.numpy(), equal_nan=True)
    assert not math.isfinite(report.norm_before)
    ours, theirs = pair(strange, 1.0), pair(strange, 1.0)
    torch.nn.utils.clip_grad_value_([theirs], 1.0)
    clipper("clip_by_value")(ours)
    assert np.array_equal(ours.grad.numpy(), theirs.grad.numpy(), equal_nan=True)


@pytest.mark.parametrize("method", GRADIENTS, ids=lambda method: method.key)
def test_a_method_called_directly_leaves_its_input_alone(method: Method) -> None:
    given: list[Any] = [100 * p.grad for p in parameters() if p.grad is not None]
    kept = [g.clone() for g in given]
    method(given)
    assert all(torch.equal(g, k) for g, k in zip(given, kept, strict=True))


@pytest.mark.parametrize("method", GRADIENTS, ids=lambda method: method.key)
def test_state_goes_from_one_clipper_to_another(method: Method) -> None:
    first, second = clipper(method.key), clipper(method.key)
    first(parameters(1, 9.0))
    second.load_state_dict(first.state_dict())
    one, two = parameters(2, 9.0), parameters(2, 9.0)
    assert first(one) == second(two)
    assert np.array_equal(flat(one), flat(two))


def test_a_clipper_prints_its_settings() -> None:
    assert (
        repr(clipper("clip_by_value", clip_value=0.5))
        == "clipper('clip_by_value', clip_value=0.5, lower=None, upper=None)"
    )


def test_a_gradient_without_elements_has_norm_zero() -> None:
    hollow = nn.Parameter(torch.ones(0))
    hollow.grad = torch.ones(0)
    for norm_type in (1.0, 2.0, math.inf):
        report = clipper("clip_by_global_norm", norm_type=norm_type)(hollow)
        assert (report.norm_before, report.fired, len(report.per_tensor)) == (0.0, False, 1)
