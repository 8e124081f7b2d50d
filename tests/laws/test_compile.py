"""torch.compile: every layer is one graph, in training and in evaluation, and gives the same as without."""

import copy

import pytest
import torch
from cases import SIZES, draw, every_activation, modes

from normcore import Method, layer


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
