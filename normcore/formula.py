"""Formulas as LaTeX: in symbols, and with the numbers of one element filled in."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from normcore.core import Method, Normed

SYMBOLS = {
    "mean": r"\mu",
    "var": r"\sigma^2",
    "var_unbiased": r"s^2",
    "mean_square": r"\overline{x^2}",
    "norm": r"\lVert x \rVert",
    "mean_norm": r"\overline{\lVert x \rVert}",
    "eps": r"\epsilon",
    "alpha": r"\alpha",
    "beta": r"\beta",
    "max_norm": r"\tau",
    "clip_value": r"\tau",
}
MEANINGS = {
    "mean": "mean of the region",
    "var": "variance of the region, divided by n",
    "var_unbiased": "variance of the region, divided by n − 1",
    "mean_square": "mean of the squares of the region",
    "norm": "L2 norm of the region",
    "mean_norm": "mean of the norms",
}
INPUT = {"activation": "x", "weight": "w", "gradient": "g"}


def symbolic(method: Method, settings: Mapping[str, Any]) -> str:
    """The method's formula in symbols, as LaTeX."""
    symbols = SYMBOLS | {"x": INPUT[method.family]}
    return _fill(method, settings, lambda name: symbols.get(name, name))


def with_numbers(method: Method, settings: Mapping[str, Any], numbers: Mapping[str, float]) -> str:
    """The same formula with numbers in place of symbols; `numbers` has the input `x` and the statistics."""
    known = {name: value for name, value in settings.items() if isinstance(value, int | float)} | dict(numbers)
    return _fill(method, settings, lambda name: number(known[name]))


def numbers_at(x: Tensor, normed: Normed, index: Sequence[int]) -> dict[str, float]:
    """The input, the output and the statistics used, at one element; gradient methods give lists of one tensor."""
    y = normed.y[0] if isinstance(normed.y, list) else normed.y
    at = tuple(index)
    found = {name: float(value.expand(x.shape)[at]) for name, value in normed.stats.items()}
    return {"x": float(x[at]), "y": float(y[at]), **found}


def number(value: float) -> str:
    """A number as LaTeX, with four significant digits."""
    digits, _, power = f"{value:.4g}".partition("e")
    if not power:
        return digits
    factor = {"1": "", "-1": "-"}.get(digits, rf"{digits} \cdot ")
    return rf"{factor}10^{{{int(power)}}}"


def _fill(method: Method, settings: Mapping[str, Any], write: Callable[[str], str]) -> str:
    formula = method.formula if isinstance(method.formula, str) else method.formula(settings)
    unbiased = {"var": "var_unbiased"} if settings.get("unbiased") and method.key != "switchable_norm" else {}

    def fill(match: re.Match[str]) -> str:
        text = write(unbiased.get(match[1], match[1]))
        first = formula[: match.start()].rstrip().endswith(("{", "(")) or match.start() == 0
        return f"({text})" if text.startswith("-") and not first else text

    return re.sub(r"<(\w+)>", fill, formula)
