"""Looks over the normalization layers of a model: what degenerates, what is stale, and what would be better."""

import math
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from normcore.core import LETTERS, Bound, Method, NormcoreError, plural
from normcore.describe import kind as kind_of
from normcore.describe import statistics
from normcore.diagnose import diagnose
from normcore.finding import Finding
from normcore.successor import kind
from normcore.trial import places, refuse_lazy, run_once
from normcore.watch import BEFORE, DROPOUT, Watch, frozen, method_of, settings_met, understood

FEW = 8
"""Below this number of samples, BatchNorm trains worse: see figure 1 of Wu and He 2018, arXiv:1803.08494."""

ODD, FROZEN = "its axes are not understood", "running ones, as in evaluation"

REFUSED = "Every region holds one value: PyTorch refuses to train on that, for subtracting the mean would erase it."


@dataclass(frozen=True)
class AuditEntry:
    """What was found at one norm layer. Where the example did not reach it, `shape` is None.

    `name` is its place in the model; where it is shared, all its places. `statistics` says in words how many regions
    there are in training, and of what size.
    """

    name: str
    method: str
    layout: str | None
    shape: tuple[int, ...] | None
    statistics: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class AuditReport:
    """What `audit` found, one entry a norm layer. `stopped` is what the model said where it broke off, if it did."""

    model: str
    entries: tuple[AuditEntry, ...]
    stopped: str | None = None

    @property
    def findings(self) -> tuple[tuple[str, Finding], ...]:
        """All findings, each with the name of its layer."""
        return tuple((entry.name, finding) for entry in self.entries for finding in entry.findings)

    def __str__(self) -> str:
        rows = [("layer", "method", "input", "statistics in training")]
        rows += [(e.name, e.method, _shape(e), e.statistics) for e in self.entries]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ["  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        unseen = sum(entry.shape is None or entry.statistics == ODD for entry in self.entries)
        none = "no finding" if unseen or self.stopped else "nothing to find fault with"
        found = plural(len(self.findings), "finding") if self.findings else none
        but = f" ({unseen:,} not looked at)" if unseen else ""
        lines = [f"{self.model}: {plural(len(self.entries), 'norm layer')}{but}, {found}"]
        lines += [f"The model stopped on the example: {self.stopped}"] if self.stopped else []
        lines += table if self.entries else []
        places: dict[Finding, list[str]] = {}
        for name, finding in self.findings:
            places.setdefault(finding, []).append(name)
        for finding, names in places.items():
            lines += ["", ", ".join(names), f"    {finding.sentence}", f"    → {finding.remedy}"]
        return "\n".join(lines)


def _shape(entry: AuditEntry) -> str:
    if entry.shape is None:
        return "not reached"
    axes = LETTERS[entry.layout] if entry.layout else ()
    letters = f" ({' '.join(axes)})" if len(axes) == len(entry.shape) else ""
    return " × ".join(f"{size:,}" for size in entry.shape) + letters


def audit(model: nn.Module, example_input: Any) -> AuditReport:
    """Reports for every norm layer of a model what goes wrong with it at the batch size of an example.

    Looked at are torch.nn's norm layers, normcore's, and normcore's parametrizations of weights. The model runs on the
    example once, in evaluation mode; its buffers, its modes and the random state stay as they are. What is said is for
    training, but for a norm that is in evaluation mode and has running statistics: it is taken to be frozen.

    Args:
        model: Any module tree.
        example_input: An input as in training: a tensor, a tuple of inputs, or a dictionary of inputs by name.

    Raises:
        NormcoreError: The model is no module, or a layer has no shape yet.
    """
    norms = places(model, lambda module: method_of(module) is not None, "audit")
    refuse_lazy(model.modules(), "audit")
    names = {module: name for name, module in model.named_modules()}
    watch = Watch(norms)
    befores = [module for module in model.modules() if isinstance(module, BEFORE)]
    stopped = None
    try:
        with watch:
            output = run_once(
                model,
                example_input,
                dict.fromkeys(norms, watch.enters),
                {**dict.fromkeys(befores, watch.made), **dict.fromkeys(norms, watch.leaves)},
            )
        watch.use(output)
    except (
        Exception
    ) as error:  # a stranger's code runs here and may raise anything; what it met until then still counts
        stopped = f"{type(error).__name__}: {error}".removesuffix(": ")
    erased = {
        id(x)
        for module in norms
        for x in watch.sources.get(module, ())
        if watch.uses[id(x)] == 1 and _erases(module, x)
    }
    entries = [_entry(module, ", ".join(found), watch, names, erased) for module, found in norms.items()]
    return AuditReport(type(model).__name__, tuple(entries), stopped)


def _entry(module: nn.Module, name: str, watch: Watch, names: Mapping[nn.Module, str], erased: Set[int]) -> AuditEntry:
    norm, settings = method_of(module), settings_met(module)
    assert norm is not None, "only norms are asked for"
    met = list(dict.fromkeys(watch.shapes.get(module, ())))
    first = met[0] if met else None
    found = [*_stale(module), *watch.symptoms.get(module, ())]
    layout, words = None, "the example did not reach it"
    try:
        for shape in met[::-1]:
            layout, seen = understood(module, shape)
            words = ODD if layout is None else FROZEN
            if layout is not None and not frozen(module):
                words = statistics(norm.bound(seen, layout, **settings))
                found = [*_of_shape(module, norm, seen, layout, settings), *found]
        if not met and not frozen(module):
            found += [f for f in _whatever_the_shape(module, norm, settings) if f not in found]
    except NormcoreError as error:
        words = "it could not be looked at"
        watch.refused[module] = str(error)
    if module in watch.refused:
        found.append(
            Finding(
                f"It could not be looked at: {watch.refused[module]}.",
                "See whether that is meant. Inside these limits, the rest of it can be looked at too.",
                "refused",
            )
        )
    found += _before(module, norm, settings, watch, names, erased)
    return AuditEntry(name, norm.key, layout, first, words, tuple(dict.fromkeys(found)))


def _whatever_the_shape(module: nn.Module, norm: Method, settings: Mapping[str, Any]) -> list[Finding]:
    """What can be said of a layer that met no input: its momentum."""
    layout = kind(module)[1][0] if kind(module)[0] else norm.layouts[0]
    large = tuple(64 for _ in LETTERS[layout])
    known = {k: v for k, v in settings.items() if k in ("momentum", "track_running_stats")}
    return [finding for finding in diagnose(norm.key, large, layout, **known) if finding.kind == "momentum"]


def _of_shape(
    module: nn.Module, norm: Method, shape: tuple[int, ...], layout: str, settings: Mapping[str, Any]
) -> Iterator[Finding]:
    """What the shape alone says, for training."""
    if isinstance(module, nn.SyncBatchNorm):  # other devices have samples too
        return
    bounds = norm.bound(shape, layout, **settings)
    found = diagnose(norm.key, shape, layout, **settings)
    across = kind_of(norm) == "Across the batch"
    better = _better(norm, shape, layout) if across else None
    for finding in found:
        refuses = finding.kind == "one value" and type(module).__module__.startswith("torch.nn")
        sentence = REFUSED if refuses and kind(module)[0] in ("batch_norm", "instance_norm") else finding.sentence
        remedy = better if better and finding.kind in ("one value", "two values") else finding.remedy
        if isinstance(module, nn.LayerNorm | nn.RMSNorm) and len(module.normalized_shape) > 1:
            remedy = "Normalize over axes that hold more values."
        yield Finding(sentence, remedy, finding.kind)
    region = bounds[0] if bounds else None
    if not across or not isinstance(region, Bound) or {"one value", "two values"} & {f.kind for f in found}:
        return
    samples = math.prod(factor.size for factor in region.factors[0] if not factor.kept)
    if samples == 1 < region.size:
        sentence = "In training the one sample is normalized by itself; in evaluation running averages do it."
    elif 1 < samples < FEW:
        sentence = (
            f"In training each sample makes up {_part(samples)} of the statistics that normalize it; in evaluation "
            "it does not count."
        )
    else:
        return
    yield Finding(sentence, better or "Give it more samples.", "few samples")


def _part(samples: int) -> str:
    return {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth", 6: "a sixth", 7: "a seventh"}[samples]


def _better(norm: Method, shape: tuple[int, ...], layout: str) -> str | None:
    """A method that does not look at the batch, with regions of a sensible size; None where there is none."""
    channels = shape[LETTERS[layout].index("c")]
    values = math.prod(shape[1:])
    if layout in ("vector", "tokens"):
        small = channels < FEW
        return (
            None
            if small
            else f"LayerNorm does not look at the batch: it has {channels:,} values in each region. "
            f"normcore.convert(model, {norm.key!r}, 'layer_norm') puts it in place."
        )
    groups = max((g for g in range(1, 33) if channels % g == 0 and values // g >= 16), default=0)
    if not groups:
        return None
    return (
        f"GroupNorm does not look at the batch: with num_groups={groups} it has {values // groups:,} values in each "
        f"region. normcore.convert(model, {norm.key!r}, 'group_norm', num_groups=...) puts it in place."
    )


def _stale(module: nn.Module) -> Iterator[Finding]:
    """Running statistics that no batch has moved, about to be used."""
    tracked, mean, var = (
        getattr(module, f"{name}", None) for name in ("num_batches_tracked", "running_mean", "running_var")
    )
    if module.training or tracked is None or int(tracked) > 0 or mean is None or bool((mean != 0).any()):
        return
    if var is not None and bool((var != 1).any()):
        return
    yield Finding(
        "It is in evaluation mode and has seen no batch: its running statistics are those of a new layer, mean 0 and "
        "variance 1, so that it normalizes nothing.",
        "Train it first (model.train()), show it some batches in training mode, or load a state that has seen some.",
        "no batch seen",
    )


def _before(
    module: nn.Module,
    norm: Method,
    settings: Mapping[str, Any],
    watch: Watch,
    names: Mapping[nn.Module, str],
    erased: Set[int],
) -> Iterator[Finding]:
    """A bias that norms erase wherever it goes, or dropout that a running variance takes for data."""
    for x in watch.sources.get(module, ()):
        maker = watch.makers[id(x)][1]
        name = f"the layer '{names[maker]}'" if names[maker] else "the layer before"
        if isinstance(maker, DROPOUT):
            if norm.state and settings.get("track_running_stats", True) and not frozen(module):
                yield Finding(
                    f"Dropout (p={maker.p:g}) comes right before it: in training it adds variance, which the running "
                    "variance remembers and evaluation does not have.",
                    "Put the dropout after the norm, or after the last norm of the network.",
                    "dropout before",
                )
            continue
        bias = getattr(maker, "bias", None)
        made = {key for key, (_, other) in watch.makers.items() if other is maker}
        if (
            isinstance(bias, Tensor)
            and erased >= made
            and len(made) == watch.calls[maker]
            and watch.uses.get(id(bias), 0) <= watch.calls[maker]  # its own layer uses it once a call
        ):
            yield Finding(
                f"The bias of {name} comes straight into it, and subtracting the mean takes it out again: "
                f"{plural(bias.numel(), 'number')} learned for nothing.",
                f"Make {name} with bias=False; the norm has a bias of its own."
                if getattr(module, "bias", None) is not None
                else f"Make {name} with bias=False; nothing else changes.",
                "bias before",
            )


def _erases(module: nn.Module, x: Tensor) -> bool:
    """Whether a norm takes a shift of each channel of an input out again."""
    norm, settings = method_of(module), settings_met(module)
    layout, shape = understood(module, tuple(x.shape))
    if norm is None or layout is None or frozen(module):
        return False
    try:
        bounds = norm.bound(shape, layout, **settings)
        own = bool(bounds) and all(isinstance(b, Bound) and _one_a_channel(b, layout) for b in bounds)
        return own and "shift" in norm.invariances(**settings)
    except NormcoreError:  # which its entry tells
        return False


def _one_a_channel(bound: Bound, layout: str | None) -> bool:
    """Whether no region reaches over channels."""
    axis = LETTERS[layout or ""].index("c")
    return all(factor.kept or factor.size == 1 for factor in bound.factors[axis])
