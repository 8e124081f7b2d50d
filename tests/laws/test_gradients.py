"""What holds for every gradient method, on random lists of tensors: what it declares, and what its report says."""

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from cases import GRADIENTS, samples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from normcore import METHODS, Method, clipper
from normcore.core import Identity

SHAPES = ((3,), (2, 3), (), (2, 1, 3), (4,))
LIMITED = [method for method in GRADIENTS if method.limits]
every_gradient_method = pytest.mark.parametrize("method", GRADIENTS, ids=lambda method: method.key)
few = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
lists = st.lists(st.lists(st.integers(1, 4), max_size=4).map(tuple), min_size=1, max_size=5)


def made(
    method: Method,
    seed: int = 0,
    scale: float = 1.0,
    dtype: torch.dtype = torch.float64,
    shapes: Any = SHAPES,
    skipped: int = 2,
) -> list[nn.Parameter]:
    """Parameters with random gradients, of single examples where the method wants them; one has none."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for number, shape in enumerate(shapes):
        options: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
        parameter = nn.Parameter(torch.randn(shape, **options).to(dtype))
        batch = (6,) if method.per_example else ()
        gradient = (scale * torch.randn((*batch, *shape), **options)).to(dtype)
        if number != skipped:
            setattr(parameter, "grad_sample" if method.per_example else "grad", gradient)
        found.append(parameter)
    return found


def raw(method: Method, given: list[nn.Parameter]) -> list[Tensor]:
    """The gradients before clipping: with per-example methods what plain averaging gives."""
    if method.per_example:
        return [p.grad_sample.mean(0) for p in given if hasattr(p, "grad_sample")]
    return [p.grad.clone() for p in given if p.grad is not None]


def results(given: list[nn.Parameter]) -> list[Tensor]:
    return [p.grad.clone() for p in given if p.grad is not None]


def flat(tensors: list[Tensor]) -> np.ndarray:
    return np.concatenate([t.double().numpy().ravel() for t in tensors])


def called(method: Method, given: list[nn.Parameter], state: Any = None, **chosen: Any) -> Any:
    """The pure function on the same gradients."""
    name = "grad_sample" if method.per_example else "grad"
    here = [p for p in given if getattr(p, name, None) is not None]
    beside = {"parameters": [p.detach() for p in here]} if "parameters" in method.inputs else {}
    beside |= {"state": state} if state is not None and "state" in method.inputs else {}
    return method([getattr(p, name) for p in here], **beside, **chosen)


@every_gradient_method
def test_the_report_has_the_numbers_of_numpy(method: Method) -> None:
    for chosen in samples(method, method.layouts[0]):
        given_ = made(method, scale=3.0)
        before = raw(method, given_)
        order = chosen.get("norm_type", 2.0)
        report = clipper(method.key, **chosen)(given_)
        share = 1.0 if chosen.get("reduction") != "sum" else 6.0
        old = [t.numpy().ravel() * share for t in before]
        new = [t.numpy().ravel() for t in results(given_)]
        for one, two, numbers in [
            (np.concatenate(old), np.concatenate(new), report),
            *zip(old, new, report.per_tensor, strict=True),
        ]:
            assert numbers.norm_before == pytest.approx(np.linalg.norm(one, order), rel=1e-6)
            assert numbers.norm_after == pytest.approx(np.linalg.norm(two, order), rel=1e-6, abs=1e-9)
            assert numbers.scale == pytest.approx(numbers.norm_after / numbers.norm_before)
            if not method.per_example:
                assert numbers.fraction == pytest.approx(np.mean(one != two), abs=1e-9)
            lengths = np.linalg.norm(one) * np.linalg.norm(two)
            cosine = np.clip(one @ two / lengths, -1, 1) if lengths else 1.0
            assert math.cos(numbers.angle) == pytest.approx(cosine, abs=1e-6)
        assert pickle.loads(pickle.dumps(report)) == report


@every_gradient_method
def test_in_place_and_as_a_function_a_method_is_the_same(method: Method) -> None:
    clip, state = clipper(method.key), None
    for step in range(4):
        given_ = made(method, step, 5.0)
        expected = called(method, given_, state)
        state = expected.state
        clip(given_)
        ours = results(given_)
        theirs = [y.mean(0) for y in expected.y] if method.per_example else expected.y
        torch.testing.assert_close(ours, list(theirs), rtol=1e-9, atol=1e-12)


@every_gradient_method
def test_a_method_called_directly_leaves_its_input_alone(method: Method) -> None:
    given_ = made(method, scale=100.0)
    before = copy.deepcopy(given_)
    first = called(method, given_)
    frozen = copy.deepcopy(dict(first.state))
    called(method, given_, first.state)
    for old, new in zip(before, given_, strict=True):
        for name in ("grad", "grad_sample"):
            if getattr(old, name, None) is not None:
                assert torch.equal(getattr(old, name), getattr(new, name))
    assert str(frozen) == str(dict(first.state))


@every_gradient_method
def test_state_goes_on_in_another_clipper_exactly(method: Method) -> None:
    first, second = clipper(method.key), clipper(method.key)
    for step in range(3):
        first(made(method, step, 9.0))
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    kept = str(second.state)
    for step in range(3, 6):
        one, two = made(method, step, 9.0), made(method, step, 9.0)
        assert first(one) == second(two)
        assert np.array_equal(flat(results(one)), flat(results(two)))
    assert set(first.state) <= set(method.remembers) or not method.remembers
    assert bool(method.remembers) == bool(first.state) and (
        not method.remembers or str(first.state) != kept or len(kept) < 90
    )


@every_gradient_method
def test_anything_that_holds_parameters_will_do(method: Method) -> None:
    listed, generated, single = (made(method, scale=9.0) for _ in range(3))
    report = clipper(method.key)(listed)
    assert clipper(method.key)(p for p in generated) == report
    assert len(clipper(method.key)(single[0]).per_tensor) == 1
    assert np.array_equal(flat(results(listed)), flat(results(generated)))
    for nothing in ([], [nn.Parameter(torch.ones(2))], iter(())):
        empty = clipper(method.key)(nothing)
        assert (empty.norm_before, empty.scale, empty.fired, empty.per_tensor) == (0.0, 1.0, False, ())


@every_gradient_method
def test_gradients_keep_their_place_shape_and_precision(method: Method) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        given_ = made(method, scale=9.0, dtype=dtype)
        exact = [nn.Parameter(p.detach().double()) for p in given_]
        for p, q in zip(exact, given_, strict=True):
            for name in ("grad", "grad_sample"):
                if getattr(q, name, None) is not None:
                    setattr(p, name, getattr(q, name).double())
        places = [p.grad for p in given_]
        clipper(method.key)(given_)
        clipper(method.key)(exact)
        assert all(p.grad is place for p, place in zip(given_, places, strict=True) if place is not None)
        for p in given_:
            assert p.grad is None or (p.grad.dtype == dtype and p.grad.shape == p.shape)
        eps = torch.finfo(dtype).eps
        np.testing.assert_allclose(flat(results(given_)), flat(results(exact)), rtol=4 * eps, atol=9 * eps)


def cosine(one: np.ndarray, two: np.ndarray) -> float:
    lengths = np.linalg.norm(one) * np.linalg.norm(two)
    return float(one @ two / lengths) if lengths else 1.0


def rows(tensors: list[Tensor], first_axis: bool) -> list[np.ndarray]:
    """Each tensor as one row, or one a place on its first axis."""
    split = [t.reshape(len(t), -1) if first_axis and t.ndim > 1 else t.reshape(1, -1) for t in tensors]
    return [row.numpy() for t in split for row in t]


def keeps_directions(kind: str, before: list[Tensor], after: list[Tensor]) -> bool:
    if kind == "direction":
        pairs = [(flat(before), flat(after))]
    elif kind == "direction of each example":
        pairs = [(flat([b[i] for b in before]), flat([a[i] for a in after])) for i in range(len(before[0]))]
    else:
        units = kind == "direction of each unit"
        pairs = list(zip(rows(before, units), rows(after, units), strict=True))
    return all(cosine(one, two) > 1 - 1e-9 for one, two in pairs)


KINDS = ("direction", "direction of each tensor", "direction of each unit", "direction of each example")


@every_gradient_method
def test_directions_are_kept_exactly_as_declared(method: Method) -> None:
    kept = dict.fromkeys(KINDS[3:] if method.per_example else KINDS[:3], True)
    chosen: dict[str, Any] = {}
    if method.default("warmup_steps") is not None:
        chosen["warmup_steps"] = max(1, method.domain("warmup_steps").low)  # type: ignore[union-attr]
    if method.default("reset_every") is not None:
        chosen["threshold"] = 2.0  # the default lets everything pass here
    # The later steps are so long and uneven that every method has something to do.
    state = None
    for step in range(6):
        given_ = made(method, step, (1.0, 20.0, 0.05, 400.0, 1.0, 3000.0)[step], skipped=9)
        name = "grad_sample" if method.per_example else "grad"
        before = [getattr(p, name) for p in given_]
        if not method.per_example:
            before[1].mul_(50)  # one tensor is much longer than the others, and one of its units
            before[1][0].mul_(9)
        normed = called(method, given_, state, **chosen)
        state = normed.state
        for kind in kept:
            kept[kind] &= keeps_directions(kind, before, normed.y)
    declared = {kind for kind in KINDS if kind in method.kept(**chosen)}
    wider = {KINDS[0]: set(KINDS[:3]), KINDS[1]: set(KINDS[1:3]), KINDS[2]: {KINDS[2]}, KINDS[3]: {KINDS[3]}}
    implied = set().union(*(wider[kind] for kind in declared)) if declared else set()
    if method.key in ("zero_nans", "skip_if_nonfinite"):  # where all is finite they do nothing
        implied = set(KINDS[:3])
    assert {kind for kind, holds in kept.items() if holds} == implied


@every_gradient_method
def test_clipping_twice_changes_nothing_exactly_where_it_is_declared(method: Method) -> None:
    still = True
    for seed in range(3):
        given_ = made(method, seed, 10.0)
        once = called(method, given_)
        name = "grad_sample" if method.per_example else "grad"
        for p, y in zip([p for p in given_ if getattr(p, name, None) is not None], once.y, strict=True):
            setattr(p, name, y)
        again = called(method, given_)
        slack = method.default("eps") or 0.0
        still &= np.allclose(flat(once.y), flat(again.y), rtol=2 * slack + 1e-9, atol=0)
    fresh = {"state"} <= method.inputs and method.key not in ("zero_nans", "skip_if_nonfinite")
    if "clipped" in method.kept():
        assert still
    elif not fresh:  # a method that has seen nothing yet may well do nothing
        assert not still


@every_gradient_method
def test_small_gradients_are_left_alone_where_it_is_declared(method: Method) -> None:
    given_ = made(method, scale=1e-3)
    name = "grad_sample" if method.per_example else "grad"
    before = [getattr(p, name) for p in given_ if getattr(p, name, None) is not None]
    same = all(torch.equal(a, b) for a, b in zip(before, called(method, given_).y, strict=True))
    if "small" in method.kept():
        report = clipper(method.key)(given_)
        assert same and (report.fired, report.fraction) == (False, 0.0)
        # The sum over examples is added up in another order.
        assert (report.scale, report.angle) == (1.0, 0.0) or method.per_example
        assert report.scale == pytest.approx(1.0) and report.angle == pytest.approx(0.0, abs=1e-7)
    elif "state" not in method.inputs:
        assert not same


def measure(quantity: str, y: list[Tensor]) -> float:
    """The largest value of a bounded quantity, in numpy."""
    if quantity == "norm":
        return float(np.linalg.norm(flat(y)))
    if quantity == "value":
        return float(np.abs(flat(y)).max())
    if quantity == "norm of each example":
        return max(float(np.linalg.norm(flat([t[i] for t in y]))) for i in range(len(y[0])))
    over = {"norm of each tensor": 0.0, "rms of each tensor": 0.5, "average norm of each tensor": 1.0}[quantity]
    return max(float(np.linalg.norm(flat([t]))) / t.numel() ** over for t in y)


@pytest.mark.parametrize("method", LIMITED, ids=lambda method: method.key)
@given(shapes=lists, seed=st.integers(0, 99), magnitude=st.sampled_from([1e-3, 1.0, 30.0, 1e6]))
@few
def test_the_result_is_at_most_the_declared_limit(method: Method, shapes: Any, seed: int, magnitude: float) -> None:
    given_ = made(method, seed, magnitude, shapes=shapes, skipped=9)
    for quantity, bound in method.limits.items():
        values = [None] if isinstance(bound, float) else [v for v in (method.default(bound), 0.3) if v is not None]
        for value in values:
            chosen = {} if value is None or isinstance(bound, float) else {bound: value}
            limit = bound if isinstance(bound, float) else value
            assert measure(quantity, called(method, given_, **chosen).y) <= limit * (1 + 1e-9)


@every_gradient_method
@given(shapes=lists, seed=st.integers(0, 99))
@few
def test_any_list_of_tensors_keeps_its_shapes_and_its_report_adds_up(method: Method, shapes: Any, seed: int) -> None:
    given_ = made(method, seed, 5.0, shapes=shapes, skipped=seed % 3)
    report = clipper(method.key)(given_)
    assert [p.grad.shape for p in given_ if p.grad is not None] == [
        p.shape for n, p in enumerate(given_) if n != seed % 3
    ]
    for name in ("norm_before", "norm_after"):
        parts = [getattr(tensor, name) for tensor in report.per_tensor]
        assert getattr(report, name) == pytest.approx(np.linalg.norm(parts) if parts else 0.0, rel=1e-9)


@every_gradient_method
def test_a_value_that_is_not_finite_leaves_the_memory_usable(method: Method) -> None:
    for strange in (math.nan, math.inf):
        clip = clipper(method.key, **({"warmup_steps": 2} if method.default("warmup_steps") is not None else {}))
        for step in range(6):
            given_ = made(method, step, 1.0, skipped=9)
            if step == 3:
                where = given_[1].grad_sample if method.per_example else given_[1].grad
                where.view(-1)[0] = strange
            clip(given_)
        assert np.isfinite(flat(results(given_))).all()


IDENTITIES = [pytest.param(m, i, id=f"{m.key}-{i.other}") for m in GRADIENTS for i in m.equals]


@pytest.mark.parametrize(("method", "identity"), IDENTITIES)
def test_identities_hold_and_only_on_one_tensor_where_that_is_said(method: Method, identity: Identity) -> None:
    other = METHODS[identity.other]
    for shapes in (((2, 3),), SHAPES):
        for seed in range(3):
            one = made(method, seed, 20.0, shapes=shapes, skipped=9)
            ours = called(method, one, **identity.settings)
            theirs = called(other, one, **identity.other_settings)
            same = np.allclose(flat(ours.y), flat(theirs.y), rtol=1e-9, atol=0)
            assert same == (len(shapes) == 1 or not identity.single)


def test_thresholds_per_element_are_thresholds_per_tensor() -> None:
    one = made(METHODS["clip_by_norm_per_parameter"], 4, 20.0, shapes=((3, 5),), skipped=9)
    for key, setting, factor in (("clip_by_block_rms", "threshold", 15**0.5), ("clip_by_average_norm", "max_norm", 15)):
        ours = called(METHODS[key], one, **{setting: 0.5})
        theirs = called(METHODS["clip_by_norm_per_parameter"], one, max_norm=0.5 * factor)
        torch.testing.assert_close(ours.y, theirs.y)
    whole = made(METHODS["auto_clip"], 1, 5.0)
    assert np.allclose(
        flat(called(METHODS["auto_clip"], whole, percentile=100.0).y), flat(raw(METHODS["auto_clip"], whole))
    )
