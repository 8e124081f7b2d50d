"""Declared identities, held against two methods as they are set: the condition in words, and what it lacks here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from normcore.core import AXIS_WORDS, LETTERS, Identity, Method, axis_sizes, plural
from normcore.registry import method

PAST = ("momentum", "track_running_stats")
"""Settings that no output in training depends on."""


@dataclass(frozen=True)
class Claim:
    """That a method declares to equal another one, and under which condition.

    `missing` are the parts of the condition that are not met, a phrase each. `sizes` and `settings` would meet them:
    axis sizes by letter, and for each setting the method that has it and the value.
    """

    key: str
    other: str
    condition: str
    missing: tuple[str, ...]
    sizes: Mapping[str, int]
    settings: Mapping[str, tuple[str, Any]]
    possible: bool

    @property
    def met(self) -> bool:
        """Whether the whole condition is met."""
        return not self.missing


def claims(
    one: str,
    other: str,
    shape: Sequence[int],
    layout: str,
    training: bool,
    settings: Mapping[str, Mapping[str, Any]],
) -> list[Claim]:
    """What either of two methods declares about the other; `settings` are the complete settings of both, by key."""
    sizes = axis_sizes(shape, layout)
    found = []
    for key, target in ((one, other), (other, one)):
        norm, partner = method(key), method(target)
        for identity in norm.equals:
            if identity.other == target:
                found.append(_claim(norm, partner, identity, sizes, layout, training, settings))
    return found


def chain(
    one: str,
    other: str,
    keys: Sequence[str],
    shape: Sequence[int],
    layout: str,
    training: bool,
    settings: Mapping[str, Mapping[str, Any]],
) -> list[Claim]:
    """The shortest way from one method to another over identities that are met, all of them among `keys`."""
    ways: dict[str, list[Claim]] = {one: []}
    waiting = [one]
    while waiting and other not in ways:
        key = waiting.pop(0)
        for following in keys:
            met = [] if following in ways else claims(key, following, shape, layout, training, settings)
            if any(claim.met for claim in met):
                ways[following] = [*ways[key], next(claim for claim in met if claim.met)]
                waiting.append(following)
    return ways.get(other, [])


def _claim(
    norm: Method,
    other: Method,
    identity: Identity,
    sizes: Mapping[str, int],
    layout: str,
    training: bool,
    settings: Mapping[str, Mapping[str, Any]],
) -> Claim:
    mine, theirs = settings[norm.key], settings[other.key]
    fixed = Identity.resolve(identity.other_settings, sizes)
    missing, wanted_sizes, wanted = [], {}, {}
    possible = not identity.layouts or layout in identity.layouts
    if not possible:
        missing.append(f"it does not hold on ({' '.join(LETTERS[layout])})")
    for axis, size in identity.sizes.items():
        if sizes.get(axis) != size:
            missing.append(f"{plural(sizes.get(axis, 0), AXIS_WORDS[axis])} instead of {size}")
            wanted_sizes[axis] = size
    after = dict(sizes) | wanted_sizes
    for holder, values, needed in (
        (norm, mine, Identity.resolve(identity.settings, after)),
        (other, theirs, Identity.resolve(identity.other_settings, after)),
    ):
        for name, value in needed.items():
            if values[name] != value:
                missing.append(f"{holder.name} has {name}={values[name]!r} instead of {value!r}")
                wanted[name] = (holder.key, value)
    shared = [p.name for p in other.params if p.name in mine and p.name not in fixed]
    for name in shared:
        counts = not (training and name in PAST)
        if counts and name not in wanted and mine[name] != theirs[name]:
            missing.append(f"{name} is {mine[name]!r} in {norm.name} and {theirs[name]!r} in {other.name}")
            wanted[name] = (norm.key, mine[name])
    return Claim(norm.key, other.key, _condition(norm, other, identity), tuple(missing), wanted_sizes, wanted, possible)


def _condition(norm: Method, other: Method, identity: Identity) -> str:
    """The identity in one sentence."""
    here = [f"`{axis}={size}`" for axis, size in identity.sizes.items()]
    here += [f"`{name}={value}`" for name, value in identity.settings.items()]
    there = [f"`{name}={value}`" for name, value in identity.other_settings.items()]
    beside = [f"no {name}" for name in norm.context if name not in other.context]
    start = f"With {_list(here + beside)}, {norm.name}" if here or beside else norm.name
    end = f" with {_list(there)}" if there else ""
    where = ""
    if identity.layouts:
        where = " on " + _list([f"({' '.join(LETTERS[name])})" for name in identity.layouts])
    where += " on a list of one gradient" if identity.single else ""
    return f"{start} equals {other.name}{end}{where}."


def _list(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
