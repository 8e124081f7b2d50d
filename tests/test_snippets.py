"""The code that pages offer to copy runs, and both forms of it compute the same."""

from typing import Any

import pytest
import torch
from cases import every_method, modes, samples, shape_of

from normcore import METHODS, Method, snippet


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


@pytest.mark.parametrize("name", ["track_running_stats", "num_groups"])
def test_only_what_differs_from_the_defaults_is_written(name: str) -> None:
    code = snippet.in_normcore(METHODS["batch_norm"], (4, 6, 4, 4), "image")
    assert name not in code
    assert "num_groups=3" in snippet.in_normcore(METHODS["group_norm"], (4, 6, 4, 4), "image", num_groups=3)
