"""What a configuration amounts to, in words: captions are generated from state, never written beside it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from normcore.core import (
    AXIS_WORDS,
    LETTERS,
    Bound,
    Divides,
    Identity,
    Method,
    Part,
    Region,
    Window,
    axis_sizes,
    counts,
    plural,
)
from normcore.legend import learns, listed
from normcore.registry import METHODS

KINDS = (
    "Across the batch",
    "Within a sample",
    "In a neighborhood",
    "Without statistics",
    "Weights",
    "Gradients",
)
"""The kinds of methods, by what their statistics are taken over."""


def kind(norm: Method) -> str:
    """Which of `KINDS` a method is."""
    if norm.family != "activation":
        return "Weights" if norm.family == "weight" else "Gradients"
    if not norm.regions:
        return "Without statistics"
    if any(isinstance(region, Window) for region in norm.regions):
        return "In a neighborhood"
    batch = any(isinstance(r, Region | Part) and not set(r.axes[0]) <= set(r.kept) for r in norm.regions)
    return "Across the batch" if batch else "Within a sample"


def headline(norm: Method, shape: Sequence[int], layout: str, training: bool = True, **settings: Any) -> str:
    """The counts: ``8 statistics, each over 128 values; 2 × 8 learned parameters; running state: none``."""
    used = statistics(norm.bound(shape, layout, training, **settings))
    if norm.state and not training and used.startswith("no statistic"):
        used += ": the running ones are used"
    return "; ".join([used, learned(norm, shape, layout, **settings), remembered(norm, shape, layout, settings)])


def statistics(bounds: Sequence[Bound | Window | Part]) -> str:
    """How many statistics there are, and over how many values each."""
    counts = []
    for bound in (bound for bound in bounds if bound.count):
        if isinstance(bound, Window):
            counts.append(f"{plural(bound.count, 'statistic')}, each over up to {plural(bound.size, 'value')}")
        else:
            each = ", each" if bound.count > 1 else ""
            counts.append(f"{plural(bound.count, 'statistic')}{each} over {plural(bound.size, 'value')}")
    return " and ".join(counts) or "no statistic of this tensor"


def learned(norm: Method, shape: Sequence[int], layout: str, **settings: Any) -> str:
    """How many parameters a layer learns; a slot that starts from the weight has one for each region."""
    sizes = _feature_sizes(norm, shape, layout)
    sizes |= counts(norm.settings(settings, axis_sizes(shape, layout)))
    slots = norm.affine.values()
    numbers = [
        norm.bound(shape, layout, **settings)[0].count if callable(slot.init) else math.prod(slot.shape(sizes))
        for slot in slots
    ]
    if not numbers:
        return "nothing learned"
    terms = [f"{numbers.count(n)} × {n:,}" if numbers.count(n) > 1 else f"{n:,}" for n in dict.fromkeys(numbers)]
    return f"{' + '.join(terms)} learned parameter{'' if sum(numbers) == 1 else 's'}"


STORED = {
    "var": "variance",
    "whitening": "whitening matrix",
    "mean_square": "mean square",
    "deviation": "mean distance from it",
}


def remembered(norm: Method, shape: Sequence[int], layout: str, settings: Mapping[str, Any]) -> str:
    """What a layer carries from batch to batch."""
    tracks = settings.get("track_running_stats", norm.default("track_running_stats"))
    if norm.remembers:
        return f"it remembers {listed(list(norm.remembers.values()))}"
    if not norm.state or tracks is False:
        return "running state: none"
    if norm.family == "weight":
        return f"running state: {' and '.join(norm.state)}"
    sizes = axis_sizes(shape, layout)
    names = [name.removeprefix("running_") for name in norm.state if name.startswith("running_")]
    kept = " and ".join(STORED.get(name, name) for name in names)
    return f"running state: {kept} of {plural(sizes['c'], 'channel')}"


def coincidences(norm: Method, shape: Sequence[int], layout: str, training: bool = True, **settings: Any) -> list[str]:
    """The identities that hold at this shape and these settings, a sentence each."""
    sizes = axis_sizes(shape, layout)
    complete = norm.settings(settings, sizes)
    tracks = complete.get("track_running_stats", False)
    if not training and tracks:
        return []
    said = [_sentence(norm, i, shape, layout, complete) for i in norm.equals if i.holds(layout, sizes, complete)]
    return said + [_elsewhere(norm, i, layout, complete, sizes) for i in norm.equals if _misleads(i, layout, complete)]


def equalities(norm: Method) -> list[str]:
    """What the method declares to equal, and under which conditions, a sentence each."""
    return [_equality(norm, identity, METHODS[identity.other]) for identity in norm.equals]


def _equality(norm: Method, identity: Identity, other: Method) -> str:
    here = [f"`{name}={value}`" for name, value in {**identity.sizes, **identity.settings}.items()]
    here += [f"no {name}" for name in norm.context if name not in other.context]
    there = [f"`{name}={value}`" for name, value in identity.other_settings.items()]
    start = f"With {listed(here)} it" if here else "It"
    end = f" with {listed(there)}" if there else ""
    where = f" on {listed(identity.layouts)} tensors" if identity.layouts else ""
    where += " on a list of one gradient" if identity.single else ""
    when = ", in training" if _only_in_training(norm, identity, other) else ""
    mine, theirs = (learns(method, _defaults(method)) for method in (norm, other))
    up_to = f", up to what is learned: {mine} here, {theirs} there" if mine != theirs else ""
    if mine == theirs and norm.affine != other.affine:
        up_to = ", with what is learned set alike: a new layer starts otherwise there"
    unlike = [
        f"`{name}` is {value!r} here and {other.default(name)!r} there"
        for name, value in _defaults(norm).items()
        if name in _defaults(other) and name not in {*identity.settings, *identity.other_settings, *PAST}
        if value != other.default(name)
    ]
    alike = f" The defaults differ, so set them alike: {listed(unlike)}." if unlike else ""
    return f"{start} equals **{other.name}**{end}{where}{when}{up_to}.{alike}"


PAST = ("momentum", "track_running_stats")
"""The settings of what is remembered, which no output in training depends on."""


def _only_in_training(norm: Method, identity: Identity, other: Method) -> bool:
    """Whether in evaluation the two use statistics of unlike pasts."""
    pasts = []
    for method, fixed in ((norm, identity.settings), (other, identity.other_settings)):
        settings = {**_defaults(method), **fixed}
        tracks = bool(method.state) and settings.get("track_running_stats", True)
        pasts.append((settings.get("momentum"), sorted(method.state)) if tracks else None)
    return pasts[0] != pasts[1]


def _defaults(norm: Method) -> dict[str, Any]:
    return {param.name: param.default for param in norm.params}


def _misleads(identity: Identity, layout: str, settings: Mapping[str, Any]) -> bool:
    """Whether the settings are those of an identity that holds in other layouts, but not in this one."""
    fixed = {name: value for name, value in identity.settings.items() if not isinstance(value, str)}
    return (
        bool(fixed)
        and bool(identity.layouts)
        and layout not in identity.layouts
        and layout in METHODS[identity.other].layouts
        and all(settings[name] == value for name, value in fixed.items())
    )


def _elsewhere(
    norm: Method, identity: Identity, layout: str, settings: Mapping[str, Any], sizes: Mapping[str, int]
) -> str:
    known = "image" if "image" in identity.layouts else identity.layouts[0]
    here, there = (" ".join(LETTERS[name]) for name in (layout, known))
    conditions = " and ".join(_setting(norm, name, settings[name], sizes) for name in identity.settings)
    return f"With {conditions} this is {METHODS[identity.other].name} on ({there}), but not on ({here})."


def _sentence(norm: Method, identity: Identity, shape: Sequence[int], layout: str, settings: Mapping[str, Any]) -> str:
    sizes = axis_sizes(shape, layout)
    other = METHODS[identity.other]
    conditions = [f"{plural(size, AXIS_WORDS[axis])}" for axis, size in identity.sizes.items()]
    conditions += [_setting(norm, name, settings[name], sizes) for name in identity.settings]
    conditions += [f"no {name}" for name in norm.context if name not in other.context]
    others = Identity.resolve(identity.other_settings, sizes)
    with_settings = " and ".join(_setting(other, name, value, sizes) for name, value in others.items())
    target = f"{other.name} with {with_settings}" if others else other.name
    start = f"With {' and '.join(conditions)}" if conditions else f"On ({' '.join(sizes)})"
    mine, theirs = learned(norm, shape, layout, **settings), learned(other, shape, layout, **others)
    note = "" if mine == theirs else f" The statistics are the same, the layers are not: {mine} here, {theirs} there."
    return f"{start} this is {target}.{note}"


def _setting(norm: Method, name: str, value: Any, sizes: Mapping[str, int]) -> str:
    domain = norm.domain(name)
    return domain.describe(value, sizes) if isinstance(domain, Divides) else f"{name}={value!r}"


def _feature_sizes(norm: Method, shape: Sequence[int], layout: str) -> dict[str, int]:
    sizes = axis_sizes(shape, layout)
    if norm.family != "activation":
        return sizes
    return {letter: sizes[letter] for letter in norm.feature_letters(layout)}
