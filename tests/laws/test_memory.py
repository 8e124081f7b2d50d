"""Memory: the order of the axes stays, large tensors take compiled loops, and small variances keep their digits."""

import sys

import pytest
import torch
from cases import ACTIVATIONS, SIZES, draw, function, learned
from torch import Tensor
from torch._subclasses import FakeTensorMode

from normcore import METHODS, Method, layer
from normcore.core import compiled, rows, team

FORMATS = {"image": torch.channels_last, "volume": torch.channels_last_3d}
REORDERED = {"decorrelated_batch_norm", "iter_norm", "ibn"}  # products of matrices, and pieces put together
SPATIAL = [
    (method, layout)
    for method in ACTIVATIONS
    for layout in FORMATS
    if layout in method.layouts and method.key not in REORDERED
]
IN_LOOPS = [
    ("positional_norm", "image"),  # a region a column
    ("layer_norm_2d", "image"),  # the same, with a gain for each row
    ("instance_norm", "tokens"),  # the same, with a gain for each column
    ("ghost_batch_norm", "image"),  # several rows a region
    ("group_norm", "tokens"),  # the same, with a gain for each column
    ("batch_norm", "image"),
    ("rms_norm", "image"),  # not centered
    ("filter_response_norm", "image"),
    ("pixel_norm", "image"),
    ("bert_layer_norm", "tokens"),  # eps outside the root
    ("weight_standardization", "conv2d"),
]
in_loops = pytest.mark.parametrize(
    ("method", "layout"), [pytest.param(METHODS[key], layout, id=f"{key}-{layout}") for key, layout in IN_LOOPS]
)


@pytest.mark.parametrize(("method", "layout"), SPATIAL, ids=lambda value: getattr(value, "key", value))
def test_channels_last_in_gives_channels_last_out(method: Method, layout: str) -> None:
    x = draw(layout, dtype=torch.float32, n=6, h=5, w=3).contiguous(memory_format=FORMATS[layout]).requires_grad_(True)
    norm = layer(method.key, SIZES["c"], layout)
    for training in (True, False):
        y = norm.train(training)(x)
        assert y.is_contiguous(memory_format=FORMATS[layout])
        (gradient,) = torch.autograd.grad(y, x, torch.ones_like(y))
        assert gradient.is_contiguous(memory_format=FORMATS[layout])


@pytest.mark.parametrize("key", ["layer_norm", "group_norm", "batch_norm", "positional_norm", "instance_norm"])
def test_a_variance_far_below_epsilon_keeps_its_digits(key: str) -> None:
    x = 1e-5 * draw("image", dtype=torch.float32, n=8, h=6, w=6)
    stats, exact = (METHODS[key](x.to(dtype)).stats for dtype in (torch.float32, torch.float64))
    for name, value in exact.items():
        torch.testing.assert_close(stats[name].double(), value, rtol=1e-5, atol=1e-12)


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The laws' tensors are large enough for the compiled loops, on two threads; and which loops were called."""
    seen: list[str] = []
    for name, value in {"LARGE": 4, "SHORT": 1, "PIECE": 16, "TILES": (2, 7)}.items():
        monkeypatch.setattr(rows, name, value)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    def counted(name: str) -> None:
        loop = getattr(compiled, name)

        def call(*arrays: object) -> None:
            seen.append(name)
            loop(*arrays)

        monkeypatch.setattr(compiled, name, call)

    for name in ("rows_forward", "rows_backward", "columns_forward", "columns_backward"):
        counted(name)
    return seen


def mixed(x: Tensor) -> list[Tensor]:
    """The same values in other places of memory."""
    return [x, x.transpose(0, -1).contiguous().transpose(0, -1), x.movedim(1, -1).contiguous().movedim(-1, 1)]


@in_loops
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_loops_give_what_the_formula_gives(
    method: Method, layout: str, dtype: torch.dtype, request: pytest.FixtureRequest
) -> None:
    x = draw(layout, seed=3, n=6, t=8, h=8, w=5).to(dtype)
    tensors = {name: value.to(dtype) for name, value in learned(method, x, layout, {}).items()}

    def results(x: Tensor) -> list[Tensor]:
        leaves = [t.detach().requires_grad_(True) for t in (x, *tensors.values())]
        normed = method(leaves[0], layout, **dict(zip(tensors, leaves[1:], strict=True)))
        return [
            normed.y,
            *torch.autograd.grad(normed.y, leaves, torch.cos(normed.y), materialize_grads=True),
            *normed.stats.values(),
        ]

    wholes = [results(each) for each in mixed(x)]
    seen = request.getfixturevalue("loops")
    for each, whole in zip(mixed(x), wholes, strict=True):
        for one, other in zip(results(each), whole, strict=True):
            rtol, atol = (1e-5, 1e-4) if dtype == torch.float32 else (1e-10, 1e-10)
            torch.testing.assert_close(one, other, rtol=rtol, atol=atol)
    assert {name.partition("_")[2] for name in seen} == {"forward", "backward"}


@in_loops
def test_loops_have_second_gradients_and_can_be_mapped(method: Method, layout: str, loops: list[str]) -> None:
    x = draw(layout, seed=5, n=2, t=4, h=4, w=4)
    tensors = learned(method, x, layout, {})
    fn = function(method, layout, {}, **tensors)
    assert torch.autograd.gradcheck(fn, (x.requires_grad_(True),), fast_mode=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(fn, (x,), fast_mode=True)
    with torch.no_grad():
        slope = torch.func.jvp(fn, (x,), (torch.ones_like(x),))[1]
    along = (fn(x + 1e-6) - fn(x - 1e-6)) / 2e-6
    torch.testing.assert_close(slope, along, rtol=1e-4, atol=1e-6)
    batch = torch.stack([draw(layout, seed=seed, n=2, t=4, h=4, w=4) for seed in (6, 7)])
    torch.testing.assert_close(torch.func.vmap(fn)(batch), torch.stack([fn(each) for each in batch]))
    slopes = torch.func.grad(lambda t: fn(t).cos().sum())
    torch.testing.assert_close(torch.func.vmap(slopes)(batch), torch.stack([slopes(each) for each in batch]))
    assert loops


def test_long_rows_are_summed_in_pieces() -> None:
    x = torch.randn(3, 100_001, generator=torch.Generator().manual_seed(0)).add_(1000)
    got, exact = (METHODS["bert_layer_norm"](t, "vector") for t in (x, x.double()))
    torch.testing.assert_close(got.y.double(), exact.y, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got.stats["var_unbiased"].double(), exact.stats["var_unbiased"], rtol=1e-6, atol=0)


@pytest.mark.parametrize("lent", [True, False])
def test_work_is_shared_out_whole_and_a_failure_is_raised(lent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not lent:
        monkeypatch.setattr(team, "_parallel", lambda: None)
    done: list[int] = []
    team.share(lambda start, stop, thread: done.extend(range(start, stop)), 100, 2)
    assert sorted(done) == list(range(100))

    def interrupted(start: int, stop: int, thread: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        team.share(interrupted, 100, 2)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere OpenMP has another interface")
def test_pytorch_lends_its_threads() -> None:
    assert team._parallel()


def test_a_faked_tensor_is_not_looped_over() -> None:
    with FakeTensorMode():
        y = METHODS["positional_norm"](torch.empty(32, 64, 56, 56)).y
    assert y.shape == (32, 64, 56, 56)
