"""Formulas as LaTeX: in symbols, and with the numbers of one element filled in."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from normcore.core import Method, Normed

INPUT = {"activation": "x", "weight": "w", "gradient": "g"}
SYMBOLS = {
    "x": "INPUT",
    "mean": r"\mu",
    "var": r"\sigma^2",
    "var_unbiased": "s^2",
    "running_mean": r"\hat\mu",
    "running_var": r"\hat s^2",
    "average_mean": r"\hat\mu",
    "average_var": r"\hat\sigma^2",
    "mean_deviation": r"\overline{\lvert INPUT - \mu \rvert}",
    "top_deviation": "D",
    "running_deviation": r"\hat D",
    "scale_correction": "r",
    "shift_correction": "d",
    "mixed_mean": r"\bar\mu",
    "mixed_var": r"\bar\sigma^2",
    "mean_square": r"\overline{INPUT^2}",
    "window_mean_square": r"\overline{INPUT^2}_{\mathrm{window}}",
    "window_mean": r"\mu_{\mathrm{window}}",
    "window_var": r"\sigma_{\mathrm{window}}^2",
    "window_deviation": r"\sigma_{\mathrm{window}}",
    "sample_deviation": r"\overline{\sigma_{\mathrm{window}}}",
    "part_mean_square": r"\overline{INPUT^2}_{\mathrm{part}}",
    "channel_mean": r"\mu",
    "channel_var": r"\sigma^2",
    "instance_mean": r"\mu_{nc}",
    "instance_var": r"\sigma_{nc}^2",
    "instance_square": r"\overline{INPUT^2}_{nc}",
    "batch_share": r"\rho",
    "whitening": "W_{cc}",
    "running_whitening": r"\hat W_{cc}",
    "from_others": r"\sum_{j \ne c} W_{cj} (INPUT_j - \mu_j)",
    "norm": r"\lVert INPUT \rVert",
    "centered_norm": r"\lVert INPUT - \mu \rVert",
    "fan_in": "N",
    "share": r"\alpha",
    "rest_square": r"\overline{(INPUT - \alpha \mu)^2}",
    "mean_square_length": r"\overline{\lVert INPUT - \mu \rVert^2}",
    "moved_norm": r"\lVert r + g (INPUT / \lVert INPUT \rVert - r) \rVert",
    "spectral_norm": r"\sigma_{\max}(W)",
    "spectral_estimate": r"u^\top W v",
    "gram_product": r"\left[W W^\top W\right]_{oi}",
    "exponential_map": r"\left[\exp(W B^\top - B W^\top)\, B\right]_{oi}",
    "cayley_map": r"\left[(I - A/2)^{-1} (I + A/2)\, B\right]_{oi}",
    "householder_map": r"\left[-H_1 \cdots H_k B\right]_{oi}",
    "absolute_norm": r"\lVert INPUT \rVert_1",
    "mean_norm": r"\overline{\lVert INPUT \rVert}",
    "style_mean": r"\mu_s",
    "style_deviation": r"\sigma_s",
    "scale_given": r"\mathrm{scale}",
    "shift_given": r"\mathrm{shift}",
    "residual": "r",
    "gain": r"g",
    "gamma": r"\gamma",
    "bias": r"\beta",
    "init_alpha": r"\alpha",
    "init_shift": "s",
    "scale": "C",
    "eps": r"\epsilon",
    "alpha": r"\alpha",
    "beta": r"\beta",
    "max_norm": r"\tau",
    "clip_value": r"\tau",
    "threshold": r"\tau",
    "clip_threshold": r"\tau",
    "clip_factor": r"\lambda",
    "limit": r"\tau_t",
    "average_norm": r"\lVert INPUT \rVert / N",
    "update_square": r"\overline{INPUT^2 / v}",
    "parameter": "w",
    "parameter_norm": r"\lVert w \rVert",
    "parameter_mean_square": r"\overline{w^2}",
    "min_scale": r"\epsilon",
    "weight_decay": r"\lambda",
    "noise": r"\xi_t",
    "kept": "k_t",
    "sum_norm": r"\lVert INPUT + \lambda w \rVert",
    "steady_scale": "s_t",
    "trust_coefficient": r"\eta",
    "max_ratio": "r",
    "lower": "a",
    "upper": "b",
    "k": "k",
    "sigma": "s",
    "floor": r"\tau",
    "weight": r"\gamma",
    "tau": r"\tau",
}
MEANINGS = {
    "mean": "mean of the region",
    "var": "variance of the region, divided by the count",
    "var_unbiased": "variance of the region, divided by the count less one",
    "running_mean": "running mean",
    "running_var": "running variance, which remembers unbiased estimates",
    "average_mean": "running mean, which training has just moved toward the batch's",
    "average_var": "running variance, which training has just moved toward the batch's",
    "mean_deviation": "mean distance of the region's values from their mean",
    "top_deviation": "mean of the largest distances from the region's mean, times what makes it a standard deviation",
    "running_deviation": "running average of that distance",
    "scale_correction": "ratio of the batch's standard deviation to the running one, clipped",
    "shift_correction": "distance from the running mean to the batch's, in running standard deviations, clipped",
    "mixed_mean": "mixture of the means of all its regions",
    "mixed_var": "mixture of the variances of all its regions",
    "mean_square": "mean of the squares of the region",
    "window_mean_square": "mean of the squares in the window, where what lies beyond the border counts as 0",
    "window_mean": "mean of the window",
    "window_var": "mean of the squares in the window of what the means have left",
    "window_deviation": "root mean square in the window of what the means have left",
    "sample_deviation": "mean of these over the sample",
    "part_mean_square": "mean of the squares of the first channels",
    "channel_mean": "mean of the channel in the sample, or over the batch (in evaluation a running one)",
    "channel_var": "variance of the channel in the sample, or over the batch (in evaluation a running one)",
    "instance_mean": "mean of the channel in the sample",
    "instance_var": "variance of the channel in the sample, divided by the count",
    "instance_square": "mean of the squares of the channel in the sample",
    "batch_share": "share that BatchNorm has in the mixture",
    "whitening": "the channel's own entry in the whitening matrix of its group",
    "running_whitening": "the channel's own entry in the running whitening matrix of its group",
    "from_others": "what the other channels of the group add, by their entries in the whitening matrix",
    "style_mean": "mean of the style's channel, 0 without a style",
    "style_deviation": "standard deviation of the style's channel, 1 without a style",
    "scale_given": "scale that comes with the input, 0 without one",
    "shift_given": "shift that comes with the input, 0 without one",
    "gamma": "map of gains that comes with the input, 0 without one",
    "beta": "map of biases that comes with the input, 0 without one",
    "residual": "what the branch was computed from, 0 without one",
    "gain": "learned gain",
    "bias": "learned bias",
    "norm": "norm of the region",
    "absolute_norm": "sum of the region's absolute values",
    "centered_norm": "norm of the region less its mean",
    "fan_in": "number of weights of a unit",
    "share": "learned share of the mean that is taken out",
    "rest_square": "mean of the squares of what is left in the region",
    "mean_square_length": "mean over the nodes of their squared length, when the means are taken out",
    "nodes": "number of nodes in the graph: its positions, or those that a mask counts",
    "moved_norm": "norm of what stands above it",
    "spectral_norm": "largest singular value of the weight as a matrix",
    "spectral_estimate": "estimate of the largest singular value that the remembered u and v give",
    "gram_product": "entry of that product, of the weight as a matrix",
    "exponential_map": "entry of the base B, moved by the exponential of a skew-symmetric matrix",
    "cayley_map": "entry of the base B, moved by the Cayley transform of A = WBᵀ - BWᵀ",
    "householder_map": "entry of the base B, moved by the reflections that flip the columns of W + B",
    "mean_norm": "mean of the norms",
    "limit": "what is allowed in this step, by what is remembered",
    "average_norm": "norm of the gradient, divided by its number of elements",
    "update_square": "mean of the squares of the gradient, each divided by the running mean square of its element",
    "parameter": "the weight itself, 0 where none is given",
    "parameter_norm": "norm of the weights of the region, 0 where none are given",
    "parameter_mean_square": "mean of the squares of the weights, 0 where none are given",
    "noise": "normal noise, which fades from step to step",
    "sum_norm": "norm of the update with its weight decay",
    "steady_scale": "factor that cuts spikes to the running maximum, and brings the norm to its running value",
    "kept": "1 where the step is kept, 0 where it is left out",
}
"""What the statistics are; a method's own name for one says which, and a formula may call any of them by its kind."""

KINDS = {
    "mean": ("mean", "running_mean", "average_mean", "mixed_mean"),
    "var": ("var", "var_unbiased", "running_var", "average_var", "mixed_var"),
    "whitening": ("whitening", "running_whitening"),
    "mean_deviation": ("mean_deviation", "running_deviation"),
    "top_deviation": ("top_deviation", "running_deviation"),
}

INSIDE = {
    "filter_response_norm": ((r"\max(", r"\max(<weight> \cdot "), (", 0)", " + <bias>, <tau>)")),
    "adaptive_group_norm": (
        (r"\frac", r"\left(<weight> \cdot \frac"),
        ("<eps>}} + ", r"<eps>}} + <bias>\right) + "),
    ),
    "global_response_norm": ((r"<x> \cdot", r"<weight> \cdot <x> \cdot"), (" + <x>", " + <bias> + <x>")),
    "evo_norm_b0": ((", <x>", r", <v> \cdot <x>"),),
    "evo_norm_s0": (("e^{-<x>}", r"e^{-<v> \cdot <x>}"),),
}
"""Where what a layer learns stands inside a formula, as replacements in it; elsewhere gain and bias come last."""


def symbolic(method: Method, settings: Mapping[str, Any], statistics: Sequence[str] = ()) -> str:
    """The method's formula in symbols, as LaTeX; `statistics` names those that were used."""
    return _fill(template(method, settings), statistics, lambda name: symbol(method, name))


def learned(method: Method, settings: Mapping[str, Any], statistics: Sequence[str] = ()) -> str:
    """The same with what a layer learns in it, such as the gain and the bias that follow."""
    return _fill(with_learned(method, settings), statistics, lambda name: symbol(method, name))


def with_numbers(method: Method, settings: Mapping[str, Any], numbers: Mapping[str, float]) -> str:
    """The same formula with numbers in place of symbols; `numbers` has the input `x` and the statistics."""
    known = {name: value for name, value in settings.items() if isinstance(value, int | float)} | dict(numbers)
    return _fill(template(method, settings), tuple(numbers), lambda name: number(known[name]))


def template(method: Method, settings: Mapping[str, Any]) -> str:
    """The formula with ``<name>`` for the input, the statistics and the settings."""
    return method.formula if isinstance(method.formula, str) else method.formula(settings)


def with_learned(method: Method, settings: Mapping[str, Any]) -> str:
    """The formula with ``<name>`` for what a layer learns, or was given when it was frozen, as well."""
    formula = template(method, settings)
    for plain, full in INSIDE.get(method.key, ()):
        formula = formula.replace(plain, full)
    slots = {**method.affine, **method.state}
    gain = next((name for name in ("weight", "gain") if name in slots), None)
    if gain and "<weight>" not in formula and "<gain>" not in formula:
        factor = "(<weight_offset> + <weight>)" if settings.get("weight_offset") else f"<{gain}>"
        formula = rf"{factor} \cdot " + (rf"\left({formula}\right)" if _is_sum(formula) else formula)
    return f"{formula} + <bias>" if "bias" in slots and "<bias>" not in formula else formula


def names(method: Method, settings: Mapping[str, Any], statistics: Sequence[str] = ()) -> list[str]:
    """What stands in the formula with what is learned: the names of its symbols, each once."""
    found = re.findall(r"<(\w+)>", with_learned(method, settings))
    return list(dict.fromkeys(_used(name, statistics) for name in found))


def symbol(method: Method, name: str) -> str:
    """How a statistic, a setting or the input is written, as LaTeX."""
    return SYMBOLS.get(name, name).replace("INPUT", INPUT[method.family])


def numbers_at(x: Tensor, normed: Normed, index: Sequence[int]) -> dict[str, float]:
    """The input, the output and the statistics used, at one element; gradient methods give lists of one tensor."""
    y = normed.y[0] if isinstance(normed.y, list) else normed.y
    at = tuple(index)
    alone = {name: value[0] if isinstance(value, list) else value for name, value in normed.stats.items()}
    found = {name: float(value.expand(x.shape)[at]) for name, value in alone.items()}
    return {"x": float(x[at]), "y": float(y[at]), **found}


def number(value: float, digits: int = 6) -> str:
    """A number as LaTeX, with so many significant digits."""
    text, _, power = f"{value:.{digits}g}".partition("e")
    if not power:
        return text.replace("inf", r"\infty")
    factor = {"1": "", "-1": "-"}.get(text, rf"{text} \cdot ")
    return rf"{factor}10^{{{int(power)}}}"


def _fill(formula: str, statistics: Sequence[str], write: Callable[[str], str]) -> str:
    def fill(match: re.Match[str]) -> str:
        text = write(_used(match[1], statistics))
        first = formula[: match.start()].rstrip().endswith(("{", "(")) or match.start() == 0
        return f"({text})" if text.startswith("-") and not first else text

    return re.sub(r"<(\w+)>", fill, formula)


def _used(name: str, statistics: Sequence[str]) -> str:
    """The statistic that was used where a formula names a kind of it."""
    return next((kind for kind in KINDS.get(name, ()) if kind in statistics), name)


def _is_sum(formula: str) -> bool:
    """Whether something is added or subtracted outside all brackets, so that a factor before it needs one."""
    while (inner := re.sub(r"\{[^{}]*\}|\([^()]*\)", "", formula)) != formula:
        formula = inner
    return " + " in formula or " - " in formula
