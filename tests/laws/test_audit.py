"""The audit of a user's model: it finds planted faults and says true things of them; sound models it leaves alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import normcore
from normcore import AuditReport, NormcoreError, audit, layer, reparametrize

Norm = Callable[[int], nn.Module]


class Block(nn.Module):
    """A residual block."""

    def __init__(self, channels: int, norm: Norm, bias: bool = False) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, channels, 3, padding=1, bias=bias), norm(channels)
        self.conv2, self.norm2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))).relu()


def resnet(norm: Norm = nn.BatchNorm2d, bias: bool = False) -> nn.Module:
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), norm(16), nn.ReLU(inplace=True))
    return nn.Sequential(
        stem, Block(16, norm, bias), nn.MaxPool2d(2), Block(16, norm), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


class Transformer(nn.Module):
    """Tokens, a pre-norm encoder, a head; with `normed` what the head's norm sees."""

    def __init__(self, norm: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(50, 32, padding_idx=0)
        block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.norm = norm or nn.LayerNorm(32)

    def forward(self, ids: Tensor) -> Tensor:
        return self.norm(self.encoder(self.embed(ids)))


def images(samples: int = 16, **options: Any) -> Tensor:
    return torch.randn(samples, 3, 16, 16, generator=torch.Generator().manual_seed(1), **options)


def sentences(samples: int = 8) -> Tensor:
    ids = torch.randint(1, 50, (samples, 12), generator=torch.Generator().manual_seed(1))
    ids[::2, 8:] = 0
    return ids


def said(report: AuditReport) -> dict[str, list[str]]:
    """The kinds of findings by layer."""
    return {entry.name: [finding.kind for finding in entry.findings] for entry in report.entries if entry.findings}


SOUND: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "resnet": lambda: (resnet(), images()),
    "resnet of groups": lambda: (resnet(lambda c: nn.GroupNorm(4, c)), images(1)),
    "resnet of instances": lambda: (resnet(nn.InstanceNorm2d), images(2)),
    "resnet of ours": lambda: (resnet(lambda c: layer("batch_renorm", c)), images()),
    "resnet in evaluation after training": lambda: (trained(resnet()).eval(), images()),
    "local response": lambda: (nn.Sequential(nn.Conv2d(3, 8, 3), nn.LocalResponseNorm(3)), images(2)),
    "transformer": lambda: (Transformer(), sentences()),
    "transformer of rms": lambda: (Transformer(nn.RMSNorm(32)), sentences(1)),
    "transformer in evaluation": lambda: (Transformer().eval(), sentences()),
    "channels last": lambda: (nn.LayerNorm(8), torch.randn(2, 5, 5, 8)),
    "vectors": lambda: (
        nn.Sequential(nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.Dropout()),
        torch.randn(32, 4),
    ),
    "dropout that drops nothing": lambda: (nn.Sequential(nn.Dropout(0.0), nn.BatchNorm1d(8)), torch.randn(32, 8)),
    "a bias that is used elsewhere": lambda: (Shared(), torch.randn(32, 8)),
    "a bias before layers": lambda: (nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8)), torch.randn(32, 4)),
    "weights": lambda: (reparametrize(nn.Conv2d(3, 8, 3), "weight_standardization"), images(1)),
    "nothing": lambda: (nn.Linear(3, 4), torch.randn(2, 3)),
}


SOUND |= {
    f"{name} after a linear layer, {len(shape)} axes": lambda norm=norm, shape=shape: (
        nn.Sequential(nn.Linear(8, 16), norm(16)),
        torch.randn(shape),
    )
    for name, norm in (("LayerNorm", nn.LayerNorm), ("RMSNorm", nn.RMSNorm))
    for shape in ((8,), (3, 8), (3, 7, 8), (3, 7, 7, 8), (3, 2, 7, 7, 8))
} | {
    "a frozen norm": lambda: (
        nn.Sequential(nn.Conv2d(3, 3, 1), trained(nn.BatchNorm2d(3, momentum=0.95)).eval()),
        images(2),
    ),
    "a linear layer used twice": lambda: (Reused(), torch.randn(32, 8)),
    "a bias that is used by itself": lambda: (Reused(only_bias=True), torch.randn(32, 8)),
    "groups after pooling": lambda: (
        nn.Sequential(nn.Conv2d(3, 128, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.GroupNorm(32, 128)),
        images(4),
    ),
    "a norm over positions": lambda: (nn.LayerNorm([6, 6]), torch.randn(4, 8, 6, 6)),
    "rms over channels and positions": lambda: (nn.RMSNorm([8, 6]), torch.randn(4, 8, 6)),
}


class Reused(nn.Module):
    """A linear layer whose output is normalized; it, or its bias, is used once more without a norm."""

    def __init__(self, only_bias: bool = False) -> None:
        super().__init__()
        self.linear, self.norm, self.only_bias = nn.Linear(8, 8), nn.BatchNorm1d(8), only_bias

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.linear(x))
        return y + (self.linear.bias if self.only_bias else self.linear(x))


class Shared(nn.Module):
    """The output of a linear layer is normalized, and also used as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(8, 8), nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.linear(x)
        return self.norm(y), y


def trained(model: nn.Module) -> nn.Module:
    model.train()(images())
    return model


@pytest.mark.parametrize("name", SOUND)
def test_sound_models_are_left_alone(name: str) -> None:
    model, example = SOUND[name]()
    report = audit(model, example)
    assert said(report) == {}
    assert report.stopped is None
    assert "nothing to find fault with" in str(report)


class Counting(nn.Module):
    """Counts its calls, in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x


def test_nothing_is_left_behind() -> None:
    model = nn.Sequential(*resnet(), Counting())
    model[1].norm1.eval()  # type: ignore[union-attr]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    torch.manual_seed(3)
    before = torch.get_rng_state()
    audit(model, images())
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_every_norm_has_its_line_with_regions_and_sizes() -> None:
    report = audit(resnet(), images(8))
    names = ["0.1", "1.norm1", "1.norm2", "3.norm1", "3.norm2"]
    assert [entry.name for entry in report.entries] == names
    assert {entry.method for entry in report.entries} == {"batch_norm"}
    assert [entry.shape for entry in report.entries] == [(8, 16, 14, 14)] * 3 + [(8, 16, 7, 7)] * 2
    assert report.entries[0].statistics == "16 statistics, each over 1,568 values"
    assert "8 × 16 × 14 × 14 (n c h w)" in str(report)


@pytest.mark.parametrize(("samples", "part"), [(2, "half"), (3, "a third"), (7, "a seventh")])
def test_few_samples_are_found_and_something_better_named(samples: int, part: str) -> None:
    report = audit(resnet(), images(samples))
    assert said(report) == {e.name: ["few samples"] for e in report.entries}
    finding = report.findings[0][1]
    assert f"each sample makes up {part} of the statistics" in finding.sentence
    assert "num_groups=16 it has 196 values" in finding.remedy  # 16 channels of 14 x 14
    model = resnet()
    normcore.convert(model, "batch_norm", "group_norm", num_groups=16)
    assert said(audit(model, images(samples))) == {}


def test_one_sample_is_normalized_by_itself() -> None:
    model, x = resnet(), images(1)
    (_, finding) = audit(model, x).findings[0]
    assert "the one sample is normalized by itself" in finding.sentence
    y = model[0][:2](x)  # type: ignore[index]
    torch.testing.assert_close(y, nn.functional.instance_norm(model[0][0](x)))  # type: ignore[index]


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d, lambda c: nn.GroupNorm(c, c)])
def test_one_value_in_each_region_is_found_even_where_the_model_stops(norm: Norm) -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), nn.AdaptiveAvgPool2d(1), norm(16), nn.Flatten())
    samples = 1 if norm is nn.BatchNorm2d else 8
    report = audit(model, images(samples))
    assert said(report) == {"2": ["one value"]}
    assert (report.stopped is not None) == (norm is nn.InstanceNorm2d)
    refused = "PyTorch refuses to train on that" in report.findings[0][1].sentence
    if refused:
        with pytest.raises(ValueError, match="Expected more than 1"):
            model.train()(images(samples))
    else:
        assert float(model.train()(images(samples)).detach().abs().max()) < 1e-4


def test_a_batch_of_two_vectors() -> None:
    model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8))
    (finding,) = audit(model, torch.randn(2, 4)).entries[0].findings
    assert finding.kind == "two values" and "LayerNorm does not look at the batch" in finding.remedy


def test_evaluation_before_training_is_found_in_evaluation_only() -> None:
    model = resnet().eval()
    assert said(audit(model, images())) == {e.name: ["no batch seen"] for e in audit(model, images()).entries}
    x = images()
    torch.testing.assert_close(model[0][1](model[0][0](x)), model[0][0](x), rtol=1e-4, atol=1e-4)  # type: ignore[index]
    ours = layer("batch_norm", 3).eval()
    assert said(audit(ours, x)) == {"(the model)": ["no batch seen"]}
    model.load_state_dict({**trained(resnet()).state_dict()})
    assert said(audit(model, x)) == {}


@pytest.mark.parametrize("momentum", [0.9, 0.99])
def test_momentum_for_its_complement(momentum: float) -> None:
    report = audit(resnet(lambda c: nn.BatchNorm2d(c, momentum=momentum)), images())
    assert set(map(tuple, said(report).values())) == {("momentum",)}
    assert f"write momentum={1 - momentum:.4g}" in report.findings[0][1].remedy


def test_a_bias_that_the_norm_erases() -> None:
    model = resnet(bias=True)
    report = audit(model, images())
    assert said(report) == {"1.norm1": ["bias before"]}
    assert "The bias of the layer '1.conv1'" in report.findings[0][1].sentence
    before = model(images())
    with torch.no_grad():
        model[1].conv1.bias += 5  # type: ignore[union-attr, operator]
    torch.testing.assert_close(model(images()), before, rtol=1e-3, atol=1e-3)
    tokens = nn.Sequential(nn.Linear(4, 8), layer("batch_norm", 8, layout="tokens"))
    assert said(audit(tokens, torch.randn(8, 5, 4))) == {"1": ["bias before"]}


def test_dropout_before_a_running_variance() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 2))
    assert said(audit(model, torch.randn(32, 4))) == {"2": ["dropout before"]}
    x = torch.randn(4096, 4)
    model[2].momentum = None
    for _ in range(5):
        model(x)
    output = model.eval()[:3](x)
    assert float(output.detach().std(0).mean()) < 0.85  # without dropout the remembered variance is too large


def test_a_transformer_with_planted_faults() -> None:
    class Pooled(Transformer):
        def forward(self, ids: Tensor) -> Tensor:
            return self.norm(self.encoder(self.embed(ids)).mean(1))

    assert said(audit(Pooled(nn.BatchNorm1d(32)), sentences(2))) == {"norm": ["two values"]}
    scaled = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8))
    assert said(audit(scaled, torch.logspace(-3, 4, 8) * torch.randn(64, 8))) == {"0": ["unlike scale"]}
    padded = layer("batch_norm", 32, layout="tokens")
    model = nn.Sequential(nn.Embedding(50, 32, padding_idx=0), padded)
    assert said(audit(model, sentences())) == {"1": ["padding"]}
    far = nn.Sequential(nn.LayerNorm(64, eps=1e-12))
    assert "digits" in said(audit(far, 1e4 + 1e-2 * torch.randn(8, 64)))["0"]
    broken = torch.randn(8, 12, 32)
    broken[1, 2, 3] = torch.nan
    assert "not finite" in said(audit(nn.LayerNorm(32), broken))["(the model)"]


@pytest.mark.parametrize("norm", [nn.GroupNorm(4, 32), nn.BatchNorm2d(32), layer("group_norm", 32, num_groups=4)])
def test_digits_that_a_kernel_loses_in_channels_last_memory(norm: nn.Module) -> None:
    x = torch.randn(8, 32, 56, 56, generator=torch.Generator().manual_seed(0)) + 1000
    last = x.to(memory_format=torch.channels_last)
    assert not audit(norm, x).findings
    found = [finding.kind for _, finding in audit(norm, last).findings]
    assert found == ([] if type(norm).__module__.startswith("normcore") else ["digits"])
    assert not audit(norm, last - 1000).findings
    frozen = [finding.kind for _, finding in audit(nn.Sequential(norm).eval(), last).findings]
    assert ("digits" in frozen) == (type(norm) is nn.GroupNorm)


def test_a_linear_layer_that_goes_into_norms_twice() -> None:
    linear, norm = nn.Linear(8, 8), nn.BatchNorm1d(8)
    report = audit(nn.Sequential(linear, norm, nn.ReLU(), linear, norm), torch.randn(32, 8))
    assert said(report) == {"1, 4": ["bias before"]}
    assert "Make the layer '0' with bias=False" in report.findings[0][1].remedy


def test_a_frozen_norm_needs_its_bias_before() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), trained(nn.BatchNorm2d(3)).eval())
    assert audit(model, images(2)).entries[0].statistics == "running ones, as in evaluation"
    assert "bias before" in said(audit(model.train(), images()))["1"]


def test_norms_of_single_values_and_axes_that_are_not_understood() -> None:
    assert said(audit(nn.LayerNorm([1, 1]), torch.randn(4, 8, 1, 1))) == {"(the model)": ["one value"]}
    report = audit(nn.GroupNorm(2, 8), torch.randn(2, 8, 2, 2, 2, 2))
    assert report.findings == () and "1 norm layer (1 not looked at), no finding" in str(report)


@pytest.mark.parametrize("odd", [nn.BatchNorm2d(8, eps=10.0), nn.LayerNorm([8, 14, 14], eps=2.0)])
def test_a_setting_beyond_our_limits_is_one_finding_and_the_others_are_found(odd: nn.Module) -> None:
    still = nn.BatchNorm2d(8, momentum=0.0)
    report = audit(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), odd, still), images())
    assert said(report) == {"1": ["refused"], "2": ["momentum"]}
    assert "must be a number from 0 to 1" in report.findings[0][1].sentence


@pytest.mark.parametrize("error", [KeyError, AttributeError, AssertionError, StopIteration, NotImplementedError])
def test_whatever_a_model_raises_is_told(error: type[Exception]) -> None:
    class Raises(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise error("no")

    report = audit(nn.Sequential(nn.BatchNorm2d(3, momentum=0.99), Raises()), images())
    assert report.stopped is not None and report.stopped.startswith(error.__name__)
    assert said(report) == {"0": ["momentum"]}


def test_odd_examples_are_told_in_a_sentence() -> None:
    assert "TypeError" in str(audit(nn.LayerNorm(8), [1.0, 2.0]))
    assert "StopIteration" in str(audit(nn.LayerNorm(8), ()))
    assert "every axis needs at least one element" in str(audit(nn.BatchNorm2d(3), torch.randn(0, 3, 8, 8)))


def test_weights_that_a_standardization_erases() -> None:
    model = reparametrize(nn.Conv2d(8, 8, 1, groups=8), "weight_standardization")
    report = audit(model, torch.randn(2, 8, 4, 4))
    (entry,) = report.entries
    assert entry.method == "weight_standardization" and [f.kind for f in entry.findings] == ["one value"]
    assert float(model.weight.detach().abs().max()) == 0  # type: ignore[union-attr, operator]


def test_a_norm_that_is_not_reached_and_one_with_a_forward_of_its_own() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.LayerNorm(8), nn.BatchNorm1d(8, momentum=0.99)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    report = audit(Unused(), torch.randn(4, 8))
    assert report.entries[1].shape is None and report.entries[1].statistics == "the example did not reach it"
    assert said(report) == {"unused": ["momentum"]}

    class Permuted(nn.LayerNorm):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.movedim(1, -1)).movedim(-1, 1)

    assert audit(Permuted(8), torch.randn(2, 8, 1, 1)).entries == ()


def test_a_shared_norm_is_one_entry_with_all_its_names() -> None:
    norm = nn.LayerNorm(8)
    report = audit(nn.Sequential(norm, nn.Linear(8, 8), norm), torch.randn(4, 8))
    assert [entry.name for entry in report.entries] == ["0, 2"]


def test_models_that_stop_say_so_and_bad_models_are_refused() -> None:
    report = audit(resnet(), torch.randn(8, 5, 16, 16))
    assert report.stopped is not None and "RuntimeError" in report.stopped
    assert all(entry.shape is None for entry in report.entries)
    assert "The model stopped on the example" in str(report)
    with pytest.raises(NormcoreError, match=r"audit: model is str; it must be a torch\.nn\.Module"):
        audit("model", torch.ones(1))  # type: ignore[arg-type]
    with pytest.raises(NormcoreError, match="audit: LazyBatchNorm1d has no shape yet"):
        audit(nn.LazyBatchNorm1d(), torch.ones(2, 3))


def test_examples_may_be_tuples_and_dictionaries() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(8)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.norm(x + y)

    x = torch.randn(4, 8)
    for example in ((x, x), {"x": x, "y": x}):
        assert audit(Two(), example).entries[0].shape == (4, 8)
