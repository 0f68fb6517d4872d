import math
import random

import pytest

from fastmath_kit.training.length_labels import LengthLabel, prediction
from fastmath_kit.training.length_scores import error_difference, scores


def labels_of(means, rng, *, sd=0.3, k=20, limit=math.inf):
    rows = []
    for number, mean in enumerate(means):
        logs = [rng.gauss(mean, sd) for _ in range(k)]
        rows.append(
            LengthLabel(
                problem_id=str(number),
                problem=str(number),
                mean_log_tokens=sum(logs) / k,
                sd_log_tokens=sd,
                tokens=tuple(round(math.exp(min(log, limit))) for log in logs),
                truncated=tuple(log > limit for log in logs),
            )
        )
    return rows


def test_the_truth_scores_best_and_its_interval_holds_four_of_five():
    rng = random.Random(0)
    means = [rng.gauss(9, 0.8) for _ in range(100)]
    labels = labels_of(means, rng)
    found = scores([prediction(mean, 0.3) for mean in means], labels, num_draws=200)
    assert found["r2"]["value"] > 0.97 and found["spearman"]["value"] > 0.97
    assert found["mean_abs_log_error"]["value"] < 0.08
    assert found["coverage"]["value"] == pytest.approx(0.8, abs=0.03)
    assert found["rmse_tokens"]["value"] < 2_000
    assert all(0 < row["standard_error"] < 0.1 * row["value"] + 300 for row in found.values())


def test_saying_the_same_of_all_is_worth_nothing():
    rng = random.Random(1)
    labels = labels_of([rng.gauss(9, 0.8) for _ in range(50)], rng)
    mean = sum(label.mean_log_tokens for label in labels) / len(labels)
    found = scores([prediction(mean, 0.85)] * 50, labels, num_draws=50)
    assert found["r2"]["value"] == pytest.approx(0.0)
    assert found["spearman"] is None


def test_ranks_ignore_the_scale_and_r2_does_not():
    rng = random.Random(2)
    means = [rng.gauss(9, 0.8) for _ in range(50)]
    labels = labels_of(means, rng, sd=0.01)
    found = scores([prediction(2 * mean, 0.3) for mean in means], labels, num_draws=50)
    assert found["spearman"]["value"] > 0.99 and found["r2"]["value"] < 0


def test_a_truncated_trace_is_inside_unless_the_interval_ends_before_it_was_cut():
    rng = random.Random(3)
    labels = labels_of([9.0], rng, sd=0.01, k=4, limit=8.0)
    assert all(labels[0].truncated)
    for mean, coverage in ((9.0, 1.0), (20.0, 1.0), (7.0, 0.0)):
        found = scores([prediction(mean, 0.1)], labels, num_draws=2)
        assert found["coverage"]["value"] == coverage


def test_a_difference_is_paired():
    rng = random.Random(4)
    means = [rng.gauss(9, 0.8) for _ in range(60)]
    labels = labels_of(means, rng, sd=0.05)
    off = [prediction(label.mean_log_tokens + 1, 0.1) for label in labels]
    worse = [prediction(label.mean_log_tokens + 1.5, 0.1) for label in labels]
    found = error_difference(off, worse, labels)
    assert found["value"] == pytest.approx(-0.5) and found["standard_error"] < 1e-6
