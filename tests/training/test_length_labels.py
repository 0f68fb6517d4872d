import math
import random
import statistics

import pytest

from fastmath_kit.errors import DataError
from fastmath_kit.problems.records import Problem, Trace
from fastmath_kit.training.length_labels import (
    LengthPrediction,
    censored_law,
    length_labels,
    prediction,
    read_labels,
    split_labels,
    write_labels,
)

PROBLEMS = [Problem(id=f"p{i}", statement=f"What is ${i}+{i}$?") for i in range(20)]


def traces(problem_id, tokens, *, cut=(), model=None):
    return [
        Trace(
            problem_id=problem_id,
            sample=sample,
            completion_tokens=num,
            answer=None,
            finish_reason="length" if sample in cut else "stop",
            model=model,
        )
        for sample, num in enumerate(tokens)
    ]


def test_a_label_is_the_law_of_all_traces_of_a_problem():
    labels = length_labels(traces("p1", (100, 400)) + traces("zz", (7,)), PROBLEMS)
    assert [label.problem_id for label in labels] == ["p1"]  # no text of zz, no traces of the rest
    assert labels[0].problem == PROBLEMS[1].statement
    assert labels[0].mean_log_tokens == pytest.approx(math.log(200))
    assert labels[0].sd_log_tokens == pytest.approx(math.log(2))
    assert labels[0].tokens == (100, 400) and labels[0].truncated == (False, False)


def test_truncated_traces_are_longer_than_they_look():
    """A cut at the 70th percentile: the law found again, the naive means far too short."""
    rng = random.Random(0)
    found, naive, truth = [], [], []
    rows, problems = [], []
    for i in range(60):
        mean = rng.gauss(7.0, 0.3)
        whole = [rng.gauss(mean, 0.4) for _ in range(16)]
        limit = 7.2
        tokens = [round(math.exp(min(log, limit))) for log in whole]
        cut = [k for k, log in enumerate(whole) if log > limit]
        rows += traces(f"q{i}", tokens, cut=cut)
        problems.append(Problem(id=f"q{i}", statement=str(i)))
        truth.append(mean)
        naive.append(statistics.fmean(math.log(num) for num in tokens))
    found = [label.mean_log_tokens for label in length_labels(rows, problems)]

    def bias(means):
        return statistics.fmean(a - b for a, b in zip(means, truth, strict=True))

    assert bias(naive) < -0.08
    assert abs(bias(found)) < 0.025


@pytest.mark.parametrize(
    ("logs", "truncated", "low", "high"),
    [
        ([5.0, 5.0], [False, True], 5.0, 5.5),  # at least as long as the finished one
        ([5.0, 5.0, 5.0], [True, True, True], 5.2, 6.0),  # nothing bounds it: stays finite
        ([1.0] + [9.0] * 3, [False, True, True, True], 7.0, 8.0),  # far beyond: no overflow
        ([1.0] * 15 + [90.0], [False] * 15 + [True], 6.5, 6.7),  # 15 short, 1 cut very late
    ],
)
def test_a_censored_law_is_finite_and_not_below_what_was_seen(logs, truncated, low, high):
    mean, sd = censored_law(logs, truncated, 0.5)
    assert low <= mean <= high and 0 < sd < 100


def test_aborted_traces_count_as_truncated():
    rows = [
        Trace(problem_id="p0", sample=0, completion_tokens=0, answer=None, finish_reason="abort"),
        *traces("p0", (50, 60)),
    ]
    (label,) = length_labels(rows, PROBLEMS)
    assert label.truncated == (True, False, False)
    assert math.log(40) < label.mean_log_tokens < math.log(70)


def test_traces_of_two_models_or_of_other_problems_are_refused():
    with pytest.raises(DataError, match=r"traces are of 2 models \(a, b\)"):
        length_labels(traces("p0", (5,), model="a") + traces("p1", (5,), model="b"), PROBLEMS)
    with pytest.raises(DataError, match="no trace is of these problems"):
        length_labels(traces("other", (5,)), PROBLEMS)


def test_a_prediction_knows_mean_and_median():
    said = prediction(math.log(1_000), 0.5)
    assert said.mean_tokens == pytest.approx(1_000 * math.exp(0.125))
    assert said.mean_log_tokens == pytest.approx(math.log(1_000))
    assert LengthPrediction(mean_tokens=50.0, sd_log=0.0).mean_log_tokens == math.log(50)


def test_labels_are_read_as_they_were_written(tmp_path):
    labels = length_labels(traces("p1", (10, 20), cut=(1,)) + traces("p2", (30,)), PROBLEMS)
    write_labels(labels, tmp_path / "length.parquet")
    assert read_labels(tmp_path / "length.parquet") == labels


def test_a_wrong_label_file_is_told(tmp_path):
    (tmp_path / "x.parquet").write_text("id,problem")
    for name in ("x.parquet", "missing.parquet"):
        with pytest.raises(DataError, match=f"{name}: not a file of length labels"):
            read_labels(tmp_path / name)


def test_a_statement_is_on_one_side_of_the_split():
    twins = [Problem(id=f"twin{i}", statement=p.statement + " ") for i, p in enumerate(PROBLEMS)]
    problems = [*PROBLEMS, *twins]
    rows = [trace for problem in problems for trace in traces(problem.id, (10,))]
    labels = length_labels(rows, problems)
    train, held_out = split_labels(labels, held_out=0.3, seed=1)
    assert len(train) == 28 and len(held_out) == 12
    assert not {x.problem.strip() for x in train} & {x.problem.strip() for x in held_out}
    assert split_labels(labels, held_out=0.3, seed=1) == (train, held_out)
    assert split_labels(labels, held_out=0.3, seed=2) != (train, held_out)
    with pytest.raises(DataError, match="at least 10 different problems, got 9"):
        split_labels(labels[:9], held_out=0.3, seed=1)
