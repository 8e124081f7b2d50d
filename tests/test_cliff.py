"""The cliff against autograd, differences, a literal loop, and PyTorch's own optimizer and clipping."""

import math

import numpy as np
import pytest
import torch

from normcore import METHODS, NormcoreError, clipper
from normcore.lab import cliff
from normcore.lab.vectors import PARTS, Variant

POINTS = [(5.0, -2.2), (4.7, -2.4), (2.0, -1.0), (6.4, -3.1), (0.3, 0.8), (-1.0, 2.0), (4.5, -2.25)]


def loss_of(point: torch.Tensor) -> torch.Tensor:
    """The loss of Pascanu et al., word for word."""
    w, b = point
    x = torch.tensor(0.5, dtype=point.dtype)
    for _ in range(50):
        x = w * torch.sigmoid(x) + b
    return (torch.sigmoid(x) - 0.7) ** 2


@pytest.mark.parametrize("point", POINTS)
def test_the_slope_is_that_of_autograd_and_of_differences(point: tuple[float, float]) -> None:
    at = torch.tensor(point, dtype=torch.float64, requires_grad=True)
    loss = loss_of(at)
    loss.backward()
    assert at.grad is not None
    found = cliff.slope(*point)
    assert found == pytest.approx((loss.item(), *at.grad.tolist()), rel=1e-9, abs=1e-15)
    step = 1e-6
    for axis in (0, 1):
        ahead, behind = (
            cliff.slope(*(value + sign * step * (i == axis) for i, value in enumerate(point)))[0] for sign in (1, -1)
        )
        assert found[1 + axis] == pytest.approx((ahead - behind) / (2 * step), rel=1e-4, abs=1e-9)


def test_the_surface_is_the_loss_of_its_points() -> None:
    land = cliff.surface((3.5, 6.5), (-4.0, -1.0), 13)
    for row, b in enumerate(land.b):
        for column, w in enumerate(land.w):
            assert land.loss[row, column] == pytest.approx(cliff.slope(w, b)[0], rel=1e-9, abs=1e-15)


def test_there_is_a_cliff() -> None:
    beside, upon = (math.hypot(*cliff.slope(*at)[1:]) for at in ((5.0, -2.3), (4.0, -2.0)))
    assert cliff.slope(5.0, -2.45)[0] < 0.03
    assert cliff.slope(5.0, -2.65)[0] > 0.3
    assert upon > 20 * beside


@pytest.mark.parametrize("limit", [None, 0.05])
def test_a_descent_is_that_of_torch(limit: float | None) -> None:
    point = torch.tensor((5.0, -2.2), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([point], lr=2.0)
    variant = None if limit is None else Variant("clip_by_global_norm", {"max_norm": limit})
    path = cliff.descend(variant, (5.0, -2.2), 2.0, 12)
    for step in range(12):
        assert (path.w[step], path.b[step]) == pytest.approx(tuple(point.tolist()), rel=1e-6)
        optimizer.zero_grad()
        loss_of(point).backward()
        if limit is not None:
            torch.nn.utils.clip_grad_norm_([point], limit)
        optimizer.step()
    assert len(path.w) == 13


@pytest.mark.parametrize("key", [key for key, m in METHODS.items() if m.family == "gradient" and not m.per_example])
def test_a_variant_descends_as_its_clipper_does_memory_included(key: str) -> None:
    point = torch.tensor((5.0, -2.2), dtype=torch.float64, requires_grad=True)
    clip = clipper(key)
    path = cliff.descend(Variant(key), (5.0, -2.2), 0.01, 6)
    for step in range(6):
        assert (path.w[step], path.b[step]) == pytest.approx(tuple(point.tolist()), rel=1e-6)
        point.grad = torch.tensor(cliff.slope(*point.tolist())[1:], dtype=torch.float64)
        clip([point])
        with torch.no_grad():
            point -= 0.01 * point.grad


def test_clipping_keeps_the_descent_at_the_cliff_and_without_it_leaps_off() -> None:
    start = ((5.0, -2.2), 2.0, 40)
    land = cliff.surface((4.0, 5.4), (-3.0, -1.6), 5)
    free = cliff.descend(None, *start)
    held = cliff.descend(Variant("clip_by_global_norm", {"max_norm": 0.05}), *start)
    assert free.outside(land) == 3
    assert free.jump == 2
    assert free.moved[free.jump] > 6
    assert held.outside(land) is None
    assert held.moved.max() <= 2.0 * 0.05
    assert free.loss[-1] > 0.4 > held.loss[-1]
    assert free.clipped == 0
    assert held.clipped == int((held.length[:-1] > 0.05).sum())


def test_the_first_steps_of_a_path_are_a_path() -> None:
    variant = Variant("clip_by_global_norm", {"max_norm": 0.01})
    path = cliff.descend(variant, (5.0, -2.2), 2.0, 20)
    short, first = path.until(7), path.until(0)
    assert len(short.w) == 8
    assert short.clipped == 7
    assert first.clipped == first.jump == len(first.moved) == 0


def test_a_descent_out_of_all_bounds_ends() -> None:
    path = cliff.descend(None, (5.0, -2.2), 1e9, 20)
    assert path.left == 0
    assert len(path.w) == 1
    assert path.until(0).left is None


def test_a_route_follows_the_land_and_ends_at_its_borders() -> None:
    land = cliff.surface((4.0, 5.4), (-3.0, -1.6), 5)
    path = cliff.descend(None, (5.0, -2.2), 2.0, 6)
    way = cliff.route(path, land)
    known = np.isfinite(way.w)
    assert known[0]
    assert not known[-1]
    for w, b, loss in zip(way.w[known], way.b[known], way.loss[known], strict=True):
        assert loss == pytest.approx(cliff.slope(w, b)[0], rel=1e-9)
    steps = np.hypot(np.diff(way.w[known]), np.diff(way.b[known]))
    assert steps.max() < 0.1


@pytest.mark.parametrize("parts", PARTS)
def test_two_tensors_or_one_are_all_the_same_to_the_global_norm(parts: str) -> None:
    variant = Variant("clip_by_global_norm", {"max_norm": 0.05})
    whole, held = (cliff.descend(variant, (5.0, -2.2), 2.0, 10, how) for how in ("one tensor", parts))
    np.testing.assert_allclose(held.w, whole.w, rtol=1e-9)


@pytest.mark.parametrize("bad", [{"steps": 0}, {"rate": math.nan}, {"start": (math.inf, 0.0)}])
def test_bad_values_get_a_sentence(bad: dict[str, object]) -> None:
    with pytest.raises(NormcoreError, match="must be"):
        cliff.descend(**({"variant": None, "start": (5.0, -2.2), "rate": 1.0, "steps": 5} | bad))  # type: ignore[arg-type]
