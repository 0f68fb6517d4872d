import math
import random

import numpy as np
import pytest

from fastmath_kit.training.length_features import fit_features, fit_median, text_features
from fastmath_kit.training.length_labels import LengthLabel


def label(problem, mean, sd=0.1):
    tokens = (round(math.exp(mean)),) * 2
    return LengthLabel(
        problem_id=problem,
        problem=problem,
        mean_log_tokens=mean,
        sd_log_tokens=sd,
        tokens=tokens,
        truncated=(False, False),
    )


def chains(num, seed, noise=0.1):
    """Statements whose length in tokens grows with their number of plus signs."""
    rng = random.Random(seed)
    rows = []
    for _ in range(num):
        terms = [str(rng.randint(1, 99)) for _ in range(rng.randint(1, 8))]
        mean = 4 + math.log1p(len(terms) - 1) + rng.gauss(0, noise)
        rows.append(label(f"What is ${'+'.join(terms)}$?", mean))
    return rows


@pytest.mark.parametrize(
    ("problem", "other", "more"),
    [
        ("What is $1+2$?", "What is $1+2+3$?", True),  # an operator more
        (r"Find $\frac12$.", r"Find $\frac{1}{2}+\sqrt2$.", True),  # LaTeX
        ("", "a", True),  # an empty statement has features too
    ],
)
def test_features_are_finite_and_grow_with_the_text(problem, other, more):
    ours, theirs = text_features(problem), text_features(other)
    assert np.isfinite(ours).all() and ours.shape == theirs.shape
    assert (theirs.sum() > ours.sum()) is np.bool_(more)


def test_the_regression_finds_what_makes_a_problem_long_and_how_sure_it_is():
    train, held_out = chains(80, 0), chains(200, 1)
    model = fit_features(train)
    said = model.predict([x.problem for x in held_out])
    errors = np.array(
        [s.mean_log_tokens - x.mean_log_tokens for s, x in zip(said, held_out, strict=True)]
    )
    assert np.abs(errors).mean() < 0.15
    spread = math.sqrt((errors**2).mean() + 0.1**2)  # off by, and the traces' own
    assert said[0].sd_log == pytest.approx(spread, rel=0.3)


def test_leaving_one_out_by_the_hat_matrix_is_leaving_one_out():
    """The chosen penalty has the least error when each problem is really left out."""
    train = chains(25, 3, noise=0.5)
    chosen = fit_features(train)

    def really(penalty):
        errors = []
        features = np.array([text_features(x.problem) for x in train])
        logs = np.array([x.mean_log_tokens for x in train])
        scale = features.std(axis=0)
        scale[scale < 1e-9] = 1.0
        features = (features - features.mean(axis=0)) / scale
        for row in range(len(train)):
            rest = np.arange(len(train)) != row
            ones = np.column_stack([np.ones(rest.sum()), features[rest]])
            ridge = penalty * np.diag([0.0] + [1.0] * features.shape[1])
            weights = np.linalg.solve(ones.T @ ones + ridge, ones.T @ logs[rest])
            errors.append(logs[row] - weights[0] - features[row] @ weights[1:])
        return float((np.array(errors) ** 2).mean())

    own = really(chosen.penalty)
    assert all(own <= really(chosen.penalty * factor) + 1e-9 for factor in (0.1, 10.0))
    expected = math.sqrt(own + np.mean([x.sd_log_tokens**2 for x in train]))
    assert chosen.sd_log == pytest.approx(expected, rel=1e-6)


def test_statements_that_all_look_alike_get_the_mean():
    train = [label("What is $1+2$?", mean) for mean in (4.0, 5.0)] * 6
    assert fit_features(train).predict(["No numbers."])[0].mean_log_tokens == pytest.approx(4.5)


def test_the_median_says_the_same_of_all_problems():
    model = fit_median([label(str(i), mean) for i, mean in enumerate((4.0, 5.0, 9.0))])
    short, long = model.predict(["What?", "Find $1+2+3+4$." * 50])
    assert short == long
    assert short.mean_log_tokens == pytest.approx(5.0)
    assert short.sd_log == pytest.approx(math.sqrt((1 + 0 + 16) / 3 + 0.01))
