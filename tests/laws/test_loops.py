"""Compiled loops: for large tensors they give what the formula gives, to its digits and with all derivatives."""

import os
import sys
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from types import ModuleType

import pytest
import torch
from cases import draw, function, learned
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

from normcore import METHODS, Method, layer
from normcore.core import LETTERS, Bound, compiled, compiled_columns, rows, scaling, team
from normcore.core.compiler import compiled as compiled_function
from normcore.core.compiler import forget_older, shared

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
    ("l2_norm", "image"),  # divided by max(norm, eps)
    ("qk_norm", "tokens"),
    ("scaled_weight_standardization", "conv2d"),
    ("mean_only_batch_norm", "image"),  # divided by nothing
    ("mean_subtraction_norm", "tokens"),
    ("conditional_instance_norm", "tokens"),  # a gain for each sample and channel
]
in_loops = pytest.mark.parametrize(
    ("method", "layout"), [pytest.param(METHODS[key], layout, id=f"{key}-{layout}") for key, layout in IN_LOOPS]
)


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The laws' tensors are large enough for the compiled loops, on two threads; and which loops were called."""
    seen: list[str] = []
    small = {"LARGE": 4, "SHORT": 1, "TILES": (2, 7), "BLOCK": 20, "WIDE": 30, "TALL": 15}
    for name, value in small.items():
        monkeypatch.setattr(rows, name, value)
    rows.rows_of.cache_clear()
    monkeypatch.setattr(team, "PIECE", 16)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    def counted(module: ModuleType, name: str) -> None:
        loop = getattr(module, name)

        def call(*arrays: object) -> None:
            seen.append(name)
            loop(*arrays)

        monkeypatch.setattr(module, name, call)

    for which in ("forward", "backward"):
        counted(compiled, f"rows_{which}")
        counted(compiled_columns, f"columns_{which}")
        counted(compiled_columns, f"tall_{which}")
    yield seen
    rows.rows_of.cache_clear()


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


@pytest.mark.parametrize(
    ("key", "layout", "last", "way"),
    [
        ("positional_norm", "tokens", False, "rows"),
        ("batch_norm", "volume", False, "rows"),
        ("positional_norm", "image", False, "columns"),
        ("group_norm", "tokens", False, "columns"),  # blocks of columns
        ("group_norm", "image", True, "columns"),  # the same, several rows joined to one
        ("batch_norm", "signal", False, "columns"),
        ("batch_norm", "image", True, "tall"),
        ("batch_norm", "tokens", False, "tall"),
    ],
)
def test_the_way_through_memory(key: str, layout: str, last: bool, way: str, loops: list[str]) -> None:
    x = draw(layout, seed=3, n=6, t=12, h=8, w=4, l=10)
    x = x.movedim(1, -1).contiguous().movedim(-1, 1) if last else x
    y = METHODS[key](x.requires_grad_(True), layout, **learned(METHODS[key], x, layout, {})).y
    torch.autograd.grad(y, x, y.detach())
    assert loops == [f"{way}_forward", f"{way}_backward"]
    assert y.stride() == x.stride()


@in_loops
def test_the_digits_are_the_same_on_any_number_of_threads(
    method: Method, layout: str, loops: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = draw(layout, seed=3, dtype=torch.float32, n=6, t=8, h=8, w=5)
    tensors = {name: value.float() for name, value in learned(method, x, layout, {}).items()}

    def results(x: Tensor, threads: int) -> list[Tensor]:
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        leaves = [t.detach().requires_grad_(True) for t in (x, *tensors.values())]
        y = method(leaves[0], layout, **dict(zip(tensors, leaves[1:], strict=True))).y
        return [y, *torch.autograd.grad(y, leaves, torch.cos(y), materialize_grads=True)]

    for each in mixed(x):
        alone = results(each, 1)
        for threads in (2, 3):
            assert all(map(torch.equal, alone, results(each, threads)))
    assert loops


def test_groups_in_channels_last_memory_keep_the_digits_that_pytorch_loses() -> None:
    """PyTorch takes the variance there as the mean square minus the square of the mean, in float32."""
    x = (torch.randn(8, 32, 56, 56) + 1000).contiguous(memory_format=torch.channels_last)
    exact = torch.nn.functional.group_norm(x.double(), 4)
    assert (torch.nn.functional.group_norm(x, 4) - exact).abs().max() > 0.1
    torch.testing.assert_close(METHODS["group_norm"](x, num_groups=4).y.double(), exact, rtol=1e-4, atol=2e-4)


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


@shared
@compiled_function
def mark(start, stop, part, marks, last):
    """Counts in each place how often it was come to; a part that comes to the last one fails."""
    for i in range(start, stop):
        if i == last:
            raise MemoryError
        marks[part, i] += 1


@pytest.mark.parametrize("lent", [True, False])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_work_is_shared_out_in_parts_and_a_failure_is_raised(
    threads: int, lent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    if not lent:
        monkeypatch.setattr(team, "_parallel", lambda: 0)
    for total in (0, 1, 2, 7, 100):
        marks = torch.zeros(4, total)
        team.share(mark, total, 4, marks.numpy(), -1)
        step = max(1, -(-total // 4))
        expected = [[float(i // step == part) for i in range(total)] for part in range(4)]
        assert marks.tolist() == expected
    with pytest.raises(MemoryError):
        team.share(mark, total, 4, marks.numpy(), total - 1)


def test_what_was_compiled_before_a_file_changed_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "__pycache__").mkdir()
    names = ["compiler.py", "compiled_rows.py", "other.py", *(f"__pycache__/compiled.{n}.nbi" for n in ("old", "new"))]
    for age, name in zip((3.0, 2.0, 9.0, 1.0, 4.0), names, strict=True):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (age, age))
    forget_older(tmp_path)
    assert [file.name for file in tmp_path.glob("__pycache__/*")] == ["compiled.new.nbi"]


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
        # A mean that is taken out once or twice leaves inf or nan, and nothing or nan for gradient.
        finite = normed.y.isfinite()
        return [*(torch.where(finite, each, torch.nan) for each in (normed.y, gradient)), *stats]

    for one, other in both(results, monkeypatch):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9, equal_nan=True)
    assert loops


@in_loops
def test_neither_a_large_mean_nor_a_far_first_value_costs_digits(method: Method, layout: str, loops: list[str]) -> None:
    spread = draw(layout, seed=14, dtype=torch.float32, n=8, c=8, h=6, w=6, l=30, t=6, i=30, o=8)
    far = spread.clone()
    far[tuple(slice(1) if size > 1 else slice(None) for size in far.shape)] = 3000
    settings = {} if method.default("eps") is None else {"eps": 1e-12}
    invariant = {"scale", "shift"} <= method.invariances()
    for x in (1000 + 0.01 * spread, far) if invariant else (far,):
        leaves = [x.clone().requires_grad_(True), x.double().requires_grad_(True)]
        gains = {name: tensor.float() for name, tensor in learned(method, x, layout, {}).items()}
        normed = [method(leaf, layout, **settings, **gains) for leaf in leaves]
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


@pytest.mark.parametrize("gained", [(1, 1, 1, 1), (1, 5, 1, 1), (1, 5, 4, 3), (6, 5, 1, 1), (6, 5, 4, 3), (1, 1, 4, 3)])
@pytest.mark.parametrize("dims", [(0,), (1,), (0, 2, 3), (1, 2, 3), (0, 1), (2, 3), (0, 1, 2, 3)])
@pytest.mark.parametrize("which", ["both", "weight", "bias"])
def test_gains_of_every_shape(
    gained: tuple[int, ...], dims: tuple[int, ...], which: str, loops: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    x, g = torch.randn(2, 6, 5, 4, 3, generator=generator, dtype=torch.float64)
    weight, bias = torch.randn(2, *gained, generator=generator, dtype=torch.float64)
    recipe = scaling.Recipe(dims, 1e-5, prod(x.shape[d] for d in dims), centered=True)

    def results() -> list[Tensor]:
        found = []
        for each in (*mixed(x), x.contiguous(memory_format=torch.channels_last)):
            leaves = [t.detach().clone().requires_grad_(True) for t in (each, weight, bias)]
            given = {"both": leaves[1:], "weight": [leaves[1], None], "bias": [None, leaves[2]]}[which]
            y = scaling.scale_regions(recipe, leaves[0], *given).y
            found += [y, *torch.autograd.grad(y, leaves, g, materialize_grads=True)]
        return found

    for one, other in both(results, monkeypatch):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert loops


@pytest.mark.parametrize(
    ("key", "layout", "last"),
    [
        ("l2_norm", "image", False),
        ("l2_norm", "image", True),
        ("l2_norm", "signal", False),
        ("scale_norm", "tokens", True),
    ],
)
def test_what_is_shorter_than_epsilon_is_divided_by_that(key: str, layout: str, last: bool, loops: list[str]) -> None:
    """There the norm does not move the divisor, so that it has no part in the gradient either."""
    x = draw(layout, seed=17, n=6, t=8, h=8, w=5, l=9)
    x[::2] *= 0.05
    x = x.movedim(1, -1).contiguous().movedim(-1, 1) if last and layout == "image" else x
    assert 0.2 < float((x.norm(dim=-1 if layout == "tokens" else 1) < 0.5).double().mean()) < 0.8
    leaf, slope = x.requires_grad_(True), draw(layout, seed=18, n=6, t=8, h=8, w=5, l=9)
    expected = functional.normalize(leaf, dim=-1 if layout == "tokens" else 1, eps=0.5)
    y = METHODS[key](leaf, layout, eps=0.5).y
    torch.testing.assert_close(y, expected)
    first, same = (torch.autograd.grad(each, leaf, slope, create_graph=True)[0] for each in (y, expected))
    torch.testing.assert_close(torch.autograd.grad(y, leaf, slope)[0], same)
    torch.testing.assert_close(first, same)
    torch.testing.assert_close(*(torch.autograd.grad(each, leaf, slope)[0] for each in (first, same)))
    assert {name.partition("_")[2] for name in loops} == {"forward", "backward"}


@pytest.mark.parametrize(
    ("key", "sizes"),
    [
        ("positional_norm", {"c": 7, "l": 1601}),  # rows that are written four at a time, and three that are left
        ("layer_norm_2d", {"c": 6, "h": 40, "w": 41}),  # with gains of their own
        ("pixel_norm", {"c": 8, "h": 40, "w": 41}),
        ("instance_norm", {"t": 7, "c": 1601}),  # with a gain for each column
    ],
)
def test_rows_too_long_for_the_first_cache(
    key: str, sizes: dict[str, int], loops: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "TILES", (64, 4096))
    monkeypatch.setattr(team, "PIECE", 2**17)
    layout = {"l": "signal", "h": "image", "t": "tokens"}[next(axis for axis in sizes if axis != "c")]
    x = draw(layout, seed=24, n=2, **sizes)
    tensors = learned(METHODS[key], x, layout, {})
    assert max(sizes["c"], prod(x.shape[2:])) > compiled_columns.LONG

    def results() -> list[Tensor]:
        leaves = [t.detach().clone().requires_grad_(True) for t in (x, *tensors.values())]
        y = METHODS[key](leaves[0], layout, **dict(zip(tensors, leaves[1:], strict=True))).y
        return [y, *torch.autograd.grad(y.cos().sum(), leaves)]

    for one, other in both(results, monkeypatch):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert loops == ["columns_forward", "columns_backward"]


@pytest.mark.parametrize(
    ("key", "layout"),
    [("l2_norm", "image"), ("l2_norm", "signal"), ("cosine_norm", "linear"), ("ngpt_residual", "tokens")],
)
def test_squares_that_overflow_leave_no_nan(
    key: str, layout: str, loops: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, slope = (draw(layout, seed=seed, dtype=torch.float32, n=6, t=8) for seed in (22, 23))
    x[0] *= 1e25

    def results() -> list[Tensor]:
        leaf = x.clone().requires_grad_(True)
        y = METHODS[key](leaf, layout).y
        again = torch.autograd.grad(y, leaf, slope, create_graph=True)
        return [y, *torch.autograd.grad(y, leaf, slope), *again]

    for one, other in both(results, monkeypatch):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other)
    assert {name.partition("_")[2] for name in loops} == {"forward", "backward"}


@pytest.mark.parametrize(
    ("key", "layout", "names"),
    [
        ("adaptive_group_norm", "image", ("weight", "bias", "scale", "shift")),
        ("adaptive_group_norm", "tokens", ("scale",)),
        ("adaptive_layer_norm", "tokens", ("scale", "shift")),
        ("adain", "image", ("style",)),
        ("conditional_batch_norm", "tokens", ("weight", "bias", "labels")),  # gains that no row has
        ("graph_norm", "image", ("weight", "bias", "mean_scale")),
    ],
)
def test_gains_that_come_with_the_input(
    key: str, layout: str, names: tuple[str, ...], loops: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    method, x = METHODS[key], draw(layout, seed=21, n=6, c=6, t=8, h=8, w=5)
    shapes = {"scale": (6, 6), "shift": (6, 6), "style": (6, 6, 7)}
    tensors = learned(method, x, layout, {}) | {n: torch.randn(shapes[n], dtype=x.dtype) for n in names if n in shapes}
    tensors |= {"labels": torch.tensor([0, 3, 3, 1, 0, 2])}

    def results() -> list[Tensor]:
        leaves = {n: t.detach().clone().requires_grad_(t.is_floating_point()) for n, t in tensors.items() if n in names}
        leaf = x.detach().clone().requires_grad_(True)
        y = method(leaf, layout, **leaves).y
        learning = [t for t in (leaf, *leaves.values()) if t.requires_grad]
        return [y, *torch.autograd.grad(y.cos().sum(), learning)]

    for one, other in both(results, monkeypatch):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert {name.partition("_")[2] for name in loops} == {"forward", "backward"}


@pytest.mark.parametrize(("key", "layout"), [("mean_only_batch_norm", "image"), ("mean_subtraction_norm", "tokens")])
def test_means_of_values_whose_squares_overflow(key: str, layout: str, loops: list[str]) -> None:
    x = 1e30 * draw(layout, seed=19, dtype=torch.float32)
    y = METHODS[key](x.requires_grad_(True), layout).y
    exact = METHODS[key](x.double(), layout).y
    torch.testing.assert_close(y.double(), exact, rtol=1e-5, atol=1e24)
    slope = draw(layout, seed=20, dtype=torch.float32)
    torch.testing.assert_close(
        *(torch.autograd.grad(each, x, slope.to(each.dtype))[0] for each in (y, exact)), rtol=1e-5, atol=1e-6
    )
    assert loops


def test_a_gain_learns_from_what_was_made_in_inference_mode(loops: list[str]) -> None:
    with torch.inference_mode():
        x = draw("image", dtype=torch.float32)
    weight = torch.ones(x.shape[1], requires_grad=True)
    found = [
        torch.autograd.grad(METHODS["batch_norm"](each, weight=weight).y.square().sum(), weight)[0]
        for each in (x, x.clone())
    ]
    torch.testing.assert_close(*found)
    assert loops


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
