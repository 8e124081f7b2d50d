"""Defaults are the most copied facts of all: each is held against the place that it comes from."""

from typing import Any

import pytest
from torch import nn

from normcore import METHODS

# Settings by method, and where the values stand.
PUBLISHED: dict[str, dict[str, Any]] = {
    "batch_norm": {"eps": 1e-5, "momentum": 0.1, "track_running_stats": True},  # torch.nn.BatchNorm2d
    "ghost_batch_norm": {"ghost_batch_size": 2, "eps": 1e-5, "momentum": 0.1, "track_running_stats": True},  # the same
    "layer_norm": {"eps": 1e-5},  # torch.nn.LayerNorm
    "instance_norm": {"eps": 1e-5, "momentum": 0.1, "track_running_stats": False},  # torch.nn.InstanceNorm2d
    "group_norm": {"num_groups": 2, "eps": 1e-5},  # torch.nn.GroupNorm
    "rms_norm": {"eps": 1e-6},  # T5, Llama
    "switchable_norm": {"eps": 1e-5, "momentum": 0.1, "unbiased": False, "track_running_stats": True},  # the paper
    "local_response_norm": {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1.0},  # torch.nn.LocalResponseNorm, n = 5
    "positional_norm": {"eps": 1e-5, "unbiased": True},  # the authors' code
    "global_response_norm": {"eps": 1e-6, "residual": True},  # the authors' code
    "weight_norm": {"dim": 0},  # torch.nn.utils.parametrizations.weight_norm
    "weight_standardization": {"eps": 1e-5, "eps_place": "outside", "unbiased": True},  # the authors' code
    "clip_by_global_norm": {"max_norm": 1.0, "norm_type": 2.0, "eps": 1e-6},  # torch's clipping by norm
    "clip_by_value": {"clip_value": 1.0, "lower": None, "upper": None},
}


@pytest.mark.parametrize("key", METHODS)
def test_defaults_are_those_of_their_source(key: str) -> None:
    assert {param.name: param.default for param in METHODS[key].params} == PUBLISHED[key]


def test_the_table_agrees_with_torch() -> None:
    layers = {
        "batch_norm": nn.BatchNorm2d(2),
        "layer_norm": nn.LayerNorm(2),
        "instance_norm": nn.InstanceNorm2d(2),
        "group_norm": nn.GroupNorm(2, 2),
        "local_response_norm": nn.LocalResponseNorm(5),
    }
    for key, layer in layers.items():
        assert {name: getattr(layer, name) for name in PUBLISHED[key]} == PUBLISHED[key]
