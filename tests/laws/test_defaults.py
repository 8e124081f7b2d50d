"""Defaults are the most copied facts of all: each is held against the place that it comes from."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from normcore import METHODS

PUBLISHED: dict[str, dict[str, Any]] = {}
"""Settings by method: each file of oracles says what they are and where they stand."""

for _file in sorted((Path(__file__).parents[1] / "oracles").glob("test_*.py")):
    PUBLISHED |= getattr(import_module(_file.stem), "PUBLISHED", {})


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
        known = {name: value for name, value in PUBLISHED[key].items() if name != "weight_offset"}  # torch has none
        assert {name: getattr(layer, name) for name in known} == known
