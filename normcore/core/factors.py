"""What a bound region's factors say about its layout: worked out once, so that a layer's call only looks it up."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Factor:
    """A part of a tensor axis: ``g`` and ``k`` of ``(g k)``. Kept factors tell regions apart; the others are shared."""

    letter: str
    size: int
    kept: bool


Axes = tuple[tuple[Factor, ...], ...]


def merge(axes: Axes) -> tuple[str, tuple[int, ...]]:
    """Like neighbors as one, factors of size one dropped: ``("KR", (8, 128))``, K kept, R reduced."""
    kinds = ""
    sizes: list[int] = []
    for factor in (factor for axis in axes for factor in axis):
        kind = "K" if factor.kept else "R"
        if factor.size == 1:
            continue
        if kinds.endswith(kind):
            sizes[-1] *= factor.size
        else:
            kinds, sizes = kinds + kind, [*sizes, factor.size]
    return kinds, tuple(sizes)


def spreading(axes: Axes) -> tuple[tuple[int, ...], ...]:
    """The shapes that a statistic passes through to broadcast; beside an axis kept in part it has to be repeated."""
    mixed = [{factor.kept for factor in axis if factor.size > 1} == {True, False} for axis in axes]
    pairs = list(zip(axes, mixed, strict=True))
    last = tuple(math.prod(f.size for f in axis if f.kept or m) for axis, m in pairs)
    if not any(mixed):
        return (last,)
    single = tuple(f.size if f.kept else 1 for axis in axes for f in axis)
    repeated = tuple(f.size if f.kept or m else 1 for axis, m in pairs for f in axis)
    return single, repeated, last


def tail_of(axes: Axes) -> tuple[int, ...]:
    """The last axes, if whole axes are reduced and no other comes after them: what a layer norm kernel takes."""
    kept = [any(factor.kept for factor in axis) for axis in axes]
    shape = tuple(
        math.prod(factor.size for factor in axis) for axis, keeps in zip(axes, kept, strict=True) if not keeps
    )
    whole = all(factor.kept for axis, keeps in zip(axes, kept, strict=True) if keeps for factor in axis)
    return shape if whole and kept == sorted(kept, reverse=True) else ()


def groups_of(axes: Axes) -> tuple[int, int, int, int] | None:
    """Samples, channels, positions and groups, where a region is a block of channels of one sample with all their
    space: what a group norm kernel takes."""
    samples, *others = axes
    if not others or not all(factor.kept for factor in samples):
        return None
    channels, *space = others
    blocks = "".join("K" if factor.kept else "R" for factor in channels if factor.size > 1)
    if blocks not in ("", "K", "R", "KR") or any(f.kept and f.size > 1 for axis in space for f in axis):
        return None
    count, each, positions = (
        math.prod(factor.size for axis in some for factor in axis) for some in ([samples], [channels], space)
    )
    return count, each, positions, math.prod(factor.size for factor in channels if factor.kept)
