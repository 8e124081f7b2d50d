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
    "mixed_mean": r"\bar\mu",
    "mixed_var": r"\bar\sigma^2",
    "mean_square": r"\overline{INPUT^2}",
    "window_mean_square": r"\overline{INPUT^2}",
    "norm": r"\lVert INPUT \rVert",
    "mean_norm": r"\overline{\lVert INPUT \rVert}",
    "eps": r"\epsilon",
    "alpha": r"\alpha",
    "beta": r"\beta",
    "max_norm": r"\tau",
    "clip_value": r"\tau",
    "lower": "a",
    "upper": "b",
    "k": "k",
}
MEANINGS = {
    "mean": "mean of the region",
    "var": "variance of the region, divided by the count",
    "var_unbiased": "variance of the region, divided by the count less one",
    "running_mean": "running mean",
    "running_var": "running variance, which remembers unbiased estimates",
    "mixed_mean": "mixture of the means of all its regions",
    "mixed_var": "mixture of the variances of all its regions",
    "mean_square": "mean of the squares of the region",
    "window_mean_square": "mean of the squares in the window, where what lies beyond the border counts as 0",
    "norm": "norm of the region",
    "mean_norm": "mean of the norms",
}
"""What the statistics are; a method's own name for one says which, and a formula may call any of them by its kind."""

KINDS = {
    "mean": ("mean", "running_mean", "mixed_mean"),
    "var": ("var", "var_unbiased", "running_var", "mixed_var"),
}


def symbolic(method: Method, settings: Mapping[str, Any], statistics: Sequence[str] = ()) -> str:
    """The method's formula in symbols, as LaTeX; `statistics` names those that were used."""
    return _fill(method, settings, statistics, lambda name: symbol(method, name))


def with_numbers(method: Method, settings: Mapping[str, Any], numbers: Mapping[str, float]) -> str:
    """The same formula with numbers in place of symbols; `numbers` has the input `x` and the statistics."""
    known = {name: value for name, value in settings.items() if isinstance(value, int | float)} | dict(numbers)
    return _fill(method, settings, tuple(numbers), lambda name: number(known[name]))


def symbol(method: Method, name: str) -> str:
    """How a statistic, a setting or the input is written, as LaTeX."""
    return SYMBOLS.get(name, name).replace("INPUT", INPUT[method.family])


def numbers_at(x: Tensor, normed: Normed, index: Sequence[int]) -> dict[str, float]:
    """The input, the output and the statistics used, at one element; gradient methods give lists of one tensor."""
    y = normed.y[0] if isinstance(normed.y, list) else normed.y
    at = tuple(index)
    found = {name: float(value.expand(x.shape)[at]) for name, value in normed.stats.items()}
    return {"x": float(x[at]), "y": float(y[at]), **found}


def number(value: float, digits: int = 6) -> str:
    """A number as LaTeX, with so many significant digits."""
    text, _, power = f"{value:.{digits}g}".partition("e")
    if not power:
        return text.replace("inf", r"\infty")
    factor = {"1": "", "-1": "-"}.get(text, rf"{text} \cdot ")
    return rf"{factor}10^{{{int(power)}}}"


def _fill(method: Method, settings: Mapping[str, Any], statistics: Sequence[str], write: Callable[[str], str]) -> str:
    formula = method.formula if isinstance(method.formula, str) else method.formula(settings)

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        text = write(next((kind for kind in KINDS.get(name, ()) if kind in statistics), name))
        first = formula[: match.start()].rstrip().endswith(("{", "(")) or match.start() == 0
        return f"({text})" if text.startswith("-") and not first else text

    return re.sub(r"<(\w+)>", fill, formula)
