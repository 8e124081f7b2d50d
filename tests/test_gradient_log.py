"""A log of gradient norms: read as loggers write it, refused in a sentence, judged by numbers anyone can check."""

import json
import math
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from normcore import NormcoreError
from normcore.lab import gradient_log, log_file
from normcore.lab.gradient_log import advise, histogram, rolling, spikes, what_if
from normcore.lab.log_file import guess, read

WANDB = (
    '"Step","vague-sun-7 - train/grad_norm","vague-sun-7 - train/grad_norm__MIN",'
    '"vague-sun-7 - train/grad_norm__MAX"\n"10","1.5","1.5","1.5"\n"20","0.5","0.5","0.5"\n'
)
TENSORBOARD = "Wall time,Step,Value\n1700000000.5,0,1.5\n1700000001.5,5,0.5\n"
TRAINER = json.dumps(
    {
        "best_metric": None,
        "global_step": 30,
        "log_history": [
            {"epoch": 0.1, "grad_norm": 1.5, "learning_rate": 5e-05, "loss": 2.3, "step": 10},
            {"epoch": 0.2, "grad_norm": 0.5, "learning_rate": 4e-05, "loss": 2.1, "step": 20},
            {"epoch": 0.2, "eval_loss": 2.0, "step": 20},
        ],
    }
)
TRACKIO = (
    '{"timestamp": "2026-01-01T00:00:00", "step": 0, "metrics": {"loss": 2.3, "grad_norm": 1.5}}\n'
    '{"timestamp": "2026-01-01T00:00:01", "step": 1, "metrics": {"loss": 2.1, "grad_norm": 0.5}}\n'
)


@pytest.mark.parametrize(
    ("text", "kind", "column", "steps"),
    [
        (WANDB, "a Weights & Biases export", "vague-sun-7 - train/grad_norm", [10, 20]),
        (TENSORBOARD, "a TensorBoard export", "Value", [0, 5]),
        ("[[1700000000.5, 0, 1.5], [1700000001.5, 5, 0.5]]", "a TensorBoard export", "Value", [0, 5]),
        (TRAINER, "a Hugging Face trainer_state.json", "grad_norm", [10, 20]),
        (TRACKIO, "JSON lines", "metrics/grad_norm", [0, 1]),
        ('{"_step": 3, "grad_norm": 1.5}\n\n{"_step": 4, "grad_norm": 0.5}\n', "JSON lines", "grad_norm", [3, 4]),
        ('{"step": [3, 4], "gradient_norm": [1.5, 0.5]}', "a JSON document of columns", "gradient_norm", [3, 4]),
        ('[{"total_norm": 1.5}, {"total_norm": 0.5}]', "a JSON list", "total_norm", [0, 1]),
        ("step;loss;grad norm\n9;1;0.5\n7;1;1.5\n", "a table", "grad norm", [7, 9]),
        ("1.5\n0.5\n", "a table", "column 1", [0, 1]),
    ],
)
def test_every_logger_is_understood(text: str, kind: str, column: str, steps: list[int]) -> None:
    for data in (text, text.encode(), b"\xef\xbb\xbf" + text.encode(), text.replace("\n", "\r\n").encode()):
        log = read(data)
        assert (log.format, log.column) == (kind, column)
        assert log.norm.tolist() == [1.5, 0.5] and log.step.tolist() == steps


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (("step", "loss", "grad_norm"), "grad_norm"),
        (("train/loss", "train/grad_norm", "train/learning_rate"), "train/grad_norm"),
        (("gnorm", "loss"), "gnorm"),
        (("gradients/global_norm", "weights/global_norm"), "gradients/global_norm"),
        (("a - grad_norm__MIN", "a - grad_norm", "a - grad_norm__MAX"), "a - grad_norm"),
        (("loss", "accuracy"), None),
    ],
)
def test_the_column_is_found_by_its_name(columns: tuple[str, ...], expected: str | None) -> None:
    assert guess(columns) == expected


def test_what_is_no_number_is_kept_apart_from_what_is_nan() -> None:
    log = read("step,grad_norm\n0,1.0\n1,NaN\n2,\n3,inf\n4,n/a\n5,2\n")
    assert log.step.tolist() == [0, 1, 3, 5] and log.skipped == 2
    assert math.isnan(log.norm[1]) and log.norm[2] == math.inf
    assert read('{"grad_norm": 1}\n{"grad_norm": NaN}\n{"grad_norm": "NaN"}\n{"grad_norm": null}').skipped == 1


def test_a_run_that_is_still_written_may_end_in_half_a_line() -> None:
    whole = "".join(f'{{"step": {i}, "grad_norm": 1.0}}\n' for i in range(5))
    assert len(read(whole + '{"step": 5, "gra').norm) == 5


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "there is nothing in it"),
        (b"  \n ", "there is nothing in it"),
        (b"\x00\x01\x02\x03" * 50, "not plain text"),
        ("step,grad_norm\n1,2\n".encode("utf-16-le"), "UTF-16"),
        (b"\xff\xfeg\x00", "UTF-16"),
        (b"\x89PNG\r\n\x1a\n" + b"\xfe" * 20, "not a text file"),
        ("step,grad_norm\n", "a header and no rows"),
        ("step,loss\n1,2\n", "no column is called like a gradient norm; choose one of step, loss"),
        ("name,grad_norm\na,b\n", "no column of numbers"),
        ("step,grad_norm\n1,-2\n", "values below 0"),
        ("{broken\n{broken\n", "damaged JSON"),
        ("[1, 2, 3]", "JSON without rows"),
        ("[" * 100_000, "damaged JSON"),
        ("x" * (8 * 2**20 + 1), "8.0 MB; at most 8 MB"),
        ("1\n" * 200_002, "more than 200,000 rows"),
        (",".join(map(str, range(1500))), "1,500 columns"),
        ("a\x07b", "not plain text"),
        ('"a\n1,2', "neither a table nor JSON"),
        (",,,", "no row with anything in it"),
        ('""', "no row with anything in it"),
        ("grad_norm\n1.7e308\n1e300\n", "not 0 and not from 1e-100 to 1e+100"),
        ("grad_norm\n5e-324\n5e-324\n", "not 0 and not from 1e-100 to 1e+100"),
        (",".join(f"c{i}" for i in range(1000)) + "\n" + "1\n" * 5000, "5,000 rows of 1,000 columns"),
        ("\n".join(f'{{"c{i % 1000}": 1}}' for i in range(5000)), "5,000 rows of 1,000 columns"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(data: Any, words: str) -> None:
    with pytest.raises(NormcoreError) as caught:
        read(data, "log.csv")
    said = str(caught.value)
    assert said.startswith("log.csv: ") and words in said and len(said) < 250 and "\n" not in said


def test_another_column_can_be_chosen() -> None:
    text = "step,a,b\n0,1,3\n1,2,4\n"
    with pytest.raises(log_file.NoNormError) as caught:
        read(text)
    assert caught.value.columns == ("step", "a", "b")
    assert read(text, column="b").norm.tolist() == [3, 4]
    with pytest.raises(NormcoreError, match="no column of numbers is called 'c'"):
        read(text, column="c")


def test_short_rows_cost_what_stands_in_them() -> None:
    log = read("grad_norm," + ",".join(f"c{i}" for i in range(999)) + "\n" + "1\n" * 1999)
    assert len(log.norm) == 1999 and log.columns == ("grad_norm",)
    rows = [f'{{"grad_norm": 1, "c{i}": 2}}' for i in range(999)]
    begun = time.process_time()
    log = read("\n".join(rows + ['{"grad_norm": 3}'] * 1000))
    assert time.process_time() - begun < 0.5
    assert len(log.norm) == 1999 and len(log.columns) == 1000


def test_a_large_log_is_read_in_time() -> None:
    rows = "".join(f"{i},{1 + i % 7}\n" for i in range(200_000))
    log = read(f"step,grad_norm\n{rows}")
    assert len(log.norm) == 200_000
    assert len(spikes(log.step, log.norm).step) == 0
    assert len(rolling(log.step, log.norm).step) == 240


@pytest.mark.parametrize(
    ("threshold", "above", "role"),
    [(0.5, 100, "step-size limiter"), (50.5, 50, "step-size limiter"), (80.5, 20, "in between"),
     (95.5, 5, "safety net"), (100.0, 0, "never")],
)  # fmt: skip
def test_a_threshold_is_named_for_how_often_it_fires(threshold: float, above: int, role: str) -> None:
    norms = np.arange(1.0, 101.0)
    told = what_if(norms, threshold)
    assert (told.above, told.steps, told.share, told.role) == (above, 100, above / 100, role)
    over = [threshold / n for n in norms if n > threshold]
    assert told.scale == pytest.approx(median(over) if over else 1.0)
    assert f"At {threshold:g} you would have clipped {gradient_log.percent(above / 100)} of the steps" in told.sentence


def test_the_what_if_counts_infinite_norms_and_leaves_nan_out() -> None:
    told = what_if(np.array([1.0, 2.0, np.inf, np.nan]), 1.3)
    assert (told.above, told.steps) == (2, 3)
    for norms, threshold in (([np.nan], 1.0), ([], 1.0), ([1.0], 0.0), ([1.0], np.inf)):
        with pytest.raises(NormcoreError):
            what_if(np.array(norms), threshold)


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.12, "12 %"), (0.0, "0 %"), (1.0, "100 %"), (0.0004, "less than 0.1 %"), (0.9999, "more than 99.9 %"),
     (0.995, "99.5 %"), (0.015, "1.5 %")],
)  # fmt: skip
def test_shares_are_never_rounded_to_nothing_or_all(share: float, words: str) -> None:
    assert gradient_log.percent(share) == words


def test_the_histogram_counts_every_norm_once() -> None:
    norms = np.array([0.01, 0.1, 0.1, 1.0, 10.0, 100.0, 0.0, np.nan, np.inf])
    found = histogram(norms, 8)
    assert found.counts.sum() == 6 and (found.zeros, found.lost) == (1, 2)
    for low, high, count in zip(found.edges[:-1], found.edges[1:], found.counts, strict=True):
        last = high == found.edges[-1]
        assert count == sum(low <= n < high or (last and n == high) for n in norms)
    assert histogram(np.full(5, 2.0)).counts.sum() == 5


def test_rolling_percentiles_are_those_of_the_window() -> None:
    norms = np.random.default_rng(0).lognormal(0, 1, 500)
    steps = 10 * np.arange(500)
    found = rolling(steps, norms, most=50)
    assert found.width == 25 and len(found.step) == 50
    for at, column in zip(found.step.tolist(), found.values.T, strict=True):
        window = norms[at // 10 - 24 : at // 10 + 1]
        np.testing.assert_allclose(column, [np.percentile(window, p) for p in (5, 50, 95, 99)])


def test_spikes_are_judged_by_their_neighbors() -> None:
    norms = np.random.default_rng(1).uniform(1, 2, 300)
    norms[[50, 200]], norms[120], norms[7] = 30.0, np.inf, np.nan
    found = spikes(np.arange(300), norms)
    assert found.step.tolist()[0] == 120 and set(found.step.tolist()) == {50, 120, 200}
    for at, norm, ratio in zip(found.step.tolist(), found.norm, found.ratio, strict=True):
        around = [n for n in norms[max(0, at - 25) : at + 26] if math.isfinite(n)]
        assert norm == norms[at] and ratio == pytest.approx(norms[at] / median(around))
    assert len(spikes(np.arange(3), np.array([1.0, 1.0, 1.0])).step) == 0


def test_advice_for_a_run_with_rare_spikes_is_a_safety_net() -> None:
    norms = np.random.default_rng(2).uniform(0.8, 1.2, 1000)
    norms[[300, 600, 900]] = 100.0
    advice = advise(norms)
    assert advice.threshold == 1.3 and 1.1 < np.percentile(norms, 99) < 1.3
    assert what_if(norms, 1.3).role == "safety net"
    assert "A few steps are far longer" in advice.reasons[1] and advice.percentiles[50] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("share", [0.005, 0.02, 0.05, 0.06, 0.08, 0.095])
@pytest.mark.parametrize("usual", [1.0, 1.18])
def test_the_recommended_threshold_lies_below_every_spike_and_above_the_usual_step(share: float, usual: float) -> None:
    norms = np.random.default_rng(5).uniform(0.95 * usual, usual, 1000)
    spiky = np.random.default_rng(6).permutation(900)[: round(900 * share)] + 100
    norms[spiky] = np.random.default_rng(7).uniform(9, 12, len(spiky))
    advice = advise(norms)
    assert advice.threshold is not None and usual <= advice.threshold < 9
    assert f"cuts {gradient_log.percent(len(spiky) / 900)} of the steps" in advice.reasons[1]


def test_advice_sees_a_plateau_left_by_clipping() -> None:
    norms = np.minimum(np.random.default_rng(3).lognormal(0, 1, 500), 1.0)
    advice = advise(norms)
    assert advice.threshold is None and advice.plateau == 1.0
    assert "looks like the norm after clipping" in advice.reasons[-1]
    assert advise(np.random.default_rng(3).lognormal(0, 1, 500)).plateau is None


def test_advice_for_calm_gradual_drifting_and_broken_runs() -> None:
    generator = np.random.default_rng(4)
    calm = advise(generator.uniform(0.9, 1.1, 200))
    assert calm.threshold == 2.0 and "Nothing stands out" in calm.reasons[1]
    norms = generator.uniform(1, 4, 400)
    gradual = advise(norms)
    cut = float((norms[40:] > (gradual.threshold or 0)).mean())
    assert "come gradually" in gradual.reasons[1]
    assert f"shortens {gradient_log.percent(cut)} of the steps" in gradual.reasons[1]
    assert gradual.threshold == pytest.approx(np.percentile(norms[40:], 95), rel=0.07)
    falling = advise(np.geomspace(100, 1, 400) * generator.uniform(0.9, 1.1, 400))
    assert "has fallen by a factor of" in falling.reasons[-1]
    norms[17] = np.nan
    assert "1 norm of 400 is not finite, the first in row 18" in advise(norms).reasons[1]
    assert advise(np.zeros(100)).threshold is None
    with pytest.raises(NormcoreError, match="5 finite norms after the warm-up"):
        advise(np.array([1.0] * 5))


def test_the_warm_up_is_left_out() -> None:
    norms = np.concatenate([np.full(50, 1000.0), np.linspace(1, 1.2, 450)])
    assert advise(norms, 0.1).percentiles[99] < 1.3
    assert advise(norms, 0.0).percentiles[99] == 1000.0
    assert advise(norms, 0.1).reasons[0].startswith("After the first 10 % of the steps")
    assert advise(norms, 0.0).reasons[0].startswith("Over all steps the median norm is")


def test_the_sample_is_a_log_as_visitors_have_them() -> None:
    path = Path(__file__).parents[1] / "explorer/measured/gradients.jsonl"
    log = read(path.read_bytes(), path.name)
    assert (log.column, log.skipped, len(log.norm)) == ("grad_norm", 0, 400)
    assert advise(log.norm).threshold is not None
