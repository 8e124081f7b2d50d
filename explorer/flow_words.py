"""What the Gradient flow page says: a diagnosis from measured numbers, and what to try next."""

from collections.abc import Sequence

import numpy as np

from normcore.core import plural
from normcore.lab.flow import Profile, steepest
from normcore.lab.flow_nets import Wiring
from normcore.lab.flow_rates import STABLE, Stability
from normcore.lab.flow_remedies import Remedy, distance

GOOD, BAD = 1.0, 3.0
"""Within how many factors of ten from 1 a gradient arrives, and from how many on it has vanished or exploded."""


RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def said(value: float) -> str:
    """A number as a sentence says it: three figures, powers of ten written out."""
    if not np.isfinite(value):
        return "no number"
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    written = f"{mantissa} × 10{str(int(exponent)).translate(RAISED)}" if exponent else mantissa
    return written.removeprefix("-") if value >= 0 else "−" + written.removeprefix("-")


def diagnosis(wiring: Wiring, found: Profile) -> str:
    """What becomes of the gradient, and what of it the activation function accounts for."""
    layers, unit = found.layers, "time step" if wiring.recurrent else "layer"
    gradient = layers.gradient
    if not np.isfinite(gradient).all() or not np.isfinite(layers.loss):
        return f"**The gradient explodes beyond every number**: the loss is {layers.loss:g} on the first batch."
    if gradient[-1] == 0:
        return f"**Nothing arrives**: already the last {unit}'s gradient is exactly 0."
    if gradient[0] == 0:
        last = len(gradient) - int(np.flatnonzero(gradient)[0])
        return f"**The gradient dies**: {last} of {len(gradient)} {unit}s get one, and to the others exactly 0 arrives."
    verdict = _verdict(layers.ratio)
    way = f"each {unit} on the way back leaves {said(layers.factor)} of it on average"
    rest = f"after {plural(len(gradient) - 1, unit)} the first gets {said(layers.ratio)} times what the last one gets"
    return f"**{verdict}**: {way}; {rest}. {_cause(wiring, found)}"


def _verdict(ratio: float) -> str:
    far = distance(ratio)
    if far <= GOOD:
        return "The gradient arrives"
    if ratio < 1:
        return "The gradient vanishes" if far >= BAD else "The gradient shrinks"
    return "The gradient explodes" if far >= BAD else "The gradient grows"


def _cause(wiring: Wiring, found: Profile) -> str:
    """How much of the factor is the activation's slope, measured; the rest is everything else."""
    layers = found.layers
    flat = f"{layers.flat.mean():.1%} of its inputs are saturated"
    if wiring.kind in ("lstm", "gru"):
        return f"In its gates {layers.flat.mean():.1%} of all values are saturated."
    slopes = layers.slope[1:]
    slope = float(np.exp(np.log(slopes).mean())) if (slopes > 0).all() else 0.0
    own = f"{wiring.activation} has a slope of {said(slope)} (root mean square; {said(steepest(wiring.activation))} "
    own += f"at most; {flat})"
    if wiring.residual or slope == 0:
        return f"On its way {own}."
    rest = "the weights" if wiring.norm is None else "weights and norm"
    return f"Of that factor, {own}, and {rest} make {said(layers.factor / slope)}."


def next_switch(found: Profile, tried: Sequence[tuple[Remedy, float]], seed: int) -> tuple[str, Remedy | None]:
    """The switch that brings the ratio closest to 1, as a sentence, if one comes closer than the net as it is."""
    now = distance(found.layers.ratio)
    if not tried:
        return "", None
    best, ratio = tried[0]
    many = f"{plural(len(tried), 'switch')} measured with the same seed, {seed},"
    if distance(ratio) >= now:
        return f"None of the {many} brings the ratio closer to 1.", None
    if now <= GOOD:
        told = f"Nothing has to be mended here. Of the {many} “{best.name}” would come closest to 1"
        return f"{told}: {said(ratio)}.", None
    return f"**Try next: {best.name}.** Of the {many} it brings the ratio closest to 1: {said(ratio)}.", best


def stable(found: Sequence[Stability], raced: Sequence[float], optimizer: str) -> list[str]:
    """At which of the raced learning rates each contestant stayed stable, and how often it diverged."""
    lines = []
    for one in found:
        best = f"; best mean final loss {one.best:.3g}" if one.good else ""
        where = f" ({_spans(one.good, raced)})" if one.good else ""
        lines.append(
            f"**{one.label}** stays stable at {len(one.good)} of {len(raced)} rates{where}; "
            f"{one.diverged} of {one.runs} runs diverged{best}."
        )
    widest = max(len(one.good) for one in found)
    names = [one.label for one in found if len(one.good) == widest]
    verb = "stays" if len(names) == 1 else "stay"
    told = f"Of these, with {optimizer}, {' and '.join(names)} {verb} stable at the most rates."
    return [*lines, told if widest else "Nothing stayed stable at any of these rates."]


def _spans(good: Sequence[float], raced: Sequence[float]) -> str:
    """Rates in words: those that follow each other among the raced ones as a span."""
    spans: list[list[float]] = []
    for before, rate in zip([None, *raced], raced, strict=False):
        if rate in good:
            spans = [*spans[:-1], [*spans[-1], rate]] if before in good else [*spans, [rate]]
    return ", ".join(f"{span[0]:g} to {span[-1]:g}" if len(span) > 1 else f"{span[0]:g}" for span in spans)


def stable_means(guess: float) -> str:
    """When a rate counts."""
    return (
        f"Stable: every seed came through and ended at no more than {STABLE:g} times the loss of always guessing the "
        f"mean, {guess:.3g}."
    )
