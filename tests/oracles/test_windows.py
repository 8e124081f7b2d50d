"""Windows around each element, and statistics of a part of the channels: literal loops, and what the authors wrote."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from agreement import agrees
from cases import draw, learned, remembered
from torch import Tensor, nn
from torch.nn import functional

from normcore import METHODS, describe, layer
from normcore.core import Part, Window
from normcore.figures.blocks import FADED
from normcore.figures.regions import region_blocks
from normcore.lab.probe import probe

PUBLISHED: dict[str, dict[str, Any]] = {
    # renmengye/div-norm, cifar_exp_config.py: 5×5 in the first layer of the DN networks, whose sigma starts at 0.5.
    "divisive_norm": {"window": 5, "sigma": 0.5},
    # Jarrett et al., section 2: 9×9. Pylearn2's lecun_lcn: sigma=2.0 in gaussian_filter, threshold=1e-4.
    "local_contrast_norm": {"window": 9, "sigma": 2.0, "floor": 1e-4},
    # anthonymlortiz/lcn, LocalContextNorm.__init__.
    "local_context_norm": {"window": 227, "channels_per_group": 2, "eps": 1e-5},
    # XingangPan/IBN-Net, IBN.__init__, with the defaults of torch.nn.BatchNorm2d.
    "ibn": {"ratio": 0.5, "eps": 1e-5, "momentum": 0.1, "track_running_stats": True},
    # The paper's 6.25 percent; bzhangGo/rmsnorm, rmsnorm_torch.py, adds 1e-8 to the root.
    "p_rms_norm": {"p": 0.0625, "eps": 1e-8, "eps_place": "outside"},
}

SHAPES = {"signal": (2, 4, 7), "image": (2, 4, 5, 6), "volume": (1, 4, 3, 4, 5)}
WINDOWS = ["divisive_norm", "local_contrast_norm", "local_context_norm"]


def random(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_gradients(y: Tensor, *tensors: Tensor) -> list[Tensor]:
    """The output, and the gradients of a weighted sum of it."""
    return [y, *torch.autograd.grad((y * random(tuple(y.shape), 99)).sum(), tensors)]


def near(place: tuple[int, ...], space: tuple[int, ...], window: int) -> list[tuple[int, ...]]:
    """The positions of a window that a border cuts, by looking at each."""
    return [
        other
        for other in product(*map(range, space))
        if all(-(window // 2) <= o - p <= (window - 1) // 2 for o, p in zip(other, place, strict=True))
    ]


def local_mean(x: Tensor, window: int, sigma: float = float("inf")) -> Tensor:
    """The weighted mean over channels and the window around each position, one at a time: (n, space)."""
    space = tuple(x.shape[2:])
    means = []
    for place in product(*map(range, space)):
        others = near(place, space, window)
        squares = [sum((o - p) ** 2 for o, p in zip(other, place, strict=True)) for other in others]
        weights = [float(np.exp(-square / (2 * sigma**2))) for square in squares]
        sums = sum(w * x[(slice(None), slice(None), *o)].mean(1) for w, o in zip(weights, others, strict=True))
        means.append(sums / sum(weights))
    return torch.stack(means, 1).reshape(len(x), 1, *space)


@pytest.mark.parametrize("window", [1, 2, 3, 4, 5, 30])
@pytest.mark.parametrize("layout", SHAPES)
def test_divisive_norm(layout: str, window: int) -> None:
    x = random(SHAPES[layout], 1).requires_grad_(True)
    left = x - local_mean(x, window)
    expected = left / torch.sqrt(0.7**2 + local_mean(left.square(), window))
    ours = METHODS["divisive_norm"](x, layout, window=window, sigma=0.7).y
    agrees("divisive_norm", "literal loop", with_gradients(ours, x), with_gradients(expected, x))


def test_divisive_norm_is_the_authors_code_away_from_the_borders() -> None:
    x, kernel = random((2, 3, 12, 11), 2), torch.ones(1, 1, 5, 5, dtype=torch.float64) / 25
    left = x - functional.conv2d(x.mean(1, keepdim=True), kernel, padding="same")
    expected = left / torch.sqrt(functional.conv2d(left.square().mean(1, keepdim=True), kernel, padding="same") + 0.25)
    inside = (..., slice(4, -4), slice(4, -4))
    agrees("divisive_norm", "authors' formula", METHODS["divisive_norm"](x).y[inside], expected[inside])


def test_divisive_norm_with_a_window_over_all_is_layer_norm() -> None:
    x = random((2, 4, 5, 6), 3)
    ours = METHODS["divisive_norm"](x, window=12, sigma=1e-5**0.5).y
    agrees("divisive_norm", "torch.nn.functional.layer_norm", ours, functional.layer_norm(x, x.shape[1:], eps=1e-5))


@pytest.mark.parametrize(("window", "sigma"), [(3, 0.8), (4, 2.0), (9, 2.0)])
@pytest.mark.parametrize("layout", SHAPES)
def test_local_contrast_norm(layout: str, window: int, sigma: float) -> None:
    x = random(SHAPES[layout], 4)
    x[..., :2] *= 0.05  # a quiet corner, which the mean deviation keeps quiet
    x.requires_grad_(True)
    left = x - local_mean(x, window, sigma)
    deviation = local_mean(left.square(), window, sigma).sqrt()
    usual = deviation.flatten(1).mean(1).reshape(-1, *(1,) * (x.ndim - 1))
    assert (deviation < usual).any() and (deviation > usual).any()
    expected = left / torch.where(deviation > usual, deviation, usual)
    ours = METHODS["local_contrast_norm"](x, layout, window=window, sigma=sigma).y
    agrees("local_contrast_norm", "literal loop", with_gradients(ours, x), with_gradients(expected, x))


def test_local_contrast_norm_leaves_faint_noise_faint() -> None:
    x = 1e-7 * random((1, 1, 8, 8), 5)
    plain = METHODS["local_contrast_norm"](x, floor=0.0).y
    floored = METHODS["local_contrast_norm"](x)
    assert float(plain.abs().max()) > 0.5
    agrees("local_contrast_norm", "literal loop", floored.y, (x - floored.stats["window_mean"]) / 1e-4)


def test_a_constant_image_gives_zero_up_to_its_borders() -> None:
    for key in WINDOWS:
        y = METHODS[key](torch.full((1, 2, 12, 12), 7.0), window=5).y
        assert float(y.abs().max()) < 1e-5, key


def context(x: Tensor, window: int, group: int) -> Tensor:
    """Each element against the window nearest to it that lies inside the map."""
    y, space = torch.zeros_like(x), x.shape[2:]
    for n, c, *place in product(*map(range, x.shape)):
        spans = []
        for p, size in zip(place, space, strict=True):
            extent = min(window, size)
            starts = range(size - extent + 1)
            start = min(starts, key=lambda s, p=p: abs(s + window // 2 - p))
            spans.append(slice(start, start + extent))
        first = c // group * group
        values = x[(n, slice(first, first + group), *spans)]
        at = (n, c, *place)
        y[at] = (x[at] - values.mean()) / torch.sqrt(values.var(correction=0) + 1e-5)
    return y


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("window", [1, 2, 3, 4, 5, 30])
@pytest.mark.parametrize("layout", SHAPES)
def test_local_context_norm(layout: str, window: int, group: int) -> None:
    if window == group == 1:
        return  # one value in each region
    x, weight, bias = (random(shape, 6).requires_grad_(True) for shape in (SHAPES[layout], (4,), (4,)))
    column = (-1, *(1,) * (x.ndim - 2))
    expected = context(x, window, group) * weight.reshape(column) + bias.reshape(column)
    settings = {"window": window, "channels_per_group": group, "weight": weight, "bias": bias}
    ours = METHODS["local_context_norm"](x, layout, **settings).y
    tensors = (x, weight, bias)
    agrees("local_context_norm", "literal loop", with_gradients(ours, *tensors), with_gradients(expected, *tensors))


@pytest.mark.parametrize("window", [2, 4])
def test_local_context_norm_has_the_authors_windows_one_step_on(window: int) -> None:
    """Their sums come from an integral image without its row and column of zeros: one window each is never used."""
    x, group = random((2, 4, 9, 8), 7), 2
    n = window * window * group
    integrals = (v.cumsum(2).cumsum(3)[:, None] for v in (x, x.square()))
    kernel = torch.tensor([[[[[1.0, -1.0], [-1.0, 1.0]]]]], dtype=x.dtype)
    ones = torch.ones(1, 1, group, 1, 1, dtype=x.dtype)
    sums, squares = (
        functional.conv3d(functional.conv3d(v, kernel, dilation=(1, window, window)), ones, stride=(group, 1, 1))[:, 0]
        for v in integrals
    )
    pad = (window // 2, (window + 1) // 2) * 2
    mean, var = (functional.pad(s, pad, "replicate") for s in (sums / n, (squares - sums**2 / n) / n))
    mean, var = (s.repeat_interleave(group, 1) for s in (mean, var))
    # Their window of place p runs from p - window/2 + 1 to p + window/2, which is ours of place p + 1.
    shifted = METHODS["local_context_norm"](x[..., 1:, 1:], window=window, channels_per_group=group).stats
    inner = (..., slice(window // 2, -window), slice(window // 2, -window))
    theirs = {"window_mean": mean[..., :-1, :-1], "window_var": var[..., :-1, :-1]}
    for name, statistic in theirs.items():
        agrees("local_context_norm", "authors' formula", shifted[name][inner], statistic[inner], 1e-8)


@pytest.mark.parametrize("layout", SHAPES)
def test_local_context_norm_with_a_window_over_all_is_group_norm(layout: str) -> None:
    x = random(SHAPES[layout], 8)
    ours = METHODS["local_context_norm"](x, layout).y
    agrees("local_context_norm", "torch.nn.functional.group_norm", ours, functional.group_norm(x, 2))


def test_local_context_norm_keeps_its_digits_where_the_window_mean_is_large() -> None:
    ramp = torch.arange(64, dtype=torch.float64)[:, None] * 100 + torch.zeros(64)
    x = ramp + 0.5 * random((1, 2, 64, 64), 9)
    exact = METHODS["local_context_norm"](x, window=3).y
    single = METHODS["local_context_norm"](x.float(), window=3).y
    agrees("local_context_norm", "itself in float64", single, exact, 1e-4)


MAPS = [
    ("divisive_norm", (1, 2, 7, 6), {"window": 3}),
    ("divisive_norm", (1, 2, 7, 6), {"window": 2}),
    ("local_contrast_norm", (1, 2, 7, 6), {"window": 3}),
    ("local_context_norm", (1, 4, 7, 6), {"window": 3}),
    ("local_context_norm", (1, 4, 7, 6), {"window": 4, "channels_per_group": 4}),
    ("ibn", (2, 6, 2, 3), {"ratio": 0.4}),
    ("p_rms_norm", (2, 6, 2, 2), {"p": 0.4}),
]


@pytest.mark.parametrize(("key", "shape", "settings"), MAPS)
def test_on_larger_maps_too_an_output_is_moved_by_its_declared_elements_alone(
    key: str, shape: tuple[int, ...], settings: dict[str, Any]
) -> None:
    method = METHODS[key]
    bounds = method.bound(shape, **settings)
    for index in product(*map(range, shape)):
        measured = torch.zeros(shape, dtype=torch.bool)
        for quiet in (False, True):
            x = random(shape, 10)
            if quiet:  # a place below the mean deviation depends on all others
                x[(slice(None), slice(None), *index[2:])] *= 1e-3
            x.requires_grad_(True)
            measured |= torch.autograd.grad(method(x, **settings).y[index], x)[0] != 0
        declared = torch.zeros(shape, dtype=torch.bool)
        declared[index] = True
        for bound in bounds:
            declared[tuple(bound.members(index).T)] = True
        if key == "local_contrast_norm":  # a loud place sees its windows, a quiet one the sample
            assert bool((measured <= declared).all())
        else:
            assert torch.equal(measured, declared), index


def test_a_quiet_place_depends_on_the_whole_sample_for_its_contrast() -> None:
    x = random((2, 2, 9, 9), 11)
    x[..., :4] *= 1e-2
    x.requires_grad_(True)
    (quiet,) = torch.autograd.grad(METHODS["local_contrast_norm"](x, window=3).y[0, 0, 4, 0], x, retain_graph=True)
    (loud,) = torch.autograd.grad(METHODS["local_contrast_norm"](x, window=3).y[0, 0, 4, 7], x)
    _, around, sample = METHODS["local_contrast_norm"].bound(x.shape, window=3)
    assert torch.equal((quiet != 0).nonzero(), sample.members((0, 0, 4, 0)))
    assert len((loud != 0).nonzero()) <= len(around.members((0, 0, 4, 7))) < x[0].numel()


def test_a_window_says_how_many_statistics_there_are() -> None:
    said = describe.statistics(METHODS["divisive_norm"].bound((2, 3, 8, 8), window=3))
    assert said == ("128 statistics, each over up to 27 values and 128 statistics, each over up to 75 values")
    (window,) = METHODS["local_context_norm"].bound((2, 4, 8, 8), window=3)
    assert (window.count, window.size) == (2 * 2 * 6 * 6, 2 * 3 * 3)
    (window,) = METHODS["local_context_norm"].bound((2, 4, 8, 8))
    assert (window.count, window.size) == (4, 128)


def test_windows_in_two_axes_are_cut_or_moved_inward() -> None:
    cut = Window("n c h w", {"c": None, "...": "size"}).bind((1, 2, 5, 6), size=3)
    assert cut.box((0, 1, 0, 5)) == ((0, 1), (0, 2), (0, 2), (4, 6))
    moved = Window("n (g k) h w", {"k": "per", "...": "size"}, inside=True).bind((1, 4, 5, 6), size=3, per=2)
    assert moved.box((0, 3, 0, 5)) == ((0, 1), (2, 4), (0, 3), (3, 6))
    twice = Window("n c h w", {"c": None, "...": "size"}, times=2).bind((1, 2, 5, 9), size=3)
    assert twice.box((0, 0, 2, 4)) == ((0, 1), (0, 2), (0, 5), (2, 7))


@pytest.mark.parametrize("key", WINDOWS)
def test_an_outer_gradient_mode_leaves_nothing_behind(key: str) -> None:
    x = random((1, 4, 6, 5), 12)
    with torch.inference_mode():
        before = METHODS[key](x, window=3).y
    after = METHODS[key](x.requires_grad_(True), window=3).y
    after.sum().backward()
    assert torch.equal(before, after)


class AuthorsIBN(nn.Module):
    """XingangPan/IBN-Net: an InstanceNorm for the first half of the channels, a BatchNorm for the rest."""

    def __init__(self, planes: int, ratio: float) -> None:
        super().__init__()
        self.half = int(planes * ratio)
        self.instance = nn.InstanceNorm2d(self.half, affine=True)
        self.batch = nn.BatchNorm2d(planes - self.half)

    def forward(self, x: Tensor) -> Tensor:
        first, rest = x.split([self.half, x.shape[1] - self.half], 1)
        return torch.cat([self.instance(first), self.batch(rest)], 1)


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.7])
def test_ibn_is_the_authors_module_step_by_step(ratio: float) -> None:
    theirs, ours = AuthorsIBN(6, ratio).double(), layer("ibn", 6, ratio=ratio).double()
    weight, bias = random((2, 6), 13)
    with torch.no_grad():
        for mine, parts in ((ours.weight, "weight"), (ours.bias, "bias")):
            value = weight if parts == "weight" else bias
            mine.copy_(value)
            getattr(theirs.instance, parts).copy_(value[: theirs.half])
            getattr(theirs.batch, parts).copy_(value[theirs.half :])
    for seed in range(14, 17):
        x = (3 * random((3, 6, 4, 5), seed) + 2).requires_grad_(True)
        for training in (True, False):
            ours.train(training), theirs.train(training)
            mine = with_gradients(ours(x), x, ours.weight, ours.bias)
            y, dx, *rest = with_gradients(
                theirs(x), x, theirs.instance.weight, theirs.batch.weight, theirs.instance.bias, theirs.batch.bias
            )
            agrees(
                "ibn",
                "torch.nn.InstanceNorm2d and BatchNorm2d",
                mine,
                [y, dx, torch.cat(rest[:2]), torch.cat(rest[2:])],
            )
        for name in ("running_mean", "running_var"):
            own = getattr(ours, name)
            agrees("ibn", "torch.nn.InstanceNorm2d and BatchNorm2d", own[theirs.half :], getattr(theirs.batch, name))
            assert set(own[: theirs.half].tolist()) == {float(name == "running_var")}


@pytest.mark.parametrize(("ratio", "other"), [(0.0, "batch_norm"), (1.0, "instance_norm")])
@pytest.mark.parametrize("training", [True, False])
def test_ibn_at_either_end_is_one_of_its_halves(ratio: float, other: str, training: bool) -> None:
    for layout in METHODS["ibn"].layouts:
        x = draw(layout, 18)
        given = {"state": remembered(METHODS["ibn"], 4), "training": training, **learned(METHODS["ibn"], x, layout, {})}
        ours = METHODS["ibn"](x, layout, ratio=ratio, **given)
        theirs = METHODS[other](x, layout, track_running_stats=ratio == 0.0, **given)
        agrees("ibn", f"normcore {other}", ours.y, theirs.y)
        assert all(torch.equal(ours.state[name], theirs.state[name]) for name in given["state"])
        assert describe.statistics(METHODS["ibn"].bound(x.shape, layout, ratio=ratio)) == describe.statistics(
            METHODS[other].bound(x.shape, layout)
        )


def authors_p_rms(x: Tensor, p: float, eps: float, scale: Tensor) -> Tensor:
    """bzhangGo/rmsnorm: the norm of the first part over the root of its size."""
    size = int(x.shape[-1] * p)
    return scale * x / (x[..., :size].norm(2, dim=-1, keepdim=True) * size**-0.5 + eps)


@pytest.mark.parametrize("p", [0.0625, 0.3, 0.5, 1.0])
def test_p_rms_norm_is_the_authors_code(p: float) -> None:
    x, scale = random((2, 5, 32), 19).requires_grad_(True), random((32,), 20).requires_grad_(True)
    ours = METHODS["p_rms_norm"](x, "tokens", p=p, eps=1e-3, weight=scale).y
    theirs = authors_p_rms(x, p, 1e-3, scale)
    agrees("p_rms_norm", "authors' formula", with_gradients(ours, x, scale), with_gradients(theirs, x, scale))


def test_p_rms_norm_with_all_entries_is_torchs_rms_norm() -> None:
    x = random((3, 4, 8), 21)
    ours = METHODS["p_rms_norm"](x, "tokens", p=1.0, eps=1e-2, eps_place="inside").y
    agrees("p_rms_norm", "torch.nn.functional.rms_norm", ours, functional.rms_norm(x, (8,), eps=1e-2))


def test_p_rms_norm_always_looks_at_one_channel() -> None:
    x = random((2, 8), 22)
    y = METHODS["p_rms_norm"](x, "vector", p=0.0).y
    agrees("p_rms_norm", "literal loop", y, x / (x[:, :1].abs() + 1e-8))


def test_a_part_answers_as_its_pattern_says() -> None:
    first = Part("n c h w -> n c", "ratio").bind((2, 5, 3, 2), ratio=0.5)
    rest = Part("n c h w -> c", "ratio", rest=True).bind((2, 5, 3, 2), ratio=0.5)
    lent = Part("n t c -> n t", "p", lent=True).bind((2, 3, 5), p=0.5)
    assert (first.span, first.count, first.size) == ((0, 2), 4, 6)
    assert (rest.span, rest.count, rest.size) == ((2, 5), 3, 12)
    assert (lent.span, lent.count, lent.size) == ((0, 2), 6, 2)
    assert first.box((1, 1, 2, 0)) == ((1, 2), (1, 2), (0, 3), (0, 2))
    assert first.members((1, 2, 2, 0)).tolist() == [[1, 2, 2, 0]]
    assert rest.box((1, 2, 2, 0)) == ((0, 2), (2, 3), (0, 3), (0, 2))
    assert rest.members((1, 1, 2, 0)).tolist() == [[1, 1, 2, 0]]
    assert lent.members((1, 2, 4)).tolist() == [[1, 2, 0], [1, 2, 1]]


def test_what_takes_no_part_is_faded_in_the_picture() -> None:
    shape, letters = (32, 256, 14, 14), ("n", "c", "h", "w")
    bounds = METHODS["ibn"].bound(shape)
    for statistic, part in enumerate(bounds):
        picture = region_blocks(shape, letters, bounds, statistic=statistic)
        assert picture.count == part.count
        channels = np.array([int(name.split("channel")[1].strip("s ").split("–")[0]) for name in picture.axes[0].names])
        inside = (channels >= part.span[0]) & (channels < part.span[1])
        assert 0 < inside.sum() < len(inside)
        for channel, takes_part in enumerate(inside):
            assert ((picture.colors[channel] != FADED) == takes_part).all()


def test_the_small_tensor_of_a_probe_keeps_the_channel_groups() -> None:
    seen = probe("local_context_norm", (8, 64, 32, 32), "image", (0, 0, 0, 0), channels_per_group=64)
    assert seen.settings["channels_per_group"] == seen.shape[1]
