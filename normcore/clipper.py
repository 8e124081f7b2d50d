"""The object around a gradient method: it changes the gradients in place and says what it did."""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from normcore.clip_report import ClipReport, TensorReport
from normcore.core import Examples, NormcoreError, Owned, Replaced, generator
from normcore.core.method import FLOATS
from normcore.registry import method

__all__ = ["ClipReport", "Clipper", "TensorReport", "clipper", "per_example_gradients"]


class Clipper:
    """Clips the gradients of parameters, like ``torch.nn.utils.clip_grad_norm_``. Made by `clipper`.

    It is for one thread: of calls in several at the same time, what it remembers and reports is mixed up.
    """

    def __init__(self, key: str, **settings: Any) -> None:
        self.method = method(key, "gradient")
        self.settings = self.method.settings(settings, {})
        self.state: dict[str, Any] = {}
        self._kept: list[tuple[list[Tensor], Callable[[], ClipReport | None]]] = []

    @torch.no_grad()
    def __call__(self, parameters: Tensor | Iterable[Tensor]) -> ClipReport:
        """Replaces every ``p.grad`` by its clipped value, in place; parameters without a gradient are passed over.

        Per-example methods read ``p.grad_sample`` (batch first) instead, write ``p.grad``, and make ``p.grad_sample``
        None, so that it is not taken for that of the next step. A sparse gradient is
        coalesced, and its stored rows are clipped as one tensor, beside the same rows of its parameter; what is not
        stored is 0 and stays so. What is remembered of a parameter waits for it where it has no gradient in a step.

        Raises:
            NormcoreError: Something else than tensors with floating-point gradients, a gradient without a
                ``grad_sample`` or of another shape, sparse rows of which each element would be remembered, or other
                parameters than those that the state remembers. No gradient is changed then.
        """
        given = self._listed(parameters)
        name = "grad_sample" if self.method.per_example else "grad"
        here = [i for i, p in enumerate(given) if getattr(p, name, None) is not None]
        room, last = self._kept.pop() if self._kept else ([], _nothing)  # another thread that calls now has its own
        if unread := last():
            unread.settle()
        gradients = Examples() if self.method.per_example else Owned(room)
        beside = []
        if self.method.per_example and any(p.grad is not None for i, p in enumerate(given) if i not in set(here)):
            raise NormcoreError(
                f"{self.method.key}: a parameter has a gradient and no grad_sample; call "
                "normcore.per_example_gradients(model, loss, inputs) first"
            )
        for i in here:
            gradient, weight = self._dense(given[i], name)
            gradients.append(gradient)
            beside.append(weight)
        extra: dict[str, Any] = {"parameters": beside} if "parameters" in self.method.inputs else {}
        if "state" in self.method.inputs:
            extra["state"] = self._recall(here, len(given))
        step = self.state.get("step", 0)
        normed = self.method.fn(gradients, **self.settings, **extra)
        sizes = [gradient.numel() for gradient in gradients]
        if isinstance(gradients, Examples):
            self._write([given[i] for i in here], gradients, normed, step)
        self.state = self._remember(dict(normed.state), here, len(given))
        report = ClipReport(gradients.change, sizes, self.settings.get("norm_type", 2.0))
        self._kept = [(gradients.room, ref(report))]
        return report

    def _listed(self, parameters: Any) -> list[Tensor]:
        given = [parameters] if isinstance(parameters, Tensor) else parameters
        given = list(given) if isinstance(given, Iterable) else [given]
        strange = next((type(p).__name__ for p in given if not isinstance(p, Tensor)), None)
        if strange:
            raise NormcoreError(f"{self.method.key}: parameters must be tensors, not {strange}; try model.parameters()")
        return given

    def _dense(self, parameter: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """A parameter's gradient, or the stored rows of a sparse one, and the weights that it belongs to."""
        gradient, weight = getattr(parameter, name), parameter.detach()
        if isinstance(gradient, Tensor) and gradient.layout is torch.sparse_coo and name == "grad":
            if self.method.remembers_elements:
                raise NormcoreError(
                    f"{self.method.key}: it remembers each element, which sparse rows do not allow; use "
                    "Embedding(sparse=False)"
                )
            if not gradient.is_coalesced():
                gradient = gradient.coalesce()
                parameter.grad = gradient
            weight = weight[tuple(gradient._indices())]
            gradient = gradient._values()
        if not isinstance(gradient, Tensor) or gradient.dtype not in FLOATS or gradient.layout is not torch.strided:
            kind = f"{gradient.dtype}, {gradient.layout}" if isinstance(gradient, Tensor) else type(gradient).__name__
            wanted = "floating-point and dense" if self.method.per_example else "floating-point, dense or sparse COO"
            raise NormcoreError(f"{self.method.key}: a {name} is {kind}; it must be {wanted}")
        if self.method.per_example and gradient.shape[1:] != parameter.shape:
            raise NormcoreError(
                f"{self.method.key}: a grad_sample has shape {tuple(gradient.shape)}; its parameter has "
                f"{tuple(parameter.shape)}, which must follow the batch axis"
            )
        return gradient.detach(), weight

    def _recall(self, here: list[int], count: int) -> dict[str, Any]:
        """The state of the parameters that have a gradient."""
        known = {name: value for name, value in self.state.items() if isinstance(value, list)}
        for value in known.values():
            if len(value) != count:
                raise NormcoreError(
                    f"{self.method.key}: this clipper remembers {len(value)} parameters and was given {count}; make "
                    "one for each list of parameters"
                )
        return self.state | {name: [value[i] for i in here] for name, value in known.items()}

    def _remember(self, state: dict[str, Any], here: list[int], count: int) -> dict[str, Any]:
        """The state with an entry for every parameter: those without a gradient keep the one they had.

        Flags are of one step alone, and False for them.
        """
        for name, value in state.items():
            if isinstance(value, list):
                known = self.state.get(name) or [None] * count
                flags = any(isinstance(entry, Tensor) and entry.dtype is torch.bool for entry in (*value, *known))
                entries = [torch.tensor(False)] * count if flags else list(known)
                for i, entry in zip(here, value, strict=True):
                    entries[i] = entry
                state[name] = entries
        return state

    def _write(self, parameters: list[Tensor], samples: Examples, normed: Any, step: int) -> None:
        """Adds noise to the sums over examples, divides by their number, and writes it all down."""
        deviation, random = normed.stats.get("noise_deviation"), generator(self.settings["seed"], step)
        share = 1 / len(samples[0]) if samples and self.settings["reduction"] == "mean" else 1.0
        pieces = []
        changes = samples.change.factors if samples.change else []  # type: ignore[union-attr]
        for parameter, sample, added, factors in zip(parameters, samples, normed.y, changes, strict=True):
            summed = added
            if deviation is not None:
                noise = torch.randn(added.shape, generator=random)
                summed = added + (deviation.to(noise) * noise).to(added)
            plain, clipped = (
                part.reshape(parameter.shape) * share for part in (sample.to(summed.dtype).sum(0), summed)
            )
            changed = (factors != 1).sum() * (sample.numel() / max(1, len(sample)))
            together = torch.dot(plain.reshape(-1), clipped.reshape(-1))
            norms = map(torch.linalg.vector_norm, (plain, clipped, plain - clipped))
            pieces.append((*norms, together, changed))
            if parameter.grad is None:
                parameter.grad = clipped.to(parameter.dtype)
            else:
                parameter.grad.copy_(clipped)
            parameter.grad_sample = None  # type: ignore[attr-defined]
        samples.change = Replaced(pieces)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": []}

    def state_dict(self) -> dict[str, Any]:
        """A copy of the clipper's memory: numbers, tensors and lists of them; empty for methods that have none."""
        return deepcopy(self.state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state_dict` of a clipper of the same method and parameters.

        Raises:
            NormcoreError: The state is none that this method can have made.
        """
        self.method.check_state(state)
        self.state = deepcopy(dict(state))

    def __repr__(self) -> str:
        settings = "".join(f", {name}={value!r}" for name, value in self.settings.items())
        return f"clipper({self.method.key!r}{settings})"


def _nothing() -> None:
    """No report is waiting for its numbers."""


def clipper(key: str, **settings: Any) -> Clipper:
    """A clipper by the key of its method, to be called with parameters after ``backward()``.

    Large gradients on a CPU go through loops that are compiled when they are first needed: that takes some seconds
    once, and a fraction of one in each process after that.

    Raises:
        NormcoreError: No such method or setting, or a value outside its domain.
    """
    return Clipper(key, **settings)


def per_example_gradients(model: nn.Module, loss: Callable[..., Tensor], inputs: Any, *targets: Any) -> Tensor:
    """Fills ``p.grad_sample`` of every parameter with the gradient of each example's own loss, batch first.

    Args:
        model: A module without batch statistics: each example goes through it alone, as a batch of one.
        loss: From the model's output for such a batch, and its targets, to a number.
        inputs: The inputs (n ...).
        targets: What else the loss takes, batch first too.

    Returns:
        The losses of all examples (n).
    """
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    frozen = {name: t for name, t in (*model.named_parameters(), *model.named_buffers()) if name not in learned}

    def one(parameters: dict[str, Tensor], x: Any, *rest: Any) -> tuple[Tensor, Tensor]:
        answer = functional_call(model, parameters | frozen, (x.unsqueeze(0),))
        found = loss(answer, *(part.unsqueeze(0) for part in rest))
        return found, found.detach()

    axes = (None, 0, *(0 for _ in targets))
    values = {name: p.detach() for name, p in learned.items()}
    samples, losses = vmap(grad(one, has_aux=True), in_dims=axes, randomness="different")(values, inputs, *targets)
    for name, parameter in learned.items():
        parameter.grad_sample = samples[name]  # type: ignore[attr-defined]
    return losses
