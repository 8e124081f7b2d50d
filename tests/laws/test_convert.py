"""Conversion: what comes out is the model that a careful hand would have made, or nothing has changed at all."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from normcore import METHODS, NormcoreError, NormLayer, convert, diagnose, layer


class Block(nn.Module):
    """A residual block."""

    def __init__(self, channels: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, channels, 3, padding=1), norm(channels)
        self.conv2, self.norm2 = nn.Conv2d(channels, channels, 3, padding=1), norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))).relu()


def residual_net(norm: Callable[[int], nn.Module]) -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(3, 8, 3), norm(8), nn.ReLU())
    down = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2), norm(12))
    return nn.Sequential(stem, Block(8, norm), down, Block(12, norm), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def conv_net(norm: Callable[[int], nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3), norm(6), nn.ReLU(), nn.Conv2d(6, 12, 3), norm(12), nn.Dropout(0.5))


def mlp(norm: Callable[[int], nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), norm(8), nn.Tanh(), nn.Linear(8, 6), norm(6))


def randomize(model: nn.Module) -> nn.Module:
    """Random values for all that a model learns and remembers."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model


def image(n: int = 4, c: int = 3, size: int = 9) -> Tensor:
    return torch.randn(n, c, size, size, generator=torch.Generator().manual_seed(1))


def vectors(n: int = 4, c: int = 5) -> Tensor:
    return torch.randn(n, c, generator=torch.Generator().manual_seed(2))


def gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    torch.manual_seed(3)
    probe = x.clone().requires_grad_(True)
    y = model(probe)
    return [y, *torch.autograd.grad((y * y.detach().cos()).sum(), [probe, *model.parameters()])]


def picture(model: nn.Module) -> list[Any]:
    """All that a conversion could change in a model."""
    modules = [(name, id(m), m.training, len(m._forward_pre_hooks)) for name, m in model.named_modules()]
    tensors = [(name, id(t), t._version) for name, t in (*model.named_parameters(), *model.named_buffers())]
    return [modules, tensors, {name: value.tolist() for name, value in model.state_dict().items()}]


def refusal(model: nn.Module, *keys: str, **settings: Any) -> str:
    """The sentence with which a conversion is refused, after a look at whether anything changed."""
    before = picture(model)
    with pytest.raises(NormcoreError) as caught:
        convert(model, *keys, **settings)
    assert picture(model) == before
    return str(caught.value)


BY_HAND: list[Any] = [
    pytest.param(conv_net, nn.BatchNorm2d, "group_norm", {"num_groups": 3}, lambda c: nn.GroupNorm(3, c), id="conv"),
    pytest.param(residual_net, nn.BatchNorm2d, "group_norm", {"num_groups": 4}, lambda c: nn.GroupNorm(4, c), id="res"),
    pytest.param(residual_net, nn.BatchNorm2d, "layer_norm", {}, lambda c: nn.GroupNorm(1, c), id="res-layer"),
    pytest.param(mlp, nn.BatchNorm1d, "layer_norm", {"eps": 0.1}, lambda c: nn.LayerNorm(c, 0.1), id="mlp"),
    pytest.param(mlp, nn.LayerNorm, "batch_norm", {}, nn.BatchNorm1d, id="mlp-batch"),
]


@pytest.mark.parametrize(("net", "norm", "target", "settings", "other"), BY_HAND)
def test_a_converted_model_is_the_one_made_by_hand(
    net: Any, norm: Any, target: str, settings: dict[str, Any], other: Any
) -> None:
    model, expected = randomize(net(norm)), net(other)
    expected.load_state_dict(model.state_dict(), strict=False)
    source = {nn.LayerNorm: "layer_norm"}.get(norm, "batch_norm")
    modules, parameters = dict(model.named_modules()), list(model.parameters())
    x = vectors() if net is mlp else image()
    report = convert(model, source, target, example=x, **settings)
    assert report.module is model and {e.carried for e in report.entries} == {("weight", "bias")}
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True)), "an optimizer would lose them"
    swapped = {name for name, module in model.named_modules() if module is not modules[name]}
    assert swapped == {entry.name for entry in report.entries} == {n for n, m in modules.items() if type(m) is norm}
    assert list(model.state_dict()) == list(expected.state_dict())
    for ours, theirs in zip(gradients(model, x), gradients(expected, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


OWN: list[Any] = [
    (nn.BatchNorm1d(4, 0.1, 0.3), (3, 4), "batch_norm"),
    (nn.BatchNorm1d(4, 0.1, None), (3, 4, 5), "batch_norm"),
    (nn.BatchNorm2d(4, affine=False), (3, 4, 2, 2), "batch_norm"),
    (nn.BatchNorm3d(4, track_running_stats=False), (3, 4, 2, 2, 2), "batch_norm"),
    (nn.SyncBatchNorm(4, 0.1), (3, 4, 2, 2), "batch_norm"),
    (nn.InstanceNorm1d(4), (3, 4, 5), "instance_norm"),
    (nn.InstanceNorm2d(4, 0.1, 0.3, affine=True, track_running_stats=True), (3, 4, 2, 2), "instance_norm"),
    (nn.InstanceNorm3d(4, affine=True), (3, 4, 2, 2, 2), "instance_norm"),
    (nn.LayerNorm(4, 0.1, bias=False), (3, 5, 4), "layer_norm"),
    (nn.LayerNorm(4), (3, 4), "layer_norm"),
    (nn.LayerNorm((4, 5)), (3, 4, 5), "layer_norm"),
    (nn.LayerNorm((4, 2, 3), elementwise_affine=False), (3, 4, 2, 3), "layer_norm"),
    (nn.RMSNorm(4), (3, 5, 4), "rms_norm"),
    (nn.RMSNorm(4, 0.1, elementwise_affine=False), (3, 4), "rms_norm"),
    (nn.GroupNorm(2, 4, 0.1), (3, 4, 5), "group_norm"),
    (nn.GroupNorm(4, 4, affine=False), (3, 4, 2, 2), "group_norm"),
    (nn.LocalResponseNorm(3, 0.5, 0.6, 1.5), (3, 4, 2, 2), "local_response_norm"),
    (layer("switchable_norm", 4), (3, 4, 2, 2), "switchable_norm"),
    (layer("layer_norm", (4, 2, 3), eps=0.1), (3, 4, 2, 3), "layer_norm"),
]


@pytest.mark.parametrize(("norm", "shape", "key"), OWN, ids=[repr(norm) for norm, _, _ in OWN])
def test_converted_to_its_own_method_a_layer_computes_the_same(norm: nn.Module, shape: Any, key: str) -> None:
    x = 2 * torch.randn(shape, generator=torch.Generator().manual_seed(4)) + 1
    norm = randomize(copy.deepcopy(norm))
    twin = convert(copy.deepcopy(norm), key, key, example=x).module
    assert isinstance(twin, NormLayer)
    assert twin.state_dict().keys() == norm.state_dict().keys()
    for training in (True, True, False):
        torch.testing.assert_close(twin.train(training)(x), norm.train(training)(x), rtol=1e-5, atol=1e-5)
    counted = key != "instance_norm"  # torch's InstanceNorm has a counter and never counts
    for name, value in norm.state_dict().items():
        if counted or name != "num_batches_tracked":
            torch.testing.assert_close(twin.state_dict()[name], value)


def test_settings_given_win_over_those_handed_on_and_other_methods_start_from_their_own() -> None:
    assert convert(nn.GroupNorm(2, 8, 0.1), "group_norm", num_groups=4).module.settings == {"num_groups": 4, "eps": 0.1}
    assert convert(nn.BatchNorm2d(8, 0.1)).module.settings == {"num_groups": 2, "eps": 1e-5}


def test_running_statistics_go_where_they_are_kept() -> None:
    norm = randomize(nn.BatchNorm2d(4)).eval()
    buffers = dict(norm.named_buffers())
    report = convert(norm, target="ghost_batch_norm")
    assert report.entries[0].carried == ("weight", "bias", *buffers) and report.entries[0].warning is None
    assert all(value is buffers[name] for name, value in report.module.named_buffers())
    torch.testing.assert_close(report.module(image(c=4)), norm(image(c=4)))
    forgetful = convert(nn.BatchNorm2d(4, track_running_stats=False), target="ghost_batch_norm").module
    assert not list(forgetful.buffers())
    (entry,) = convert(nn.GroupNorm(2, 4), "group_norm", "batch_norm", layout="image").entries
    assert entry.warning and entry.warning.startswith("Its running statistics start anew")


@pytest.mark.parametrize("affine", [True, False])
def test_a_frozen_norm_holds_what_was_learned(affine: bool) -> None:
    norm = randomize(nn.BatchNorm2d(4, affine=affine)).eval()
    (entry,) = (report := convert(copy.deepcopy(norm), target="frozen_batch_norm")).entries
    assert entry.carried == (("weight", "bias") if affine else ()) + ("running_mean", "running_var")
    assert entry.warning is None and not list(report.module.parameters())
    for training in (True, False):
        torch.testing.assert_close(report.module.train(training)(image(c=4)), norm(image(c=4)))
    (entry,) = (back := convert(report.module, "frozen_batch_norm", "batch_norm")).entries
    assert entry.carried == ("weight", "bias", "running_mean", "running_var") and entry.warning is None
    assert all(parameter.requires_grad for parameter in back.module.parameters())
    torch.testing.assert_close(back.module.eval()(image(c=4)), norm(image(c=4)))
    group = convert(report.module, "frozen_batch_norm", "group_norm").module
    torch.testing.assert_close(group.weight.detach(), norm.weight.detach() if affine else torch.ones(4))


def test_a_frozen_norm_shares_no_tensor_with_one_that_learns() -> None:
    frozen = convert(norm := randomize(nn.BatchNorm2d(4)), target="frozen_batch_norm").module
    expected = frozen.weight.clone()
    with torch.no_grad():
        norm.weight += 1
        convert(frozen, "frozen_batch_norm", "batch_norm").module.weight += 1
    assert torch.equal(frozen.weight, expected) and not frozen.weight.requires_grad
    lost = convert(frozen, "frozen_batch_norm", "rms_norm", layout="image").entries[0]
    assert lost.carried == ("weight",) and lost.warning == "Its bias does not fit rms_norm and is lost."
    (entry,) = convert(nn.GroupNorm(2, 4), "group_norm", "frozen_batch_norm", layout="image").entries
    assert entry.warning == "Its running statistics start anew: load some."


@pytest.mark.parametrize(
    ("target", "anew"),
    [("l1_batch_norm", "running_deviation"), ("decorrelated_batch_norm", "running_whitening")],
)
def test_statistics_that_are_carried_in_part_are_warned_of_and_counted_from_0(target: str, anew: str) -> None:
    norm = randomize(nn.BatchNorm2d(4))
    norm.num_batches_tracked += 7
    (entry,) = (report := convert(norm, target=target)).entries
    assert entry.carried == ("weight", "bias", "running_mean")
    assert entry.warning == f"Its {anew} starts anew: show it batches in training mode before evaluation."
    assert int(report.module.num_batches_tracked) == 0
    mean_only = convert(norm, target="mean_only_batch_norm").entries[0]
    assert mean_only.carried == ("bias", "running_mean", "num_batches_tracked")


RESIDUAL = [key for key, method in METHODS.items() if "residual" in method.context]


@pytest.mark.parametrize("target", RESIDUAL)
def test_what_ends_a_residual_branch_takes_no_norms_place(target: str) -> None:
    text = refusal(nn.Sequential(nn.BatchNorm2d(4)), "batch_norm", target)
    assert text == (
        f"convert: layer '0': {target} adds x to a residual, which BatchNorm2d is not given; "
        f"put it at the end of each branch by hand, as normcore.layer('{target}', …)(x, residual=…)"
    )
    assert convert(layer(target, 4), target, "rezero").module.method.key == "rezero"


def test_mode_precision_device_and_what_is_frozen_are_kept() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)).to(dtype)
        model[1].weight.requires_grad_(False)
        model[1].eval()
        convert(model, target="switchable_norm")
        assert {t.dtype for t in model.state_dict().values()} == {dtype, torch.long}
        learned = {name: p.requires_grad for name, p in model[1].named_parameters()}
        assert learned == {"weight": False, "bias": True, "mean_weight": True, "var_weight": True}
        assert not list(model[2].parameters())
        assert [model.training, model[1].training, model[2].training] == [True, False, True]
    frozen = nn.Sequential(nn.LayerNorm((4, 2, 2))).requires_grad_(False)
    convert(frozen, "layer_norm", "switchable_norm")
    assert not any(p.requires_grad for p in frozen.parameters())
    with torch.device("meta"):
        remote = nn.Sequential(nn.GroupNorm(2, 4))
    convert(remote, "group_norm", "batch_norm", layout="image")
    assert {t.device.type for t in remote.state_dict().values()} == {"meta"}


def test_an_optimizer_goes_on_with_the_same_parameters() -> None:
    model = conv_net(nn.BatchNorm2d)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    convert(model, num_groups=3)
    model(image()).square().sum().backward()
    before = model[1].weight.clone()
    optimizer.step()
    assert not torch.equal(model[1].weight, before)


def test_a_layer_that_stands_in_several_places_stays_one() -> None:
    norm, inner = nn.BatchNorm2d(4), nn.Sequential(nn.ReLU())
    inner.append(norm)
    model = nn.ModuleDict({"first": norm, "second": inner, "twice": nn.Sequential(norm, norm)})
    (entry,) = convert(model).entries
    assert entry.name == "first, second.1, twice.0, twice.1"
    assert isinstance(model["first"], NormLayer)
    assert all(m is model["first"] for m in (inner[1], *model["twice"]))
    assert list(model) == ["first", "second", "twice"]


def test_a_model_that_is_a_norm_has_its_successor_in_the_report() -> None:
    norm = nn.BatchNorm2d(4)
    report = convert(norm)
    assert isinstance(report.module, NormLayer) and report.module.weight is norm.weight
    assert type(norm) is nn.BatchNorm2d and report.entries[0].name == "(the model)"
    linear = nn.Linear(2, 2)
    nothing = convert(linear)
    assert nothing.module is linear and nothing.entries == ()
    assert str(nothing) == "batch_norm → group_norm: 0 layers"


def test_converted_models_can_be_copied_pickled_and_converted_again() -> None:
    model = residual_net(nn.BatchNorm2d).eval()
    convert(model, num_groups=4)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(image()), model(image()))
        convert(twin, "group_norm", "layer_norm")
        assert {m.method.key for m in twin.modules() if isinstance(m, NormLayer)} == {"layer_norm"}
    assert {m.method.key for m in model.modules() if isinstance(m, NormLayer)} == {"group_norm"}
    assert convert(model).entries == ()


def test_a_setting_that_does_not_fit_names_the_layer_and_what_would_do() -> None:
    text = refusal(residual_net(nn.BatchNorm2d), num_groups=8)
    expected = "convert: layer '2.1': group_norm: num_groups=8 must divide c=12; try one of 1, 2, 3, 4, 6, 12; "
    assert text == expected + "1, 2, 4 would do for 6 layers"
    text = refusal(nn.Sequential(nn.BatchNorm2d(6)), num_groups=4)
    assert text == "convert: layer '0': group_norm: num_groups=4 must divide c=6; try one of 1, 2, 3, 6"
    text = refusal(mlp(nn.BatchNorm1d), target="layer_norm", eps=-1)
    assert text == "layer_norm: eps=-1 must be a number from 0 to 1"


SENTENCES: list[Any] = [
    (nn.BatchNorm2d(4), {"groups": 2}, "group_norm: no setting is called 'groups'; it has num_groups, eps"),
    (nn.BatchNorm2d(4), {"layout": "picture"}, "group_norm: layout='picture' is not defined for it; try "),
    (
        nn.BatchNorm2d(4),
        {"layout": "signal"},
        "layout='signal' is that of no batch_norm layer of this model; try image",
    ),
    (nn.BatchNorm2d(4), {"source": "norm"}, "no activation method is called 'norm'"),
    (nn.BatchNorm2d(4), {"target": "weight_norm"}, "no activation method is called 'weight_norm'"),
    (nn.LazyBatchNorm2d(), {}, "convert: LazyBatchNorm2d has no shape yet; run the model once before"),
    (
        nn.Sequential(nn.LazyConv2d(4, 1), nn.BatchNorm2d(4)),
        {"example": torch.ones(2, 3, 4, 4)},
        "convert: LazyConv2d has no shape yet; run the model once before",
    ),
    (
        parametrizations.weight_norm(nn.BatchNorm2d(4), dim=None),
        {},
        "its weight is computed from other tensors (parametrized, pruned); undo that first",
    ),
    (prune.identity(nn.BatchNorm2d(4), "bias"), {}, "its bias is computed from other tensors"),
    (
        nn.LocalResponseNorm(3),
        {"source": "local_response_norm"},
        "does not say how many channels it has; pass example=",
    ),
    (
        nn.BatchNorm1d(4),
        {"target": "instance_norm", "example": torch.ones(3, 4)},
        "BatchNorm1d works on layout 'vector' or 'signal' and meets an input of shape (3, 4); instance_norm is defined",
    ),
    (
        nn.LayerNorm(4),
        {"source": "layer_norm", "target": "rms_norm", "example": torch.ones(2, 3, 3, 4)},
        "LayerNorm works on layout 'tokens' or 'vector' and meets an input of shape (2, 3, 3, 4); ",
    ),
]


@pytest.mark.parametrize(("model", "given", "said"), SENTENCES, ids=[said for _, _, said in SENTENCES])
def test_what_cannot_be_swapped_is_refused_in_a_sentence(model: nn.Module, given: dict[str, Any], said: str) -> None:
    with pytest.raises(NormcoreError) as caught:
        convert(model, **given)
    assert said in str(caught.value)


def test_a_class_with_a_forward_of_its_own_is_left_to_its_owner() -> None:
    class Activated(nn.BatchNorm2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input).relu()

    class Named(nn.BatchNorm2d):
        pass

    model = nn.Sequential(nn.BatchNorm2d(4), Activated(4))
    assert refusal(model) == "convert: layer '1': Activated is more than a BatchNorm2d; swap it by hand"
    assert isinstance(convert(Named(4)).module, NormLayer)
    with pytest.raises(NormcoreError, match="convert: model is str; it must be"):
        convert("model")  # type: ignore[arg-type]


def pooled() -> nn.Module:
    """A net whose last norm stands after global pooling."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(8))


@pytest.mark.parametrize(("target", "settings"), [("group_norm", {"num_groups": 8}), ("instance_norm", {})])
def test_a_swap_that_erases_the_signal_is_refused_where_shapes_are_known(target: str, settings: dict[str, Any]) -> None:
    model = pooled()
    by_hand = pooled()
    by_hand[3] = layer(target, 8, **settings)
    assert by_hand(image()).abs().max() < 1e-4, "the signal is gone"
    text = refusal(model, "batch_norm", target, example=image(), **settings)
    (finding,) = diagnose(target, (4, 8, 1, 1), **settings)
    assert text == f"convert: layer '3': on its input of c=8, h=1, w=1: {finding.sentence} " + (
        "Try num_groups=1, with 8 values in each region."
        if settings
        else "Give it more rows or columns, or take a method that shares over other axes."
    )
    unsure = convert(model, "batch_norm", target, **settings)
    for entry in unsure.entries:
        assert entry.warning == f"On an input of c=8, h=1, w=1: {finding.sentence} Pass example=."
    assert model(image()).abs().max() < 1e-4
    assert pooled()(image()).abs().max() > 0.1, "it was there before"


def test_vectors_in_groups_of_one_channel_are_refused_or_warned_of() -> None:
    assert "'1': on its input of c=6: Every region" in refusal(
        nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6)), num_groups=6, example=vectors()
    )
    assert "Every region" in refusal(nn.Sequential(nn.BatchNorm1d(6)), num_groups=6, layout="vector")
    assert "leaves only the sign" in refusal(
        nn.Sequential(nn.BatchNorm1d(1)), "batch_norm", "rms_norm", layout="vector"
    )
    (entry,) = convert(nn.BatchNorm1d(6), num_groups=6).entries
    assert entry.warning and "Its layout is taken for 'vector'" in entry.warning
    assert "On an input of c=6: Every region holds one value" in entry.warning
    (entry,) = convert(nn.BatchNorm1d(6), num_groups=3, layout="vector").entries
    assert entry.warning and "Every region holds two values" in entry.warning
    (entry,) = convert(nn.BatchNorm1d(6), num_groups=6, example=torch.ones(2, 6, 5)).entries
    assert entry.warning is None


def test_the_examples_batch_is_only_an_example() -> None:
    for n in (1, 3):
        for target in ("batch_norm", "ghost_batch_norm"):
            report = convert(mlp(nn.LayerNorm), "layer_norm", target, example=vectors(n))
            assert all("one value" not in (entry.warning or "") for entry in report.entries)
    assert convert(nn.BatchNorm1d(4), target="batch_norm", layout="vector").entries[0].warning is None
    assert "Every region" in refusal(
        mlp(nn.LayerNorm), "layer_norm", "ghost_batch_norm", example=vectors(4), ghost_batch_size=1
    )


def test_an_example_leaves_no_trace() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x + torch.rand(())

    model = nn.Sequential(nn.Conv2d(3, 4, 1), Counting(), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.InstanceNorm2d(4))
    model[3].eval()
    for fails in (False, True):
        before, state = picture(model), torch.get_rng_state()
        if fails:
            with pytest.raises(RuntimeError):
                convert(model, "positional_norm", example=torch.ones(2, 5, 4, 4))
        else:
            convert(model, "positional_norm", example=image(1))
        assert picture(model) == before and torch.equal(torch.get_rng_state(), state)
        assert all(p.grad is None for p in model.parameters())
    convert(model, example=image(1))
    assert not any(m._forward_pre_hooks for m in model.modules())
    assert model[1].calls == 0


def test_examples_may_be_several_inputs_or_named_and_show_every_shape_a_layer_meets() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.unused = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.norm(x) + self.norm(input=y)

    wide, point = torch.ones(2, 4, 3, 3), torch.ones(2, 4, 1, 1)
    for example in ((wide, point), {"x": wide, "y": point}, {"x": point, "y": wide}):
        assert "'norm': on its input of c=4, h=1, w=1" in refusal(Two(), num_groups=4, example=example)
    report = convert(Two(), num_groups=4, example=(wide, wide))
    assert [entry.warning is None for entry in report.entries] == [True, False]
    assert (report.entries[1].warning or "").endswith("The example did not reach it.")


def test_layouts_follow_the_class_the_example_or_what_is_said() -> None:
    def layouts(model: nn.Module, source: str, **given: Any) -> str:
        return convert(model, source, "rms_norm", **given).module.layout

    assert layouts(nn.BatchNorm1d(4), "batch_norm", layout="signal") == "signal"
    assert layouts(nn.BatchNorm1d(4), "batch_norm", example=torch.ones(2, 4, 3)) == "signal"
    assert layouts(nn.GroupNorm(2, 4), "group_norm", example=torch.ones(2, 4, 3, 3, 3)) == "volume"
    assert layouts(nn.LayerNorm(4), "layer_norm", example=torch.ones(2, 4)) == "vector"
    assert layouts(nn.LayerNorm((4, 3)), "layer_norm") == "signal"
    assert layouts(nn.RMSNorm(4), "rms_norm") == "tokens"
    assert layouts(layer("positional_norm", 4, "volume"), "positional_norm") == "volume"
    mixed = nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm2d(4))
    assert [e.warning for e in convert(mixed, layout="signal").entries] == [None, None]
    assert [m.layout for m in mixed] == ["signal", "image"]


def test_what_is_lost_is_said_and_what_was_never_used_is_not() -> None:
    fresh, used = nn.LayerNorm(4), randomize(nn.LayerNorm(4))
    given = {"source": "layer_norm", "target": "rms_norm", "layout": "tokens"}
    assert convert(fresh, **given).entries[0].warning is None
    assert convert(used, **given).entries[0].warning == "Its bias does not fit rms_norm and is lost."
    per_feature = convert(randomize(nn.LayerNorm((4, 2, 2))), "layer_norm", num_groups=1)
    assert per_feature.entries[0].carried == ()
    assert "Its weight does not fit group_norm and is lost." in (per_feature.entries[0].warning or "")
    # A gain of 1 stands for "nothing changes" in one layer, and for "add the whole branch" in the other.
    response = convert(nn.BatchNorm2d(4), target="global_response_norm").module
    assert METHODS["global_response_norm"].affine["weight"].init == 0 and not response.weight.any()
    hooked = nn.BatchNorm2d(4)
    hooked.register_forward_hook(lambda *_: None)
    assert convert(hooked).entries[0].warning == "Its hooks are left behind."


@pytest.mark.parametrize("target", ["rms_norm", "layer_norm"])
def test_torchs_transformer_computes_the_new_norm_in_evaluation_too(target: str) -> None:
    torch.manual_seed(0)
    part = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model, x = randomize(nn.TransformerEncoder(part, 2)), torch.randn(2, 5, 8)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    convert(model, "layer_norm", target, layout="tokens")
    for mask in (None, padding):
        expected = model.train()(x, src_key_padding_mask=mask)
        with torch.no_grad():
            torch.testing.assert_close(model.eval()(x, src_key_padding_mask=mask), expected)


def test_the_report_is_a_table() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm1d(6, affine=False)))
    report = convert(model, num_groups=1)
    head, titles, first, second, warning = str(report).splitlines()
    assert head == "batch_norm → group_norm: 2 layers"
    assert warning == "    warning: Its layout is taken for 'vector'; say so with layout= or example=."
    columns = [titles.index(title) for title in ("layer", "before", "after", "carried over")]
    for line, entry in zip((first, second), report.entries, strict=True):
        for start, cell in zip(columns, (entry.name, entry.before, entry.after), strict=False):
            assert line[start:].startswith(f"{cell} ")
    assert [line[columns[-1] :] for line in (first, second)] == ["weight, bias", "nothing"]
    assert report.entries[0].before == repr(nn.BatchNorm2d(4)) and report.entries[0].after == repr(model[0])
