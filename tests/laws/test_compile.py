"""torch.compile: every layer is one graph, in training and in evaluation, and gives the same as without."""

import copy

import pytest
import torch
from cases import SIZES, draw, every_activation, modes

from normcore import METHODS, Method, layer


@every_activation
def test_a_compiled_layer_is_one_graph_and_gives_the_same(method: Method, layout: str) -> None:
    plain = layer(method.key, SIZES["c"], layout)
    traced = copy.deepcopy(plain)
    for training in modes(method):
        torch.compiler.reset()
        compiled = torch.compile(traced.train(training), backend="eager", fullgraph=True)
        plain.train(training)
        for seed in (1, 2):
            x = draw(layout, seed, torch.float32)
            torch.testing.assert_close(compiled(x), plain(x))
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(traced.state_dict()[name], value)


@pytest.mark.parametrize("key", [key for key, m in METHODS.items() if m.family == "activation" and m.state])
def test_gradients_do_not_see_the_next_state(key: str) -> None:
    """What the backward pass works out again, it must not work out from what training has remembered since."""
    layout = METHODS[key].layouts[-1]
    plain = layer(key, SIZES["c"], layout)
    traced = copy.deepcopy(plain)
    torch.compiler.reset()
    compiled = torch.compile(traced, backend="aot_eager", fullgraph=True)
    for seed in (1, 2):
        x = (2 * draw(layout, seed, torch.float32) + 1).requires_grad_(True)
        slope = draw(layout, seed + 2, torch.float32)
        mine, theirs = (
            torch.autograd.grad(norm(x), [x, *norm.parameters()], slope, materialize_grads=True)
            for norm in (compiled, plain)
        )
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("key", ["group_norm", "batch_norm", "positional_norm"])
def test_a_compiled_layer_takes_other_shapes(key: str) -> None:
    torch.compiler.reset()
    norm = layer(key, SIZES["c"])
    compiled = torch.compile(copy.deepcopy(norm), backend="eager", fullgraph=True)
    for n, h in ((4, 2), (6, 2), (6, 5)):
        x = draw("image", dtype=torch.float32, n=n, h=h)
        torch.testing.assert_close(compiled(x), norm(x))


@pytest.mark.parametrize(
    ("key", "name", "values"),
    [
        ("rms_norm", "eps", (1e-5, 1e-6, 1e-3)),
        ("group_norm", "num_groups", (2, 4, 1)),
        ("p_rms_norm", "p", (0.5, 0.25)),
    ],
)
def test_layers_that_differ_in_a_number_are_one_graph_each(key: str, name: str, values: tuple[float, ...]) -> None:
    torch.compiler.reset()
    for value in values:
        norm = layer(key, 8, **{name: value})
        x = torch.randn(4, 8, 3, 3)
        torch.testing.assert_close(torch.compile(norm, backend="eager", fullgraph=True)(x), norm(x))
