"""What the page of a method says in words and formulas, held against what the method does."""

import re
from typing import Any

import pytest
import torch
from cases import beside, function, shape_of
from test_words import evaluate
from torch import Tensor

import normcore
from explorer import reference
from normcore import METHODS, Method, describe, formula, legend
from normcore.core import Divides, Identity, axis_sizes, counts, new_tensor
from normcore.lab.used import statistics

EVERY = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


def ordinary(method: Method) -> tuple[str, tuple[int, ...], dict[str, Any]]:
    """A layout, a small shape, and settings that divide it."""
    layout = next(
        (name for name in ("image", "tokens", "conv2d") if name in method.layouts), next(iter(method.layouts))
    )
    sizes = axis_sizes(shape_of(layout), layout)
    splits = [param for param in method.params if isinstance(param.domain, Divides)]
    return layout, shape_of(layout), {param.name: param.domain.samples(sizes)[-1] for param in splits}


@EVERY
def test_the_formula_with_what_is_learned_gives_the_output_of_a_layer(method: Method) -> None:
    """One random gain, bias and whatever else is learned, the same everywhere: at every element it is the formula."""
    layout, shape, settings = ordinary(method)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    sizes = axis_sizes(shape, layout)
    complete = method.settings(settings, sizes)
    known = {**sizes, **counts(complete)}
    slots = {name: slot for name, slot in method.affine.items() if name not in ("mean_weight", "var_weight")}
    values = {name: 0.25 + 0.2 * i for i, name in enumerate(slots)}
    learned = {
        name: values[name] * torch.ones_like(new_tensor(slot, known, x, complete))
        if not callable(slot.init)
        else torch.full((shape[0], *(1 for _ in shape[1:])), values[name], dtype=torch.float64)
        for name, slot in slots.items()
    }
    state = {}
    if method.key == "frozen_batch_norm":
        state = {"state": {n: new_tensor(s, known, x, complete) for n, s in method.state.items()}}
        state["state"]["weight"] *= 0.7
        state["state"]["bias"] += 0.3
        values |= {"weight": 0.7, "bias": 0.3}
    given = {
        name: new_tensor(slot, known, x, complete) + 0.4
        for name, slot in method.context.items()
        if name in ("scale", "shift", "gamma", "beta", "residual")
    } | beside(method, x)
    normed = method([x] if method.family == "gradient" else x, layout, **settings, **learned, **given, **state)
    at = tuple(size - 1 for size in shape)
    numbers = formula.numbers_at(x, normed, at) | values
    numbers |= {"init_alpha": values.get("alpha", 0.0), "init_shift": values.get("shift", 0.0)}
    if "gain" in normed.stats:
        numbers["gain"] = values["weight"]
    known_numbers = {k: v for k, v in complete.items() if isinstance(v, int | float)} | numbers
    names = tuple(normed.stats)
    written = formula._fill(
        formula.with_learned(method, complete), names, lambda name: formula.number(known_numbers[name], 12)
    )
    assert evaluate(written) == pytest.approx(numbers["y"], rel=1e-6, abs=1e-6), written


@EVERY
def test_the_formula_names_the_statistics_that_were_used(method: Method) -> None:
    layout, shape, settings = ordinary(method)
    used = statistics(method, shape, layout, settings)
    complete = method.settings(settings, axis_sizes(shape, layout))
    names = set(formula.names(method, complete, used))
    assert set(used) <= names | {"scale"}
    slots = {*method.affine, *method.state}
    assert names <= {"x", *used, *complete, *slots}
    assert "<" not in formula.learned(method, complete, used)
    assert {"weight", "bias", "v", "tau"} & method.affine.keys() <= names | {legend.VALUES.get(name) for name in names}


def test_the_estimate_of_the_variance_is_the_one_used() -> None:
    for key in ("positional_norm", "bert_layer_norm", "weight_standardization", "scaled_weight_standardization"):
        method = METHODS[key]
        layout, shape, settings = ordinary(method)
        written = formula.learned(method, method.settings(settings, {}), statistics(method, shape, layout, settings))
        assert "s^2" in written and r"\sigma" not in written
    for key in ("switchable_norm", "sparse_switchable_norm"):
        method = METHODS[key]
        written = formula.learned(method, method.settings({}, {}), statistics(method, shape_of("image"), "image", {}))
        assert r"\bar\mu" in written and r"\bar\sigma^2" in written
    for key in ("local_response_norm", "p_rms_norm", "local_context_norm"):
        method = METHODS[key]
        assert re.search(r"\\mathrm\{(window|part)\}", formula.symbolic(method, method.settings({}, {})))


@EVERY
def test_every_symbol_is_explained(method: Method) -> None:
    layout, shape, settings = ordinary(method)
    used = statistics(method, shape, layout, settings)
    complete = method.settings(settings, axis_sizes(shape, layout))
    said = " ".join(legend.legend(method, complete, used))
    for name in formula.names(method, complete, used):
        assert name == "x" or f"${formula.symbol(method, name)}$" in said, name


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("global_response_norm", r"In a new layer $\gamma = 0$. A new layer is the identity."),
        ("recurrent_batch_norm", r"In a new layer $\gamma = 0.1$."),
        ("scale_norm", r"In a new layer $\gamma = \sqrt{c}$."),
        (
            "rezero",
            "In a new layer $g = 0$. A new layer hands on what the branch was computed from, and nothing of the",
        ),
        ("weight_norm", "The weight is at first what it was."),
        ("batch_norm", ""),
        ("batch_renorm", ""),
    ],
)
def test_what_a_new_layer_is(key: str, said: str) -> None:
    layout, shape, settings = ordinary(METHODS[key])
    found = legend.beginning(METHODS[key], shape, layout, **settings)
    assert found.startswith(said) and bool(found) == bool(said)


def new_output(method: Method, x: Tensor, layout: str, settings: dict[str, Any], training: bool) -> Tensor:
    """What a new layer of a method gives, in evaluation after three batches."""
    if method.family == "gradient":
        return function(method, layout, settings)(x)
    if method.family == "weight":
        module = torch.nn.Linear(x.shape[1], x.shape[0], dtype=x.dtype)
        with torch.no_grad():
            module.weight.copy_(x)
        normcore.reparametrize(module, method.key, **settings)
        return module.weight.detach()
    sizes = axis_sizes(x.shape, layout)
    features = tuple(sizes[letter] for letter in method.feature_letters(layout))
    layer = normcore.layer(method.key, features if len(features) > 1 else features[0], layout, **settings).double()
    if not training:
        for i in range(3):
            layer(x * (i + 1) + i)
        layer.eval()
    return layer(x).detach()


IDENTITIES = [(method, identity) for method in METHODS.values() for identity in method.equals]


@pytest.mark.parametrize(("method", "identity"), IDENTITIES, ids=lambda v: getattr(v, "key", getattr(v, "other", "")))
def test_a_sentence_about_equal_methods_has_every_condition(method: Method, identity: Identity) -> None:
    """Where it makes no reservation, two new layers at their defaults agree; where it does, they may not."""
    other = METHODS[identity.other]
    sentence = describe.equalities(method)[method.equals.index(identity)]
    layout = (
        "linear"
        if method.family == "weight"
        else next(
            name for name in identity.layouts or method.layouts if name in other.layouts and name in method.layouts
        )
    )
    sizes = {**axis_sizes(shape_of(layout), layout), **identity.sizes}
    x = torch.randn(*sizes.values(), generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.3
    mine, theirs = (Identity.resolve(s, sizes) for s in (identity.settings, identity.other_settings))
    reserved = "up to" in sentence or "set alike" in sentence or "differ" in sentence
    for training in (True, False):
        if not training and (", in training" in sentence or method.family == "weight"):
            continue
        ours, hers = new_output(method, x, layout, mine, training), new_output(other, x, layout, theirs, training)
        if not reserved:
            torch.testing.assert_close(ours, hers, rtol=1e-9, atol=1e-9)
    for name in method.context:
        assert name in other.context or f"no {name}" in sentence


def test_what_the_reservations_are() -> None:
    (scale,) = describe.equalities(METHODS["scale_norm"])
    assert "up to what is learned: a gain (√c at first) here, nothing there" in scale
    assert "`eps` is 1e-05 here and 1e-12 there" in scale
    (pixel,) = describe.equalities(METHODS["pixel_norm"])
    assert "`eps` is 1e-08 here and 1e-06 there" in pixel
    assert describe.equalities(METHODS["masked_batch_norm"]) == ["With no mask it equals **BatchNorm**."]
    assert describe.equalities(METHODS["batch_norm"])[0].endswith("tensors, in training.")
    assert "a new layer starts otherwise there" in describe.equalities(METHODS["scaled_weight_standardization"])[0]


def test_code_of_another_package_is_called_so() -> None:
    names = {name for oracles in reference.measured("oracles").values() for name in oracles}
    called = {name for name in names if reference.by_package(name)}
    assert {name for name in names if "." in name.split()[0]} <= called
    assert {"opacus DPOptimizer", "onnx GroupNormalization", "transformers LlamaRMSNorm"} <= called
    assert not [name for name in called if re.search("formula|loop|rule|authors", name)]
