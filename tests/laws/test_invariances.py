"""What each method declares about itself holds, and what it does not declare does not."""

import pytest
import torch
from cases import (
    PLAIN,
    SIZES,
    TENSORS,
    constant_on,
    draw,
    every_activation,
    every_method,
    every_tensor_method,
    function,
    modes,
    remembered,
    samples,
    shape_of,
    sizes_of,
    structures,
)
from torch import Tensor

from normcore import METHODS, Bound, Method
from normcore.core import LETTERS, Identity


def grains(layout: str) -> list[Tensor]:
    """Random factors that are constant on the whole tensor, or vary along one axis, two axes, or all."""
    letters = LETTERS[layout]
    varying = [(), *((letter,) for letter in letters), letters[:2], (letters[0], letters[-1]), letters]
    generator = torch.Generator().manual_seed(5)
    return [
        torch.rand([SIZES[a] if a in axes else 1 for a in letters], generator=generator, dtype=torch.float64)
        for axes in varying
    ]


@pytest.mark.parametrize("kind", ["scale", "shift"])
@every_method
def test_invariances_hold_exactly_where_they_are_declared(method: Method, layout: str, kind: str) -> None:
    # Small values, so that clipping leaves them alone: it has no regions on which it is invariant.
    x = 0.05 * draw(layout, seed=4)
    for training in modes(method):
        for settings in structures(method, sizes_of(layout), eps=1e-30):
            fn = function(
                method, layout, settings, training, **({"state": state(method, settings, x)} if method.state else {})
            )
            before, bounds = fn(x), method.bound(x.shape, layout, **settings)
            alive = training or method.bound(x.shape, layout, training=False, **settings) == bounds
            for grain in grains(layout):
                changed = x * (0.05 + 9 * grain**2) if kind == "scale" else x + grain
                declared, shared = method.invariances(**settings), bounds
                if f"channel {kind}" in declared:
                    per_sample = all("n" in bound.letters for bound in bounds)
                    shared = METHODS["instance_norm" if per_sample else "batch_norm"].bound(x.shape, layout)
                expected = alive and kind in declared and constant_on(grain, shared)
                unchanged = torch.allclose(fn(changed), before, rtol=1e-8, atol=1e-9)
                # Two values always become a plus and a minus one: only larger regions can tell.
                if expected or all(bound.size > 2 for bound in bounds):
                    assert unchanged == expected, (settings, training, tuple(grain.shape))


def state(method: Method, settings: dict[str, object], like: Tensor) -> dict[str, Tensor]:
    return remembered(method, SIZES["c"], settings, like=like)


LENGTH_ONE = {"scaled_weight_standardization", "centered_weight_norm"}
"""Methods whose regions get the length that others give to each element."""


@every_tensor_method
def test_standardized_regions_have_mean_zero_and_variance_one(method: Method, layout: str) -> None:
    x = 3 + 2 * draw(layout, seed=6)
    for settings in structures(method, sizes_of(layout), eps=1e-30, **PLAIN.get(method.key, {})):
        if method.invariances(**settings) != {"scale", "shift"}:
            continue
        bounds = method.bound(x.shape, layout, **settings)
        if len(bounds) != 1 or not isinstance(bounds[0], Bound) or bounds[0].size == 1:
            continue
        if not {"var", "var_unbiased"} & method(x, layout, **settings).stats.keys():
            continue  # something else than the variance becomes one
        (region,) = bounds
        y = function(method, layout, settings)(x)
        complete = method.settings(settings, sizes_of(layout))
        variance = (region.size - 1) / region.size if complete.get("unbiased") else 1.0
        variance /= region.size if method.key in LENGTH_ONE else 1
        for label in range(region.count):
            values = y[region.ids() == label]
            assert float(values.mean()) == pytest.approx(0, abs=1e-10)
            assert float(values.var(correction=0)) == pytest.approx(variance, rel=1e-10)


IDENTITIES = [
    pytest.param(method, identity, id=f"{method.key}-{identity.other}")
    for method in TENSORS
    for identity in method.equals
]


@pytest.mark.parametrize(("method", "identity"), IDENTITIES)
def test_identities_hold_exactly_under_their_conditions(method: Method, identity: Identity) -> None:
    other, met = METHODS[identity.other], 0
    for layout in sorted(set(method.layouts) & set(other.layouts)):
        for batch in (SIZES["n"], 1):
            sizes = sizes_of(layout, n=batch)
            for settings in [*structures(method, sizes), Identity.resolve(identity.settings, sizes)]:
                try:
                    complete = method.settings(settings, sizes)
                except ValueError:  # a default that does not divide this batch
                    continue
                shared = {p.name: complete[p.name] for p in other.params if p.name in complete}
                theirs = shared | Identity.resolve(identity.other_settings, sizes)
                same = agree(method, complete, other, theirs, layout, batch)
                assert same == identity.holds(layout, sizes, complete), (layout, batch, settings)
                met += same
    assert met


def agree(
    method: Method, settings: dict[str, object], other: Method, theirs: dict[str, object], layout: str, batch: int
) -> bool:
    """Whether values and gradients are the same, in training and in evaluation, with the same gain, bias and state."""
    x, weights = draw(layout, seed=8, n=batch), draw(layout, seed=9, n=batch)
    generator = torch.Generator().manual_seed(10)
    found = []
    gain, bias = torch.rand(2, SIZES["c"], generator=generator, dtype=torch.float64)
    for one, given in ((method, settings), (other, theirs)):
        values = []
        for training in (True, False) if method.state and other.state else (True,):
            tensors = {"weight": gain, "bias": bias} if {"weight", "bias"} <= method.inputs & other.inputs else {}
            tensors |= {"state": state(one, given, x)} if one.state else {}
            probe = x.clone().requires_grad_(True)
            y = function(one, layout, given, training, **tensors)(probe)
            values += [y, *torch.autograd.grad((y * weights).sum(), probe)]
        found.append(torch.stack(values))
    return torch.allclose(found[0], found[1], rtol=1e-9, atol=1e-9)


@every_activation
def test_declared_regions_have_room_for_every_setting(method: Method, layout: str) -> None:
    for settings in samples(method, layout):
        for bound in method.bound(shape_of(layout), layout, **settings):
            assert bound.shape == shape_of(layout)
