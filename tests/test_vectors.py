"""What gradient methods make of two numbers, against numpy, and what is measured about them against what they are."""

import math

import numpy as np
import pytest

from normcore import METHODS
from normcore.lab import vectors
from normcore.lab.vectors import ONE, PARTS, ROW, TWO, Variant

NONE = np.empty((0, 2))
GRADIENT = [key for key, method in METHODS.items() if method.family == "gradient"]
ANSWERING = [key for key, reason in vectors.refusals().items() if not reason]


def test_value_clipping_turns_ten_and_one_by_39_degrees_and_norm_clipping_by_none() -> None:
    value = vectors.answer(Variant("clip_by_value"), (10, 1), NONE)
    norm = vectors.answer(Variant("clip_by_global_norm"), (10, 1), NONE)
    assert value.turned == pytest.approx(45 - math.degrees(math.atan(0.1)))
    assert round(value.turned) == 39
    assert norm.turned == pytest.approx(0, abs=1e-6)
    assert norm.scale == pytest.approx(1 / math.sqrt(101), rel=1e-5)


def test_a_field_is_what_numpy_says() -> None:
    points = vectors.grid(4.0)
    assert len(points) == 13 * 13 - 1
    clipped = vectors.answers_to(Variant("clip_by_value", {"clip_value": 0.5}), points, NONE)
    np.testing.assert_array_equal(clipped, np.clip(points, -0.5, 0.5))
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    shortened = vectors.answers_to(Variant("clip_by_global_norm", {"max_norm": 2.0, "eps": 0.0}), points, NONE)
    np.testing.assert_allclose(shortened, points * np.minimum(1, 2 / lengths), rtol=1e-12)


@pytest.mark.parametrize(("key", "setting"), [("clip_by_value", "clip_value"), ("clip_by_global_norm", "max_norm")])
def test_a_threshold_is_recognized(key: str, setting: str) -> None:
    assert vectors.threshold(key) == setting


@pytest.mark.parametrize("key", GRADIENT)
def test_a_threshold_is_one_of_the_method_s_own_settings(key: str) -> None:
    assert vectors.threshold(key) in {None, *(param.name for param in METHODS[key].params)}


@pytest.mark.parametrize("key", GRADIENT)
def test_every_method_answers_or_says_why_not(key: str) -> None:
    reason = vectors.refusals()[key]
    if reason:
        assert reason.startswith(key)
        return
    past = vectors.past(4, 1.0)
    for parts in PARTS:
        first, again = (vectors.answer(Variant(key), (3.0, -4.0), past, parts) for _ in range(2))
        assert first.after.shape == (2,)
        assert np.isfinite(first.after).all()
        np.testing.assert_array_equal(first.after, again.after)


@pytest.mark.parametrize("key", [key for key in ANSWERING if METHODS[key].per_example])
def test_a_method_for_examples_gets_one_example(key: str) -> None:
    answer = vectors.answer(Variant(key), (3.0, 4.0), NONE)
    assert answer.turned == pytest.approx(0, abs=1e-6)


def test_how_the_numbers_are_held() -> None:
    for parts, shapes in ((ONE, [(2,)]), (ROW, [(1, 2)]), (TWO, [(1,), (1,)])):
        tensors = vectors.split((3.0, 4.0), parts)
        assert [tuple(tensor.shape) for tensor in tensors] == shapes
        assert vectors.join(tensors) == [3.0, 4.0]


def test_a_past_is_the_same_again_and_about_as_long_as_asked() -> None:
    past = vectors.past(400, 2.0, seed=1)
    np.testing.assert_array_equal(past, vectors.past(400, 2.0, seed=1))
    assert not np.array_equal(past, vectors.past(400, 2.0, seed=2))
    assert np.median(np.linalg.norm(past, axis=1)) == pytest.approx(2.0, rel=0.05)


def test_an_angle_needs_two_directions() -> None:
    assert math.isnan(vectors.turned(np.array([1.0, 0.0]), np.zeros(2)))
    assert math.isnan(vectors.turned(np.array([1.0, math.inf]), np.ones(2)))
    assert vectors.turned(np.array([1.0, 0.0]), np.array([-1.0, 0.0])) == pytest.approx(180)
    assert vectors.turned(np.array([1.0, 0.0]), np.array([0.0, -2.0])) == pytest.approx(90)
