"""Recurrent cells with normalization inside, called like those of torch.nn, whose parameter names they share.

With the norms replaced by identities, each is the cell of torch.nn that it is named after: the biases stand outside of
the norms, so that a norm has only a gain where a bias follows anyway.
"""

import numbers
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from normcore.core import NormcoreError, autocasts
from normcore.layer import NormLayer, layer
from normcore.registry import METHODS

State = tuple[Tensor, ...]


class _Cell(nn.RNNCellBase):
    """Weights, biases and norms of a cell, and the checks on what it is called with."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool, parts: int, device: Any, dtype: Any) -> None:
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            if not _whole(size) or size < 1:
                raise NormcoreError(f"{type(self).__name__}: {name}={size!r} must be a positive whole number")
        super().__init__(int(input_size), int(hidden_size), bool(bias), parts, device=device, dtype=dtype)

    def _norm(self, key: str, parts: int, bias: bool, kind: type = NormLayer, **settings: Any) -> Any:
        """A norm over so many gates, on the device and in the precision of the weights."""
        try:
            like = layer(key, parts * self.hidden_size, METHODS[key].layouts[0], **settings)
        except NormcoreError as error:
            raise NormcoreError(f"{type(self).__name__}: {error}") from None
        norm = kind(like.method, like.features, like.layout, True, like.settings)
        norm.bias = norm.bias if bias else None
        return norm.to(self.weight_ih.device, self.weight_ih.dtype)

    def reset_parameters(self) -> None:
        """Weights and biases as in torch.nn, uniform up to 1 / √hidden_size; norms as new."""
        limit = self.hidden_size**-0.5
        for own in self.parameters(recurse=False):
            nn.init.uniform_(own, -limit, limit)
        for norm in self.children():
            if isinstance(norm, NormLayer):
                norm.reset_running_stats()
                with torch.no_grad():
                    for name, parameter in norm.named_parameters():
                        parameter.copy_(norm._new(norm.method.affine[name]))

    def _batched(self, name: str, x: Any, size: int, samples: int | None = None) -> Tensor:
        """A tensor of axes (n, size) from one that may lack the first."""
        shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        fits = isinstance(x, Tensor) and x.ndim in (1, 2) and x.shape[-1] == size
        x = x[None] if fits and x.ndim == 1 else x
        if not fits or (samples is not None and len(x) != samples):
            wanted = f"({samples or 'n'}, {size}) or ({size},)"
            raise NormcoreError(f"{type(self).__name__}: {name} is {shape}; it must be {wanted}")
        own, unifies = self.weight_ih.dtype, autocasts(x) and x.is_floating_point() and x.dtype != torch.float64
        if x.dtype != own and not unifies:
            raise NormcoreError(f"{type(self).__name__}: {name} is {x.dtype}; it must be {own}, as the weights are")
        return x

    def _start(self, input: Tensor, states: Any, count: int) -> tuple[Tensor, State]:
        """The input and the states with a batch axis; states that are left out are 0."""
        x = self._batched("input", input, self.input_size)
        if states is None:
            return x, (x.new_zeros(len(x), self.hidden_size),) * count
        if not isinstance(states, tuple | list) or len(states) != count:
            raise NormcoreError(f"{type(self).__name__}: hx is {type(states).__name__}; it must be a pair (h, c)")
        return x, tuple(self._batched("hx", state, self.hidden_size, len(x)) for state in states)


class LayerNormRNNCell(_Cell):
    """A plain recurrent cell that normalizes the summed input of each sample: ``h' = tanh(LN(W x + U h) + b)``.

    Shapes: input (n input_size), h (n hidden_size), or both without n.
    Source: Ba, Kiros and Hinton 2016, section 3.1, arXiv:1607.06450.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        eps: float = 1e-5,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        if nonlinearity not in ("tanh", "relu"):
            raise NormcoreError(f"LayerNormRNNCell: nonlinearity={nonlinearity!r} must be one of 'tanh', 'relu'")
        self.nonlinearity = nonlinearity
        self.norm = self._norm("layer_norm", 1, False, eps=eps)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next hidden state."""
        x, (h,) = self._start(input, None if hx is None else (hx,), 1)
        summed = self.norm(functional.linear(x, self.weight_ih) + functional.linear(h, self.weight_hh))
        summed = _plus(summed, self.bias_ih, self.bias_hh)
        return (summed.tanh() if self.nonlinearity == "tanh" else summed.relu()).reshape(_like(input, h))


class LayerNormLSTMCell(_Cell):
    """An LSTM cell with three layer norms: on what comes from the input, on what comes from h, and on what c shows.

    ``i, f, g, o = LN(W x) + LN(U h) + b``; ``c' = σ(f) c + σ(i) tanh(g)``; ``h' = σ(o) tanh(LN(c'))``. The four gates
    share their statistics. The cell state itself is carried on as it is.

    Shapes: input (n input_size), h and c (n hidden_size), or all without n.
    Source: Ba, Kiros and Hinton 2016, supplement, arXiv:1607.06450.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        eps: float = 1e-5,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)
        self.norm_ih, self.norm_hh = (self._norm("layer_norm", 4, False, eps=eps) for _ in range(2))
        self.norm_c = self._norm("layer_norm", 1, True, eps=eps)

    def forward(self, input: Tensor, hx: State | None = None) -> State:
        """The next hidden state and the next cell state."""
        x, (h, c) = self._start(input, hx, 2)
        gates = self.norm_ih(functional.linear(x, self.weight_ih)) + self.norm_hh(functional.linear(h, self.weight_hh))
        c, out = _cell_state(_plus(gates, self.bias_ih, self.bias_hh), c)
        return tuple(t.reshape(_like(input, t)) for t in (out * self.norm_c(c).tanh(), c))


class LayerNormGRUCell(_Cell):
    """A GRU cell with layer norms on what comes from the input and from h, for gates and candidate apart.

    ``r, z = σ(LN(W x) + LN(U h) + b)``; ``n = tanh(LN(W' x) + b' + r (LN(U' h) + b''))``; ``h' = (1 - z) n + z h``,
    with z as in torch.nn and the authors' code.

    Shapes: input (n input_size), h (n hidden_size), or both without n.
    Source: Ba, Kiros and Hinton 2016, supplement, arXiv:1607.06450, and the authors' code (ryankiros/layer-norm).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        eps: float = 1e-5,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)
        self.norm_ih, self.norm_hh = (self._norm("layer_norm", 2, False, eps=eps) for _ in range(2))
        self.norm_in, self.norm_hn = (self._norm("layer_norm", 1, False, eps=eps) for _ in range(2))

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next hidden state."""
        x, (h,) = self._start(input, None if hx is None else (hx,), 1)
        from_x = self._normed(functional.linear(x, self.weight_ih), self.norm_ih, self.norm_in, self.bias_ih)
        from_h = self._normed(functional.linear(h, self.weight_hh), self.norm_hh, self.norm_hn, self.bias_hh)
        r, z = (from_x[0] + from_h[0]).sigmoid().chunk(2, 1)
        n = (from_x[1] + r * from_h[1]).tanh()
        return ((1 - z) * n + z * h).reshape(_like(input, h))

    def _normed(self, x: Tensor, gates: nn.Module, candidate: nn.Module, bias: Tensor | None) -> State:
        """Both gates, and the candidate, of one of the two sides."""
        sizes = [2 * self.hidden_size, self.hidden_size]
        parts = [norm(part) for norm, part in zip((gates, candidate), x.split(sizes, 1), strict=True)]
        return tuple(parts if bias is None else (p + b for p, b in zip(parts, bias.split(sizes), strict=True)))


class StepNorm(NormLayer):
    """Recurrent batch normalization of one time step of a sequence. Its layout is that of the whole sequence."""

    def forward(self, x: Tensor, time: int) -> Tensor:  # type: ignore[override]
        """Normalizes x (n c), what a unit sums up at this step; in training mode its running state takes a step."""
        seen = self.get_buffer("num_batches_tracked")
        row = time if self.training else min(time, (int((seen > 0).sum()) or len(seen)) - 1)
        known = {name: self.get_buffer(name)[row : row + 1] for name in self.method.state if row < len(seen)}
        given = {"weight": self.weight, "bias": self.bias, "training": self.training, "state": known or None}
        given |= dict(self.settings) | {"max_length": 1, "track_running_stats": bool(known)}
        normed = self.method(x[:, None], self.layout, **given)
        if self.training:
            with torch.no_grad():
                for name, rows in known.items():
                    rows.copy_(normed.state[name])
        return normed.y[:, 0]


class RecurrentBatchNormLSTMCell(_Cell):
    """An LSTM cell with three batch norms, as `LayerNormLSTMCell` has layer norms, and statistics for each time step.

    ``i, f, g, o = BN(W x) + BN(U h) + b``; ``c' = σ(f) c + σ(i) tanh(g)``; ``h' = σ(o) tanh(BN(c'))``. Gains start at
    0.1. The first `max_length` steps have running statistics; evaluation uses those of the last step that training has
    seen for all later ones. A first h without variance, such as 0, makes steep gradients: the authors add noise to it.

    Shapes: input (n input_size), h and c (n hidden_size), or all without n.
    Source: Cooijmans, Ballas, Laurent, Gülçehre and Courville 2016, arXiv:1603.09025.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        max_length: int = 100,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)
        settings = {"max_length": max_length, "eps": eps, "momentum": momentum}
        self.norm_ih, self.norm_hh, self.norm_c = (
            self._norm("recurrent_batch_norm", parts, parts == 1, StepNorm, **settings) for parts in (4, 4, 1)
        )
        self._time = -1

    def forward(self, input: Tensor, hx: State | None = None, time: int | None = None) -> State:
        """The next hidden state and the next cell state.

        `time` counts the steps of the sequence from 0. Left out, it is 0 where `hx` is left out too, and otherwise one
        more than in the last call: a sequence that starts from a state of your own needs ``time=0``.
        """
        x, (h, c) = self._start(input, hx, 2)
        if time is not None and (not _whole(time) or time < 0):
            raise NormcoreError(f"{type(self).__name__}: time={time!r} must be a whole number of at least 0")
        self._time = int(time) if time is not None else 0 if hx is None else self._time + 1
        gates = self.norm_ih(functional.linear(x, self.weight_ih), self._time)
        gates = gates + self.norm_hh(functional.linear(h, self.weight_hh), self._time)
        c, out = _cell_state(_plus(gates, self.bias_ih, self.bias_hh), c)
        return tuple(t.reshape(_like(input, t)) for t in (out * self.norm_c(c, self._time).tanh(), c))


def _whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _plus(x: Tensor, *biases: Tensor | None) -> Tensor:
    for bias in biases:
        x = x if bias is None else x + bias
    return x


def _cell_state(gates: Tensor, c: Tensor) -> State:
    """The next cell state, and how much of it the output gate lets out."""
    i, f, g, o = gates.chunk(4, 1)
    return f.sigmoid() * c + i.sigmoid() * g.tanh(), o.sigmoid()


def _like(input: Tensor, state: Tensor) -> torch.Size:
    return state.shape if input.ndim == 2 else state.shape[1:]
