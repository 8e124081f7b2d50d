"""Recurrent cells against the papers' formulas written out, and against torch.nn's cells where no norm is left.

Formulas: Ba, Kiros and Hinton 2016 (section 3.1 and the supplement, with the authors' Theano code for the GRU);
Cooijmans et al. 2016, section 3.
"""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from agreement import agrees
from torch import Tensor, nn

from normcore import (
    METHODS,
    LayerNormGRUCell,
    LayerNormLSTMCell,
    LayerNormRNNCell,
    NormcoreError,
    RecurrentBatchNormLSTMCell,
    convert,
    layer,
)

PUBLISHED: dict[str, dict[str, Any]] = {
    # ε and the running averages as in torch.nn.BatchNorm1d; length 100 as in the authors' runs on Penn Treebank.
    "recurrent_batch_norm": {"max_length": 100, "eps": 1e-5, "momentum": 0.1, "track_running_stats": True},
}

INPUT, HIDDEN, SAMPLES, EPS = 3, 4, 5, 1e-3
CELLS = [LayerNormRNNCell, LayerNormLSTMCell, LayerNormGRUCell, RecurrentBatchNormLSTMCell]
PLAIN = {
    LayerNormRNNCell: nn.RNNCell,
    LayerNormLSTMCell: nn.LSTMCell,
    LayerNormGRUCell: nn.GRUCell,
    RecurrentBatchNormLSTMCell: nn.LSTMCell,
}
every_cell = pytest.mark.parametrize("kind", CELLS)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(kind: Any, **settings: Any) -> Any:
    """A cell with random values for all that it learns."""
    cell = kind(INPUT, HIDDEN, **settings).double()
    with torch.no_grad():
        for seed, parameter in enumerate(cell.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=seed))
    return cell


def states(kind: Any, seed: int = 50) -> Any:
    h, c = draw(SAMPLES, HIDDEN, seed=seed), draw(SAMPLES, HIDDEN, seed=seed + 1)
    return (h, c) if "LSTM" in kind.__name__ else h


def run(cell: Any, sequence: Tensor, state: Any, **first: int) -> list[Tensor]:
    """All outputs over a sequence (time n input)."""
    found = []
    for x in sequence:
        state = cell(x, state, **first)
        first = {}
        found += list(state) if isinstance(state, tuple) else [state]
    return found


def with_gradients(outputs: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    loss = sum((y * torch.cos(torch.arange(y.numel(), dtype=y.dtype)).reshape(y.shape)).sum() for y in outputs)
    return [*outputs, *torch.autograd.grad(loss, inputs)]


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def normed(rows: list[Tensor], gain: Tensor) -> list[Tensor]:
    """One row after the other, by the definition: mean, population variance, ε inside the root."""
    found = []
    for row in rows:
        mean = sum(row) / len(row)
        var = sum((value - mean) ** 2 for value in row) / len(row)
        found.append(gain * (row - mean) / (var + EPS) ** 0.5)
    return found


def over_samples(a: Tensor, gain: Tensor) -> Tensor:
    return torch.stack(normed(list(a), gain))


def over_batch(a: Tensor, gain: Tensor) -> Tensor:
    """The same over the batch, one unit after the other."""
    columns = [normed([column], column.new_ones(()))[0] for column in a.T]
    return gain * torch.stack(columns, 1)


def rnn(p: dict[str, Tensor], x: Tensor, h: Tensor) -> Tensor:
    summed = x @ p["weight_ih"].T + h @ p["weight_hh"].T
    return torch.tanh(over_samples(summed, p["norm.weight"]) + p["bias_ih"] + p["bias_hh"])


def lstm(p: dict[str, Tensor], x: Tensor, state: Any, norm: Callable[[Tensor, Tensor], Tensor]) -> Any:
    h, c = state
    ours = norm(h @ p["weight_hh"].T, p["norm_hh.weight"]) + norm(x @ p["weight_ih"].T, p["norm_ih.weight"])
    i, f, g, o = (ours + p["bias_ih"] + p["bias_hh"]).split(HIDDEN, 1)
    c = sigmoid(f) * c + sigmoid(i) * torch.tanh(g)
    return sigmoid(o) * torch.tanh(norm(c, p["norm_c.weight"]) + p["norm_c.bias"]), c


def gru(p: dict[str, Tensor], x: Tensor, h: Tensor) -> Tensor:
    gates, rest = slice(0, 2 * HIDDEN), slice(2 * HIDDEN, 3 * HIDDEN)
    from_x = over_samples(x @ p["weight_ih"][gates].T, p["norm_ih.weight"]) + p["bias_ih"][gates]
    from_h = over_samples(h @ p["weight_hh"][gates].T, p["norm_hh.weight"]) + p["bias_hh"][gates]
    r, u = sigmoid(from_x + from_h).split(HIDDEN, 1)
    proposed = (over_samples(h @ p["weight_hh"][rest].T, p["norm_hn.weight"]) + p["bias_hh"][rest]) * r
    proposed = proposed + over_samples(x @ p["weight_ih"][rest].T, p["norm_in.weight"]) + p["bias_ih"][rest]
    return u * h + (1 - u) * torch.tanh(proposed)


FORMULAS: list[Any] = [
    (LayerNormRNNCell, rnn),
    (LayerNormLSTMCell, lambda p, x, s: lstm(p, x, s, over_samples)),
    (LayerNormGRUCell, gru),
    (RecurrentBatchNormLSTMCell, lambda p, x, s: lstm(p, x, s, over_batch)),
]


@pytest.mark.parametrize(("kind", "formula"), FORMULAS)
def test_three_steps_and_their_gradients_are_those_of_the_formula(kind: Any, formula: Any) -> None:
    cell = made(kind, eps=EPS)
    sequence, start = draw(3, SAMPLES, INPUT, seed=30).requires_grad_(True), states(kind)
    names = dict(cell.named_parameters())
    inputs = [sequence, *names.values()]
    ours = with_gradients(run(cell, sequence, start, **({"time": 0} if "Batch" in kind.__name__ else {})), inputs)
    theirs = with_gradients(run(lambda x, s: formula(names, x, s), sequence, start), inputs)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)
    if kind is RecurrentBatchNormLSTMCell:
        agrees("recurrent_batch_norm", "authors' formula", ours, theirs)


class Nothing(nn.Module):
    """No norm at all."""

    def forward(self, x: Tensor, time: int = 0) -> Tensor:
        return x


@pytest.mark.parametrize("bias", [True, False])
@every_cell
def test_without_norms_each_is_the_cell_of_torch(kind: Any, bias: bool) -> None:
    cell, theirs = made(kind, bias=bias), PLAIN[kind](INPUT, HIDDEN, bias=bias).double()
    theirs.load_state_dict(cell.state_dict(), strict=False)
    assert dict(theirs.named_parameters()).keys() == dict(cell.named_parameters(recurse=True)).keys() - {
        name for name, _ in cell.named_parameters() if name.startswith("norm")
    }
    for name, _ in list(cell.named_children()):
        setattr(cell, name, Nothing())
    sequence, own = draw(3, SAMPLES, INPUT, seed=31).requires_grad_(True), dict(theirs.named_parameters())
    for start in (None, states(kind)):
        ours = with_gradients(run(cell, sequence, start), [sequence, *(cell.get_parameter(name) for name in own)])
        expected = with_gradients(run(theirs, sequence, start), [sequence, *own.values()])
        for mine, other in zip(ours, expected, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


def test_a_nonlinearity_may_be_chosen_as_in_torch() -> None:
    cell, theirs = made(LayerNormRNNCell, nonlinearity="relu"), nn.RNNCell(INPUT, HIDDEN, nonlinearity="relu").double()
    theirs.load_state_dict(cell.state_dict(), strict=False)
    cell.norm = Nothing()
    torch.testing.assert_close(cell(draw(2, INPUT, seed=1)), theirs(draw(2, INPUT, seed=1)))


@every_cell
def test_a_sample_without_a_batch_is_a_batch_of_one(kind: Any) -> None:
    cell = made(kind).eval()
    x, start = draw(INPUT, seed=2), states(kind)
    alone = tuple(s[0] for s in start) if isinstance(start, tuple) else start[0]
    batch = tuple(s[:1] for s in start) if isinstance(start, tuple) else start[:1]
    first, second = run(cell, x[None], alone), run(cell, x[None, None], batch)
    assert [y.shape for y in first] == [(HIDDEN,)] * len(first)
    assert all(torch.equal(a, b[0]) for a, b in zip(first, second, strict=True))
    zeros = tuple(torch.zeros_like(s) for s in batch) if isinstance(batch, tuple) else torch.zeros_like(batch)
    again = {"time": 0} if "Batch" in kind.__name__ else {}
    for a, b in zip(run(cell, x[None], None), run(cell, x[None, None], zeros, **again), strict=True):
        assert torch.equal(a, b[0])


@pytest.mark.parametrize("kind", [LayerNormRNNCell, LayerNormLSTMCell, LayerNormGRUCell])
def test_samples_do_not_meet_under_layer_norm(kind: Any) -> None:
    cell, x, start = made(kind), draw(SAMPLES, INPUT, seed=3), states(kind)
    whole = run(cell, x[None], start)
    one = tuple(s[2:3] for s in start) if isinstance(start, tuple) else start[2:3]
    for a, b in zip(whole, run(cell, x[None, 2:3], one), strict=True):
        torch.testing.assert_close(a[2:3], b)


@pytest.mark.parametrize("kind", [LayerNormRNNCell, LayerNormLSTMCell, LayerNormGRUCell])
def test_scaled_and_shifted_weights_change_nothing_under_layer_norm(kind: Any) -> None:
    cell, x, start = made(kind, eps=1e-12), draw(SAMPLES, INPUT, seed=4), states(kind)
    before = run(cell, x[None], start)
    blocks = [slice(0, 2 * HIDDEN), slice(2 * HIDDEN, None)] if kind is LayerNormGRUCell else [slice(None)]
    with torch.no_grad():
        for block in blocks:
            for weight in (cell.weight_ih, cell.weight_hh):
                weight[block] *= 3
                weight[block] += draw(weight.shape[1], seed=5)
    for a, b in zip(run(cell, x[None], start), before, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_the_cell_state_is_carried_on_as_it_is() -> None:
    for kind in (LayerNormLSTMCell, RecurrentBatchNormLSTMCell):
        cell = made(kind)
        with torch.no_grad():
            cell.bias_ih[HIDDEN : 2 * HIDDEN] = 100  # forget nothing
            cell.bias_ih[:HIDDEN] = -100  # take in nothing
        h, c = states(kind)
        torch.testing.assert_close(cell(draw(SAMPLES, INPUT, seed=6), (h, 7 * c + 2))[1], 7 * c + 2)


@every_cell
def test_a_new_cell_starts_as_its_paper_says(kind: Any) -> None:
    cell = kind(INPUT, HIDDEN)
    gain = 0.1 if kind is RecurrentBatchNormLSTMCell else 1.0
    limit = HIDDEN**-0.5
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.add_(9)
    if kind is RecurrentBatchNormLSTMCell:
        cell(torch.randn(4, INPUT))
    cell.reset_parameters()
    for name, parameter in cell.named_parameters():
        if name.startswith("norm"):
            assert bool((parameter == (gain if name.endswith("weight") else 0)).all()), name
        else:
            assert 0 < float(parameter.detach().abs().max()) <= limit, name
    fresh = dict(kind(INPUT, HIDDEN).named_buffers())
    assert all(torch.equal(value, fresh[name]) for name, value in cell.named_buffers())


def sequences(length: int, count: int = 3) -> list[Tensor]:
    return [draw(length, SAMPLES, INPUT, seed=70 + number) for number in range(count)]


@pytest.mark.parametrize("momentum", [0.3, None])
def test_each_step_remembers_statistics_of_its_own(momentum: float | None) -> None:
    cell = made(RecurrentBatchNormLSTMCell, max_length=3, momentum=momentum)
    one = [copy.deepcopy(nn.BatchNorm1d(4 * HIDDEN, momentum=momentum, affine=False).double()) for _ in range(3)]
    for batch in sequences(4):
        run(cell, batch, None)
        for norm, x in zip(one, batch, strict=False):
            norm(x @ cell.weight_ih.T)
    for step, norm in enumerate(one):
        for name, value in norm.named_buffers():
            torch.testing.assert_close(cell.norm_ih.get_buffer(name)[step].reshape(value.shape), value)
    assert cell.norm_c.running_mean.shape == (3, HIDDEN)
    assert float((cell.norm_c.running_mean[0] - cell.norm_c.running_mean[2]).abs().max()) > 0.01


def test_evaluation_uses_the_statistics_of_each_step_and_the_last_one_beyond() -> None:
    cell = made(RecurrentBatchNormLSTMCell, max_length=9)
    for batch in sequences(3):
        run(cell, batch, None)
    cell.eval()
    kept = copy.deepcopy(cell.state_dict())
    x, start = draw(SAMPLES, INPUT, seed=8), states(RecurrentBatchNormLSTMCell)

    def fixed(a: Tensor, norm: Any, row: int) -> Tensor:
        return norm.weight * (a - norm.running_mean[row]) / (norm.running_var[row] + 1e-5) ** 0.5

    def expected(row: int) -> list[Tensor]:
        h, c = start
        gates = fixed(x @ cell.weight_ih.T, cell.norm_ih, row) + fixed(h @ cell.weight_hh.T, cell.norm_hh, row)
        i, f, g, o = (gates + cell.bias_ih + cell.bias_hh).split(HIDDEN, 1)
        c = sigmoid(f) * c + sigmoid(i) * torch.tanh(g)
        return [sigmoid(o) * torch.tanh(fixed(c, cell.norm_c, row) + cell.norm_c.bias), c]

    for time, row in ((0, 0), (1, 1), (2, 2), (3, 2), (50, 2)):
        agrees("recurrent_batch_norm", "authors' formula", list(cell(x, start, time=time)), expected(row))
    alone = cell(x[:1], tuple(s[:1] for s in start), time=1)
    torch.testing.assert_close(alone[0], expected(1)[0][:1])
    assert all(torch.equal(value, kept[name]) for name, value in cell.state_dict().items())
    new = made(RecurrentBatchNormLSTMCell, max_length=2).eval()
    assert all(bool(y.isfinite().all()) for y in run(new, sequences(4)[0], None))


def test_time_starts_with_a_sequence_and_goes_on_by_itself() -> None:
    told, counting = (made(RecurrentBatchNormLSTMCell, max_length=4) for _ in range(2))
    for batch in sequences(4):
        state, other = None, None
        for time, x in enumerate(batch):
            state, other = told(x, state, time=time), counting(x, other)
    assert all(torch.equal(value, told.state_dict()[name]) for name, value in counting.state_dict().items())
    assert counting.norm_ih.num_batches_tracked.flatten().tolist() == [3, 3, 3, 3]


def test_steps_beyond_the_remembered_ones_are_normalized_and_not_remembered() -> None:
    cell = made(RecurrentBatchNormLSTMCell, max_length=1)
    run(cell, sequences(1)[0], None)
    kept = copy.deepcopy(dict(cell.named_buffers()))
    h, _ = cell(draw(SAMPLES, INPUT, seed=9), states(RecurrentBatchNormLSTMCell), time=1)
    assert bool(h.isfinite().all())
    assert all(torch.equal(value, kept[name]) for name, value in cell.named_buffers())


@every_cell
def test_cells_can_be_copied_pickled_moved_and_loaded(kind: Any) -> None:
    cell = made(kind)
    run(cell, sequences(2)[0], None)
    new = kind(INPUT, HIDDEN).double()
    new.load_state_dict(cell.state_dict())
    cell.eval()
    expected = run(cell, sequences(2)[1], None)
    for twin in (new.eval(), copy.deepcopy(cell), pickle.loads(pickle.dumps(cell))):
        assert all(torch.equal(a, b) for a, b in zip(run(twin, sequences(2)[1], None), expected, strict=True))
    half = kind(INPUT, HIDDEN, dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert run(half, torch.randn(2, SAMPLES, INPUT, dtype=torch.bfloat16), None)[-1].dtype == torch.bfloat16
    assert {p.device.type for p in kind(INPUT, HIDDEN, device="meta").parameters()} == {"meta"}
    assert repr(kind(INPUT, HIDDEN, bias=False)).startswith(f"{kind.__name__}(\n  {INPUT}, {HIDDEN}, bias=False")


@every_cell
def test_a_cell_trains(kind: Any) -> None:
    torch.manual_seed(0)
    cell, readout = kind(INPUT, 16), nn.Linear(16, 1)
    sequence = torch.randn(6, 32, INPUT)
    target = sequence[0, :, :1] - sequence[3, :, :1]
    optimizer = torch.optim.Adam([*cell.parameters(), *readout.parameters()], 0.02)
    losses = []
    for _ in range(60):
        outputs = run(cell, sequence, None)
        last = outputs[-2] if "LSTM" in kind.__name__ else outputs[-1]
        loss = (readout(last) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_the_norms_of_a_cell_can_be_converted() -> None:
    cell = made(LayerNormLSTMCell)
    assert [e.name for e in convert(cell, "layer_norm", "rms_norm").entries] == ["norm_ih", "norm_hh", "norm_c"]
    assert all(bool(y.isfinite().all()) for y in run(cell, sequences(2)[0], None))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LayerNormRNNCell(0, 4), "LayerNormRNNCell: input_size=0 must be a positive whole number"),
        (lambda: LayerNormGRUCell(3, 2.5), "LayerNormGRUCell: hidden_size=2.5 must be a positive whole number"),
        (lambda: LayerNormRNNCell(3, 4, nonlinearity="sin"), "nonlinearity='sin' must be one of 'tanh', 'relu'"),
        (lambda: LayerNormGRUCell(3, 4, eps=-1), "LayerNormGRUCell: layer_norm: eps=-1 must be a number from 0 to 1"),
        (
            lambda: LayerNormLSTMCell(3, 4)(torch.ones(2, 3, dtype=torch.long)),
            "LayerNormLSTMCell: input is torch.int64; it must be torch.float32, as the weights are",
        ),
        (
            lambda: LayerNormGRUCell(3, 4)(torch.ones(2, 3), torch.ones(2, 4).double()),
            "LayerNormGRUCell: hx is torch.float64; it must be torch.float32, as the weights are",
        ),
        (lambda: RecurrentBatchNormLSTMCell(3, 4, max_length=0), "max_length=0 must be a whole number of at least 1"),
        (lambda: LayerNormLSTMCell(3, 4)(torch.ones(2, 5)), "input is (2, 5); it must be (n, 3) or (3,)"),
        (lambda: LayerNormLSTMCell(3, 4)(None), "input is NoneType; it must be (n, 3) or (3,)"),
        (lambda: LayerNormLSTMCell(3, 4)(torch.ones(2, 3), torch.ones(2, 4)), "hx is Tensor; it must be a pair (h, c)"),
        (lambda: LayerNormGRUCell(3, 4)(torch.ones(2, 3), torch.ones(3, 4)), "hx is (3, 4); it must be (2, 4)"),
        (lambda: LayerNormRNNCell(3, 4)(torch.ones(2, 3), torch.ones(2, 5)), "hx is (2, 5); it must be (2, 4)"),
        (
            lambda: RecurrentBatchNormLSTMCell(3, 4)(torch.ones(2, 3), time=-1),
            "time=-1 must be a whole number of at least 0",
        ),
    ],
)
def test_bad_input_is_refused_in_a_sentence(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(NormcoreError) as caught:
        call()
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", [LayerNormRNNCell, LayerNormLSTMCell, LayerNormGRUCell])
def test_autocast_unifies_what_a_cell_is_given(kind: Any) -> None:
    cell, x = kind(3, 4), torch.ones(2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = cell(x.bfloat16(), cell(x))
        with pytest.raises(NormcoreError, match=r"input is torch.float64; it must be torch.float32"):
            cell(x.double(), hidden)


def test_the_method_is_batch_norm_at_each_step() -> None:
    method, x = METHODS["recurrent_batch_norm"], draw(6, 4, 3, seed=90).requires_grad_(True)
    weight, bias = draw(3, seed=91).requires_grad_(True), draw(3, seed=92).requires_grad_(True)
    ours = method(x, "tokens", weight=weight, bias=bias, eps=EPS).y
    steps = [nn.functional.batch_norm(x[:, t], None, None, weight, bias, True, eps=EPS) for t in range(4)]
    inputs = [x, weight, bias]
    pair = (with_gradients([y], inputs) for y in (ours, torch.stack(steps, 1)))
    agrees("recurrent_batch_norm", "torch.nn.BatchNorm1d", *pair)


@pytest.mark.parametrize("momentum", [0.3, 1.0, None])
def test_a_layer_of_the_method_remembers_as_one_batch_norm_a_step_does(momentum: float | None) -> None:
    norm = layer("recurrent_batch_norm", 3, "tokens", momentum=momentum, max_length=3).double()
    theirs = [nn.BatchNorm1d(3, momentum=momentum).double() for _ in range(3)]
    for one in theirs:
        one.weight = norm.weight
    for seed, length in enumerate((3, 2, 5)):  # sequences need not be of one length
        x = draw(6, length, 3, seed=93 + seed)
        y = norm(x)
        for step, one in enumerate(theirs[:length]):
            agrees("recurrent_batch_norm", "torch.nn.BatchNorm1d", y[:, step], one(x[:, step]))
    for name, value in norm.named_buffers():
        assert np.allclose(value.reshape(3, -1), torch.stack([one.get_buffer(name) for one in theirs]).reshape(3, -1))
    norm.eval()
    long = draw(2, 6, 3, seed=99)
    for one in theirs:
        one.eval()
    expected = torch.stack([theirs[min(step, 2)](long[:, step]) for step in range(6)], 1)
    agrees("recurrent_batch_norm", "torch.nn.BatchNorm1d", norm(long), expected)


def test_steps_that_training_never_saw_are_the_last_one_that_it_did() -> None:
    norm = layer("recurrent_batch_norm", 3, "tokens", max_length=50).double()
    norm(5 + draw(6, 2, 3, seed=97))
    x = draw(2, 1, 3, seed=98).expand(2, 9, 3)
    y = norm.eval()(x)
    assert all(torch.equal(y[:, step], y[:, 1]) for step in range(2, 9))
    assert not torch.allclose(y[:, 0], y[:, 1])
