"""Bad input raises NormcoreError and nothing else, in a sentence that says what, which value, and what would work."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import ACTIVATIONS, GRADIENTS, WEIGHTS, draw, every_method, shape_of, sizes_of
from torch import nn

from normcore import (
    METHODS,
    Method,
    NormcoreError,
    Region,
    Window,
    clipper,
    diagnose,
    influence,
    layer,
    reparametrize,
)
from normcore.core import LETTERS


@every_method
def test_values_outside_the_domain_are_refused_by_name(method: Method, layout: str) -> None:
    x: Any = [draw(layout)] if method.family == "gradient" else draw(layout)
    for param in method.params:
        for value in param.domain.bad(sizes_of(layout)):
            settings = {param.name: value}
            for call in (
                lambda given=settings: method(x, layout, **given),
                lambda given=settings: method.bound(shape_of(layout), layout, **given),
            ):
                with pytest.raises(NormcoreError) as caught:
                    call()
                text = str(caught.value)
                assert text.startswith(f"{method.key}: {param.name}={value!r} must "), text


@every_method
def test_a_shape_of_another_layout_is_refused(method: Method, layout: str) -> None:
    letters = " ".join(LETTERS[layout])
    for shape in ((), (*shape_of(layout), 2, 2, 2)):
        with pytest.raises(NormcoreError, match=rf"{method.key}: shape .* has {len(shape)} axes, .*\({letters}\); "):
            method.bound(shape, layout)
    empty = (*shape_of(layout)[:-1], 0)
    with pytest.raises(NormcoreError, match=f"{method.key}: shape {re.escape(str(empty))} has an empty axis"):
        method.bound(empty, layout)


@every_method
def test_a_layout_or_setting_that_does_not_exist_is_refused(method: Method, layout: str) -> None:
    x: Any = [draw(layout)] if method.family == "gradient" else draw(layout)
    with pytest.raises(NormcoreError, match=f"{method.key}: no setting is called 'epsilon'; it has "):
        method(x, layout, epsilon=1e-5)
    with pytest.raises(NormcoreError, match=f"{method.key}: layout='picture' is not defined for it; try "):
        method.bound(shape_of(layout), "picture")
    with pytest.raises(NormcoreError, match=f"{method.key}: layout='picture' is not defined for it; try "):
        method(x, "picture")


STRANGE: list[Any] = [
    None,
    3,
    "text",
    [1.0],
    torch.ones(4, 4, dtype=torch.long),
    torch.ones(4, 4, dtype=torch.complex64),
    torch.ones(4, 4, dtype=torch.bool),
    torch.ones(4, 4).to_sparse(),
]


@pytest.mark.parametrize("method", ACTIVATIONS + WEIGHTS, ids=lambda method: method.key)
def test_what_is_no_dense_floating_point_tensor_is_refused(method: Method) -> None:
    for x in STRANGE:
        with pytest.raises(NormcoreError, match=f"{method.key}: x is .*; it must be a dense floating-point tensor"):
            method(x, method.layouts[0])
    if method.family == "activation":
        with pytest.raises(NormcoreError, match=f"{method.key}: x is "):
            layer(method.key, 4, method.layouts[0])(None)


def test_what_is_no_tensor_is_refused_after_tensors_too() -> None:
    norm, x = layer("batch_norm", 4, "vector"), torch.ones(2, 4)
    for _ in range(2):
        norm(x)
        with pytest.raises(NormcoreError, match="batch_norm: x is ndarray; it must be a floating-point tensor"):
            norm(x.numpy())


def test_a_mask_of_zeros_and_ones_is_one_of_falses_and_trues() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    for key in ("masked_batch_norm", "masked_layer_norm"):
        norm, x = METHODS[key], torch.randn(2, 3, 6)
        expected = norm(x, "tokens", mask=mask).y
        for same in (mask.float(), mask.long(), mask.to(torch.uint8)):
            assert torch.equal(norm(x, "tokens", mask=same).y, expected)
        stacked = torch.vmap(lambda m, norm=norm, x=x: norm(x, "tokens", mask=m).y)(mask.float()[None])
        torch.testing.assert_close(stacked[0], expected)


@pytest.mark.parametrize("method", GRADIENTS, ids=lambda method: method.key)
def test_what_is_no_list_of_gradients_is_refused(method: Method) -> None:
    for given in (None, 3, "text", torch.ones(2), [torch.ones(2), None], [torch.ones(2, dtype=torch.long)], iter([])):
        with pytest.raises(NormcoreError, match=f"{method.key}: .* must be a list of dense floating-point tensors"):
            method(given)
    for given in (3, None, [nn.Parameter(torch.ones(2)), "bias"]):
        with pytest.raises(NormcoreError, match=f"{method.key}: parameters must be tensors, not "):
            clipper(method.key)(given)


IMAGE, TOKENS = torch.ones(2, 6, 4, 4), torch.ones(2, 3, 6)
MESSAGES: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: METHODS["group_norm"](IMAGE, num_groups=4),
        "group_norm: num_groups=4 must divide c=6; try one of 1, 2, 3, 6",
    ),
    (
        lambda: layer("group_norm", 6, num_groups=0),
        "group_norm: num_groups=0 must divide c=6; try one of 1, 2, 3, 6",
    ),
    (
        lambda: layer("ghost_batch_norm", 6, ghost_batch_size=0),
        "ghost_batch_norm: ghost_batch_size=0 must be a positive whole number that divides n; try 1",
    ),
    (
        lambda: METHODS["batch_norm"](TOKENS),
        "batch_norm: shape (2, 3, 6) has 3 axes, but layout 'image' has 4 (n c h w); try layout='signal' or 'tokens'",
    ),
    (
        lambda: METHODS["weight_norm"](torch.ones(3)),
        "weight_norm: shape (3,) has 1 axis, but layout 'linear' has 2 (o i); no layout here has that many axes",
    ),
    (
        lambda: METHODS["instance_norm"](torch.ones(2, 3), "vector"),
        "instance_norm: layout='vector' is not defined for it; try signal, image, volume, tokens",
    ),
    (
        lambda: METHODS["batch_norm"](IMAGE, momentum=2),
        "batch_norm: momentum=2 must be a number from 0 to 1 or None (cumulative average)",
    ),
    (
        lambda: METHODS["weight_standardization"](torch.ones(2, 3), eps_place="middle"),
        "weight_standardization: eps_place='middle' must be one of 'inside', 'outside'",
    ),
    (
        lambda: METHODS["local_response_norm"](IMAGE, size=1.5),
        "local_response_norm: size=1.5 must be a whole number of at least 1",
    ),
    (
        lambda: clipper("clip_by_value", upper=-1.0),
        "clip_by_value: upper=-1.0 must be a number of at least 0 or infinity or None (clip_value)",
    ),
    (
        lambda: clipper("clip_by_value", lower=1.0),
        "clip_by_value: lower=1.0 must be a number of at most 0 or minus infinity or None (-clip_value)",
    ),
    (
        lambda: METHODS["rms_norm"](IMAGE, weight=torch.ones(5)),
        "rms_norm: weight has shape (5,); it must be (6,)",
    ),
    (
        lambda: METHODS["layer_norm"](IMAGE, weight=torch.ones(5)),
        "layer_norm: weight has shape (5,); it must be (6,) or (6, 4, 4)",
    ),
    (
        lambda: METHODS["weight_norm"](torch.ones(2, 3), gain=torch.ones(2)),
        "weight_norm: gain has shape (2,); it must be (2, 3) with ones for some of the sizes",
    ),
    (
        lambda: METHODS["rms_norm"](IMAGE, weight=1.0),
        "rms_norm: weight is float; it must be a tensor",
    ),
    (
        lambda: METHODS["batch_norm"](IMAGE, state={"running_mean": torch.zeros(6)}),
        "batch_norm: the state has no 'running_var'; it needs running_mean, running_var, num_batches_tracked",
    ),
    (
        lambda: METHODS["batch_norm"](IMAGE, training="no"),
        "batch_norm: training='no' must be True or False",
    ),
    (
        lambda: layer("batch_norm", 4)(IMAGE),
        "batch_norm: x has c=6; this layer was made for c=4",
    ),
    (
        lambda: layer("layer_norm", (6, 4, 5))(IMAGE),
        "layer_norm: x has w=4; this layer was made for w=5",
    ),
    (
        lambda: layer("batch_norm", (6, 4)),
        "batch_norm: channels=(6, 4) must be a positive whole number or the sizes (c, h, w)",
    ),
    (
        lambda: layer("clip_by_value", 4),
        "no activation method is called 'clip_by_value'; it is a gradient method",
    ),
    (
        lambda: layer("LayerNorm", 4),
        "no activation method is called 'LayerNorm'; "
        f"try layer_norm, layer_norm_2d, bert_layer_norm, masked_layer_norm, pair_norm (of {len(ACTIVATIONS)} in "
        "normcore.METHODS)",
    ),
    (
        lambda: clipper("x"),
        "no gradient method is called 'x'; there are soft_clip, clip_by_global_norm, clip_by_norm_per_parameter, "
        f"clip_by_value, moving_average_clipping (of {len(GRADIENTS)} in normcore.METHODS)",
    ),
    (
        lambda: reparametrize(nn.ConvTranspose2d(2, 3, 3), "weight_norm"),
        "weight_norm: ConvTranspose2d stores its weight as (i o ...); only (o i ...) is defined",
    ),
    (
        lambda: reparametrize(nn.Linear(2, 3), "weight_norm", "kernel"),
        "weight_norm: Linear has no parameter 'kernel' with a shape",
    ),
    (
        lambda: reparametrize(nn.LazyLinear(3), "weight_norm"),
        "weight_norm: LazyLinear has no parameter 'weight' with a shape",
    ),
    (
        lambda: influence(lambda x: x, torch.ones(2, 3), (2, 0)),
        "index (2, 0) lies outside shape (2, 3); the last element is (1, 2)",
    ),
    (
        lambda: influence(lambda x: x, torch.ones(2, dtype=torch.long), (0,)),
        "influence: x is torch.int64; it must be a floating-point tensor",
    ),
    (
        lambda: influence(lambda x: x.detach(), torch.ones(2), (0,)),
        "influence: the output does not depend on x in a differentiable way",
    ),
    (
        lambda: influence(lambda x: 3, torch.ones(2), (0,)),
        "influence: fn returned int; it must return a floating-point tensor",
    ),
    (lambda: influence(3, torch.ones(2), (0,)), "influence: fn is int; it must be a module or a function"),
    (
        lambda: METHODS["batch_norm"](IMAGE, state=torch.zeros(2)),
        "batch_norm: the state has no 'running_mean'; it needs running_mean, running_var, num_batches_tracked",
    ),
    (
        lambda: METHODS["batch_norm"](IMAGE, weight=torch.ones(6, dtype=torch.complex64)),
        "batch_norm: weight is torch.complex64, torch.strided; it must be a dense floating-point tensor of 16, 32 or "
        "64 bits",
    ),
    (
        lambda: METHODS["adain"](IMAGE, style=torch.ones(2, 12, dtype=torch.int32)),
        "adain: style is torch.int32, torch.strided; it must be a dense floating-point tensor of 16, 32 or 64 bits",
    ),
    (
        lambda: METHODS["batch_norm"](IMAGE, weight=torch.ones(6, device="meta")),
        "batch_norm: weight is on meta; it must be on cpu, as x is",
    ),
    (
        lambda: METHODS["masked_layer_norm"](TOKENS, "tokens", mask=torch.full((2, 3), 0.5)),
        "masked_layer_norm: mask has values other than 0 and 1; it must be True or False",
    ),
    (
        lambda: layer("masked_batch_norm", 6)(IMAGE, mask=2 * torch.ones(2, 4, 4, dtype=torch.long)),
        "masked_batch_norm: mask has values other than 0 and 1; it must be True or False",
    ),
    (lambda: layer("adain", 6)(IMAGE, IMAGE), "adain: beside x it takes style=, by name"),
    (
        lambda: layer("adaptive_layer_norm", 6)(IMAGE, TOKENS),
        "adaptive_layer_norm: beside x it takes scale= and shift=, by name",
    ),
    (lambda: layer("layer_norm", 6)(IMAGE, IMAGE), "layer_norm: beside x it takes nothing"),
    (lambda: layer("batch_norm", 6, affine="no"), "batch_norm: affine='no' must be True or False"),
    (lambda: layer("batch_norm", 6, shift_first=1), "batch_norm: shift_first=1 must be True or False"),
    (
        lambda: METHODS["batch_norm"].bound((2, 3), "vector", training="no"),
        "batch_norm: training='no' must be True or False",
    ),
    (lambda: diagnose("batch_norm", 3), "batch_norm: shape=3 must be whole numbers, one for each axis"),
    (lambda: Region("n c -> c").bind((2.7, 3)), "shape=(2.7, 3) must be whole numbers, one for each axis"),
    (lambda: Region("n c -> c").bind((2, 3), q=5), "'n c -> c' has no axis 'q'"),
    (lambda: Window("n c", {"c": "size"}).bind((2, 3)), "'n c' needs size"),
    (lambda: Window("n c", {"c": "size"}).bind((2,), size=3), "'n c' names 2 axes, but shape (2,) has 1"),
]


@pytest.mark.parametrize(("call", "message"), MESSAGES, ids=[message for _, message in MESSAGES])
def test_the_sentence_says_what_and_which_value_and_what_would_work(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(NormcoreError) as caught:
        call()
    assert str(caught.value) == message


@pytest.mark.parametrize("channels", [0, -1, True, 2.5, None, "six", (), (2, 0, 2), (2, None, 2), [1.5]])
def test_channels_that_are_no_sizes_are_refused(channels: Any) -> None:
    with pytest.raises(NormcoreError, match="must be a positive whole number or the sizes"):
        layer("group_norm", channels, num_groups=1)


@pytest.mark.parametrize("key", ["no_norm", "", None, 3, ["batch_norm"]])
def test_a_key_of_no_method_is_refused(key: Any) -> None:
    for call in (lambda: layer(key, 4), lambda: clipper(key), lambda: reparametrize(nn.Linear(2, 2), key)):
        with pytest.raises(NormcoreError, match=r"no .* method is called"):
            call()


@pytest.mark.parametrize("shape", [None, 3, "shape", (2, "x"), (2.0, 3.0), (2, None)])
def test_what_is_no_shape_is_refused(shape: Any) -> None:
    with pytest.raises(NormcoreError, match=r"batch_norm: shape=.* must be whole numbers"):
        METHODS["batch_norm"].bound(shape, "vector")


def test_evaluation_takes_any_number_of_samples() -> None:
    norm = layer("ghost_batch_norm", 6, ghost_batch_size=2)
    with pytest.raises(NormcoreError, match=r"ghost_batch_size=2 must divide n=3; try one of 1, 3"):
        norm(torch.ones(3, 6, 4, 4))
    assert norm.eval()(torch.ones(3, 6, 4, 4)).shape == (3, 6, 4, 4)
