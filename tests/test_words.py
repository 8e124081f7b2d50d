"""What is said about a configuration is true: counts, coincidences, findings, formulas with their numbers."""

import math
from typing import Any

import pytest
import torch
from cases import every_activation, every_method, modes, samples, shape_of

import normcore
from normcore import METHODS, Bound, Method, describe, formula
from normcore.core import axis_sizes
from normcore.lab.probe import LIMIT, probe, stand_in

RESNET = (32, 256, 56, 56)


def test_the_headline_counts_as_in_the_paper() -> None:
    said = describe.headline(METHODS["batch_norm"], (4, 8, 4, 8), "image")
    assert said.startswith("8 statistics, each over 128 values; 2 × 8 learned parameters; running state: mean and var")
    said = describe.headline(METHODS["group_norm"], (4, 8, 4, 4), "image", num_groups=2)
    assert said == "8 statistics, each over 64 values; 2 × 8 learned parameters; running state: none"
    said = describe.headline(METHODS["local_response_norm"], (1, 8, 2, 2), "image", size=3)
    assert said == "32 statistics, each over up to 3 values; nothing learned; running state: none"
    assert "1 statistic over 6 values" in describe.headline(METHODS["layer_norm"], (1, 6), "vector")


@every_activation
def test_learned_and_remembered_are_what_the_layer_holds(method: Method, layout: str) -> None:
    shape = shape_of(layout)
    sizes = axis_sizes(shape, layout)
    features = tuple(sizes[letter] for letter in method.feature_letters(layout))
    layer = normcore.layer(method.key, features if len(features) > 1 else features[0], layout)
    said = describe.learned(method, shape, layout)
    terms = [part.split(" × ") for part in said.removesuffix("s").removesuffix(" learned parameter").split(" + ")]
    counted = (
        0 if said == "nothing learned" else sum(math.prod(int(n.replace(",", "")) for n in term) for term in terms)
    )
    assert counted == sum(parameter.numel() for parameter in layer.parameters())
    remembers = any(buffer is not None for buffer in layer.buffers())
    assert ("none" not in describe.remembered(method, shape, layout, {})) == remembers


def test_a_coincidence_is_said_exactly_when_it_holds() -> None:
    group = METHODS["group_norm"]
    assert describe.coincidences(group, (2, 6, 4, 4), "image", num_groups=6) == [
        "With 6 groups of 1 channel this is InstanceNorm."
    ]
    assert describe.coincidences(group, (2, 6, 4, 4), "image", num_groups=3) == []
    assert describe.coincidences(group, (2, 6, 6), "tokens", num_groups=1) == [
        "With 1 group of 6 channels this is LayerNorm on (n c h w), but not on (n t c)."
    ]
    assert describe.coincidences(group, (2, 6, 6), "tokens", num_groups=2) == []
    (sentence,) = describe.coincidences(group, (2, 6, 4, 4), "image", num_groups=1)
    assert sentence == (
        "With 1 group of 6 channels this is LayerNorm. The statistics are the same, the layers are not: "
        "2 × 6 learned parameters here, 2 × 96 learned parameters there."
    )
    batch = METHODS["batch_norm"]
    assert describe.coincidences(batch, (1, 6, 4, 4), "image")[0].startswith("With 1 sample this is InstanceNorm")
    assert describe.coincidences(batch, (1, 6, 4, 4), "image", training=False) == []


@every_method
def test_every_coincidence_names_a_method_and_ends(method: Method, layout: str) -> None:
    for settings in samples(method, layout):
        for sentence in describe.coincidences(method, shape_of(layout), layout, **settings):
            assert any(other.name in sentence for other in METHODS.values())
            assert sentence.endswith(".")


@pytest.mark.parametrize(
    ("key", "shape", "layout", "settings", "said"),
    [
        ("group_norm", (4, 6), "vector", {"num_groups": 6}, "one value: subtracting"),
        ("instance_norm", (4, 6, 1, 1), "image", {}, "one value: subtracting"),
        ("positional_norm", (4, 1), "vector", {}, "erases it, and the output is 0"),
        ("rms_norm", (4, 1), "vector", {}, "only the sign"),
        ("positional_norm", (4, 2), "vector", {}, "0.71"),
        ("weight_standardization", (4, 2), "linear", {}, "0.71"),
        ("batch_norm", (2, 6), "vector", {}, "become +1 and −1"),
        ("batch_norm", (1, 6), "vector", {}, "one value: subtracting"),
    ],
)
def test_what_degenerates_is_said_with_a_remedy(
    key: str, shape: tuple[int, ...], layout: str, settings: dict[str, Any], said: str
) -> None:
    (finding,) = normcore.diagnose(key, shape, layout, **settings)
    assert said in finding.sentence
    assert finding.remedy.endswith(".")
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = METHODS[key](x, layout, eps=1e-12, **settings).y
    if "one value: subtracting" in finding.sentence:
        assert y.abs().max() == 0
    else:
        end = 0.5**0.5 if said == "0.71" else 1.0
        torch.testing.assert_close(y.abs(), torch.full_like(y, end), rtol=1e-6, atol=1e-6)


def test_the_remedy_works() -> None:
    (finding,) = normcore.diagnose("group_norm", (4, 6), "vector", num_groups=3)
    assert finding.remedy == "Try num_groups=1, with 6 values in each region."
    (finding,) = normcore.diagnose("group_norm", (4, 1), "vector", num_groups=1)
    assert "num_groups" not in finding.remedy


@pytest.mark.parametrize("dim", [0, None])
def test_learned_counts_what_a_parametrization_holds(dim: int | None) -> None:
    module = normcore.reparametrize(torch.nn.Linear(3, 4), "weight_norm", dim=dim)
    held = module.parametrizations.weight[0].gain.numel()
    words = "1 learned parameter" if held == 1 else f"{held} learned parameters"
    assert describe.learned(METHODS["weight_norm"], (4, 3), "linear", dim=dim) == words


def test_statistics_are_called_what_they_are() -> None:
    expected = {
        ("batch_norm", True): {"mean", "var"},
        ("batch_norm", False): {"running_mean", "running_var"},
        ("switchable_norm", True): {"mixed_mean", "mixed_var"},
        ("positional_norm", True): {"mean", "var_unbiased"},
    }
    for (key, training), names in expected.items():
        seen = probe(key, (4, 6, 2, 2), "image", (0, 0, 0, 0), training)
        assert set(seen.numbers) == names | {"x", "y"}
        assert names <= set(formula.MEANINGS)
    clip = METHODS["clip_by_global_norm"]
    assert r"\lVert g \rVert" in formula.symbolic(clip, clip.settings({}, {}))
    cut = METHODS["clip_by_value"]
    assert formula.symbolic(cut, cut.settings({"upper": 0.0}, {})) == r"\min(\max(g, -\tau), b)"


def test_sound_configurations_get_no_finding() -> None:
    assert normcore.diagnose("group_norm", (4, 6, 4, 4), num_groups=2) == ()
    assert normcore.diagnose("batch_norm", (2, 6), "vector", training=False) == ()
    assert normcore.diagnose("local_response_norm", (1, 1), "vector") == ()
    assert normcore.diagnose("switchable_norm", (2, 6, 1, 1), "image") == ()


def evaluate(latex: str) -> float:
    """Compute what a formula with numbers says, knowing only the LaTeX that formulas use."""
    for found, meant in (
        (r"\left", ""),
        (r"\right", ""),
        (r"\cdot", "*"),
        (r"\sqrt{", "root({"),
        (r"\min", "min"),
        (r"\max", "max"),
        (r"\tanh", "tanh"),
        (r"\operatorname{erf}", "erf"),
        (r"\operatorname{sign}", "sign"),
        (r"\operatorname{number}", ""),
        (r"\infty", "inf"),
        (r"\pi", "pi"),
    ):
        latex = latex.replace(found, meant)
    text, i, closers = "", 0, []
    while i < len(latex):
        if latex.startswith(r"\frac{", i):
            text, i = text + "div((", i + 6
            closers.append("first")
        elif latex.startswith("root({", i):
            text, i = text + "root(", i + 6
            closers.append(")")
        elif latex.startswith("^{", i):
            text, i = text + "**(", i + 2
            closers.append(")")
        elif latex[i] == "}":
            closing = closers.pop()
            if closing == "first":
                assert latex[i + 1] == "{"
                text, i = text + "),(", i + 2
                closers.append("))")
            else:
                text, i = text + closing, i + 1
        else:
            text, i = text + latex[i], i + 1
    known = {
        "div": lambda a, b: a / b,
        "root": math.sqrt,
        "e": math.e,
        "min": min,
        "max": max,
        "inf": math.inf,
        "pi": math.pi,
    }
    return float(eval(text, known | {"tanh": math.tanh, "erf": math.erf, "sign": lambda x: math.copysign(1, x)}))


@every_method
def test_the_formula_with_its_numbers_gives_the_output(method: Method, layout: str) -> None:
    shape = shape_of(layout)
    index = tuple(size - 1 for size in shape)
    for settings in samples(method, layout):
        for training in modes(method):
            seen = probe(method.key, shape, layout, index, training, **settings)
            complete = method.settings(dict(seen.settings), axis_sizes(shape, layout))
            filled = formula.with_numbers(method, complete, seen.numbers)
            degenerate = abs(seen.numbers["x"] - seen.numbers.get("mean", 0.0)) < 1e-2
            tolerance = 2e-2 if degenerate else 5e-3
            assert evaluate(filled) == pytest.approx(seen.numbers["y"], rel=tolerance, abs=tolerance), filled
            assert "<" not in formula.symbolic(method, complete)


def test_a_probe_of_a_large_tensor_keeps_its_structure() -> None:
    for key, settings in (
        ("group_norm", {"num_groups": 32}),
        ("ghost_batch_norm", {"ghost_batch_size": 8}),
        ("batch_norm", {}),
    ):
        method = METHODS[key]
        shape, index, smaller = stand_in(method, RESNET, "image", (31, 255, 55, 55), settings)
        assert math.prod(shape) <= LIMIT
        large, small = method.bound(RESNET, "image", **settings)[0], method.bound(shape, "image", **smaller)[0]
        assert isinstance(large, Bound)
        assert isinstance(small, Bound)
        assert large.merged[0] == small.merged[0]
        assert small.label(index) == small.count - 1
    assert stand_in(METHODS["layer_norm"], (4, 6, 4, 4), "image", (1, 2, 3, 3), {})[0] == (4, 6, 4, 4)


def test_a_probe_owns_its_randomness() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = probe("batch_norm", (4, 6), "vector", (1, 2), training=False)
    torch.manual_seed(2)
    two = probe("batch_norm", (4, 6), "vector", (1, 2), training=False)
    assert one.numbers == two.numbers
    assert one.numbers != probe("batch_norm", (4, 6), "vector", (1, 2), training=False, seed=1).numbers
    torch.manual_seed(1)
    assert torch.equal(before, torch.get_rng_state())
