"""The code that pages offer to copy runs, and both forms of it compute the same."""

import os
from typing import Any

import numpy as np
import pytest
import torch
from cases import every_activation, every_method, modes, samples, shape_of

from normcore import METHODS, Method, snippet

os.environ.setdefault("KERAS_BACKEND", "jax")


def run(code: str) -> torch.Tensor:
    """Run a snippet as a reader would, on the same random numbers each time."""
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(code, names)
    return names["y"].detach()


def one_value_a_channel(method: Method, shape: tuple[int, ...], layout: str, training: bool, settings: Any) -> bool:
    bounds = method.bound(shape, layout, training, **settings)
    return "BatchNorm" in method.name and [bound.size for bound in bounds] == [1]


@every_method
def test_both_forms_compute_the_same(method: Method, layout: str) -> None:
    shape = shape_of(layout, n=4, c=4, h=3, w=3, l=5)
    for settings in samples(method, layout):
        for training in modes(method):
            arguments = (method, shape, layout, training)
            ours, plain = snippet.in_normcore(*arguments, **settings), snippet.in_pytorch(*arguments, **settings)
            assert "import normcore" in ours
            assert "normcore" not in plain
            if one_value_a_channel(method, shape, layout, training, settings):
                with pytest.raises(ValueError, match="more than 1 value per channel"):
                    run(plain)  # PyTorch refuses what normcore answers with the bias and a warning
                continue
            torch.testing.assert_close(run(ours), run(plain), rtol=2e-5, atol=2e-5)


@every_activation
def test_the_modules_of_both_forms_learn_as_many_numbers(method: Method, layout: str) -> None:
    arguments = (method, shape_of(layout, n=4, c=4, h=3, w=3, l=5), layout, True)
    plain = snippet.in_pytorch(*arguments)
    ours, theirs = learned(snippet.in_normcore(*arguments)), learned(plain)
    if theirs is not None and "# learned" not in plain:  # else tensors of the snippet's own are learned, and said to be
        assert theirs == ours


def learned(code: str) -> int | None:
    """How many numbers the modules of a snippet learn; None if it has no module."""
    names: dict[str, Any] = {}
    exec(code, names)
    modules = [value for value in names.values() if isinstance(value, torch.nn.Module)]
    return sum(p.numel() for m in modules for p in m.parameters() if p.requires_grad) if modules else None


OTHERS = [
    pytest.param(method, library, layout, id=f"{method.key}-{library}-{layout}")
    for method in METHODS.values()
    for library in method.elsewhere
    for layout in method.layouts
]


@pytest.mark.parametrize(("method", "library", "layout"), OTHERS)
def test_keras_and_flax_compute_the_same(method: Method, library: str, layout: str) -> None:
    shape = shape_of(layout, n=4, c=4, h=3, w=3, l=5)
    for settings in [{}, *([{"eps": 1e-3}] if "{eps}" in method.elsewhere[library] else [])]:
        for training in modes(method) if method.default("track_running_stats") else (True,):
            code = snippet.in_other(method, library, shape, layout, training, **settings)
            assert code is not None
            names: dict[str, Any] = {}
            exec(code, names)
            mode = {"training": training} if method.state else {}
            ours = method(torch.from_numpy(names["x"]), layout, **settings, **mode).y
            torch.testing.assert_close(torch.tensor(np.asarray(names["y"])), ours, rtol=2e-5, atol=2e-5)


def test_what_is_written_for_keras_runs_on_any_backend() -> None:
    assert not [key for key, method in METHODS.items() if "numpy" in method.elsewhere.get("keras", "")]


def test_momentum_is_turned_around_for_keras_and_flax() -> None:
    for library in ("keras", "flax"):
        code = snippet.in_other(METHODS["batch_norm"], library, (4, 6, 4, 4), "image", momentum=0.3)
        assert code is not None and "momentum=0.7" in code
    assert snippet.in_other(METHODS["ghost_batch_norm"], "keras", (4, 6, 4, 4), "image") is None


def test_a_setting_that_the_other_library_lacks_is_not_passed_over() -> None:
    rms = METHODS["rms_norm"]
    assert snippet.in_other(rms, "flax", (4, 5, 6), "tokens", eps_place="inside") is not None
    assert snippet.in_other(rms, "flax", (4, 5, 6), "tokens", eps_place="outside") is None


@pytest.mark.parametrize("name", ["track_running_stats", "num_groups"])
def test_only_what_differs_from_the_defaults_is_written(name: str) -> None:
    code = snippet.in_normcore(METHODS["batch_norm"], (4, 6, 4, 4), "image")
    assert name not in code
    assert "num_groups=3" in snippet.in_normcore(METHODS["group_norm"], (4, 6, 4, 4), "image", num_groups=3)
