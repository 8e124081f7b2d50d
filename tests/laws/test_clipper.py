"""Clippers: what they do to gradients in place, held against torch, and what their report says."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from agreement import agrees
from torch import nn

from normcore import METHODS, NormcoreError, clipper
from normcore.core import flat as flat_lists
from normcore.core import gradients, team

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


GRADIENT = [key for key, method in METHODS.items() if method.family == "gradient" and not method.per_example]


LOOPED = [
    ("spam_clipping", {}),
    ("spam_clipping", {"warmup_steps": 2, "reset_every": 4, "threshold": 3.0, "beta2": 0.0}),
    ("spam_clipping", {"warmup_steps": 2, "reset_every": 5, "threshold": 2.0, "beta2": 0.4}),
    ("update_rms_clipping", {}),
    ("update_rms_clipping", {"beta2": 0.0, "clip_threshold": 0.3}),
    ("stable_spam_clipping", {}),
    ("soft_clip", {"threshold": 0.5}),
    ("lamb_trust_ratio", {}),
    ("lamb_trust_ratio", {"max_ratio": 0.9}),
    ("lars_trust_ratio", {"trust_coefficient": 0.5}),
    ("scale_by_param_block_rms", {"min_scale": 0.02}),
    ("adaptive_gradient_clipping", {"exclude": 1}),
    ("adaptive_gradient_clipping", {"clip_factor": 0.2, "exclude": 2}),
    ("gradient_centralization", {}),
]


@pytest.fixture
def looped(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lists of a thousand numbers take the loops, on two threads; and in how many parts each was."""
    parts: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(flat_lists, "LARGE", 1000)
    monkeypatch.setattr(team, "PIECE", 1000)

    def counted(loop: flat_lists.Loop, total: int, many: int, *given: object) -> None:
        parts.append(many)
        team.share(loop, total, many, *given)

    monkeypatch.setattr(flat_lists, "share", counted)
    return parts


SEVERAL = ((3,), (70, 150), (0, 2), (), (60, 5, 25), (5, 1, 9), (2, 0), (1, 4))
"""Many sizes, two without elements, two longer than a chunk, of which neither is too large a share."""


def several(seed: int, dtype: torch.dtype, shapes: Sequence[tuple[int, ...]] = SEVERAL) -> list[nn.Parameter]:
    """Parameters with random gradients; the first row of their weights is 0, which is all of the last one."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    made = [nn.Parameter(0.1 * drawn(shape)) for shape in shapes]
    for parameter in made:
        parameter.grad = drawn(tuple(parameter.shape))
        if parameter.ndim > 1:
            parameter.data[:1] = 0
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("strange", [100.0, math.inf, math.nan, 0.0])
@pytest.mark.parametrize(("key", "settings"), LOOPED)
def test_compiled_loops_are_the_same_as_single_steps(
    key: str,
    settings: dict[str, float],
    strange: float,
    dtype: torch.dtype,
    looped: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loops, steps = clipper(key, **settings), clipper(key, **settings)
    last = 22 if not settings else 7  # beyond every warm-up
    close = {"rtol": 1e-5, "atol": 1e-6} if dtype is torch.float32 else {"rtol": 1e-11, "atol": 0.0}
    for step in range(last):
        one, other = several(step, dtype), several(step, dtype)
        if step == last - 2:
            for given in (one, other):
                given[1].grad[40, :3] = strange  # type: ignore[index]
        found = loops(one)
        with monkeypatch.context() as patch:
            patch.setattr(flat_lists, "LARGE", 2**60)
            expected = steps(other)
            wanted = [(r.norm_before, r.norm_after, r.fraction) for r in expected.per_tensor]
        np.testing.assert_allclose(flat(one), flat(other), **close)
        rows = [(r.norm_before, r.norm_after, r.fraction) for r in found.per_tensor]
        if key != "soft_clip":  # where tanh is the number itself in float32 is a matter of the last digit
            np.testing.assert_allclose(rows, wanted, rtol=1e-4)
        assert found.angle == pytest.approx(expected.angle, abs=1e-3, nan_ok=True)
    for name, value in steps.state_dict().items():
        pairs = zip(*(v if isinstance(v, list) else [v] for v in (loops.state[name], value)), strict=True)
        for a, b in pairs:
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), **close)
    assert bool(looped) == ((key, dtype) != ("soft_clip", torch.float64))


@pytest.mark.parametrize(
    ("key", "settings"),
    [row for row in LOOPED if not row[0].endswith(("spam_clipping", "soft_clip"))],
)
def test_loops_find_the_statistics_of_the_formula(
    key: str, settings: dict[str, float], looped: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> dict[str, list[torch.Tensor]]:
        given = several(0, torch.float32)
        owned = gradients.Owned()
        owned.extend(p.grad for p in given if p.grad is not None)
        extra = {"parameters": [p.detach() for p in given]} if "parameters" in METHODS[key].inputs else {}
        with torch.no_grad():
            return dict(METHODS[key].fn(owned, **METHODS[key].settings(settings, {}), **extra).stats)

    looped_stats = found()
    assert looped
    monkeypatch.setattr(flat_lists, "LARGE", 2**60)
    assert found()
    for name, expected in found().items():
        for one, other in zip(looped_stats[name], expected, strict=True):
            torch.testing.assert_close(one, other)


def test_one_tensor_may_be_nearly_all(looped: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("update_rms_clipping", "lamb_trust_ratio", "gradient_centralization"):
        one, other = (several(1, torch.float32, [(3,), (70, 150)]) for _ in range(2))
        clipper(key)(one)
        assert looped
        with monkeypatch.context() as patch:
            patch.setattr(flat_lists, "LARGE", 2**60)
            clipper(key)(other)
        np.testing.assert_allclose(flat(one), flat(other), rtol=1e-5, atol=1e-6)


def test_gradients_that_lie_in_one_place_keep_off_the_loops(looped: list[int]) -> None:
    first, second = several(1, torch.float32, [(70, 150)])[0], several(2, torch.float32, [(70, 150)])[0]
    second.grad = first.grad
    clipper("lamb_trust_ratio")([first, second])
    whole = torch.randn(20_000)
    parts = [nn.Parameter(torch.randn(12_000)) for _ in range(2)]
    for part, start in zip(parts, (0, 8_000), strict=True):
        part.grad = whole[start : start + 12_000]
    clipper("gradient_centralization")(parts)
    zeros = several(3, torch.float32)
    zeros[1].grad = torch._efficientzerotensor(zeros[1].shape)
    with pytest.raises(RuntimeError, match="ZeroTensors are immutable"):
        clipper("lamb_trust_ratio")(zeros)
    thin = nn.Parameter(torch.randn(2000, 3))
    thin.grad = torch.randn(2000, 3)
    clipper("gradient_centralization")([thin])
    assert not looped


@pytest.mark.parametrize(("key", "settings"), LOOPED)
def test_autograd_sees_that_a_loop_changed_a_gradient(key: str, settings: dict[str, float], looped: list[int]) -> None:
    given = several(4, torch.float32)
    before = [p.grad._version for p in given if p.grad is not None]
    clipper(key, **settings)(given)
    assert looped and all(p.grad._version > was for p, was in zip(given, before, strict=True) if p.grad is not None)


def test_what_was_remembered_in_inference_mode_can_be_used_later(looped: list[int]) -> None:
    clip = clipper("spam_clipping", warmup_steps=2, reset_every=3)
    with torch.inference_mode():
        clip(several(5, torch.float32))
    for step in range(4):
        clip(several(step, torch.float32))
    assert looped


def test_norms_beyond_the_range_of_squares(looped: list[int]) -> None:
    for size in (1e20, 1e-25):
        for key in (
            "stable_spam_clipping",
            "lamb_trust_ratio",
            "scale_by_param_block_rms",
            "adaptive_gradient_clipping",
        ):
            given = several(6, torch.float32)
            for parameter in given:
                parameter.grad = parameter.grad * size
            exact = [float(p.grad.double().norm()) for p in given if p.grad is not None]
            report = clipper(key)(given)
            assert [row.norm_before for row in report.per_tensor] == pytest.approx(exact, rel=1e-5)
    assert looped


def test_angles_of_pure_scaling_are_none(looped: list[int]) -> None:
    given = several(7, torch.float32, [(70, 150), (60, 5, 25)])
    report = clipper("stable_spam_clipping")(given)
    assert looped and max(row.angle for row in report.per_tensor) < 1e-6


def test_a_tanh_ends_at_the_threshold(looped: list[int]) -> None:
    given = nn.Parameter(torch.zeros(2**12))
    given.grad = torch.linspace(-12, 12, 2**12)
    given.grad[-1] = math.inf
    clipper("soft_clip", threshold=2.0)([given])
    assert looped and given.grad[-1] == 2.0 and float((given.grad[:-1] - given.grad[1:]).max()) < 1e-6


def test_one_clipper_in_several_threads_still_clips(looped: list[int]) -> None:
    clip = clipper("soft_clip", threshold=0.5)

    def once(seed: int) -> np.ndarray:
        given = several(seed, torch.float32)
        clip(given)
        return flat(given)

    expected = list(map(once, range(24)))
    with ThreadPoolExecutor(3) as pool:
        for made, wanted in zip(pool.map(once, range(24)), expected, strict=True):
            np.testing.assert_array_equal(made, wanted)


def test_lists_of_two_precisions_keep_off_the_loops(looped: list[int]) -> None:
    given = [*several(2, torch.float32), *several(2, torch.float64)]
    clipper("lamb_trust_ratio")(given)
    assert not looped and all(p.grad is not None and p.grad.isfinite().all() for p in given)


def test_a_state_of_another_shape_keeps_off_the_loops(looped: list[int]) -> None:
    for key in ("spam_clipping", "update_rms_clipping"):
        clip = clipper(key)
        clip.load_state_dict({"step": 5, "v": [torch.tensor(1.0, dtype=torch.float64)]})
        given = nn.Parameter(torch.zeros(2000, dtype=torch.float64))
        given.grad = torch.ones(2000, dtype=torch.float64)
        clip([given])
        assert clip.state["v"][0].shape == (2000,) and not looped


def test_norms_of_large_matrices_alone() -> None:
    given = nn.Parameter(torch.zeros(300, 300))
    given.grad = torch.full((300, 300), 2.0)
    for key in ("clip_by_global_norm", "stable_spam_clipping"):
        clipper(key)([given])
    assert math.isfinite(float(given.grad.norm()))


def test_soft_clipping_in_float32_is_tanh_to_its_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.cat([torch.linspace(-12, 12, 40_001), torch.logspace(-44, 30, 10_001), torch.tensor([0, -math.inf])])
    monkeypatch.setattr(flat_lists, "LARGE", 2)
    for threshold in (1.0, 1e-3, 30.0):
        given = nn.Parameter(torch.zeros(len(values)))
        given.grad = threshold * values
        report = clipper("soft_clip", threshold=threshold)(given)
        exact = threshold * torch.tanh(values.double())
        tiny = torch.finfo(torch.float32).tiny
        assert float(((given.grad - exact) / exact.abs().clamp(min=tiny)).abs().max()) < 5e-7
        assert float(given.grad.abs().max()) <= threshold * (1 + 1e-7)
        assert report.norm_after == pytest.approx(float(given.grad.double().norm()), rel=1e-4)


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


def test_a_norm_that_is_not_finite_is_an_error_where_asked_for() -> None:
    for strange in (math.nan, math.inf):
        given, other = pair(strange, 1.0), pair(3.0, 4.0)
        with pytest.raises(RuntimeError, match="non-finite"):
            torch.nn.utils.clip_grad_norm_([pair(strange, 1.0)], 1.0, error_if_nonfinite=True)
        with pytest.raises(NormcoreError, match=r"the norm of the gradients is (nan|inf); leave out this step"):
            clipper("clip_by_global_norm", error_if_nonfinite=True)([given, other])
        assert other.grad.tolist() == [3.0, 4.0], "nothing is changed before the error"


def test_one_infinity_is_one_nan_and_silence_elsewhere() -> None:
    given = pair(math.inf, 3.0)
    report = clipper("clip_by_global_norm")(given)
    assert math.isnan(given.grad[0]) and given.grad[1] == 0 and report.norm_before == math.inf and report.fired
    assert math.isnan(report.norm_after) and math.isnan(report.scale) and math.isnan(report.per_tensor[0].norm_after)
    for strange in (math.inf, math.nan):
        kept = pair(strange, 3.0)
        report = clipper("skip_if_nonfinite")(kept)
        assert kept.grad.tolist() == [0.0, 0.0] and report.scale == report.norm_after == 0 and report.fired


def test_mixed_precisions_share_one_norm() -> None:
    given = [nn.Parameter(torch.zeros(4, dtype=dtype)) for dtype in (torch.float16, torch.float32, torch.float64)]
    for parameter in given:
        parameter.grad = torch.full_like(parameter, 100.0)
    report = clipper("clip_by_global_norm", eps=0.0)(given)
    assert report.norm_before == pytest.approx(100 * 12**0.5, rel=1e-6)
    assert [p.grad.dtype for p in given] == [torch.float16, torch.float32, torch.float64]
    for parameter in given:
        np.testing.assert_allclose(parameter.grad.double().numpy(), 12**-0.5, rtol=2 * torch.finfo(parameter.dtype).eps)


def test_a_sparse_gradient_is_clipped_by_its_stored_rows() -> None:
    for key in ("clip_by_global_norm", "clip_by_value", "adaptive_gradient_clipping"):
        sparse, dense = (nn.Embedding(5, 3, sparse=kind) for kind in (True, False))
        dense.load_state_dict(sparse.state_dict())
        for table in (sparse, dense):
            (9 * table(torch.tensor([1, 3, 1]))).square().sum().backward()
        clipper(key)(sparse.parameters())
        clipper(key)(dense.parameters())
        assert sparse.weight.grad.is_sparse
        torch.testing.assert_close(sparse.weight.grad.to_dense(), dense.weight.grad)


def test_the_same_list_has_to_come_again_where_something_is_remembered() -> None:
    clip = clipper("ema_adaptive_clipping")
    clip(parameters())
    with pytest.raises(NormcoreError, match="remembers 5 parameters and was given 1; make one for each list"):
        clip(parameters()[0])
    with pytest.raises(NormcoreError, match="the state has 'mean'; this method remembers step, average"):
        clip.load_state_dict({"mean": 1.0})


def test_a_parameter_without_a_gradient_is_remembered_until_it_has_one() -> None:
    clip = clipper("ema_adaptive_clipping", warmup_steps=1)
    first = parameters(skipped=9)
    clip(first)
    kept = [float(entry) for entry in clip.state["average"]]
    clip(parameters(seed=1, skipped=2))
    now = [float(entry) for entry in clip.state["average"]]
    assert now[2] == kept[2] and all(a != b for i, (a, b) in enumerate(zip(now, kept, strict=True)) if i != 2)


@pytest.mark.parametrize("limit", [1e-4, 1.0, 50.0, 299.0])
def test_angles_are_exact_in_single_precision_too(limit: float) -> None:
    """Where nearly nothing is cut, and where nearly everything is."""
    gradient = torch.randn(500, generator=torch.Generator().manual_seed(3)) * 100
    given = nn.Parameter(torch.zeros(500))
    given.grad = gradient.clone()
    report = clipper("clip_by_value", clip_value=limit)(given)
    one, two = gradient.double().numpy(), gradient.double().clamp(-limit, limit).numpy()
    one, two = one / np.linalg.norm(one), two / np.linalg.norm(two)
    exact = 2 * math.atan2(np.linalg.norm(one - two), np.linalg.norm(one + two))
    assert report.angle == pytest.approx(exact, rel=1e-5)
