"""Looks over the normalization layers of a model: what degenerates, what is stale, and what would be better."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from normcore.core import LETTERS, Bound, Method, plural
from normcore.describe import kind as kind_of
from normcore.describe import statistics
from normcore.diagnose import diagnose
from normcore.finding import Finding
from normcore.successor import kind
from normcore.trial import places, refuse_lazy, run_once
from normcore.watch import BEFORE, DROPOUT, Watch, method_of, settings_met, understood

FEW = 8
"""Below this number of samples, BatchNorm trains worse: see figure 1 of Wu and He 2018, arXiv:1803.08494."""

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
        found = plural(len(self.findings), "finding") if self.findings else "nothing to find fault with"
        lines = [f"{self.model}: {plural(len(self.entries), 'norm layer')}, {found}"]
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
    letters = f" ({' '.join(LETTERS[entry.layout])})" if entry.layout else ""
    return " × ".join(f"{size:,}" for size in entry.shape) + letters


def audit(model: nn.Module, example_input: Any) -> AuditReport:
    """Reports for every norm layer of a model what goes wrong with it at the batch size of an example.

    Looked at are torch.nn's norm layers, normcore's, and normcore's parametrizations of weights. The model runs on the
    example once, in evaluation mode; its buffers, its modes and the random state stay as they are.

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
    except (RuntimeError, ValueError, TypeError, IndexError) as error:  # what models raise on an input they do not take
        stopped = f"{type(error).__name__}: {error}"
    entries = [_entry(module, ", ".join(found), watch, names) for module, found in norms.items()]
    return AuditReport(type(model).__name__, tuple(entries), stopped)


def _entry(module: nn.Module, name: str, watch: Watch, names: Mapping[nn.Module, str]) -> AuditEntry:
    norm, settings = method_of(module), settings_met(module)
    assert norm is not None, "only norms are asked for"
    met = list(dict.fromkeys(watch.shapes.get(module, ())))
    first = met[0] if met else None
    found = [*_stale(module), *watch.symptoms.get(module, ())]
    layout, words = None, "the example did not reach it"
    for shape in met[::-1]:
        layout, seen = understood(module, shape)
        words = "its axes are not understood"
        if layout is not None:
            words = statistics(norm.bound(seen, layout, **settings))
            found = [*_of_shape(module, norm, seen, layout, settings), *found]
    found += _before(module, norm, layout, settings, watch, names)
    if not met:
        found += [f for f in _whatever_the_shape(module, norm, settings) if f not in found]
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
    layout: str | None,
    settings: Mapping[str, Any],
    watch: Watch,
    names: Mapping[nn.Module, str],
) -> Iterator[Finding]:
    """A bias that the norm erases, or dropout that its running variance takes for data."""
    for x in watch.sources.get(module, ()):
        maker = watch.makers[id(x)][1]
        name = names[maker] or "the layer before"
        if isinstance(maker, DROPOUT):
            if norm.state and settings.get("track_running_stats", True):
                yield Finding(
                    f"Dropout (p={maker.p:g}) comes right before it: in training it adds variance, which the running "
                    "variance remembers and evaluation does not have.",
                    "Put the dropout after the norm, or after the last norm of the network.",
                    "dropout before",
                )
            continue
        bounds = norm.bound(tuple(x.shape), layout, **settings) if layout else ()
        own = bounds and all(isinstance(b, Bound) and _one_a_channel(b, layout) for b in bounds)
        bias = getattr(maker, "bias", None)
        if own and isinstance(bias, Tensor) and watch.uses[id(x)] == 1 and "shift" in norm.invariances(**settings):
            yield Finding(
                f"The bias of {name} comes straight into it, and subtracting the mean takes it out again: "
                f"{plural(bias.numel(), 'number')} learned for nothing.",
                f"Make {name} with bias=False; the norm has a bias of its own."
                if getattr(module, "bias", None) is not None
                else f"Make {name} with bias=False; nothing else changes.",
                "bias before",
            )


def _one_a_channel(bound: Bound, layout: str | None) -> bool:
    """Whether no region reaches over channels."""
    axis = LETTERS[layout or ""].index("c")
    return all(factor.kept or factor.size == 1 for factor in bound.factors[axis])
