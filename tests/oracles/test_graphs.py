"""Normalizers of graphs, held against PyTorch Geometric, and the residual step of nGPT against its authors' formula.

PyTorch Geometric has the nodes of all graphs in one long list, with the graph of each beside it.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from agreement import agrees, with_gradients
from cases import draw
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import norm as geometric

from normcore import METHODS, layer

# The defaults of the methods' settings, and where the values stand.
PUBLISHED: dict[str, dict[str, Any]] = {
    "mean_subtraction_norm": {},
    "graph_size_norm": {},
    "graph_norm": {"eps": 1e-5},  # torch_geometric.nn.norm.GraphNorm
    "pair_norm": {"scale": 1.0, "eps": 1e-5},  # torch_geometric.nn.norm.PairNorm
    "ngpt_residual": {"eps": 1e-12},  # torch.nn.functional.normalize; the authors divide by the norm as it is
}
EPS = 1e-3
LAYOUTS = ("signal", "image", "volume", "tokens")


def traced(fn: Callable[[Tensor], Tensor], x: Tensor, *learned: Tensor) -> list[Tensor]:
    """The values of a function, and the gradients of a weighted sum of them."""
    inputs = [tensor.detach().clone().requires_grad_(True) for tensor in (x, *learned)]
    return with_gradients(fn(*inputs), inputs)


def over_nodes(module: Callable[..., Tensor], x: Tensor, layout: str) -> Tensor:
    """A module of PyTorch Geometric on the nodes of all samples, each sample a graph."""
    nodes = x if layout == "tokens" else x.flatten(2).movedim(1, 2)
    graphs = torch.arange(len(x)).repeat_interleave(nodes.shape[1])
    y = module(nodes.flatten(0, 1), graphs).reshape(nodes.shape)
    return y if layout == "tokens" else y.movedim(2, 1).reshape(x.shape)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("key", "module", "settings"),
    [
        ("mean_subtraction_norm", geometric.MeanSubtractionNorm(), {}),
        ("graph_size_norm", geometric.GraphSizeNorm(), {}),
        ("pair_norm", geometric.PairNorm(eps=EPS), {"eps": EPS}),
        ("pair_norm", geometric.PairNorm(scale=3.0, eps=EPS), {"scale": 3.0, "eps": EPS}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_norm_without_parameters(layout: str, key: str, module: nn.Module, settings: dict[str, Any]) -> None:
    x = draw(layout, 95) + 2
    ours = traced(lambda x: METHODS[key](x, layout, **settings).y, x)
    theirs = traced(lambda x: over_nodes(module, x, layout), x)
    agrees(key, f"torch_geometric.nn.norm.{type(module).__name__}", ours, theirs)


@pytest.mark.parametrize("layout", ("vector", *LAYOUTS))
def test_a_mask_says_how_many_nodes_a_graph_has(layout: str) -> None:
    """PyTorch Geometric has no place for nodes that do not count: it gets the others alone."""
    x = draw(layout, 94)
    channel = 2 if layout == "tokens" else 1
    mask = torch.rand(x.select(channel, 0).shape, generator=torch.Generator().manual_seed(6)) < 0.6
    mask.view(len(x), -1)[0] = True
    graphs = mask.nonzero()[:, 0]

    def theirs(x: Tensor) -> Tensor:
        return geometric.GraphSizeNorm()(x.movedim(channel, -1)[mask], graphs)

    def ours(x: Tensor) -> Tensor:
        return METHODS["graph_size_norm"](x, layout, mask=mask).y.movedim(channel, -1)[mask]

    assert len(set(mask.view(len(x), -1).sum(1).tolist())) > 1
    agrees("graph_size_norm", "torch_geometric.nn.norm.GraphSizeNorm", traced(ours, x), traced(theirs, x))


def test_nodes_that_do_not_count_are_divided_with_the_others_of_their_graph() -> None:
    x = draw("tokens", 94)
    mask = torch.tensor([[True, True, False], [False, False, True], [True, True, True], [False, False, False]])
    y = METHODS["graph_size_norm"](x, "tokens", mask=mask).y
    nodes = torch.tensor([2.0, 1.0, 3.0, 1.0], dtype=torch.float64)  # a graph without nodes stays as it is
    torch.testing.assert_close(y, x / nodes.sqrt()[:, None, None])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_graph_norm(layout: str) -> None:
    x, generator = draw(layout, 96) + 2, torch.Generator().manual_seed(5)
    module = geometric.GraphNorm(4, eps=EPS).double()
    names = ("weight", "bias", "mean_scale")
    learned = [torch.randn(4, generator=generator, dtype=torch.float64) for _ in names]

    def theirs(x: Tensor, *learned: Tensor) -> Tensor:
        given = dict(zip(names, learned, strict=True))
        return over_nodes(lambda *nodes: torch.func.functional_call(module, given, nodes), x, layout)

    def ours(x: Tensor, *learned: Tensor) -> Tensor:
        return METHODS["graph_norm"](x, layout, eps=EPS, **dict(zip(names, learned, strict=True))).y

    name = "torch_geometric.nn.norm.GraphNorm"
    agrees("graph_norm", name, traced(ours, x, *learned), traced(theirs, x, *learned))


def test_a_new_graph_norm_layer_is_that_of_pytorch_geometric() -> None:
    x = draw("tokens", 97)
    new = layer("graph_norm", 4, layout="tokens").double()
    torch.testing.assert_close(new(x), over_nodes(geometric.GraphNorm(4).double(), x, "tokens"))


@pytest.mark.parametrize("layout", ("vector", *LAYOUTS))
def test_ngpt_residual(layout: str) -> None:
    channel = 2 if layout == "tokens" else 1
    x, base = draw(layout, 98), functional.normalize(draw(layout, 99), dim=channel)
    rate = torch.rand(4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def theirs(x: Tensor, base: Tensor, rate: Tensor) -> Tensor:
        along = [1] * x.ndim
        along[channel] = -1
        unit = x / x.norm(p=2, dim=channel, keepdim=True)
        moved = base + rate.reshape(along).abs() * (unit - base)
        return moved / moved.norm(p=2, dim=channel, keepdim=True)

    def ours(x: Tensor, base: Tensor, rate: Tensor) -> Tensor:
        return METHODS["ngpt_residual"](x, layout, residual=base, weight=rate).y

    agrees("ngpt_residual", "authors' formula", traced(ours, x, base, rate), traced(theirs, x, base, rate))


def test_a_new_ngpt_residual_moves_a_twentieth_of_the_way() -> None:
    x, base = draw("tokens", 98), functional.normalize(draw("tokens", 99), dim=2)
    y = layer("ngpt_residual", 4, layout="tokens").double()(x, residual=base)
    torch.testing.assert_close(y, functional.normalize(0.95 * base + 0.05 * functional.normalize(x, dim=2), dim=2))
