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

from normcore import METHODS, Method, NormcoreError, clipper
from normcore.core import Identity, Range

SHAPES = ((3,), (2, 3), (), (2, 1, 3), (4,))
LIMITED = [method for method in GRADIENTS if method.limited()]
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
        return [p.grad_sample.mean(0) for p in given if getattr(p, "grad_sample", None) is not None]
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
    for step in range(3, 6):
        one, two = made(method, step, 9.0), made(method, step, 9.0)
        assert first(one) == second(two)
        assert np.array_equal(flat(results(one)), flat(results(two)))
        assert first.state.keys() == second.state.keys()
        for name, value in first.state.items():
            torch.testing.assert_close(value, second.state[name], rtol=0, atol=0, equal_nan=True, msg=name)
    assert set(first.state) <= set(method.remembers) and bool(method.remembers) == bool(first.state)


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
    for chosen in samples(method, method.layouts[0]):
        state = None
        for step in range(3):
            given_ = made(method, seed + step, magnitude * 10**step, shapes=shapes, skipped=9)
            normed = called(method, given_, state, **chosen)
            state = normed.state
            for quantity, limit in method.limited(**chosen).items():
                assert measure(quantity, normed.y) <= limit * (1 + 1e-9), chosen


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
    chosen = {"warmup_steps": 2} if method.default("warmup_steps") is not None else {}
    chosen |= {"threshold": 9.0} if method.default("reset_every") is not None else {}  # the default lets much pass
    usual, healthy, _ = treatment(method, chosen)
    # A percentile counts zeros as well, and what SPAM has cut to 0 stays there: so their authors have it.
    zeros = [] if method.key in ("auto_clip", "spam_clipping") else [0.0]
    for strange in (math.nan, math.inf, *zeros):
        for bad in ((0,), (1,), (3,), (0, 1)):
            now, scale, state = treatment(method, chosen, bad, strange)
            assert now > usual / 9, (strange, bad)
            assert scale < 1e-2 if healthy < 1e-2 else math.isfinite(scale), (strange, bad)
            for name, value in state.items():
                history = isinstance(value, Tensor) and value.ndim == 1  # a gap in it is nan
                for entry in value if isinstance(value, list) else [value]:
                    assert (torch.any if history else torch.all)(torch.as_tensor(entry).isfinite()), (name, bad)


def treatment(
    method: Method, chosen: Any, bad: tuple[int, ...] = (), strange: float = 0.0
) -> tuple[float, float, dict[str, Any]]:
    """What is left of ordinary steps at most, and of a spike after them; and the memory.

    In the bad steps one value is strange, or with 0 all of them.
    """
    clip, name = clipper(method.key, **chosen), "grad_sample" if method.per_example else "grad"
    scales = []
    for step in range(13):
        given_ = made(method, step, 1e6 if step == 12 else 0.0 if step in bad and strange == 0 else 1.0, skipped=9)
        if step in bad:
            getattr(given_[1], name).view(-1)[0] = strange
        scales.append(clip(given_).scale)
    assert np.isfinite(flat(results(given_))).all()
    return max(scales[6:12]), scales[12], clip.state


@every_gradient_method
def test_a_list_may_become_shorter_from_one_step_to_the_next(method: Method) -> None:
    clip = clipper(method.key)
    clip(made(method, 0, 9.0, skipped=9))
    report = clip(made(method, 1, 9.0, skipped=4))
    assert len(report.per_tensor) == 4 and report.norm_before > 0
    clip(made(method, 2, 9.0, skipped=4))
    assert len(clip(made(method, 3, 9.0, skipped=9)).per_tensor) == 5


@every_gradient_method
def test_results_and_statistics_are_no_views_of_what_was_given(method: Method) -> None:
    for chosen in samples(method, method.layouts[0]):
        given_ = made(method, skipped=9)
        normed = called(method, given_, **chosen)
        places = {
            t.data_ptr() for p in given_ for t in (p.detach(), p.grad, getattr(p, "grad_sample", None)) if t is not None
        }
        found = [*normed.y]
        for value in [*normed.stats.values(), *normed.state.values()]:
            found += value if isinstance(value, list) else [value] if isinstance(value, Tensor) else []
        assert places.isdisjoint(t.data_ptr() for t in found), chosen


@every_gradient_method
def test_zeros_stay_zeros_also_at_a_threshold_of_zero(method: Method) -> None:
    domains = {param.name: param.domain for param in method.params}
    lowest = {n: d.low for n, d in domains.items() if isinstance(d, Range) and not (d.integer or math.isinf(d.low))}
    silent = {name: 0.0 for name in ("eta", "noise_multiplier") if name in domains}
    each = {"per_tensor": True} if "per_tensor" in domains else {}
    for chosen in ({}, {"eps": 0.0} if "eps" in domains else {}, lowest, lowest | each):
        given_ = made(method, scale=0.0, skipped=9)
        clipper(method.key, **(chosen | silent))(given_)
        assert (flat(results(given_)) == 0).all(), chosen


@every_gradient_method
def test_under_autocast_the_result_is_the_same(method: Method) -> None:
    plain, cast = (made(method, scale=3.0, dtype=torch.float32) for _ in range(2))
    clipper(method.key)(plain)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        clipper(method.key)(cast)
    assert np.array_equal(flat(results(plain)), flat(results(cast)))


@pytest.mark.parametrize("method", [m for m in GRADIENTS if not m.per_example], ids=lambda method: method.key)
def test_sparse_rows_are_clipped_unless_each_element_would_be_remembered(method: Method) -> None:
    clip, table = clipper(method.key), nn.Embedding(5, 3, sparse=True)
    for row in (3, 4):
        table.zero_grad()
        (9 * table(torch.tensor([1, row, 1, 0][row - 3 :]))).square().sum().backward()
        if method.remembers_elements:
            with pytest.raises(NormcoreError, match=r"remembers each element, which sparse rows do not allow; use Emb"):
                clip(table.parameters())
        else:
            assert clip(table.parameters()).norm_before > 0 and table.weight.grad.is_sparse


@pytest.mark.parametrize("method", [m for m in GRADIENTS if m.per_example], ids=lambda method: method.key)
def test_gradients_of_examples_are_refused_where_they_do_not_fit(method: Method) -> None:
    clip = clipper(method.key)
    clip(made(method, skipped=9))
    used = made(method, skipped=9)
    clip(used)
    assert all(p.grad_sample is None for p in used), "they are used once"
    missing = made(method)
    missing[2].grad = torch.ones_like(missing[2])
    before = [p.grad_sample for p in missing if hasattr(p, "grad_sample")]
    reshaped, sparse, empty = (made(method, skipped=9) for _ in range(3))
    reshaped[0].grad_sample = torch.ones(6, 4)
    sparse[0].grad_sample = sparse[0].grad_sample.to_sparse()
    for p in empty:
        p.grad_sample = p.grad_sample[:0]
    for given_, words in (
        (used, r"has a gradient and no grad_sample; call normcore.per_example_gradients\(model, loss, inputs\) first"),
        (missing, "has a gradient and no grad_sample"),
        (reshaped, r"a grad_sample has shape \(6, 4\); its parameter has \(3,\)"),
        (sparse, "a grad_sample is .*sparse_coo; it must be floating-point and dense"),
        (empty, "the batch has no examples; leave out this step"),
    ):
        with pytest.raises(NormcoreError, match=words):
            clip(given_)
    assert before == [p.grad_sample for p in missing if hasattr(p, "grad_sample")]


@pytest.mark.parametrize("method", [m for m in GRADIENTS if m.remembers], ids=lambda method: method.key)
def test_a_state_that_the_method_cannot_have_made_is_refused(method: Method) -> None:
    for strange in (3, ["step"], {"something": 1}, *({name: "text"} for name in method.remembers)):
        with pytest.raises(NormcoreError, match=f"{method.key}: the state"):
            called(method, made(method), strange)
        with pytest.raises(NormcoreError, match=f"{method.key}: the state"):
            clipper(method.key).load_state_dict(strange)


@pytest.mark.parametrize("method", [m for m in GRADIENTS if "parameters" in m.inputs], ids=lambda method: method.key)
def test_parameters_may_be_generated_and_must_be_tensors(method: Method) -> None:
    given_ = made(method)
    plain = [p.grad for p in given_ if p.grad is not None]
    expected = called(method, given_).y
    beside = (p.detach() for p in given_ if p.grad is not None)
    torch.testing.assert_close(method(plain, parameters=beside).y, expected)
    for strange in (3, torch.ones(2), [3], [torch.ones(1)] * 4):
        with pytest.raises(NormcoreError, match="parameters"):
            method(plain, parameters=strange)


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
