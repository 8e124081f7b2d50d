"""Gradient methods against optax, timm, opacus, pytorch_optimizer and loops: values and memory over ten steps."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import pytorch_optimizer
import torch
from agreement import agrees
from opacus.optimizers import AdaClipDPOptimizer, DPOptimizer, DPPerLayerOptimizer
from timm.utils.agc import adaptive_clip_grad
from torch import Tensor, nn

from normcore import METHODS, clipper, per_example_gradients
from normcore.core import generator

SINGLE = 2e-5
"""What is allowed where the other side computes in float32, beside values of up to 30."""
PUBLISHED: dict[str, dict[str, Any]] = {
    # torch.nn.utils.clip_grad_norm_, with its 1e-6
    "clip_by_global_norm": {"max_norm": 1.0, "norm_type": 2.0, "eps": 1e-6, "error_if_nonfinite": False},
    "clip_by_value": {"clip_value": 1.0, "lower": None, "upper": None},
    "clip_by_norm_per_parameter": {"max_norm": 1.0},
    "clip_by_average_norm": {"max_norm": 1.0},  # TensorFlow has no default
    "clip_by_block_rms": {"threshold": 1.0},  # Adafactor, d
    "update_rms_clipping": {"clip_threshold": 1.0, "beta2": 0.99, "eps": 1e-6},  # the paper's best β₂
    "adaptive_gradient_clipping": {"clip_factor": 0.01, "eps": 1e-3, "exclude": 0},  # timm
    "auto_clip": {"percentile": 10.0},
    "z_clip": {"alpha": 0.97, "z_threshold": 2.5, "max_norm": 1.0, "warmup_steps": 25},  # the authors' code
    "ema_adaptive_clipping": {"beta": 0.98, "lambda_rel": 1.05, "lambda_abs": 1.0, "warmup_steps": 100},
    "spam_clipping": {"threshold": 5000.0, "beta2": 0.999, "warmup_steps": 20, "reset_every": 500},
    "stable_spam_clipping": {"gamma1": 0.7, "gamma2": 0.9, "theta": 0.999, "eps": 1e-8},
    "moving_average_clipping": {"multiple": 2.0, "beta": 0.99},  # ours; the paper says half to ten
    "skip_spikes": {
        "deviations": 4.0,
        "beta": 0.99,
        "warmup_steps": 25,
        "max_consecutive_errors": 5,
    },  # 4 is the paper's
    "normalized_gradient": {"eps": 1e-6, "per_tensor": False},
    "gradient_centralization": {},
    "per_example_clipping": {
        "max_norm": 1.0,
        "clipping": "flat",
        "noise_multiplier": 0.0,
        "reduction": "mean",
        "eps": 1e-6,  # opacus
        "seed": 0,
    },
    "automatic_per_example": {"gamma": 0.01, "noise_multiplier": 0.0, "reduction": "mean", "seed": 0},
    "quantile_adaptive_clipping": {
        "target_unclipped_quantile": 0.5,
        "learning_rate": 0.2,
        "init_threshold": 0.1,
        "noise_multiplier": 0.0,
        "count_noise": 0.0,
        "reduction": "mean",
        "seed": 0,
    },
    "soft_norm_clip": {"max_norm": 1.0},
    "soft_clip": {"threshold": 1.0},
    "sign_gradient": {},
    "zero_nans": {"infinite": False},
    "skip_if_nonfinite": {"max_consecutive_errors": 5},  # optax has no default
    "lars_trust_ratio": {"trust_coefficient": 0.001, "weight_decay": 0.0},
    "lamb_trust_ratio": {"weight_decay": 0.0, "max_ratio": None},
    "scale_by_param_block_rms": {"min_scale": 1e-3},  # optax
    "gradient_noise": {"eta": 0.01, "gamma": 0.55, "seed": 0},
}
SHAPES = ((3,), (4, 3), (2, 3, 3, 3))
SCALES = (1.0, 0.1, 30.0, 1.0, 3.0, 0.5, 90.0, 1.0, 1.0, 2.0)


def parameters(seed: int = 99, dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    random = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(s, generator=random, dtype=torch.float64).to(dtype)) for s in SHAPES]


def gradients(step: int, examples: tuple[int, ...] = ()) -> list[Tensor]:
    random = torch.Generator().manual_seed(step)
    options: dict[str, Any] = {"generator": random, "dtype": torch.float64}
    return [SCALES[step % 10] * torch.randn((*examples, *shape), **options) for shape in SHAPES]


def ten_steps(key: str, theirs: Any, oracle: str, tolerance: float = 1e-9, **chosen: Any) -> dict[str, Any]:
    """Ours and theirs, a function of gradients and parameters, take ten steps side by side; our last state."""
    clip, weights = clipper(key, **chosen), parameters()
    for step in range(10):
        given = gradients(step)
        for weight, gradient in zip(weights, given, strict=True):
            weight.grad = gradient.clone()
        expected = theirs([g.clone() for g in given], [w.detach() for w in weights])
        clip(weights)
        agrees(key, oracle, [w.grad for w in weights], expected, tolerance)
    return clip.state


def of_optax(transformation: Any) -> Any:
    """A transformation of optax as a function of gradients and parameters; it works in float32."""
    memory: dict[str, Any] = {}

    def call(given: list[Tensor], weights: list[Tensor]) -> list[np.ndarray]:
        updates, params = ([jnp.asarray(t.numpy(), jnp.float32) for t in side] for side in (given, weights))
        memory.setdefault("state", transformation.init(params))
        done, memory["state"] = transformation.update(updates, memory["state"], params)
        return [np.asarray(update) for update in done]

    call.memory = memory  # type: ignore[attr-defined]
    return call


OPTAX = [
    ("clip_by_value", {"clip_value": 0.5}, "optax.clip", lambda: optax.clip(0.5)),
    ("clip_by_global_norm", {"max_norm": 2.0, "eps": 0.0},
     "optax.clip_by_global_norm", lambda: optax.clip_by_global_norm(2.0)),
    ("clip_by_block_rms", {"threshold": 0.7}, "optax.clip_by_block_rms", lambda: optax.clip_by_block_rms(0.7)),
    ("lars_trust_ratio", {"trust_coefficient": 0.5},
     "optax.scale_by_trust_ratio", lambda: optax.scale_by_trust_ratio(trust_coefficient=0.5)),
    ("lamb_trust_ratio", {}, "optax.scale_by_trust_ratio", optax.scale_by_trust_ratio),
    ("scale_by_param_block_rms", {}, "optax.scale_by_param_block_rms", optax.scale_by_param_block_rms),
    ("normalized_gradient", {"eps": 0.0}, "optax.normalize_by_update_norm", optax.normalize_by_update_norm),
    ("gradient_centralization", {}, "optax.centralize", optax.centralize),
    ("sign_gradient", {}, "optax.scale_by_sign", optax.scale_by_sign),
]  # fmt: skip


@pytest.mark.parametrize(("key", "chosen", "oracle", "make"), OPTAX, ids=[f"{row[0]}" for row in OPTAX])
def test_optax_agrees(key: str, chosen: dict[str, Any], oracle: str, make: Any) -> None:
    ten_steps(key, of_optax(make()), oracle, SINGLE, **chosen)


def test_a_decayed_trust_ratio_is_optaxs() -> None:
    both = optax.chain(optax.add_decayed_weights(0.1), optax.scale_by_trust_ratio())
    ten_steps("lamb_trust_ratio", of_optax(both), "optax.scale_by_trust_ratio", SINGLE, weight_decay=0.1)


def test_broken_values_are_treated_as_in_optax() -> None:
    for key, make, oracle in (
        ("zero_nans", optax.zero_nans, "optax.zero_nans"),
        ("skip_if_nonfinite", lambda: optax.apply_if_finite(optax.identity(), 2), "optax.apply_if_finite"),
    ):
        chosen = {"max_consecutive_errors": 2} if key == "skip_if_nonfinite" else {}
        clip, weights, theirs = clipper(key, **chosen), parameters(), of_optax(make())
        for step in range(10):
            given = gradients(step)
            if step in (2, 4, 5, 6, 7):
                given[1][0, 1] = math.nan if step % 2 else math.inf
            for weight, gradient in zip(weights, given, strict=True):
                weight.grad = gradient.clone()
            expected = theirs(given, [w.detach() for w in weights])
            clip(weights)
            for ours, other in zip([w.grad.numpy() for w in weights], expected, strict=True):
                assert np.array_equal(np.isfinite(ours), np.isfinite(other))
                agrees(
                    key,
                    oracle,
                    np.nan_to_num(ours, posinf=9, neginf=-9),
                    np.nan_to_num(other, posinf=9, neginf=-9),
                    SINGLE,
                )
            if key == "zero_nans":
                assert [bool(f) for f in clip.state["found"]] == [bool(f) for f in theirs.memory["state"].found_nan]
            else:
                state = theirs.memory["state"]
                assert (int(clip.state["in_a_row"]), int(clip.state["in_all"])) == (
                    state.notfinite_count,
                    state.total_notfinite,
                )


def test_adaptive_clipping_is_timms_and_optax_is_wrong_on_three_axes() -> None:
    def timms(given: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
        held = [nn.Parameter(w.clone()) for w in weights]
        for p, g in zip(held, given, strict=True):
            p.grad = g
        adaptive_clip_grad(held, clip_factor=0.1)
        return [p.grad for p in held]

    ten_steps("adaptive_gradient_clipping", timms, "timm.utils.agc.adaptive_clip_grad", clip_factor=0.1)
    random = torch.Generator().manual_seed(5)
    weight, gradient = torch.randn(2, 4, 3, 5, generator=random, dtype=torch.float64).unbind()
    ours = METHODS["adaptive_gradient_clipping"]([gradient], parameters=[weight]).y[0]
    for axis, right in ((None, False), ((0, 1), True)):
        transformation = optax.adaptive_grad_clip(0.01, axis=axis)
        moved = [jnp.asarray(t.permute(2, 1, 0).numpy(), jnp.float32) for t in (gradient, weight)]  # output last
        theirs = np.asarray(transformation.update(moved[0], transformation.init(moved[1]), moved[1])[0]).transpose(
            2, 1, 0
        )
        assert np.allclose(ours.numpy(), theirs, atol=SINGLE) == right
    longer = pytorch_optimizer.optimizer.agc(weight, gradient)
    assert not np.allclose(ours.numpy(), longer.numpy(), atol=SINGLE), (
        "pytorch_optimizer reduces one axis of three, too"
    )
    column, rule = gradient[0][:, :1], optax.adaptive_grad_clip(0.01)
    held = jnp.asarray(weight[0][:, :1].numpy(), jnp.float32)
    squeezed = np.asarray(rule.update(jnp.asarray(column.numpy(), jnp.float32), rule.init(held), held)[0])
    for shape, same in (((-1,), True), ((-1, 1), False)):  # optax takes a column for one unit
        given = [[t.reshape(shape)] for t in (column, weight[0][:, :1])]
        single = METHODS["adaptive_gradient_clipping"](given[0], parameters=given[1]).y[0]
        assert np.allclose(single.reshape(-1).numpy(), squeezed.reshape(-1), atol=SINGLE * 1e-3) == same
    matrix = pytorch_optimizer.optimizer.agc(weight[0], gradient[0])
    mine = METHODS["adaptive_gradient_clipping"]([gradient[0]], parameters=[weight[0]]).y[0]
    agrees("adaptive_gradient_clipping", "pytorch_optimizer.agc", mine, matrix)


def test_centralization_is_pytorch_optimizers_and_optax_is_wrong_on_flax_kernels() -> None:
    def theirs(given: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
        for gradient in given:
            pytorch_optimizer.optimizer.gradient_centralization.centralize_gradient(gradient)
        return given

    ten_steps("gradient_centralization", theirs, "pytorch_optimizer.centralize_gradient")
    kernel = gradients(0)[1].mT  # (i o), as Flax has it
    update = optax.centralize().update(jnp.asarray(kernel.numpy(), jnp.float32), optax.EmptyState())[0]
    right = METHODS["gradient_centralization"]([gradients(0)[1]]).y[0].mT
    assert not np.allclose(np.asarray(update), right.numpy(), atol=SINGLE)


def test_adagc_is_pytorch_optimizers() -> None:
    held = parameters()
    options: dict[str, Any] = {
        "lr": 0.0,
        "betas": (0.0, 0.999),
        "weight_decay": 0.0,
        "warmup_steps": 4,
        "foreach": False,
    }
    other = pytorch_optimizer.AdaGC(held, **options)

    def theirs(given: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
        for p, g in zip(held, given, strict=True):
            p.grad = g
        other.step()
        return [other.state[p]["exp_avg"] for p in held]  # with β₁ = 0 the clipped gradient

    state = ten_steps("ema_adaptive_clipping", theirs, "pytorch_optimizer.AdaGC", 1e-7, warmup_steps=4)
    agrees(
        "ema_adaptive_clipping",
        "pytorch_optimizer.AdaGC",
        state["average"],
        [other.state[p]["gamma"] for p in held],
        1e-7,
    )


@pytest.mark.parametrize("which", ["spam_clipping", "stable_spam_clipping"])
def test_spam_is_pytorch_optimizers(which: str) -> None:
    held = parameters()
    if which == "spam_clipping":
        options: dict[str, Any] = {"threshold": 3, "grad_accu_steps": 2, "update_proj_gap": 7, "betas": (0.0, 0.9)}
        other = pytorch_optimizer.SPAM(held, lr=0.0, foreach=False, **options)
        ours = {"threshold": 3.0, "warmup_steps": 2, "reset_every": 7, "beta2": 0.9}
    else:
        other = pytorch_optimizer.StableSPAM(held, lr=0.0, betas=(0.0, 0.999), theta=0.9)
        ours = {"theta": 0.9}

    def theirs(given: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
        for p, g in zip(held, given, strict=True):
            p.grad = g
        other.step()
        return [other.state[p]["exp_avg"].reshape(p.shape) for p in held]

    state = ten_steps(which, theirs, f"pytorch_optimizer.{type(other).__name__}", 1e-6, **ours)
    if which == "spam_clipping":
        agrees(
            which,
            "pytorch_optimizer.SPAM",
            state["v"],
            [other.state[p]["exp_avg_sq"].reshape(p.shape) for p in held],
            1e-6,
        )


def test_update_clipping_is_stable_adamws() -> None:
    held = parameters()
    other = pytorch_optimizer.StableAdamW(held, lr=1.0, betas=(0.0, 0.9), eps=1e-6, weight_decay=0.0, foreach=False)

    def theirs(given: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
        before = [p.detach().clone() for p in held]
        for p, g in zip(held, given, strict=True):
            p.grad = g.clone()
        other.step()
        # The step is lr / max(1, rms) * g / (sqrt(v) + eps): solved for the gradient that was divided by the maximum.
        moments = [other.state[p]["exp_avg_sq"] for p in held]
        return [(b - p.detach()) * (v.sqrt() + 1e-6) for b, p, v in zip(before, held, moments, strict=True)]

    state = ten_steps("update_rms_clipping", theirs, "pytorch_optimizer.StableAdamW", 1e-5, beta2=0.9)
    agrees(
        "update_rms_clipping",
        "pytorch_optimizer.StableAdamW",
        state["v"],
        [other.state[p]["exp_avg_sq"] for p in held],
        1e-6,
    )


def length(tensors: list[Tensor]) -> float:
    return math.sqrt(sum(float(value) ** 2 for t in tensors for value in t.reshape(-1)))


def scaled(tensors: list[Tensor], factor: float) -> list[Tensor]:
    return [t * factor for t in tensors]


def test_autoclip_is_the_authors_rule() -> None:
    seen: list[float] = []

    def rule(given: list[Tensor], _: Any) -> list[Tensor]:
        seen.append(length(given))
        return scaled(given, min(1.0, np.percentile(seen, 40) / (seen[-1] + 1e-6)))

    state = ten_steps("auto_clip", rule, "paper's rule with numpy.percentile", percentile=40.0)
    agrees("auto_clip", "paper's rule with numpy.percentile", state["norms"], np.array(seen))


@pytest.mark.parametrize("cap", [None, 40.0])
def test_zclip_is_the_authors_rule(cap: float | None) -> None:
    memory: dict[str, Any] = {"norms": []}

    def rule(given: list[Tensor], _: Any) -> list[Tensor]:
        norm, most = length(given), math.inf if cap is None else cap
        if "mean" not in memory:
            memory["norms"].append(norm)
            if len(memory["norms"]) == 3:
                memory["mean"] = sum(memory["norms"]) / 3
                memory["var"] = sum((n - memory["mean"]) ** 2 for n in memory["norms"]) / 3
            return scaled(given, min(1.0, most / (norm + 1e-6)))
        deviation = memory["var"] ** 0.5
        z = (norm - memory["mean"]) / (deviation + 1e-6)
        allowed = memory["mean"] + 0.5 * deviation / (z / 0.5) if z > 0.5 else norm
        memory["mean"] = 0.9 * memory["mean"] + 0.1 * allowed
        memory["var"] = 0.9 * memory["var"] + 0.1 * (allowed - memory["mean"]) ** 2
        limit = min(allowed, most)
        return scaled(given, limit / (norm + 1e-6) if norm > limit else 1.0)

    state = ten_steps("z_clip", rule, "literal loop", alpha=0.9, z_threshold=0.5, warmup_steps=3, max_norm=cap)
    agrees("z_clip", "literal loop", [state["mean"], state["var"]], [memory["mean"], memory["var"]])


def test_rules_without_a_library_are_their_formulas() -> None:
    memory: dict[str, float] = {}

    def average(given: list[Tensor], _: Any) -> list[Tensor]:
        norm = length(given)
        limit = 2 * memory["average"] if memory else norm
        kept = min(norm, limit)
        memory["average"] = 0.9 * memory.get("average", kept) + 0.1 * kept
        return scaled(given, kept / norm)

    state = ten_steps("moving_average_clipping", average, "literal loop", beta=0.9)
    agrees("moving_average_clipping", "literal loop", state["average"], memory["average"])
    for key, rule, chosen in (
        ("clip_by_norm_per_parameter", lambda g, _: [t * min(1, 2 / length([t])) for t in g], {"max_norm": 2.0}),
        (
            "clip_by_average_norm",
            lambda g, _: [t * min(1, 0.2 * t.numel() / length([t])) for t in g],
            {"max_norm": 0.2},
        ),
        ("soft_norm_clip", lambda g, _: scaled(g, 2 / (2 + length(g))), {"max_norm": 2.0}),
        ("soft_clip", lambda g, _: [2 * np.tanh(t.numpy() / 2) for t in g], {"threshold": 2.0}),
    ):
        ten_steps(key, rule, "literal loop", **chosen)
    step = iter(range(10))

    def noisy(given: list[Tensor], _: Any) -> list[Tensor]:
        t = next(step)
        random = generator(3, t)
        return [g + (0.3 / (1 + t) ** 0.55) ** 0.5 * torch.randn(g.shape, generator=random) for g in given]

    ten_steps("gradient_noise", noisy, "literal loop", 1e-6, eta=0.3, seed=3)
    drawn = METHODS["gradient_noise"]([torch.zeros(100_000)], eta=0.3, state={"step": 3}).y[0]
    assert float(drawn.var()) == pytest.approx(0.3 / 4**0.55, rel=0.02)


def test_lars_divides_by_the_papers_sum_of_norms() -> None:
    def rule(given: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
        pairs = list(zip(given, weights, strict=True))
        return [0.01 * length([w]) / (length([g]) + 0.1 * length([w])) * (g + 0.1 * w) for g, w in pairs]

    ten_steps("lars_trust_ratio", rule, "literal loop", trust_coefficient=0.01, weight_decay=0.1)


def test_spikes_are_skipped_by_the_logarithm() -> None:
    memory: dict[str, float] = {"step": 0, "skipped": 0, "var": 0.0}

    def rule(given: list[Tensor], _: Any) -> list[Tensor]:
        log = math.log(length(given))
        memory["step"] += 1
        mean = memory.setdefault("mean", log)
        spike = memory["step"] > 2 and (log - mean) / max(0.01, math.sqrt(memory["var"])) > 2
        if spike and memory["skipped"] < 5:
            memory["skipped"] += 1
            return scaled(given, 0.0)
        memory["mean"] = 0.8 * mean + 0.2 * log
        memory["var"] = 0.8 * memory["var"] + 0.2 * (log - mean) * (log - memory["mean"])
        memory["skipped"] = 0
        return given

    state = ten_steps("skip_spikes", rule, "literal loop", beta=0.8, deviations=2.0, warmup_steps=2)
    agrees("skip_spikes", "literal loop", [state["mean"], state["var"]], [memory["mean"], memory["var"]])


def samples(step: int, held: list[nn.Parameter], n: int = 5) -> list[nn.Parameter]:
    for parameter, gradient in zip(held, gradients(step, (n,)), strict=True):
        parameter.grad, parameter.grad_sample = None, gradient
    return held


@pytest.mark.parametrize("clipping", ["flat", "per_layer"])
def test_per_example_clipping_is_opacus_and_optaxs(clipping: str) -> None:
    ours, theirs = parameters(), parameters()
    each = 2.0 / math.sqrt(len(SHAPES))
    kind, limits = (DPOptimizer, 2.0) if clipping == "flat" else (DPPerLayerOptimizer, [each] * len(SHAPES))
    other = kind(torch.optim.SGD(theirs, lr=0.0), noise_multiplier=0.0, max_grad_norm=limits, expected_batch_size=5)
    clip = clipper("per_example_clipping", max_norm=2.0, clipping=clipping)
    exact = clipper("per_example_clipping", max_norm=2.0, clipping=clipping, eps=0.0, reduction="sum")
    for step in range(10):
        clip(samples(step, ours))
        other.zero_grad()
        other.pre_step() if samples(step, theirs) else None
        agrees("per_example_clipping", f"opacus {kind.__name__}", [p.grad for p in ours], [p.grad for p in theirs])
        of_jax = [jnp.asarray(p.grad_sample.numpy(), jnp.float32) for p in samples(step, ours)]
        exact(ours)
        rule = optax.per_example_global_norm_clip if clipping == "flat" else optax.per_example_layer_norm_clip
        agrees(
            "per_example_clipping",
            f"optax.{rule.__name__}",
            [p.grad for p in ours],
            list(map(np.asarray, rule(of_jax, 2.0)[0])),
            SINGLE,
        )


def test_the_quantile_moves_as_in_opacus() -> None:
    ours, theirs = parameters(), parameters()
    other = AdaClipDPOptimizer(
        torch.optim.SGD(theirs, lr=0.0),
        noise_multiplier=0.0,
        target_unclipped_quantile=0.4,
        clipbound_learning_rate=0.3,
        max_clipbound=1e9,
        min_clipbound=1e-9,
        unclipped_num_std=1e-9,
        max_grad_norm=2.0,
        expected_batch_size=5,
    )
    chosen = {"target_unclipped_quantile": 0.4, "learning_rate": 0.3, "init_threshold": 2.0}
    clip = clipper("quantile_adaptive_clipping", **chosen)
    for step in range(10):
        clip(samples(step, ours))
        other.zero_grad()
        samples(step, theirs)
        other.pre_step()
        agrees(
            "quantile_adaptive_clipping",
            "opacus AdaClipDPOptimizer",
            [p.grad for p in ours],
            [p.grad for p in theirs],
            1e-5,
        )
        agrees(
            "quantile_adaptive_clipping", "opacus AdaClipDPOptimizer", clip.state["limit"], other.max_grad_norm, 1e-5
        )


def test_examples_can_be_normalized_without_a_threshold() -> None:
    held, clip = parameters(), clipper("automatic_per_example", gamma=0.1)
    for step in range(10):
        each = [[p.grad_sample[i] for p in samples(step, held)] for i in range(5)]
        clip(held)
        rule = [sum(g[j] / (length(g) + 0.1) for g in each) / 5 for j in range(len(held))]
        agrees("automatic_per_example", "literal loop", [p.grad for p in held], rule)


@pytest.mark.parametrize(("key", "chosen", "deviation"), [
    ("per_example_clipping", {"max_norm": 2.0, "noise_multiplier": 1.5}, 3.0),
    ("automatic_per_example", {"noise_multiplier": 1.5}, 1.5),
    ("quantile_adaptive_clipping", {"noise_multiplier": 1.5, "count_noise": 1.0, "init_threshold": 2.0},
     2 * (1.5**-2 - 2.0**-2) ** -0.5),
])  # fmt: skip
def test_noise_has_its_size_on_the_sum_and_depends_on_seed_and_step_alone(
    key: str, chosen: Any, deviation: float
) -> None:
    def once(seed: int, steps: int = 1, **more: Any) -> Tensor:
        held, clip = nn.Parameter(torch.zeros(20_000)), clipper(key, seed=seed, **(chosen | more))
        for _ in range(steps):
            held.grad, held.grad_sample = None, torch.zeros(4, 20_000)
            clip(held)
        return held.grad

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = once(0)
    assert torch.equal(torch.get_rng_state(), before)
    assert float(first.std()) == pytest.approx(deviation / 4, rel=0.03)
    assert float(once(0, reduction="sum").std()) == pytest.approx(deviation, rel=0.03)
    assert torch.equal(first, once(0)) and not torch.equal(first, once(1)) and not torch.equal(first, once(0, 2))


def test_gradients_of_single_examples_are_those_of_a_loop() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3 * 16, 4)).double()
    x, y = torch.randn(5, 2, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])
    losses = per_example_gradients(model, nn.functional.cross_entropy, x, y)
    for i in range(5):
        model.zero_grad()
        loss = nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        loss.backward()
        agrees("per_example_clipping", "loop over examples", losses[i], loss)
        for p in model.parameters():
            torch.testing.assert_close(p.grad_sample[i], p.grad)
    jax.clear_caches()
