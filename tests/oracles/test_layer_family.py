"""LayerNorm's relatives and what replaces them, held against other libraries and against their authors' formulas."""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras
import numpy as np
import pytest
import torch
from agreement import agrees
from cases import draw
from flax import linen
from flax.linen.normalization import _l2_normalize
from jax import numpy as jnp
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.convnext.modeling_convnext import ConvNextLayerNorm
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.nemotron.modeling_nemotron import NemotronLayerNorm1P
from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from normcore import METHODS, describe, diagnose, layer

jax.config.update("jax_enable_x64", True)

# The defaults of the methods' settings, and where the values stand.
PUBLISHED: dict[str, dict[str, Any]] = {
    "rms_norm": {"eps": 1e-6, "eps_place": "inside", "weight_offset": 0.0},  # T5, Llama
    "rms_norm_2d": {"eps": 1e-6},  # timm.layers.RmsNorm2d
    "layer_norm_2d": {"eps": 1e-6},  # ConvNeXt, timm.layers.LayerNorm2d
    "bert_layer_norm": {"eps": 1e-6, "unbiased": True, "eps_place": "outside"},  # The Annotated Transformer
    "bias_free_layer_norm": {"eps": 1e-5},  # Restormer's BiasFree_LayerNorm
    "scale_norm": {"eps": 1e-5},  # the authors' code
    "l2_norm": {"eps": 1e-12, "eps_place": "maximum"},  # torch.nn.functional.normalize
    "l1_norm": {"eps": 1e-12},  # torch.nn.functional.normalize
    "pixel_norm": {"eps": 1e-8},  # the paper
    "dynamic_tanh": {"init_alpha": 0.5},  # the paper
    "dynamic_erf": {"init_alpha": 0.5, "init_shift": 0.0},  # the paper
    "qk_norm": {"heads": 2, "kind": "l2", "scale": 1.0, "eps": 1e-6},  # eps: Qwen3, flax; two heads so that they show
    "selu": {},
    "ada_norm": {"eps": 1e-5, "scale": 1.0, "k": 0.1, "unbiased": False},  # k, ε: the authors' code
    "simple_norm": {"eps": 1e-6},  # timm.layers.SimpleNorm
    "simple_norm_2d": {"eps": 1e-6},  # timm.layers.SimpleNorm2d
}

EPS = 1e-3
Answer = list[Any]
Torch = Callable[..., Tensor]


def weights(x: Tensor) -> Tensor:
    """What the outputs are weighed by before they are summed and differentiated."""
    return torch.cos(torch.arange(x.numel(), dtype=x.dtype)).reshape(x.shape)


def random(*shape: int, seed: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def answer(fn: Torch, x: Tensor, tensors: Sequence[Tensor]) -> Answer:
    """The values of a torch function, and the gradients by its input and its learned tensors."""
    probes = [t.detach().clone().requires_grad_(True) for t in (x, *tensors)]
    y = fn(*probes)
    return [y, *torch.autograd.grad((y * weights(x)).sum(), probes)]


def answer_of_jax(fn: Callable[..., Any], x: Tensor, tensors: Sequence[Tensor]) -> Answer:
    """The same of a jax function."""
    y, back = jax.vjp(fn, *(jnp.asarray(t.numpy()) for t in (x, *tensors)))
    return [np.asarray(part) for part in (y, *back(jnp.asarray(weights(x).numpy())))]


def ours(key: str, x: Tensor, layout: str, given: dict[str, Tensor], **settings: Any) -> Answer:
    def fn(x: Tensor, *tensors: Tensor) -> Tensor:
        return METHODS[key](x, layout, **settings, **dict(zip(given, tensors, strict=True))).y

    return answer(fn, x, list(given.values()))


def held(
    key: str,
    oracle: str,
    theirs: Torch,
    x: Tensor,
    layout: str,
    given: dict[str, Tensor] | None = None,
    **settings: Any,
) -> None:
    """Asserts that our values and gradients are those of a torch function of x and the learned tensors."""
    given = given or {}
    tolerance = 1e-9 if x.dtype == torch.float64 else 5e-6
    expected = answer(theirs, x, list(given.values()))
    agrees(key, oracle, ours(key, x, layout, given, **settings), expected, tolerance)


def held_by_jax(
    key: str,
    oracle: str,
    theirs: Callable[..., Any],
    x: Tensor,
    layout: str,
    given: dict[str, Tensor] | None = None,
    **settings: Any,
) -> None:
    """The same with a jax function."""
    given = given or {}
    expected = answer_of_jax(theirs, x, list(given.values()))
    agrees(key, oracle, ours(key, x, layout, given, **settings), expected)


def of_module(module: nn.Module, *names: str) -> Torch:
    """A module as a function of its input and of the parameters named."""
    return lambda x, *tensors: torch.func.functional_call(module, dict(zip(names, tensors, strict=True)), (x,))


def of_flax(module: linen.Module, *names: str) -> Callable[..., Any]:
    """A flax module as a function of its input and of the parameters named."""
    return lambda x, *tensors: module.apply({"params": dict(zip(names, tensors, strict=True))}, x)


def of_keras(norm: keras.Layer, shape: Sequence[int]) -> Callable[..., Any]:
    """A keras layer as a function of its input and of its weights."""
    norm.build(shape)
    return lambda x, *tensors: norm.stateless_call(list(tensors), [], x)[0]


def channels_last(fn: Torch) -> Torch:
    return lambda x, *tensors: fn(x.movedim(1, -1), *tensors).movedim(-1, 1)


FLAX = {"epsilon": EPS, "dtype": jnp.float64, "param_dtype": jnp.float64}
TOKENS = draw("tokens", 101, c=6)
IMAGE = draw("image", 102, c=6)
GAIN, BIAS = random(6, seed=1), random(6, seed=2)


def test_layer_norm_2d() -> None:
    convnext = ConvNextLayerNorm(6, eps=EPS, data_format="channels_first")
    given = {"weight": GAIN, "bias": BIAS}
    held("layer_norm_2d", "transformers ConvNextLayerNorm", of_module(convnext, *given), IMAGE, "image", given, eps=EPS)
    flax = linen.LayerNorm(use_fast_variance=False, reduction_axes=1, feature_axes=1, **FLAX)
    theirs = of_flax(flax, "scale", "bias")
    held_by_jax("layer_norm_2d", "flax.linen.LayerNorm", theirs, IMAGE, "image", given, eps=EPS)


def test_layer_norm_2d_is_restormers_layer_norm_with_bias() -> None:
    def with_bias(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias

    given = {"weight": GAIN, "bias": BIAS}
    held("layer_norm_2d", "authors' formula (Restormer)", channels_last(with_bias), IMAGE, "image", given, eps=1e-5)


def test_bias_free_layer_norm() -> None:
    def bias_free(x: Tensor, weight: Tensor) -> Tensor:
        return x / torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + EPS) * weight

    for x, layout, theirs in ((TOKENS, "tokens", bias_free), (IMAGE, "image", channels_last(bias_free))):
        held("bias_free_layer_norm", "authors' formula", theirs, x + 2, layout, {"weight": GAIN}, eps=EPS)


def test_bias_free_layer_norm_of_centered_tokens_is_layer_norm_without_bias() -> None:
    centered = TOKENS - TOKENS.mean(-1, keepdim=True)
    y = METHODS["bias_free_layer_norm"](centered, "tokens", eps=EPS).y
    agrees(
        "bias_free_layer_norm",
        "torch.nn.LayerNorm (zero-mean input)",
        y,
        functional.layer_norm(centered, (6,), eps=EPS),
    )


@pytest.mark.parametrize("key", ["bias_free_layer_norm", "simple_norm"])
def test_one_channel_has_variance_0_and_is_found_out(key: str) -> None:
    y = METHODS[key](torch.tensor([[3.0]]), "vector", eps=1e-4).y
    assert y.item() == pytest.approx(300.0)
    (finding,) = diagnose(key, (4, 1), "vector")
    assert "its variance is 0" in finding.sentence


@pytest.mark.parametrize("shape", [(4, 3, 6), (4, 6)])
def test_bert_layer_norm(shape: tuple[int, ...]) -> None:
    def annotated(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return weight * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + EPS) + bias

    given = {"weight": GAIN, "bias": BIAS}
    layout = "tokens" if len(shape) == 3 else "vector"
    held("bert_layer_norm", "authors' formula", annotated, random(*shape), layout, given, eps=EPS)


def test_googles_bert_is_the_plain_layer_norm() -> None:
    y = METHODS["bert_layer_norm"](TOKENS, "tokens", eps=0.3, unbiased=False, eps_place="inside").y
    agrees("bert_layer_norm", "torch.nn.LayerNorm (ε inside, n)", y, functional.layer_norm(TOKENS, (6,), eps=0.3))


def test_bert_layer_norm_of_a_constant_token_has_a_gradient() -> None:
    x = torch.full((2, 4), 3.0, requires_grad=True)
    y = METHODS["bert_layer_norm"](x, "vector", bias=torch.ones(4)).y
    y.square().sum().backward()
    assert x.grad is not None and bool(x.grad.isfinite().all()) and torch.equal(y, torch.ones(2, 4))


@pytest.mark.parametrize("size", [1.0, 1e-4])
def test_scale_norm(size: float) -> None:
    def literal(x: Tensor, weight: Tensor) -> Tensor:
        rows = []
        for row in x.reshape(-1, x.shape[-1]):
            length = sum(value**2 for value in row) ** 0.5
            rows.append(weight * row / (length if length > 1e-3 else 1e-3))
        return torch.stack(rows).reshape(x.shape)

    held("scale_norm", "literal loop", literal, size * TOKENS, "tokens", {"weight": random()}, eps=1e-3)


def test_a_new_scale_norm_is_rms_norm() -> None:
    norm = layer("scale_norm", 6, "tokens", eps=0.0).double()
    assert norm.get_parameter("weight").shape == () and norm.get_parameter("weight").item() == pytest.approx(6**0.5)
    agrees(
        "scale_norm",
        "torch.nn.RMSNorm (gain √d / √d, ε 0)",
        norm(TOKENS),
        nn.RMSNorm(6, eps=0.0).double()(TOKENS),
        1e-6,
    )


@pytest.mark.parametrize("size", [1.0, 1e-4])
@pytest.mark.parametrize(("key", "p"), [("l2_norm", 2.0), ("l1_norm", 1.0)])
def test_lp_norms(key: str, p: float, size: float) -> None:
    for x, layout, dim in ((TOKENS, "tokens", -1), (IMAGE, "image", 1)):
        held(key, "torch.nn.functional.normalize", _normalize(p, dim), size * x, layout, eps=EPS)


def _normalize(p: float, dim: int) -> Torch:
    return lambda x: functional.normalize(x, p, dim, EPS)


def test_the_lp_norms_of_keras_are_those_of_torch() -> None:
    held_by_jax("l2_norm", "keras.ops.normalize", lambda x: keras.ops.normalize(x, -1, 2, 1e-12), TOKENS, "tokens")
    expected = answer_of_jax(lambda x: keras.ops.normalize(x, -1, 1, 1e-12), TOKENS, [])
    # With p = 1 keras raises to a float32 power.
    agrees("l1_norm", "keras.ops.normalize", ours("l1_norm", TOKENS, "tokens", {}), expected, 1e-7)


@pytest.mark.parametrize("size", [1.0, 1e-2])
def test_l2_norm_with_epsilon_elsewhere(size: float) -> None:
    x = size * TOKENS
    inside = {"eps": EPS, "eps_place": "inside"}
    held_by_jax("l2_norm", "flax's l2 normalization", lambda t: _l2_normalize(t, -1, EPS), x, "tokens", **inside)
    outside = {"eps": EPS, "eps_place": "outside"}
    held("l2_norm", "Chainer's formula", lambda t: t / (t.norm(dim=-1, keepdim=True) + EPS), x, "tokens", **outside)


def test_tensorflows_floor_is_the_maximum_with_the_root_of_its_epsilon() -> None:
    x = 0.02 * TOKENS
    theirs = x * torch.rsqrt(x.square().sum(-1, keepdim=True).clamp_min(EPS))
    agrees("l2_norm", "TensorFlow's formula", METHODS["l2_norm"](x, "tokens", eps=math.sqrt(EPS)).y, theirs)


@pytest.mark.parametrize("layout", ["vector", "signal", "image", "volume"])
def test_pixel_norm(layout: str) -> None:
    def karras(x: Tensor) -> Tensor:
        return x / torch.sqrt(torch.mean(x**2, 1, keepdim=True) + EPS)

    held("pixel_norm", "authors' formula", karras, draw(layout, 103), layout, eps=EPS)


@pytest.mark.parametrize("layout", ["vector", "signal", "image", "volume", "tokens"])
def test_the_pointwise_ones(layout: str) -> None:
    x = draw(layout, 104, c=6)
    alpha, shift = torch.tensor(0.7, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)

    def moved(fn: Torch) -> Torch:
        return fn if layout in ("tokens", "vector") else channels_last(fn)

    def tanh(x: Tensor, weight: Tensor, bias: Tensor, alpha: Tensor) -> Tensor:
        grown, shrunk = torch.exp(alpha * x), torch.exp(-alpha * x)
        return weight * (grown - shrunk) / (grown + shrunk) + bias

    def erf(x: Tensor, weight: Tensor, bias: Tensor, alpha: Tensor, shift: Tensor) -> Tensor:
        normal = torch.distributions.Normal(*torch.tensor([0.0, 0.5**0.5], dtype=torch.float64))
        return weight * (2 * normal.cdf(alpha * x + shift) - 1) + bias

    given = {"weight": GAIN, "bias": BIAS, "alpha": alpha}
    held("dynamic_tanh", "authors' formula", moved(tanh), x, layout, given)
    held("dynamic_erf", "authors' formula", moved(erf), x, layout, given | {"shift": shift})
    held("selu", "torch.nn.SELU", nn.SELU(), x, layout)
    held_by_jax("selu", "jax.nn.selu", jax.nn.selu, x, layout)
    held_by_jax("selu", "keras.ops.selu", keras.ops.selu, x, layout)


def test_what_the_pointwise_ones_learn_starts_at_their_settings() -> None:
    tanh = layer("dynamic_tanh", 6, "tokens", init_alpha=0.8).double()
    erf = layer("dynamic_erf", 6, "tokens", init_alpha=0.8, init_shift=-0.5).double()
    assert {name: tuple(p.shape) for name, p in erf.named_parameters()} == {
        "weight": (6,),
        "bias": (6,),
        "alpha": (),
        "shift": (),
    }
    assert tanh.get_parameter("alpha").item() == pytest.approx(0.8)
    assert erf.get_parameter("shift").item() == pytest.approx(-0.5)
    agrees("dynamic_tanh", "torch.tanh (new layer)", tanh(TOKENS), torch.tanh(0.8 * TOKENS), 1e-7)
    agrees("dynamic_erf", "torch.erf (new layer)", erf(TOKENS), torch.erf(0.8 * TOKENS - 0.5), 1e-7)


def test_a_gentle_dynamic_tanh_is_a_straight_line() -> None:
    y = METHODS["dynamic_tanh"](TOKENS, "tokens", init_alpha=1e-5).y
    agrees("dynamic_tanh", "its limit, α x", y / 1e-5, TOKENS, 1e-8)


def test_selu_keeps_mean_0_and_variance_1() -> None:
    x, generator = torch.randn(4000, 200, generator=torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1)
    for _ in range(8):
        weight = torch.randn(200, 200, generator=generator) / 200**0.5  # LeCun's initialization
        x = METHODS["selu"](x @ weight, "vector").y
    assert abs(float(x.mean())) < 0.05 and abs(float(x.var()) - 1) < 0.15


def test_pointwise_methods_have_no_statistics_to_speak_of() -> None:
    for key in ("dynamic_tanh", "dynamic_erf", "selu"):
        assert METHODS[key].bound((2, 6, 4, 4)) == () and METHODS[key](IMAGE).stats == {}
        said = describe.headline(METHODS[key], (2, 6, 4, 4), "image")
        assert said.startswith("no statistic of this tensor; ") and said.endswith("; running state: none")
        assert diagnose(key, (2, 1), "vector") == ()
    assert "2 × 6 + 1 learned parameters" in describe.headline(METHODS["dynamic_tanh"], (2, 6, 4, 4), "image")


def heads_of(fn: Torch, heads: int) -> Torch:
    """A norm of (n t h k) as one of tokens (n t (h k))."""
    return lambda x, *tensors: fn(x.unflatten(-1, (heads, -1)), *tensors).flatten(-2)


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_qk_norm_to_length_1(heads: int) -> None:
    for size in (1.0, 1e-4):
        theirs = heads_of(lambda h: 7.0 * functional.normalize(h, dim=-1, eps=1e-3), heads)
        settings = {"heads": heads, "scale": 7.0, "eps": 1e-3}
        held("qk_norm", "torch.nn.functional.normalize", theirs, size * TOKENS, "tokens", **settings)


def test_qk_norm_by_root_mean_square() -> None:
    x, gain = TOKENS.float(), {"weight": random(3, dtype=torch.float32)}
    qwen = heads_of(of_module(Qwen3RMSNorm(3, eps=EPS), "weight"), 2)
    held("qk_norm", "transformers Qwen3RMSNorm", qwen, x, "tokens", gain, heads=2, kind="rms", eps=EPS)
    whole = {"weight": GAIN.float()}
    olmo = of_module(Olmo2RMSNorm(6, eps=EPS), "weight")
    held("qk_norm", "transformers Olmo2RMSNorm", olmo, x, "tokens", whole, heads=1, kind="rms", eps=EPS)


def test_qk_norm_in_attention_is_that_of_flax() -> None:
    heads, size = 2, 3
    attention = linen.MultiHeadDotProductAttention(
        heads, normalize_qk=True, use_bias=False, dtype=jnp.float64, param_dtype=jnp.float64
    )
    x = jnp.asarray(TOKENS.numpy())
    params = dict(attention.init(jax.random.key(0), x)["params"])
    gains = {name: random(size, seed=seed) for seed, name in ((3, "query_ln"), (4, "key_ln"))}
    params |= {name: {"scale": jnp.asarray(gain.numpy())} for name, gain in gains.items()}
    matrix = {name: torch.tensor(np.asarray(params[name]["kernel"])) for name in ("query", "key", "value", "out")}

    def one(name: str, gain: str | None) -> Tensor:
        projected = torch.einsum("ntc,chk->nthk", TOKENS, matrix[name]).flatten(-2)
        if gain:
            projected = METHODS["qk_norm"](projected, "tokens", heads=heads, kind="layer", weight=gains[gain]).y
        return projected.unflatten(-1, (heads, size)).transpose(1, 2)

    out = functional.scaled_dot_product_attention(one("query", "query_ln"), one("key", "key_ln"), one("value", None))
    mixed = torch.einsum("nhtk,hkc->ntc", out, matrix["out"])
    agrees("qk_norm", "flax.linen.MultiHeadDotProductAttention", mixed, attention.apply({"params": params}, x), 1e-8)


def test_qk_norm_within_each_head_is_flax_layer_norm() -> None:
    flax = of_flax(linen.LayerNorm(use_bias=False, use_fast_variance=False, **FLAX), "scale")

    def theirs(x: Any, gain: Any) -> Any:
        return flax(x.reshape(*x.shape[:-1], 2, 3), gain).reshape(x.shape)

    given = {"weight": random(3)}
    held_by_jax("qk_norm", "flax.linen.LayerNorm", theirs, TOKENS, "tokens", given, heads=2, kind="layer", eps=EPS)


def test_qk_norm_bounds_the_logits() -> None:
    q, k = (1e3 * draw("tokens", seed, c=6) for seed in (1, 2))
    q, k = METHODS["qk_norm"](q, "tokens", scale=11.0).y, METHODS["qk_norm"](k, "tokens").y
    logits = torch.einsum("nthk,nshk->nhts", q.unflatten(-1, (2, 3)), k.unflatten(-1, (2, 3)))
    assert float(logits.abs().max()) <= 11.0
    assert layer("qk_norm", 6, "tokens", heads=3).get_parameter("weight").shape == (2,)


def test_ada_norm_is_the_authors_code_in_values_and_in_gradients() -> None:
    def authors(x: Tensor, k: float = 0.1, scale: float = 2.0) -> Tensor:
        mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        x = x - mean
        gain = (k * (x - x.mean(-1, keepdim=True)) / std).detach()
        return scale * (x - x * gain) / std

    held("ada_norm", "authors' formula (ε 0)", authors, TOKENS, "tokens", eps=0.0, scale=2.0, unbiased=True)
    held(
        "ada_norm",
        "authors' formula (ε 0)",
        lambda x: authors(x, 0.3, 1.0),
        TOKENS,
        "tokens",
        eps=0.0,
        k=0.3,
        unbiased=True,
    )


def test_ada_norm_is_the_papers_formula_on_layer_norm() -> None:
    def paper(x: Tensor) -> Tensor:
        z = functional.layer_norm(x, x.shape[-1:], eps=EPS)
        return 0.5 * (1 - 0.2 * z.data) * z

    held("ada_norm", "paper's formula on torch.nn.LayerNorm", paper, TOKENS, "tokens", eps=EPS, scale=0.5, k=0.2)


def test_ada_norms_gradient_is_not_the_derivative_of_its_values() -> None:
    x = random(2, 4).requires_grad_(True)
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        torch.autograd.gradcheck(lambda t: METHODS["ada_norm"](t, "vector").y, (x,))


@pytest.mark.parametrize("size", [1.0, 1e-2])
def test_rms_norm(size: float) -> None:
    x, given = size * TOKENS, {"weight": GAIN}
    held_by_jax("rms_norm", "flax.linen.RMSNorm", of_flax(linen.RMSNorm(**FLAX), "scale"), x, "tokens", given, eps=EPS)
    norm = keras.layers.RMSNormalization(epsilon=EPS, dtype="float64")
    expected = answer_of_jax(of_keras(norm, x.shape), x, [GAIN])
    # keras computes in float32, and the gradients of small tokens are large.
    agrees("rms_norm", "keras.layers.RMSNormalization", ours("rms_norm", x, "tokens", given, eps=EPS), expected, 2e-5)
    for name, module in (("LlamaRMSNorm", LlamaRMSNorm(6, EPS)), ("T5LayerNorm", T5LayerNorm(6, EPS))):
        single = {"weight": GAIN.float()}
        held("rms_norm", f"transformers {name}", of_module(module, "weight"), x.float(), "tokens", single, eps=EPS)


def test_rms_norm_with_epsilon_added_to_the_root() -> None:
    def authors(x: Tensor, weight: Tensor) -> Tensor:
        return weight * (x / (x.norm(2, dim=-1, keepdim=True) * x.shape[-1] ** -0.5 + EPS))

    for size in (1.0, 1e-3):
        given = {"weight": GAIN}
        settings = {"eps": EPS, "eps_place": "outside"}
        held("rms_norm", "authors' formula (ε outside)", authors, size * TOKENS, "tokens", given, **settings)


def test_gemmas_gain_has_an_offset() -> None:
    x, given = TOKENS.float(), {"weight": GAIN.float()}
    gemma = GemmaRMSNorm(6, eps=EPS)
    theirs = of_module(gemma, "weight")
    held("rms_norm", "transformers GemmaRMSNorm", theirs, x, "tokens", given, eps=EPS, weight_offset=1.0)
    norm = layer("rms_norm", 6, "tokens", eps=EPS, weight_offset=1.0)
    assert {k: v.tolist() for k, v in norm.state_dict().items()} == {
        k: v.tolist() for k, v in gemma.state_dict().items()
    }
    assert torch.allclose(norm(x), gemma(x))


def test_nemotrons_gain_has_an_offset() -> None:
    nemotron = NemotronLayerNorm1P(6, eps=EPS).double()
    theirs = of_module(nemotron, "weight", "bias")
    given = {"weight": GAIN, "bias": random(6, seed=12)}
    held("layer_norm", "transformers NemotronLayerNorm1P", theirs, TOKENS, "tokens", given, eps=EPS, weight_offset=1.0)


def test_rms_norm_of_half_precision_is_rounded_after_the_gain_as_gemmas() -> None:
    x, weight = (t.to(torch.bfloat16) for t in (10 * random(64, 6), GAIN))
    y = METHODS["rms_norm"](x, "vector", weight=weight, weight_offset=1.0).y
    gemma = GemmaRMSNorm(6)
    agrees(
        "rms_norm",
        "transformers GemmaRMSNorm (bfloat16)",
        y,
        torch.func.functional_call(gemma, {"weight": weight}, x),
        0.0,
    )
    llama = torch.func.functional_call(LlamaRMSNorm(6), {"weight": weight}, x)
    plain = METHODS["rms_norm"](x, "vector", weight=weight).y
    off = (llama.double() - plain.double()).abs() / plain.double().abs().clamp_min(1e-9)
    assert 0 < float(off.max()) <= 2**-7  # Llama rounds twice: it may be a step beside


def test_rms_norm_2d() -> None:
    given = {"weight": GAIN}
    theirs = channels_last(of_module(nn.RMSNorm(6, eps=EPS).double(), "weight"))
    held("rms_norm_2d", "torch.nn.RMSNorm", theirs, IMAGE, "image", given, eps=EPS)
    flax = of_flax(linen.RMSNorm(reduction_axes=1, feature_axes=1, **FLAX), "scale")
    held_by_jax("rms_norm_2d", "flax.linen.RMSNorm", flax, IMAGE, "image", given, eps=EPS)
