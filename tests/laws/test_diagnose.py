"""What the detector says is true, of every method that it speaks of; what is sound, it leaves alone."""

import re
from itertools import product
from typing import Any

import pytest
import torch
from cases import ACTIVATIONS, TENSORS, draw, every_tensor_method, structures
from torch import Tensor

from normcore import METHODS, Finding, Method, NormcoreError, convert, diagnose, layer
from normcore.core import LETTERS

LARGE = {"n": 12, "c": 16, "t": 12, "l": 24, "d": 6, "h": 12, "w": 12, "o": 8, "i": 24}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kinds(found: tuple[Finding, ...]) -> list[str]:
    return [finding.kind for finding in found]


def tiny(method: Method, layout: str) -> list[tuple[tuple[int, ...], dict[str, Any]]]:
    """Shapes with one or two elements an axis, under every setting that changes who shares."""
    found = []
    for shape in product((1, 2), repeat=len(LETTERS[layout])):
        sizes = dict(zip(LETTERS[layout], shape, strict=True))
        for settings in structures(method, sizes, num_groups=1, heads=1, channels_per_group=1, ghost_batch_size=1):
            found.append((shape, settings))
    return found


@every_tensor_method
def test_what_is_said_of_one_or_two_values_is_measured_to_be_so(method: Method, layout: str) -> None:
    for shape, settings in tiny(method, layout):
        for finding in diagnose(method.key, shape, layout, **settings):
            if finding.kind not in ("one value", "two values") or "on one of them alone" in finding.sentence:
                continue
            x, other = (1000 * draw_shape(shape, seed) for seed in (1, 2))
            y, z = (method(t, layout, **settings).y for t in (x, other))
            if "erases it" in finding.sentence and "In channel" not in finding.sentence:
                torch.testing.assert_close(y, z, rtol=0, atol=1e-9)
            elif "only the sign" in finding.sentence:
                torch.testing.assert_close(method(3 * x, layout, **settings).y, y, rtol=1e-6, atol=1e-9)
            elif "root of ε" in finding.sentence:
                eps = settings.get("eps", method.default("eps"))
                torch.testing.assert_close(y, x / eps**0.5)
            elif finding.kind == "two values":
                said = sorted(
                    float(v.replace("−", "-"))
                    for v in re.findall(r"[+−]\d+(?:\.\d+)?", finding.sentence.split("become")[1])
                )
                (region,) = method.bound(shape, layout, **settings)
                for label in range(region.count):
                    got = sorted(y[region.ids() == label].tolist())
                    assert got == pytest.approx(said, abs=0.006), (finding.sentence, got)


def draw_shape(shape: tuple[int, ...], seed: int) -> Tensor:
    return normal(*shape, seed=seed)


@pytest.mark.parametrize(
    ("key", "shape", "layout", "settings", "ends"),
    [
        ("ada_norm", (3, 2), "vector", {}, "+0.9 and −1.1"),
        ("ada_norm", (3, 2), "vector", {"k": 0.5, "scale": 2.0}, "+1 and −3"),
        ("centered_weight_norm", (3, 2), "linear", {}, "+0.71 and −0.71"),
        ("scaled_weight_standardization", (3, 2), "linear", {"gamma": 2.0}, "+1 and −1"),
        ("scaled_weight_standardization", (3, 2), "linear", {"unbiased": False}, "+0.71 and −0.71"),
        ("l1_batch_norm", (2, 3), "vector", {}, "+0.8 and −0.8"),
        ("group_norm", (3, 6), "vector", {"num_groups": 3}, "+1 and −1"),
    ],
)
def test_two_values_become_what_the_method_makes_of_them(
    key: str, shape: tuple[int, ...], layout: str, settings: dict[str, Any], ends: str
) -> None:
    (finding,) = diagnose(key, shape, layout, **settings)
    assert f"they become {ends}." in finding.sentence
    assert ("ε" in finding.sentence) == (METHODS[key].default("eps") is not None)


def test_epsilon_larger_than_two_values_differ_is_not_said_to_give_them_away() -> None:
    x = torch.tensor([[0.0, 1e-4]])
    assert float(METHODS["layer_norm"](x, "vector").y.abs().max()) < 0.1
    assert "unless they differ by so little" in diagnose("layer_norm", (1, 2), "vector")[0].sentence


def test_several_statistics_parts_and_windows() -> None:
    (part,) = diagnose("ibn", (4, 6, 1, 1))
    assert part.sentence.startswith("In channels 0 to 2 every region holds one value")
    x = normal(4, 6, 1, 1)
    y = METHODS["ibn"](x).y
    assert float(y[:, :3].abs().max()) == 0 < float(y[:, 3:].abs().min())
    (lent,) = diagnose("p_rms_norm", (4, 16), "vector")
    assert "measured on one of them alone" in lent.sentence
    x = normal(4, 16)
    x[:, 0] = 1e-6
    assert float(METHODS["p_rms_norm"](x, "vector").y.abs().max()) > 1e5
    assert diagnose("p_rms_norm", (4, 64), "vector") == ()
    (window,) = diagnose("local_context_norm", (2, 3, 4, 4), window=1, channels_per_group=1)
    assert "erases" in window.sentence and window.remedy == "Try channels_per_group=3, with 3 values in each region."
    assert float(METHODS["local_context_norm"](normal(2, 3, 4, 4), window=1, channels_per_group=1).y.abs().max()) < 1e-9
    assert diagnose("switchable_norm", (2, 6, 1, 1)) == ()


@pytest.mark.parametrize("key", ["decorrelated_batch_norm", "iter_norm"])
def test_a_covariance_is_called_singular_exactly_when_it_is(key: str) -> None:
    for samples, groups in product((2, 5, 6, 7, 9, 12), (1, 2, 4)):
        found = diagnose(key, (samples, 8, 1), "signal", num_groups=groups)
        channels = 8 // groups
        rank = int(torch.linalg.matrix_rank(torch.cov(normal(samples, channels).T)))
        assert kinds(found) == ["covariance"] * (rank < channels)
        if found:
            assert f"at least {channels - rank} of its {channels} directions" in found[0].sentence
            better = re.match(r"Try num_groups=(\d+)", found[0].remedy)
            if better:
                assert diagnose(key, (samples, 8, 1), "signal", num_groups=int(better[1])) == ()
    (lone,) = diagnose(key, (1, 8, 1), "signal")
    assert "the output is the bias alone" in lone.sentence
    assert float(METHODS[key](normal(1, 8, 1), "signal").y.abs().max()) == 0


@pytest.mark.parametrize("momentum", [0.9, 0.99, 1.0])
def test_a_momentum_that_forgets(momentum: float) -> None:
    (finding,) = diagnose("batch_norm", (32, 8), "vector", momentum=momentum)
    state = METHODS["batch_norm"](normal(32, 8), "vector", momentum=momentum).state
    first = METHODS["batch_norm"](normal(32, 8, seed=5), "vector", state=state, momentum=momentum).state["running_mean"]
    rest = first - momentum * normal(32, 8, seed=5).mean(0)
    torch.testing.assert_close(rest, (1 - momentum) * state["running_mean"])
    assert ("everything" in finding.sentence) == (momentum == 1)
    for quiet in ({"momentum": 0.1}, {"momentum": None}, {"momentum": 0.99, "track_running_stats": False}):
        assert diagnose("batch_norm", (32, 8), "vector", **quiet) == ()


@every_tensor_method
def test_sound_tensors_are_left_alone(method: Method, layout: str) -> None:
    shape = tuple(LARGE[letter] for letter in LETTERS[layout])
    for x in (normal(*shape), 3 + 2 * normal(*shape).float(), normal(*shape).relu() + 0.1 * normal(*shape, seed=3)):
        settings = {"p_rms_norm": {"p": 0.5}, "ghost_batch_norm": {"ghost_batch_size": 6}}.get(method.key, {})
        assert diagnose(method.key, shape, layout, x=x, **settings) == ()


def test_constant_regions_are_counted() -> None:
    x = normal(16, 8)
    x[:, [1, 4]] = torch.tensor([3.0, 0.0], dtype=x.dtype)
    (finding,) = diagnose("batch_norm", (16, 8), "vector", x=x)
    assert finding.sentence.startswith("2 of 8 regions are constant")
    assert float(METHODS["batch_norm"](x, "vector").y[:, [1, 4]].abs().max()) < 1e-12
    assert "constant" not in kinds(diagnose("rms_norm", (16, 8), "vector", x=torch.ones(16, 8)))


@pytest.mark.parametrize(("key", "settings"), [("batch_norm", {}), ("bert_layer_norm", {}), ("l2_norm", {"eps": 1e-3})])
def test_epsilon_that_outweighs_is_measured(key: str, settings: dict[str, Any]) -> None:
    norm = METHODS[key]
    eps = settings.get("eps", norm.default("eps"))
    for size in (1e-2 * eps, 1.0):
        x = size * normal(64, 64)
        found = diagnose(key, (64, 64), "vector", x=x, **settings)
        share = norm(x, "vector", **settings).y.norm(dim=0) / norm(x, "vector", eps=0.0).y.norm(dim=0)
        assert kinds(found) == ["epsilon"] * bool(share.max() < 0.5**0.5)


def test_lost_digits_are_measured_and_the_remedy_mends_them() -> None:
    x = (1e4 + 1e-2 * normal(8, 16, 8, 8)).float()
    finding = diagnose("group_norm", x.shape, x=x)[0]
    plain, shifted = (layer("group_norm", 16, shift_first=first)(x) for first in (False, True))
    exact = METHODS["group_norm"](x.double()).y
    off, mended = (float((y - exact).detach().abs().max()) for y in (plain, shifted))
    assert finding.kind == "digits"
    assert finding.sentence.endswith(f"off by up to {off:.1g}.")
    assert "shift_first=True" in finding.remedy and mended < 1e-5 and off > 0.02
    assert "digits" not in kinds(diagnose("group_norm", x.shape, x=x.double()))
    assert "digits" not in kinds(diagnose("l1_batch_norm", x.shape, x=x))  # which centers exactly


def test_an_input_too_coarse_for_its_spread() -> None:
    x = (1000 + 0.3 * normal(32, 8)).half()
    (finding,) = [f for f in diagnose("batch_norm", (32, 8), "vector", x=x) if f.kind == "coarse"]
    assert "float16 numbers lie 0.5 apart" in finding.sentence or "lie 1 apart" in finding.sentence
    assert len(x.unique()) < 10
    assert "coarse" not in kinds(diagnose("batch_norm", (32, 8), "vector", x=(300 * normal(32, 8)).half()))


def test_features_of_unlike_scale_and_unlike_offsets() -> None:
    scaled = torch.logspace(-3, 4, 8, dtype=torch.float64) * normal(256, 8)
    offset = torch.logspace(1, 4, 8, dtype=torch.float64) + 0.01 * normal(256, 8)
    for x, said in ((scaled, "themselves"), (offset, "8 of 8 channels vary by at most")):
        for key in ("layer_norm", "group_norm"):
            found = diagnose(key, (256, 8), "vector", x=x)
            assert kinds(found) == ["unlike scale"] and said in found[0].sentence
        assert "unlike scale" not in kinds(diagnose("batch_norm", (256, 8), "vector", x=x))
        assert "unlike scale" not in kinds(diagnose("group_norm", (256, 8), "vector", x=x, num_groups=8))
    y = METHODS["layer_norm"](scaled, "vector").y
    own = torch.tensor([torch.corrcoef(torch.stack([scaled[:, i], y[:, i]]))[0, 1] ** 2 for i in range(8)])
    said = diagnose("layer_norm", (256, 8), "vector", x=scaled)[0].sentence
    lost = (own < 0.05) & (30 * scaled.std(0) < scaled.std(0).max())
    assert 3 < int(lost.sum()) < 8
    assert f"{int(lost.sum())} of 8 channels are at most {100 * float(own[lost].max()):.1g} % themselves" in said
    assert diagnose("layer_norm", (256, 8), "vector", x=7 * normal(256, 8) + 2) == ()


@pytest.mark.parametrize(("samples", "said"), [(16, "are at most"), (1, "vary by at most")])
def test_a_minority_of_channels_that_is_erased(samples: int, said: str) -> None:
    scale = torch.tensor([1e4] * 5 + [1e-2] * 3, dtype=torch.float64)
    x = normal(samples, 8, 8, 8) * scale.reshape(8, 1, 1)
    (finding,) = diagnose("group_norm", x.shape, x=x, num_groups=1)
    assert finding.kind == "unlike scale" and f"3 of 8 channels {said}" in finding.sentence
    y = METHODS["group_norm"](x, num_groups=1).y
    kept = torch.corrcoef(torch.stack([x[:, 7].flatten(), y[:, 7].flatten()]))[0, 1] ** 2
    assert kept < 0.01 if samples > 1 else float(y[:, 7].std()) < 1e-5
    spread = normal(16, 8, 8, 8) * torch.logspace(-3, 4, 8, dtype=torch.float64).reshape(8, 1, 1)
    assert "unlike scale" in kinds(diagnose("group_norm", spread.shape, x=spread, num_groups=2))


def test_a_few_regions_that_epsilon_outweighs_are_chance() -> None:
    x = normal(8, 20)
    x[:, 3] *= 1e-4
    assert diagnose("batch_norm", (8, 20), "vector", x=x) == ()
    assert kinds(diagnose("batch_norm", (8, 20), "vector", x=1e-4 * x)) == ["epsilon"]
    pair = 1e-4 * normal(2, 20)
    assert kinds(diagnose("batch_norm", (2, 20), "vector", x=pair)) == ["two values"]


def test_momentum_0_never_moves_the_running_statistics() -> None:
    (finding,) = diagnose("batch_norm", (32, 8), "vector", momentum=0.0)
    assert finding.kind == "momentum" and "never move" in finding.sentence
    state = METHODS["batch_norm"](5 + normal(32, 8), "vector", momentum=0.0).state
    assert float(state["running_mean"].abs().max()) == 0


def test_padding_at_the_ends_is_found_where_statistics_reach_over_it() -> None:
    x = 3 + normal(4, 20, 8)
    x[0, 15:], x[2, 10:] = 0, 0
    (finding,) = diagnose("batch_norm", x.shape, "tokens", x=x)
    assert finding.kind == "padding" and finding.sentence.startswith("19 % of the positions")  # 15 of 80
    assert "masked_batch_norm" in finding.remedy
    assert diagnose("layer_norm", x.shape, "tokens", x=x) == ()  # by itself each token
    assert diagnose("masked_batch_norm", x.shape, "tokens", x=x) == ()
    x[0, 15:], x[2, 10:] = 1e-9, 1e-9
    assert diagnose("batch_norm", x.shape, "tokens", x=x) == ()
    image = 3 + normal(2, 4, 6, 6)
    image[1, :, 4:] = 0
    image[1, :, :, 5] = 0
    (finding,) = diagnose("instance_norm", image.shape, x=image)
    assert finding.sentence.startswith("22 % of the positions")  # 12 + 4 of 72


def test_values_that_are_no_numbers_are_counted_before_and_after() -> None:
    x = normal(4, 6)
    x[1, 2], x[3, 2] = torch.inf, torch.nan
    (finding,) = diagnose("batch_norm", (4, 6), "vector", x=x)
    after = int((~METHODS["batch_norm"](x, "vector").y.isfinite()).sum())
    assert finding.sentence == (
        f"Of 24 values of the input, 2 are infinite or not a number; of the output, {after}." and finding.sentence
    )
    assert f"of the output, {after}." in finding.sentence and after == 4
    assert "65,504" in diagnose("batch_norm", (4, 6), "vector", x=x.half())[0].remedy
    (clipped,) = diagnose("clip_by_value", (4, 6), "linear", x=x)
    assert "2 are infinite" in clipped.sentence


def test_squares_beyond_float16() -> None:
    for size, said in ((300.0, ["range"]), (200.0, [])):
        x = torch.full((1, 64), size).half()
        x[0, ::2] *= -1
        assert kinds(diagnose("rms_norm", (1, 64), "vector", x=x)) == said
        assert bool(x.square().isinf().any()) == bool(said)
        assert bool(METHODS["rms_norm"](x, "vector").y.isfinite().all())


def test_a_tensor_that_does_not_fit_is_refused() -> None:
    for x in ("no tensor", torch.ones(3, 6)):
        with pytest.raises(NormcoreError, match=r"batch_norm: x is .*; it must be a tensor of shape \(4, 6\)"):
            diagnose("batch_norm", (4, 6), "vector", x=x)  # type: ignore[arg-type]


SHIFTING = [method for method in ACTIVATIONS if "shift" in method.invariances()]


@pytest.mark.parametrize("method", SHIFTING, ids=lambda method: method.key)
def test_shift_first_keeps_output_state_and_gradient_and_the_digits(method: Method) -> None:
    for layout in method.layouts:
        x = 0.01 * draw(layout, seed=4, n=8, c=8, h=6, w=6, l=20, t=6)
        settings = {"eps": 1e-12} if method.default("eps") is not None else {}
        shifted, plain = (layer(method.key, 8, layout, shift_first=s, **settings).double() for s in (True, False))
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        for _ in range(2):
            torch.testing.assert_close(shifted(a), plain(b), rtol=1e-6, atol=1e-6)
        for ours, theirs in zip(shifted.buffers(), plain.buffers(), strict=True):
            torch.testing.assert_close(ours, theirs)
        grads = [torch.autograd.grad((f(t) * x.cos()).sum(), t)[0] for f, t in ((shifted, a), (plain, b))]
        torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(shifted.eval()(x), plain.eval()(x))
        far = (1e4 + x).float()
        exact = layer(method.key, 8, layout, **settings).double()(far.double())
        error = (layer(method.key, 8, layout, shift_first=True, **settings)(far) - exact).detach().abs().max()
        assert float(error) < 2e-3, layout


def test_shift_first_is_refused_where_a_shift_counts() -> None:
    with pytest.raises(NormcoreError, match="rms_norm: shift_first=True needs a method that a shift leaves alone"):
        layer("rms_norm", 8, shift_first=True)
    assert "shift_first=True" in repr(layer("group_norm", 8, shift_first=True))
    for target, kept in (("layer_norm", True), ("rms_norm", False)):
        swapped = convert(layer("group_norm", 8, shift_first=True), "group_norm", target).module
        assert swapped.shift_first == kept


def test_nobody_is_left_out() -> None:
    assert {"batch_norm", "group_norm", "deep_norm"} <= {method.key for method in SHIFTING}
    assert len(TENSORS) > 60
