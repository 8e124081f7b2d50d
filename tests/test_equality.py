"""When two norms are the same: measured against literal loops, and against what every method declares."""

from hashlib import blake2b
from itertools import product
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from cases import TENSORS, shape_of, sizes_of

from normcore import METHODS, layer
from normcore.core import Divides, axis_sizes
from normcore.figures.sameness import ALIKE, NEARLY, NONE, SAME, marked_heat, ring, shrinking
from normcore.lab.equality import EQUAL, compare, fingerprint, given, learned_shapes, made_of
from normcore.lab.identities import chain, claims
from normcore.lab.invariance import ORDER, OTHERS, SCALED, WEIGHTS_SCALED, WEIGHTS_SHIFTED, changes
from normcore.lab.weights import weight_scale

IMAGE = (4, 6, 4, 4)
every_layout = pytest.mark.parametrize(
    ("key", "layout"),
    [pytest.param(m.key, layout, id=f"{m.key}-{layout}") for m in TENSORS for layout in m.layouts],
)


def fitting(key: str, shape: tuple[int, ...], layout: str) -> dict[str, Any]:
    """The defaults, but for those that have to divide an axis and do not."""
    sizes = axis_sizes(shape, layout)
    splits = [param for param in METHODS[key].params if isinstance(param.domain, Divides)]
    return {p.name: p.domain.samples(sizes)[-1] for p in splits if p.default not in p.domain.samples(sizes)}


def pair(one: str, other: str, shape: tuple[int, ...] = IMAGE, layout: str = "image", **given_: Any) -> Any:
    outputs = []
    for key in (one, other):
        names = {param.name for param in METHODS[key].params}
        outputs.append(made_of(key, shape, layout, **{k: v for k, v in given_.items() if k in names}))
    return compare(outputs)


def normalized(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Standardized over some axes, in plain numpy."""
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


def test_outputs_and_differences_are_those_of_numpy() -> None:
    x = given(IMAGE, "image")
    batch, layer = normalized(x, (0, 2, 3)), normalized(x, (1, 2, 3))
    assert made_of("batch_norm", IMAGE, "image").y == pytest.approx(batch, abs=1e-12)
    found = pair("batch_norm", "layer_norm")
    assert found.difference[0, 1] == pytest.approx(np.abs(batch - layer).max(), rel=1e-12)
    assert found.share[0, 1] == pytest.approx(np.abs(batch - layer).max() / max(abs(batch).max(), abs(layer).max()))
    assert found.difference[0, 1] == found.difference[1, 0] and found.difference[0, 0] == 0


@pytest.mark.parametrize(
    ("one", "other", "shape", "layout", "settings", "same"),
    [
        ("layer_norm", "group_norm", IMAGE, "image", {"num_groups": 1}, (True, True, False)),
        ("layer_norm", "group_norm", IMAGE, "image", {"num_groups": 2}, (False, False, False)),
        ("layer_norm", "group_norm", (4, 6), "vector", {"num_groups": 1}, (True, True, True)),
        ("instance_norm", "group_norm", IMAGE, "image", {"num_groups": 6}, (True, True, True)),
        ("batch_norm", "instance_norm", (1, 6, 4, 4), "image", {}, (True, True, True)),
        ("batch_norm", "instance_norm", IMAGE, "image", {}, (False, False, True)),
        ("rms_norm", "layer_norm_2d", IMAGE, "image", {}, (False, True, False)),
        ("layer_norm", "positional_norm", (3, 5, 6), "tokens", {"unbiased": False}, (True, True, False)),
        ("group_norm", "local_context_norm", IMAGE, "image", {"num_groups": 3}, (True, True, True)),
    ],
)
def test_output_sharing_and_learned_shapes_are_told_apart(
    one: str, other: str, shape: tuple[int, ...], layout: str, settings: dict[str, Any], same: tuple[bool, ...]
) -> None:
    found = pair(one, other, shape, layout, **settings)
    assert (found.equal[0, 1], found.same_regions[0, 1], found.same_learned[0, 1]) == same


def test_only_epsilon_keeps_two_apart_and_the_number_says_so() -> None:
    apart = pair("layer_norm_2d", "positional_norm", unbiased=False)
    assert EQUAL < apart.share[0, 1] < 1e-4 and not apart.equal[0, 1]
    assert pair("layer_norm_2d", "positional_norm", unbiased=False, eps=1e-5).equal[0, 1]


@every_layout
def test_a_fingerprint_says_who_shares_with_whom(key: str, layout: str) -> None:
    shape = shape_of(layout, l=8)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randint(2**40, shape, generator=generator)
    small = {"window": 3, "size": 3} if layout == "signal" else {}
    names = {param.name for param in METHODS[key].params}
    settings = fitting(key, shape, layout) | {name: value for name, value in small.items() if name in names}
    for bound in METHODS[key].bound(shape, layout, **settings):
        sums = np.zeros(shape)
        for index in product(*map(range, shape)):
            sums[index] = sum(int(weights[tuple(member)]) for member in bound.members(index))
        shared = np.array([[one == other for other in sums.ravel()] for one in sums.ravel()])
        if hasattr(bound, "ids"):
            ids = bound.ids().numpy().ravel()
            assert (shared == (ids[:, None] == ids)).all()
        assert fingerprint(bound) == blake2b(sums.tobytes(), digest_size=16).hexdigest()


@pytest.mark.parametrize("layout", ["vector", "signal", "image", "volume", "tokens"])
def test_learned_shapes_are_those_of_real_layers(layout: str) -> None:
    sizes = sizes_of(layout, n=5, t=7)
    shape = tuple(sizes.values())
    for method in (m for m in METHODS.values() if m.family == "activation" and layout in m.layouts):
        settings = fitting(method.key, shape, layout)
        features = [sizes[letter] for letter in method.feature_letters(layout)]
        made = layer(method.key, features, layout, **settings)
        real = {name: tuple(s for s in p.shape if s > 1) for name, p in made.named_parameters()}
        assert learned_shapes(method, shape, layout, settings) == real, method.key


@every_layout
def test_a_large_tensor_is_compared_on_a_small_one_of_the_same_structure(key: str, layout: str) -> None:
    shape = tuple(64 for _ in shape_of(layout))
    made = made_of(key, shape, layout, **fitting(key, shape, layout))
    assert made.y.size <= 4096 and made.y.shape == made.shape
    assert learned_shapes(METHODS[key], shape, layout, fitting(key, shape, layout)) == made.learned


def test_every_declared_identity_is_found_and_every_met_one_is_measured() -> None:
    met = 0
    for method in TENSORS:
        for identity in method.equals:
            layout = next(
                name for name in identity.layouts or method.layouts if name in METHODS[identity.other].layouts
            )
            sizes = sizes_of(layout) | dict(identity.sizes)
            shape = tuple(sizes.values())
            complete = {
                key: METHODS[key].settings(fitting(key, shape, layout), sizes) for key in (method.key, identity.other)
            }
            for claim in claims(method.key, identity.other, shape, layout, True, complete):
                for name, (key, value) in claim.settings.items():
                    # One control serves all methods that have the setting.
                    complete = {k: v | ({name: value} if name in v else {}) for k, v in complete.items()}
                    complete[key][name] = value
            after = [
                c for c in claims(method.key, identity.other, shape, layout, True, complete) if c.key == method.key
            ]
            assert any(claim.met for claim in after), (method.key, identity.other, [claim.missing for claim in after])
            outputs = [made_of(key, shape, layout, **settings) for key, settings in complete.items()]
            assert compare(outputs).equal[0, 1], (method.key, identity.other)
            met += 1
    assert met > 20


def test_an_unmet_condition_says_what_is_missing_and_what_would_meet_it() -> None:
    settings = {key: METHODS[key].settings({}, axis_sizes(IMAGE, "image")) for key in ("batch_norm", "instance_norm")}
    (claim,) = claims("batch_norm", "instance_norm", IMAGE, "image", True, settings)
    assert claim.missing == ("4 samples instead of 1",) and claim.sizes == {"n": 1} and not claim.met
    one = {key: METHODS[key].settings({}, axis_sizes((1, 6, 4, 4), "image")) for key in settings}
    assert claims("batch_norm", "instance_norm", (1, 6, 4, 4), "image", True, one)[0].met
    tokens = {key: METHODS[key].settings({}, {"n": 4, "t": 5, "c": 6}) for key in ("layer_norm", "group_norm")}
    assert not claims("layer_norm", "group_norm", (4, 5, 6), "tokens", True, tokens)[0].possible


def test_a_chain_leads_over_methods_that_both_equal() -> None:
    keys = ("spade", "batch_norm", "sync_batch_norm")
    settings = {key: METHODS[key].settings({}, axis_sizes(IMAGE, "image")) for key in keys}
    way = chain("spade", "sync_batch_norm", keys, IMAGE, "image", True, settings)
    assert [(claim.key, claim.other) for claim in way] == [("spade", "batch_norm"), ("sync_batch_norm", "batch_norm")]
    assert chain("spade", "sync_batch_norm", (keys[0], keys[2]), IMAGE, "image", True, settings) == []


@pytest.mark.parametrize("training", [True, False])
@every_layout
def test_what_is_declared_to_stay_is_measured_to_stay(key: str, layout: str, training: bool) -> None:
    shape = tuple(max(size, 4) for size in shape_of(layout))
    names = {param.name for param in METHODS[key].params}
    settings = fitting(key, shape, layout) | ({"eps": 1e-12} if "eps" in names else {})
    for change in changes(key, layout, shape=shape, training=training, **settings):
        assert change.nothing or not change.declared, change


def test_the_classics_differ_in_what_they_do_not_feel() -> None:
    def stays(key: str, training: bool = True) -> set[str]:
        return {c.what for c in changes(key, "image", shape=IMAGE, training=training) if c.nothing}

    assert {WEIGHTS_SCALED, ORDER} <= stays("batch_norm") and not {OTHERS, WEIGHTS_SHIFTED} & stays("batch_norm")
    assert {WEIGHTS_SHIFTED, OTHERS} <= stays("layer_norm_2d") and WEIGHTS_SHIFTED not in stays("layer_norm")
    assert ORDER not in stays("ghost_batch_norm")
    assert SCALED not in stays("batch_norm", training=False) and OTHERS in stays("batch_norm", training=False)


def test_one_sample_has_no_company_to_measure() -> None:
    assert not {ORDER, OTHERS} & {c.what for c in changes("batch_norm", "image", shape=(1, 6, 4, 4))}


def test_a_scaled_weight_keeps_the_output_and_shrinks_its_gradient() -> None:
    for key in ("batch_norm", "layer_norm", "rms_norm"):
        scale = weight_scale(key, "image", IMAGE)
        assert scale and scale.shrinks
        for factor, gradient in zip(scale.factors, scale.gradients, strict=True):
            assert gradient == pytest.approx(1 / factor, rel=1e-2)
    for key in ("dynamic_tanh", "frozen_batch_norm"):
        assert not weight_scale(key, "image", IMAGE).shrinks
    assert weight_scale("weight_norm", "conv2d", (6, 4, 3, 3)).shrinks
    assert not weight_scale("batch_norm", "image", IMAGE, training=False).shrinks
    assert weight_scale("clip_by_value", "linear", (6, 4)) is None


def test_the_gradient_of_a_scaled_weight_is_that_of_plain_torch() -> None:
    scale = weight_scale("batch_norm", "vector", (8, 6))
    generator = torch.Generator().manual_seed(0)
    options: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    weight, inputs = torch.randn(6, 5, **options) / 5**0.5, torch.randn(8, 5, **options)
    direction, lengths = torch.randn(8, 6, **options), []
    for factor in (1.0, 3.0):
        w = (factor * weight).requires_grad_(True)
        y = torch.nn.functional.batch_norm(inputs @ w.T, None, None, training=True, eps=1e-5)
        lengths.append(float(torch.autograd.grad((y * direction).sum(), w)[0].norm()))
    assert scale and scale.gradients[scale.factors.index(3.0)] == pytest.approx(lengths[1] / lengths[0], rel=1e-9)


def test_marked_cells_leave_the_scale_and_carry_their_own_text() -> None:
    values, marks = np.array([[0.5, 0.0], [20.0, np.nan]]), np.array([[0, 1], [0, 0]])
    text = np.array([["0.5", "="], ["20", ""]], dtype=object)
    figure = marked_heat(values, marks, ["a", "b"], ["c", "d"], title="", text=text, hover=text, limits=(0.01, 10.0))
    numbers, same, nearly = figure.data
    assert np.isnan(numbers.z[0][1]) and same.z[0][1] == 1 and np.isnan(same.z[1][0]) and np.isnan(nearly.z).all()
    assert numbers.z[1][0] == pytest.approx(1.0) and np.isnan(numbers.z[1][1])
    assert same.text[0][1] == "=" and numbers.text[0][1] == ""


def test_a_ring_joins_each_pair_once() -> None:
    joined = np.array([[SAME, SAME, NONE], [SAME, SAME, ALIKE], [NONE, ALIKE, SAME]])
    figure = ring(["a", "b", "a rather long name"], joined, np.full((3, 3), "pair"), ("same", "nearly", "alike"))
    lines = {trace.name: int(np.isnan(np.array(trace.x, dtype=float)).sum()) for trace in figure.data if trace.name}
    assert lines == {"same": 1, "nearly": 0, "alike": 1}
    assert NEARLY not in joined
    assert "a rather<br>long name" in {note.text for note in figure.layout.annotations}
    assert isinstance(shrinking([1, 2], [[1, 0.5]], ["a"], [True]), go.Figure)
