"""timm's own modules: values, and the gradients by the input and by all that is learned.

Some of them round their statistics to float32 whatever comes in. They are held as they are, to float32's digits, and
with `Tensor.float` switched off, to float64's. Where timm means something else than the method, a test shows what.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
import torch
from agreement import agrees, with_gradients
from cases import draw
from timm import layers
from timm.layers.grn import GlobalResponseNorm
from timm.models.nfnet import NormFreeBlock
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import FrozenBatchNorm2d

from normcore import METHODS, layer, reparametrize

EPS = 1e-3
ROUNDED = 3e-5
"""What statistics in float32 leave."""
CHANNELS = 6
SPACE = ("signal", "image", "volume")
Make = Callable[..., nn.Module]
Function = Callable[[Tensor], Tensor]
Run = Callable[[nn.Module, Tensor], Tensor]
Words = Callable[[nn.Module], dict[str, Any]]


def traced(fn: Function, x: Tensor, learned: Iterable[Tensor]) -> list[Tensor]:
    """The values of a function, and the gradients of a weighted sum of them."""
    probe = x.detach().clone(memory_format=torch.preserve_format).requires_grad_(True)
    return with_gradients(fn(probe), [probe, *learned])


def of_module(module: nn.Module, x: Tensor, run: Run = nn.Module.__call__) -> list[Tensor]:
    """The same of a module and all its parameters, by name."""
    return traced(partial(run, module), x, [parameter for _, parameter in sorted(module.named_parameters())])


def fill(module: nn.Module) -> Any:
    """The module in float64, with random values for all that it learns."""
    generator = torch.Generator().manual_seed(5)
    for parameter in module.double().parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return module


def name_of(module: nn.Module) -> str:
    name = type(module).__name__
    return f"{'timm.layers' if hasattr(layers, name) else type(module).__module__}.{name}"


def flat(module: nn.Module, x: Tensor) -> Tensor:
    """A module for images on other layouts: the same, if it looks at all positions alike."""
    return module(x.reshape(*x.shape[:2], -1, 1)).reshape(x.shape)


def held(
    key: str,
    module: nn.Module,
    x: Tensor,
    layout: str,
    *,
    run: Run = nn.Module.__call__,
    oracle: str = "",
    tolerance: float = 1e-9,
    **settings: Any,
) -> None:
    """Asserts that a method's values and gradients are a module's, whose parameters it is given by their names."""
    named = dict(fill(module).named_parameters())
    given = {name.replace("gamma", "weight"): parameter for name, parameter in named.items()}
    ours = traced(lambda x: METHODS[key](x, layout, **settings, **given).y, x, named.values())
    theirs = traced(partial(run, module), x, named.values())
    agrees(key, oracle or name_of(module), ours, theirs, tolerance)


# ---- modules without a memory

ON_TOKENS: list[tuple[str, Make, dict[str, Any]]] = [
    ("layer_norm", layers.LayerNorm, {}),
    ("rms_norm", layers.RmsNorm, {}),
    ("simple_norm", layers.SimpleNorm, {}),
]
ON_IMAGES: list[tuple[str, Make, dict[str, Any]]] = [
    ("layer_norm_2d", layers.LayerNorm2d, {}),
    ("positional_norm", partial(layers.LayerNorm2d, affine=False), {"unbiased": False}),
    ("rms_norm", layers.RmsNorm2d, {}),
    ("rms_norm_2d", layers.RmsNorm2d, {}),
    ("simple_norm_2d", layers.SimpleNorm2d, {}),
    ("group_norm", layers.GroupNorm1, {"num_groups": 1}),
    ("group_norm", partial(layers.GroupNorm, num_groups=3), {"num_groups": 3}),
]
BY_NAME: dict[str, Any] = {"ids": lambda value: getattr(getattr(value, "func", value), "__name__", None)}


@pytest.fixture(params=[False, True], ids=["", "fast"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """timm's modules as they are, and on the faster path that they offer, which has had errors of its own."""
    monkeypatch.setattr(layers.fast_norm, "_USE_FAST_NORM", request.param)
    return " (fast path)" if request.param else ""


@pytest.mark.parametrize(("key", "make", "settings"), ON_TOKENS, **BY_NAME)
def test_norms_of_tokens(key: str, make: Make, settings: dict[str, Any], path: str) -> None:
    module, x = make(CHANNELS, eps=EPS), 2 * draw("tokens", 301, c=CHANNELS) + 1
    held(key, module, x, "tokens", oracle=name_of(module) + path, eps=EPS, **settings)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("key", "make", "settings"), ON_IMAGES, **BY_NAME)
def test_norms_of_images(
    key: str, make: Make, settings: dict[str, Any], path: str, memory: torch.memory_format
) -> None:
    module, x = make(CHANNELS, eps=EPS), 2 * draw("image", 302, c=CHANNELS) + 1
    held(key, module, x.to(memory_format=memory), "image", oracle=name_of(module) + path, eps=EPS, **settings)


def test_rms_norm_2d_beside_apex_normalizes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before https://github.com/huggingface/pytorch-image-models/pull/2741 it normalized Apex's result once more."""
    monkeypatch.setattr(layers.fast_norm, "_USE_FAST_NORM", True)
    monkeypatch.setattr(layers.fast_norm, "has_apex_rmsnorm", True)
    kernel = lambda x, weight, shape, eps: functional.rms_norm(x, shape, weight, eps)  # noqa: E731 - instead of Apex's
    monkeypatch.setattr(layers.fast_norm, "fused_rms_norm_affine", kernel, raising=False)
    module, x = layers.RmsNorm2d(CHANNELS, eps=EPS), draw("image", 308, c=CHANNELS)
    held("rms_norm_2d", module, x, "image", oracle=f"{name_of(module)} (with a stand-in for Apex)", eps=EPS)


@pytest.mark.parametrize(
    "key", ["layer_norm", "rms_norm", "simple_norm", "layer_norm_2d", "rms_norm_2d", "simple_norm_2d"]
)
def test_half_precision_is_rounded_once_after_the_gain(key: str) -> None:
    stem = "".join(part.capitalize() for part in key.removesuffix("_2d").split("_"))
    module = fill(getattr(layers, f"{stem}{'2d' if key.endswith('2d') else ''}Fp32")(CHANNELS, eps=EPS)).bfloat16()
    layout = "image" if key.endswith("2d") else "tokens"
    x = draw(layout, 303, torch.bfloat16, c=CHANNELS)
    mine, theirs = METHODS[key](x, layout, eps=EPS, **dict(module.named_parameters())).y, module(x)
    assert mine.dtype == theirs.dtype == torch.bfloat16
    agrees(key, f"{name_of(module)} (bfloat16)", mine, theirs, 0.0)


def test_simple_norm_is_restormers_norm_with_one_degree_of_freedom_less() -> None:
    x, share = draw("tokens", 304, c=CHANNELS) + 2, (CHANNELS - 1) / CHANNELS
    module = layers.SimpleNorm(CHANNELS, eps=EPS)
    oracle = "timm.layers.SimpleNorm (times √(n / (n - 1)))"
    run = lambda module, x: module(x) * share**-0.5  # noqa: E731
    held("bias_free_layer_norm", module, x, "tokens", run=run, oracle=oracle, eps=EPS * share)


def test_simple_norm_of_one_channel_is_nan_in_timm() -> None:
    x = torch.tensor([[3.0]])
    with pytest.warns(UserWarning, match="degrees of freedom"):
        theirs = layers.SimpleNorm(1)(x)
    assert bool(theirs.isnan()) and bool(METHODS["simple_norm"](x, "vector").y.isfinite())


def run_over(layout: str) -> Callable[[nn.Module, Tensor], Tensor]:
    return flat if layout != "tokens" else lambda module, x: module(x.unsqueeze(2)).squeeze(2)


@pytest.mark.parametrize("layout", [*SPACE, "tokens"])
def test_global_response_norm(layout: str) -> None:
    x = draw(layout, 305, c=CHANNELS)
    module = GlobalResponseNorm(CHANNELS, eps=EPS, channels_last=layout == "tokens")
    held("global_response_norm", module, x, layout, run=run_over(layout), eps=EPS)
    empty = x.clone()
    empty[0] = 0.0  # a sample without a signal, and a channel
    empty.select(-1 if layout == "tokens" else 1, 0).zero_()
    held("global_response_norm", module, empty, layout, run=run_over(layout), eps=EPS)
    bare: Any = lambda module, x: run_over(layout)(module, x) - x  # noqa: E731
    oracle = f"{name_of(module)} (less its input)"
    held("global_response_norm", module, x, layout, run=bare, oracle=oracle, eps=EPS, residual=False)


@pytest.mark.parametrize("init", [1e-5, 0.1])
@pytest.mark.parametrize("layout", ["image", "tokens"])
def test_layer_scale(layout: str, init: float) -> None:
    x, make = draw(layout, 306, c=CHANNELS), layers.LayerScale2d if layout == "image" else layers.LayerScale
    held("layer_scale", make(CHANNELS), x, layout)
    residual = draw(layout, 307, c=CHANNELS)
    oracle = f"{name_of(make(CHANNELS))} (in a residual sum)"
    run = lambda module, x: residual + module(x)  # noqa: E731
    held("layer_scale", make(CHANNELS), x, layout, run=run, oracle=oracle, residual=residual)
    theirs, ours = make(CHANNELS, init_values=init), layer("layer_scale", CHANNELS, layout, init_value=init)
    assert torch.equal(ours.get_parameter("weight"), theirs.gamma)
    agrees("layer_scale", name_of(theirs), ours.double()(x), theirs.double()(x))
    bare = layer("layer_scale", CHANNELS, layout, affine=False, init_value=init)
    agrees("layer_scale", name_of(theirs), bare(x), theirs(x), 1e-7 * init)


# ---- activation and normalization in one


@pytest.fixture(params=[False, True], ids=["float32", "float64"])
def words(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[nn.Module], dict[str, Any]]:
    """What a comparison is called and allowed, with statistics in float32 and in the precision of the input."""
    if not request.param:
        return lambda module: {"oracle": name_of(module), "tolerance": ROUNDED}
    monkeypatch.setattr(Tensor, "float", lambda tensor: tensor)
    return lambda module: {"oracle": f"{name_of(module)} (in float64)", "tolerance": 1e-9}


@pytest.mark.parametrize("kind", ["tlu", "relu", "tlu, off", "relu, off"])
@pytest.mark.parametrize("layout", SPACE)
def test_filter_response_norm(layout: str, kind: str, words: Words) -> None:
    make = layers.FilterResponseNormTlu2d if "tlu" in kind else layers.FilterResponseNormAct2d
    module, x = make(CHANNELS, eps=EPS, apply_act="off" not in kind), draw(layout, 311, c=CHANNELS)
    held("filter_response_norm", module, x, layout, run=flat, eps=EPS, tlu="off" not in kind, **words(module))


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("layout", SPACE)
@pytest.mark.parametrize("name", ["S0", "S1", "S2", "S0a", "S1a", "S2a"])  # a: another ε, and without an activation
def test_evo_norms_of_samples(name: str, layout: str, groups: int, words: Words) -> None:
    module = getattr(layers, f"EvoNorm2d{name}")(CHANNELS, groups=groups, eps=EPS)
    key, x = f"evo_norm_{name[:2].lower()}", 2 * draw(layout, 312, c=CHANNELS) + 1
    held(key, module, x, layout, run=flat, num_groups=groups, eps=EPS, **words(module))


@pytest.mark.parametrize("layout", SPACE)
@pytest.mark.parametrize("name", ["B0", "B1", "B2"])
def test_evo_norms_of_batches_in_training_and_evaluation(name: str, layout: str, words: Words) -> None:
    key, theirs = f"evo_norm_{name.lower()}", fill(getattr(layers, f"EvoNorm2d{name}")(CHANNELS, eps=EPS))
    ours = layer(key, CHANNELS, layout, eps=EPS).double()
    assert ours.load_state_dict(theirs.state_dict(), strict=False).missing_keys == ["num_batches_tracked"]
    for step in range(5):
        ours.train(step < 3), theirs.train(step < 3)
        x = (step + 1) * draw(layout, 313 + step, c=CHANNELS) + 0.5
        mine, other = of_module(ours, x), of_module(theirs, x, flat)
        agrees(key, ours=[*mine, ours.running_var], theirs=[*other, theirs.running_var], **words(theirs))


# ---- the relatives of BatchNorm


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("make", "oracle"),
    [
        (partial(layers.FrozenBatchNormAct2d, apply_act=False), "timm.layers.FrozenBatchNormAct2d"),
        (FrozenBatchNorm2d, "torchvision.ops.FrozenBatchNorm2d"),
        (lambda c, eps: layers.freeze_batch_norm_2d(nn.BatchNorm2d(c, eps)), "timm.layers.freeze_batch_norm_2d"),
    ],
)
def test_frozen_batch_norm(make: Make, oracle: str, training: bool) -> None:
    theirs, ours = make(CHANNELS, eps=EPS), layer("frozen_batch_norm", CHANNELS, eps=EPS)
    generator = torch.Generator().manual_seed(6)
    for buffer in theirs.double().buffers():
        buffer.data = torch.rand(buffer.shape, generator=generator, dtype=torch.float64) + 0.5
    ours.double().load_state_dict(theirs.state_dict())
    x = draw("image", 321, c=CHANNELS)
    agrees("frozen_batch_norm", oracle, *(of_module(norm.train(training), x) for norm in (ours, theirs)))


@pytest.mark.parametrize("splits", [2, 3, 6])
def test_ghost_batch_norm(splits: int) -> None:
    theirs = layers.SplitBatchNorm2d(CHANNELS, eps=EPS, num_splits=splits)
    for other in theirs.aux_bn:  # timm learns a gain and a bias for each part
        other.weight, other.bias = theirs.weight, theirs.bias
    x = draw("image", 322, n=6, c=CHANNELS) * torch.arange(1, 7).reshape(6, 1, 1, 1)
    held("ghost_batch_norm", theirs, x, "image", ghost_batch_size=6 // splits, eps=EPS)


def test_the_parts_of_a_split_batch_norm_remember_apart_and_only_the_first_is_evaluated() -> None:
    theirs, ours = layers.SplitBatchNorm2d(CHANNELS).double(), layer("ghost_batch_norm", CHANNELS).double()
    first, every = (nn.BatchNorm2d(CHANNELS).double() for _ in range(2))
    x = draw("image", 323, c=CHANNELS) * torch.arange(1, 5).reshape(4, 1, 1, 1)
    theirs(x), ours(x), first(x[:2])
    for ghost in x.split(2):
        every(ghost)
    for name in ("running_mean", "running_var"):
        assert torch.equal(theirs.get_buffer(name), first.get_buffer(name))
        agrees("ghost_batch_norm", "torch.nn.BatchNorm2d (step by step)", *(m.get_buffer(name) for m in (ours, every)))
    assert torch.equal(theirs.eval()(x), first.eval()(x)) and not torch.allclose(ours.eval()(x), theirs(x))


@pytest.mark.parametrize("momentum", [0.0, 0.3, 1.0, None])
def test_ghost_batches_are_remembered_one_after_the_other(momentum: float | None) -> None:
    ours = layer("ghost_batch_norm", 3, momentum=momentum).double()
    every = nn.BatchNorm2d(3, momentum=momentum).double()
    for module in (ours, every):
        module.running_mean.fill_(1e6)
    for seed in (324, 325):
        x = draw("image", seed, n=98, c=3) + seed
        ours(x)
        for ghost in x.split(2):
            every(ghost)
        for name, expected in every.named_buffers():
            torch.testing.assert_close(ours.get_buffer(name), expected, rtol=1e-9, atol=1e-6)


# ---- weights


@pytest.mark.parametrize("layout", ["linear", "conv1d", "conv2d", "conv3d"])
@pytest.mark.parametrize("eps", [1e-6, 1e-4, 0.5, 1.0])
@pytest.mark.parametrize("scaled", [True, False])
def test_standardized_weights(scaled: bool, eps: float, layout: str) -> None:
    """The standardized weights are what the convolution makes of the unit vectors."""
    shape = draw(layout).shape
    fan_in = shape[1:].numel()
    if scaled:
        key, settings = "scaled_weight_standardization", {"eps_place": "variance", "gamma": 1.7139}
        theirs = fill(layers.ScaledStdConv2d(fan_in, shape[0], 1, bias=False, eps=eps, gamma=1.7139))
    else:
        key, settings = "weight_standardization", {"eps_place": "inside"}
        theirs = fill(layers.StdConv2d(fan_in, shape[0], 1, eps=eps))
    given = {"gain": theirs.gain.reshape(-1, *(1,) * (len(shape) - 1))} if scaled else {}
    units, learned = torch.eye(fan_in, dtype=torch.float64)[..., None, None], list(theirs.parameters())
    y = METHODS[key](theirs.weight.reshape(shape), eps=eps, unbiased=False, **settings, **given).y
    found = traced(lambda x: y.flatten(1).mT[..., None, None] + 0 * x.sum(), units, learned)
    expected = traced(theirs, units, learned)
    agrees(key, name_of(theirs), [found[0], *found[2:]], [expected[0], *expected[2:]])


@pytest.mark.parametrize("scaled", [True, False])
def test_convolutions_with_standardized_weights(scaled: bool) -> None:
    key = "scaled_weight_standardization" if scaled else "weight_standardization"
    make = layers.ScaledStdConv2d if scaled else layers.StdConv2d
    theirs = fill(make(4, CHANNELS, 3, stride=2, groups=2, bias=True, eps=EPS))
    settings = {"eps": EPS, "eps_place": "variance" if scaled else "inside", "unbiased": False}
    ours = of_conv(theirs, key, settings)
    x = draw("image", 331, c=4, h=5, w=5)
    mine, other = (traced(m, x, [parts(m)[n] for n in sorted(parts(theirs))]) for m in (ours, theirs))
    agrees(key, f"{name_of(theirs)} (its output)", mine, other)


def parts(conv: nn.Module) -> dict[str, Tensor]:
    """What a convolution learns, by timm's names."""
    return {name.rpartition(".")[2].replace("original", "weight"): value for name, value in conv.named_parameters()}


def of_conv(theirs: Any, key: str, settings: dict[str, Any]) -> nn.Module:
    """A plain convolution with our parametrization and the values of one of timm's."""
    plain = nn.Conv2d(
        theirs.in_channels,
        theirs.out_channels,
        theirs.kernel_size,
        theirs.stride,
        theirs.padding,
        groups=theirs.groups,
        bias=theirs.bias is not None,
    ).double()
    ours, values = reparametrize(plain, key, **settings), parts(theirs)
    for name, parameter in parts(ours).items():
        parameter.data = values[name].detach().clone()
    return ours


def test_the_block_of_a_network_without_normalization() -> None:
    """Scaled weight standardization, SkipInit and residual scaling together, as in timm's NF-ResNets."""
    made_of: dict[str, Any] = {
        "conv_layer": partial(layers.ScaledStdConv2d, eps=EPS, gamma=1.7139),
        "act_layer": nn.ReLU,
        "skipinit": True,
    }
    theirs = fill(NormFreeBlock(4, 4, alpha=0.3, beta=0.8, bottle_ratio=1.0, **made_of))
    settings = {"eps": EPS, "eps_place": "variance", "unbiased": False, "gamma": 1.7139}
    convs = [of_conv(c, "scaled_weight_standardization", settings) for c in (theirs.conv1, theirs.conv2, theirs.conv3)]
    gain = theirs.skipinit_gain.detach().clone().requires_grad_(True)

    def ours(x: Tensor) -> Tensor:
        out = functional.relu(x) * 0.8
        for conv in convs[:-1]:
            out = functional.relu(conv(out))
        branch = METHODS["skip_init"](convs[-1](out), weight=gain).y
        return METHODS["residual_scaling"](branch, residual=x, alpha=0.3).y

    names = sorted(parts(convs[0]))
    mine = [gain, *(parts(conv)[name] for conv in convs for name in names)]
    other = [theirs.skipinit_gain]
    other += [parts(conv)[name] for conv in (theirs.conv1, theirs.conv2, theirs.conv3) for name in names]
    x = draw("image", 332, h=5, w=5)
    found, expected = traced(ours, x, mine), traced(theirs, x, other)
    for key in ("scaled_weight_standardization", "skip_init", "residual_scaling"):
        agrees(key, "timm.models.nfnet.NormFreeBlock", found, expected)


# ---- attention


@pytest.mark.parametrize(("kind", "make"), [("rms", layers.RmsNorm), ("layer", partial(layers.LayerNorm, bias=False))])
def test_qk_norm_in_attention(kind: str, make: Make) -> None:
    theirs = fill(layers.Attention(CHANNELS, num_heads=2, qk_norm=True, norm_layer=make))
    x = draw("tokens", 341, c=CHANNELS)

    def ours(x: Tensor) -> Tensor:
        q, k, v = theirs.qkv(x).chunk(3, -1)
        q, k = (
            METHODS["qk_norm"](t, "tokens", heads=2, kind=kind, weight=norm.weight).y
            for t, norm in ((q, theirs.q_norm), (k, theirs.k_norm))
        )
        q, k, v = (t.unflatten(-1, (2, -1)).transpose(1, 2) for t in (q, k, v))
        return theirs.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    learned = list(theirs.parameters())
    agrees("qk_norm", "timm.layers.Attention", traced(ours, x, learned), traced(theirs, x, learned))
