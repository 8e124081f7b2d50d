"""The reference evaluator of ONNX: an implementation in numpy by other hands."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from agreement import agrees
from cases import draw
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from normcore import METHODS

EPSILON = 2.0**-10
"""A number that the float32 attributes of ONNX hold exactly."""


def evaluate(operator: str, inputs: list[torch.Tensor], opset: int, **attributes: Any) -> torch.Tensor:
    """The first output of one operator."""
    names = [f"input{number}" for number in range(len(inputs))]
    graph = helper.make_graph(
        [helper.make_node(operator, names, ["output"], **attributes)],
        "one",
        [
            helper.make_tensor_value_info(name, TensorProto.DOUBLE, list(x.shape))
            for name, x in zip(names, inputs, strict=True)
        ],
        [helper.make_tensor_value_info("output", TensorProto.DOUBLE, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    feeds = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
    (output,) = ReferenceEvaluator(model).run(["output"], feeds)
    return torch.from_numpy(np.asarray(output))


def per_channel(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    gain, bias = torch.randn(2, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return gain, bias


def test_batch_norm_in_evaluation() -> None:
    x, (weight, bias), (mean, var) = draw("image", 41, c=6), per_channel(6, 42), per_channel(6, 43)
    state = {"running_mean": mean, "running_var": var.square(), "num_batches_tracked": torch.tensor(1)}
    ours = METHODS["batch_norm"](x, weight=weight, bias=bias, state=state, training=False, eps=EPSILON).y
    theirs = evaluate("BatchNormalization", [x, weight, bias, mean, var.square()], 15, epsilon=EPSILON)
    agrees("batch_norm", "onnx BatchNormalization", ours, theirs)


def test_batch_norm_in_training() -> None:
    x, (weight, bias) = draw("image", 41, c=6), per_channel(6, 42)
    state = [torch.zeros(6, dtype=torch.float64), torch.ones(6, dtype=torch.float64)]
    ours = METHODS["batch_norm"](x, weight=weight, bias=bias, eps=EPSILON).y
    theirs = evaluate("BatchNormalization", [x, weight, bias, *state], 15, epsilon=EPSILON, training_mode=1)
    agrees("batch_norm", "onnx BatchNormalization", ours, theirs)


def test_instance_norm() -> None:
    x, (weight, bias) = draw("image", 44, c=6), per_channel(6, 45)
    ours = METHODS["instance_norm"](x, weight=weight, bias=bias, eps=EPSILON).y
    theirs = evaluate("InstanceNormalization", [x, weight, bias], 6, epsilon=EPSILON)
    agrees("instance_norm", "onnx InstanceNormalization", ours, theirs)


@pytest.mark.parametrize("layout", ["image", "tokens"])
def test_layer_norm(layout: str) -> None:
    x = draw(layout, 46, c=6)
    axis = 1 if layout == "image" else -1
    shape = x.shape[axis:]
    weight, bias = torch.randn(2, *shape, generator=torch.Generator().manual_seed(47), dtype=torch.float64)
    ours = METHODS["layer_norm"](x, layout, weight=weight, bias=bias, eps=EPSILON).y
    theirs = evaluate("LayerNormalization", [x, weight, bias], 17, axis=axis, epsilon=EPSILON)
    agrees("layer_norm", "onnx LayerNormalization", ours, theirs, 1e-6)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_group_norm(groups: int) -> None:
    x, (weight, bias) = draw("image", 48, c=6), per_channel(6, 49)
    ours = METHODS["group_norm"](x, num_groups=groups, weight=weight, bias=bias, eps=EPSILON).y
    theirs = evaluate("GroupNormalization", [x, weight, bias], 21, num_groups=groups, epsilon=EPSILON)
    # The evaluator computes the statistics of this operator in float32, whatever comes in.
    agrees("group_norm", "onnx GroupNormalization", ours, theirs.double(), 1e-5)


def test_rms_norm() -> None:
    if onnx.defs.onnx_opset_version() < 23:
        pytest.skip("this ONNX has no RMSNormalization")
    x, (weight, _) = draw("tokens", 50, c=6), per_channel(6, 51)
    ours = METHODS["rms_norm"](x, "tokens", weight=weight, eps=EPSILON).y
    theirs = evaluate("RMSNormalization", [x, weight], 23, axis=-1, epsilon=EPSILON)
    agrees("rms_norm", "onnx RMSNormalization", ours, theirs.double(), 1e-6)


def test_local_response_norm_of_this_evaluator_is_no_oracle() -> None:
    """It loops over as many channels as there are samples: right only where the two counts agree."""
    settings = {"alpha": 0.5, "beta": 0.75}

    def both(samples: int, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = draw("image", 52, n=samples, c=channels)
        theirs = evaluate("LRN", [x], 13, size=3, bias=1.0, **settings)
        return METHODS["local_response_norm"](x, size=3, k=1.0, **settings).y, theirs.double()

    torch.testing.assert_close(*both(4, 4), rtol=1e-6, atol=1e-6)
    ours, theirs = both(2, 4)
    torch.testing.assert_close(ours[:, :2], theirs[:, :2], rtol=1e-6, atol=1e-6)
    assert not torch.allclose(ours[:, 2:], theirs[:, 2:], rtol=1e-3)
    with pytest.raises(IndexError):
        both(5, 4)
