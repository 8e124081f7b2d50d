"""Inputs to normalize: each has the trouble that its name promises, is repeatable, and refuses what does not fit."""

import numpy as np
import pytest
import torch

from normcore import NormcoreError
from normcore.core import LETTERS
from normcore.lab import inputs
from normcore.lab.inputs import LIMIT, MADE, STAGES, Input, activations, fitted, made, own, photographs

SIZES = {"n": 16, "c": 8, "t": 12, "l": 12, "d": 3, "h": 10, "w": 10, "o": 32, "i": 24}


def shape_of(layout: str) -> tuple[int, ...]:
    return tuple(SIZES[letter] for letter in LETTERS[layout])


def channels(given: Input) -> np.ndarray:
    """One row a channel."""
    letters = LETTERS[given.layout]
    axis = letters.index("c") if "c" in letters else 0
    return np.moveaxis(given.x.numpy(), axis, 0).reshape(given.shape[axis], -1)


@pytest.mark.parametrize(("source", "layout"), [(s, layout) for s, (_, layouts) in MADE.items() for layout in layouts])
def test_every_recipe_gives_finite_numbers_of_the_shape_and_the_same_for_the_same_seed(
    source: str, layout: str
) -> None:
    torch.manual_seed(1)
    first = made(source, shape_of(layout), layout, 3)
    torch.manual_seed(2)
    again, other = made(source, shape_of(layout), layout, 3), made(source, shape_of(layout), layout, 4)
    assert first.shape == shape_of(layout)
    assert first.x.dtype == torch.float64
    assert bool(first.x.isfinite().all())
    assert torch.equal(first.x, again.x)
    assert not torch.equal(first.x, other.x)
    assert first.note.endswith(".")


def test_the_recipes_keep_what_their_names_promise() -> None:
    def of(source: str, layout: str = "image") -> np.ndarray:
        return made(source, shape_of(layout), layout).x.numpy()

    def moment(values: np.ndarray, power: int) -> float:
        return float((((values - values.mean()) / values.std()) ** power).mean())

    normal = of("normal")
    assert normal.mean() == pytest.approx(3, abs=0.1)
    assert normal.std() == pytest.approx(2, abs=0.1)
    assert moment(normal, 4) == pytest.approx(3, abs=0.3)
    assert moment(of("skewed"), 3) > 2
    assert (of("skewed") > 0).all()
    assert moment(of("heavy-tailed"), 4) > 8
    assert np.sort(np.abs(of("outliers")).ravel())[-64:].min() == 30
    assert np.median(np.abs(of("outliers"))) < 1
    assert np.ptp(channels(made("channel offsets", shape_of("image"), "image")).mean(1)) > 10
    assert np.ptp(channels(made("channel offsets", shape_of("conv2d"), "conv2d")).mean(1)) > 10
    deviations = channels(made("mixed scales", shape_of("tokens"), "tokens")).std(1)
    assert deviations.max() / deviations.min() > 500


def test_padding_is_zero_and_the_mask_says_where_it_is() -> None:
    given = made("padded sentences", (5, 12, 4), "tokens")
    assert given.mask is not None
    lengths = given.mask.sum(1).tolist()
    assert lengths[0] == 12
    assert lengths == sorted(lengths, reverse=True)
    assert min(lengths) == 3
    for sample, length in enumerate(lengths):
        assert bool((given.x[sample, length:] == 0).all())
        assert bool((given.x[sample, :length] != 0).all())
        assert given.counted[sample, :length].all()
        assert not given.counted[sample, length:].any()
    assert f"{60 - sum(lengths)} of 60 positions are padding" in given.note
    assert set(given.context) == {"mask"}


@pytest.mark.parametrize(
    ("source", "shape", "layout", "said"),
    [
        ("no such", (2, 3), "vector", "no such"),
        ("padded sentences", (2, 3), "vector", "tokens"),
        ("normal", (2, 3, 4), "vector", "3 axes"),
        ("normal", (64, 64, 32, 32), "image", "4,194,304"),
        ("normal", (2, 0), "vector", "empty"),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_sentence(
    source: str, shape: tuple[int, ...], layout: str, said: str
) -> None:
    with pytest.raises(NormcoreError, match=said):
        made(source, shape, layout)


@pytest.mark.parametrize("shape", [(64, 64, 32, 32), (2, 3), (4, 6, 8, 8), (5, 512, 512)])
def test_a_shape_that_is_too_large_loses_samples_only(shape: tuple[int, ...]) -> None:
    small = fitted(shape)
    assert small[1:] == shape[1:]
    assert small[0] >= 1
    assert small == shape or (small[0] + 1) * int(np.prod(shape[1:])) > LIMIT


def test_photographs_are_averages_of_eight_by_eight_pixels() -> None:
    from sklearn.datasets import load_sample_images  # noqa: PLC0415

    given = photographs("both")
    assert given.shape == (2, 3, 53, 80)
    pixels = load_sample_images().images[1]
    for row, column, color in ((0, 0, 0), (10, 70, 2), (52, 79, 1)):
        block = pixels[8 * row : 8 * row + 8, 8 * column : 8 * column + 8, color]
        assert float(given.x[1, color, row, column]) == pytest.approx(block.astype(float).mean() / 255)
    assert torch.equal(photographs("flower").x, given.x[1:])
    with pytest.raises(NormcoreError, match="boat"):
        photographs("boat")


@pytest.mark.parametrize("stage", STAGES)
def test_the_net_was_really_trained(stage: str) -> None:
    trained, fresh = activations(stage), activations(stage, trained=False)
    assert trained.layout == STAGES[stage]
    assert trained.shape == fresh.shape
    assert len(trained.shape) == len(LETTERS[trained.layout])
    assert float(trained.x.std()) > 1.3 * float(fresh.x.std())
    assert inputs._trained()[2] > 0.9
    assert f"{inputs._trained()[2]:.0%}" in trained.note


def test_the_net_leaves_the_global_randomness_alone() -> None:
    inputs._trained.cache_clear()
    torch.manual_seed(7)
    activations("hidden layer")
    after = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(after, torch.rand(1))


def test_an_own_array_is_copied_and_checked() -> None:
    values = np.arange(24.0).reshape(4, 6)
    given = own(values, "vector", "mine.npy")
    values[0, 0] = 99
    assert float(given.x[0, 0]) == 0
    assert "mine.npy: 4 × 6" in given.note
    for shape, layout, said in (((4, 6), "image", "2 axes"), ((2, 600), "vector", "600 channels")):
        with pytest.raises(NormcoreError, match=said):
            own(np.zeros(shape), layout, "mine.npy")
