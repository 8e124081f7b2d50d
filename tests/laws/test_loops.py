"""Compiled loops: for large tensors they give what the formula gives, to its digits and with all derivatives."""

import sys
from collections.abc import Callable

import pytest
import torch
from cases import draw, function, learned
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from normcore import METHODS, Method, layer
from normcore.core import LETTERS, Bound, compiled, rows, team

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


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The laws' tensors are large enough for the compiled loops, on two threads; and which loops were called."""
    seen: list[str] = []
    for name, value in {"LARGE": 4, "SHORT": 1, "TILES": (2, 7)}.items():
        monkeypatch.setattr(rows, name, value)
    monkeypatch.setattr(team, "PIECE", 16)
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


def both(call: Callable[[], list[Tensor]], monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """What the loops give and what the formula gives."""
    looped = call()
    with monkeypatch.context() as patch:
        patch.setattr(rows, "LARGE", 2**60)
        return list(zip(looped, call(), strict=True))


@in_loops
@pytest.mark.parametrize("strange", [0.0, 7.0, torch.inf, -torch.inf, torch.nan])
def test_constants_and_values_that_are_not_finite(
    method: Method, layout: str, strange: float, loops: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = draw(layout, seed=3, n=6, t=8, h=8, w=5)
    if torch.isfinite(torch.tensor(strange)):
        x[:2] = strange
    else:
        x[1, 2] = strange
    tensors = learned(method, x, layout, {})

    def results() -> list[Tensor]:
        leaf = x.clone().requires_grad_(True)
        normed = method(leaf, layout, **tensors)
        (gradient,) = torch.autograd.grad(normed.y, leaf, torch.ones_like(x).cumsum(0))
        stats = [value for name, value in normed.stats.items() if name != "mean"]  # PyTorch's kernels make nan of inf
        return [normed.y, gradient, *stats]

    for one, other in both(results, monkeypatch):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9, equal_nan=True)
    assert loops


@in_loops
def test_neither_a_large_mean_nor_a_far_first_value_costs_digits(method: Method, layout: str, loops: list[str]) -> None:
    spread = draw(layout, seed=14, dtype=torch.float32, n=8, c=8, h=6, w=6, l=30, t=6, i=30, o=8)
    far = spread.clone()
    far[tuple(slice(1) if size > 1 else slice(None) for size in far.shape)] = 3000
    settings = {"eps": 1e-12} if method.key != "recurrent_batch_norm" else {}
    invariant = {"scale", "shift"} <= method.invariances()
    for x in (1000 + 0.01 * spread, far) if invariant else (far,):
        leaves = [x.clone().requires_grad_(True), x.double().requires_grad_(True)]
        normed = [method(leaf, layout, **settings) for leaf in leaves]
        torch.testing.assert_close(normed[0].y.double(), normed[1].y, rtol=1e-5, atol=1e-5)
        if x is not far:  # there the distances themselves are rounded
            pairs = zip(normed, leaves, strict=True)
            one, exact = (torch.autograd.grad(n.y, leaf, spread.flip(-1).to(leaf.dtype))[0] for n, leaf in pairs)
            torch.testing.assert_close(one.double(), exact, rtol=1e-4, atol=1e-4 * float(exact.abs().max()))
        for name, exact in normed[1].stats.items():
            atol = 2e-4 if name == "mean" else 1e-6  # half of what lies between neighbors at 3000
            torch.testing.assert_close(normed[0].stats[name].double(), exact, rtol=1e-5, atol=atol)
    assert loops


@pytest.mark.parametrize(
    ("key", "layout"), [("instance_norm", "tokens"), ("group_norm", "tokens"), ("batch_norm", "image")]
)
def test_long_sums_keep_their_digits(key: str, layout: str) -> None:
    x = torch.randn((1, 2**17, 16) if layout == "tokens" else (1, 16, 2**9, 2**8))
    bias = torch.zeros(16, requires_grad=True)
    y = METHODS[key](x, layout, weight=torch.ones(16), bias=bias).y
    (slope,) = torch.autograd.grad(y, bias, torch.full_like(y, 0.1))
    torch.testing.assert_close(slope, torch.full((16,), 0.1 * 2**17), rtol=1e-6, atol=0)


@pytest.mark.parametrize("deviations", [3.0, 7.9, 50.0])
@pytest.mark.parametrize(("key", "layout"), [("group_norm", "image"), ("bert_layer_norm", "tokens"), *IN_LOOPS[:4]])
def test_a_first_value_some_deviations_off_costs_no_digits(
    key: str, layout: str, deviations: float, loops: list[str]
) -> None:
    x = draw(layout, seed=15, dtype=torch.float32, n=8, c=60, h=15, w=17, t=200, l=500)
    method = METHODS[key]
    (region,) = method.bound(x.shape, layout)
    assert isinstance(region, Bound)
    first = tuple(slice(1) if d in region.reduced else slice(None) for d in range(len(region.split_shape)))
    region.split(x)[first] = deviations
    one, exact = (method(each, layout) for each in (x.transpose(0, 1).contiguous().transpose(0, 1), x.double()))
    for name, expected in exact.stats.items():
        if name != "mean":
            torch.testing.assert_close(one.stats[name].double(), expected, rtol=2e-6, atol=0)
    torch.testing.assert_close(one.y.double(), exact.y, rtol=2e-6, atol=5e-6)
    assert loops


def test_statistics_stay_what_they_were(loops: list[str]) -> None:
    x = draw("image") + 5
    stats = METHODS["batch_norm"](x).stats
    expected = x.mean((0, 2, 3), keepdim=True)
    x.zero_()
    torch.testing.assert_close(stats["mean"], expected)
    assert loops


@pytest.mark.parametrize(
    ("key", "layout"),
    [(key, layout) for key, method in METHODS.items() if method.family == "activation" for layout in method.layouts],
)
def test_a_gain_is_never_laid_along_another_axis(key: str, layout: str) -> None:
    """With axes of one size shapes do not tell them apart; memory in another order keeps PyTorch's kernels away."""
    method = METHODS[key]
    x = draw(layout, seed=16, **dict.fromkeys(LETTERS[layout], 6))
    tensors = learned(method, x, layout, {})
    for chosen in (tensors, {name: t for name, t in tensors.items() if name != "bias"}):
        one, other = (method(each, layout, **chosen).y for each in (x, x.mT.contiguous().mT))
        torch.testing.assert_close(one, other)


def test_gains_of_their_own_ways(loops: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    x, g = torch.randn(2, 4, 6, 5), torch.randn(2, 4, 6, 5)
    norm = METHODS["layer_norm_2d"]

    def of(weight: Tensor, bias: Tensor) -> Tensor:
        return norm(x, "image", weight=weight, bias=bias).y

    gains, shifts = torch.randn(3, 4), torch.randn(3, 4)
    module = layer("layer_norm_2d", 4)

    def results() -> list[Tensor]:
        weight = gains[0].clone().requires_grad_(True)
        found = [*torch.autograd.grad(of(weight, shifts[0]), weight, g)]
        found += vmap(lambda w, b: vjp(of, w, b)[1](g))(gains, shifts)
        found += vmap(lambda b: vjp(lambda b: of(gains[0], b), b)[1](g))(shifts)
        found += [norm(x, "image", bias=shifts[0]).y, norm(x, "image", weight=gains[0]).y]
        found += [vmap(lambda w: functional_call(module, {"weight": w}, (x,)))(gains)]
        return found

    for one, other in both(results, monkeypatch):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert loops


@in_loops
def test_forward_over_reverse_and_tangents_of_gradients(method: Method, layout: str, loops: list[str]) -> None:
    x, along = (draw(layout, seed=seed, n=2, t=4, h=4, w=4) for seed in (5, 6))
    fn = function(method, layout, {}, **learned(method, x, layout, {}))
    slope = grad(lambda t: fn(t).sin().sum())
    moved = jvp(slope, (x,), (along,))[1]
    torch.testing.assert_close(moved, (slope(x + 1e-6 * along) - slope(x - 1e-6 * along)) / 2e-6, rtol=1e-4, atol=1e-5)
    leaf = x.clone().requires_grad_(True)
    with forward_ad.dual_level():
        (gradient,) = torch.autograd.grad(fn(leaf), leaf, forward_ad.make_dual(x, along))
        tangent = forward_ad.unpack_dual(gradient).tangent
    torch.testing.assert_close(tangent, torch.autograd.grad(fn(leaf), leaf, along)[0])
    assert loops


@pytest.mark.parametrize("key", ["evo_norm_s0", "evo_norm_b0", "simple_norm_2d", "bias_free_layer_norm"])
def test_a_variance_of_its_own_is_differentiated_every_way(
    key: str, loops: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    method = METHODS[key]
    layout = method.layouts[0]
    x, along = (draw(layout, seed=seed) for seed in (7, 8))
    fn = function(method, layout, {}, **learned(method, x, layout, {}))
    slope = grad(lambda t: fn(t).sin().sum())

    def results() -> list[Tensor]:
        return [
            fn(x),
            slope(x),
            *jvp(fn, (x,), (along,)),
            *jvp(slope, (x,), (along,)),
            vmap(slope)(torch.stack([x, along])),
        ]

    for one, other in both(results, monkeypatch):
        torch.testing.assert_close(one, other)


def test_what_cannot_be_looped_over_takes_the_formula(loops: list[str]) -> None:
    fn = function(METHODS["positional_norm"], "image", {})
    x = draw("image")
    expected = fn(x)
    assert loops
    with torch.device("meta"):
        torch.testing.assert_close(fn(x), expected)
    torch.testing.assert_close(fn(torch._neg_view(-x)), expected)
    loops.clear()
    torch.testing.assert_close(make_fx(fn)(x)(x), expected)
    assert not loops
