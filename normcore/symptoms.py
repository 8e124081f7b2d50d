"""What goes wrong with a method on a tensor: every number is measured, by running the method on it."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from normcore.core import LETTERS, Bound, Method, NormcoreError, plural
from normcore.digits import coarse_input, digits_lost, squares_beyond_half
from normcore.finding import Case, Finding

POSITIONS = ("t", "l", "d", "h", "w")
"""The axes whose ends may be padding."""

OUTWEIGHED = 0.5**0.5
"""Where ε equals the variance, the output has this share of its size."""

FAINT, GONE, OWN, UNLIKE = 0.01, 1e-4, 0.05, 30
"""Below the first deviation after a norm, a channel is hardly there where most are so; below the second, by itself.
Below this squared correlation with itself, it is another's. From this ratio on, others are of another scale."""

SEVERAL = 32
"""So many values say how a channel varies."""


def on_tensor(
    norm: Method, x: Tensor, shape: tuple[int, ...], layout: str, training: bool, settings: Mapping[str, Any]
) -> list[Finding]:
    """What goes wrong on this tensor.

    Raises:
        NormcoreError: x is no tensor of this shape, or not of floating-point numbers.
    """
    if not isinstance(x, Tensor) or tuple(x.shape) != shape:
        what = f"of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise NormcoreError(f"{norm.key}: x is {what}; it must be a tensor of shape {shape}")
    case = Case(norm, x.detach(), layout, {"training": training} if norm.state else {}, settings)
    with torch.no_grad():
        return _lost(case) or [finding for check in CHECKS for finding in check(case)]


def _lost(case: Case) -> list[Finding]:
    """Values that are no numbers."""
    bad = int((~case.x.isfinite()).sum())
    if not bad:
        return []
    after = int((~case.run(case.x).isfinite()).sum())
    half = ", and float16 ends at 65,504" if case.x.dtype is torch.float16 else ""
    return [
        Finding(
            f"Of {plural(case.x.numel(), 'value')} of the input, {bad:,} {'is' if bad == 1 else 'are'} infinite or not "
            f"a number; of the output, {after:,}.",
            f"Find the step that makes them (a division by 0, a logarithm of 0, too large a learning rate{half}).",
            "not finite",
        )
    ]


def _constant(case: Case) -> list[Finding]:
    """Regions without any spread, of which centering leaves nothing."""
    region = case.region
    if region is None or region.size == 1 or not case.centers:
        return []
    rows = region.split(case.x)
    spread = rows.amax(region.reduced) - rows.amin(region.reduced)
    constant = spread == 0
    if _by_position(region, case.layout):  # where a region of zeros is padding
        constant &= rows.abs().amax(region.reduced) > 0
    count = int(constant.sum())
    if not count:
        return []
    left = "their bias" if "bias" in case.norm.affine else "0"
    what = "Every region is" if count == region.count else f"{count:,} of {region.count:,} regions are"
    return [
        Finding(
            f"{what} constant: whatever the constant, {left} is all that comes out.",
            "Look at what feeds it: a dead unit, an empty channel, an input that is the same everywhere.",
            "constant",
        )
    ]


def _by_position(region: Bound, layout: str) -> bool:
    """Whether every position has regions of its own."""
    along = [i for i, letter in enumerate(LETTERS[layout]) if letter in POSITIONS]
    return bool(along) and all(factor.kept for i in along for factor in region.factors[i])


def _epsilon(case: Case) -> list[Finding]:
    """Regions whose spread is no match for ε, where most are: a few come about by chance."""
    region = case.region
    eps = case.settings.get("eps", case.norm.default("eps"))
    if region is None or region.size <= 2 or not eps:  # two values that are close are said to be close
        return []
    wide = case.x.double()
    with_it, without = (region.mean(case.run(wide, **e).square()).sqrt() for e in ({}, {"eps": 0.0}))
    sound = without.isfinite() & (without > 0)
    share = torch.where(sound, with_it / torch.where(sound, without, 1), 1)
    count = int((share < OUTWEIGHED).sum())
    if 2 * count <= region.count:
        return []
    smallest = float(share.min())
    where = "of every region" if count == region.count else f"of {count:,} of {region.count:,} regions"
    return [
        Finding(
            f"ε={eps:g} outweighs the spread {where}: of the size that the output would have without ε, "
            f"{100 * smallest:.2g} % is left{' of the smallest' if count > 1 else ''}.",
            "Take a smaller ε, or an input of larger values.",
            "epsilon",
        )
    ]


def _unlike(case: Case) -> list[Finding]:
    """Channels that share a region with others of another scale."""
    region = case.region
    if region is None or case.norm.family != "activation":
        return []
    axis = LETTERS[case.layout].index("c")
    values = case.x.numel() // case.x.shape[axis]
    if values < SEVERAL or all(factor.kept or factor.size == 1 for factor in region.factors[axis]):
        return []
    others = [a for a in range(case.x.ndim) if a != axis]
    wide = case.x.double()
    y = case.run(wide)
    before, after = (t.std(others, correction=0) for t in (wide, y))
    alive = before > 0
    if int(alive.sum()) < max(2, len(before) / 2):
        return []
    means, own = wide.mean(others), own_share(wide, y, axis)
    small = alive & (UNLIKE * before < torch.maximum(before.max(), means.max() - means.min()))
    faint = small & (after < FAINT)
    foreign, faint = small & (own < OWN), faint if 2 * int(faint.sum()) >= int(alive.sum()) else small & (after < GONE)
    lost = faint if int(faint.sum()) >= int(foreign.sum()) else foreign
    count = int(lost.sum())
    if not count:
        return []
    verb = ("varies", "is") if count == 1 else ("vary", "are")
    left = (
        f"{verb[0]} by at most {float(after[lost].max()):.1g}"
        if lost is faint
        else f"{verb[1]} at most {100 * float(own[lost].max()):.1g} % {'itself' if count == 1 else 'themselves'}"
    )
    return [
        Finding(
            f"Channels of unlike scale share a region: their deviations run from {float(before[alive].min()):.2g} to "
            f"{float(before.max()):.2g}, their means from {float(means.min()):.2g} to {float(means.max()):.2g}. In the "
            f"output {count:,} of {plural(len(before), 'channel')} {left}.",
            "Scale each channel by itself first (BatchNorm does, or constants from the data), or share over fewer.",
            "unlike scale",
        )
    ]


def own_share(x: Tensor, y: Tensor, axis: int) -> Tensor:
    """The squared correlation of each channel with what has become of it; 0 for a constant one."""
    rows, out = (t.movedim(axis, 0).flatten(1) for t in (x, y))
    rows, out = (t - t.mean(1, keepdim=True) for t in (rows, out))
    both = (rows * out).sum(1).square()
    return both / (rows.square().sum(1) * out.square().sum(1)).clamp_min(torch.finfo(both.dtype).tiny)


def _padding(case: Case) -> list[Finding]:
    """Ends of samples in which every channel is exactly 0, and which count in the statistics all the same."""
    region, letters = case.region, LETTERS[case.layout]
    along = [i for i, letter in enumerate(letters) if letter in POSITIONS]
    if region is None or case.norm.family != "activation" or "mask" in case.norm.context:
        return []
    axis = letters.index("c")
    mixed = [i for i in along if any(not f.kept and f.size > 1 for f in region.factors[i])]
    if case.x.shape[axis] == 1 or not mixed:
        return []
    empty = (case.x == 0).all(axis, keepdim=True)
    ends = torch.zeros_like(empty)
    for i in along:
        whole = empty.all([a for a in along if a != i], keepdim=True) if len(along) > 1 else empty
        ends |= whole.flip(i).to(torch.uint8).cummin(i).values.flip(i).bool()
    share = float(ends.double().mean())
    if not 0 < share < 1:
        return []
    wide = case.x.double()
    real = wide.masked_select(~ends.expand_as(wide))
    batch = 0 not in [i for i, factors in enumerate(region.factors) if all(f.kept for f in factors)]
    return [
        Finding(
            f"{100 * share:.2g} % of the positions, all at the ends of samples, are 0 in every channel. If that is "
            f"padding, it counts all the same: mean {float(wide.mean()):.2g} and deviation "
            f"{float(wide.std(correction=0)):.2g} with it, {float(real.mean()):.2g} and "
            f"{float(real.std(correction=0)):.2g} without.",
            ("Give masked_batch_norm a mask" if batch else "Cut the padding off")
            + ", or take statistics of each position by itself, as LayerNorm on tokens does.",
            "padding",
        )
    ]


CHECKS: tuple[Callable[[Case], list[Finding]], ...] = (
    _constant,
    _epsilon,
    digits_lost,
    coarse_input,
    _unlike,
    _padding,
    squares_beyond_half,
)
