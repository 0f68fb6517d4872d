import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastmath_kit.errors import ConfigError, DataError
from fastmath_kit.evaluation.metrics import (
    answer_matrix,
    at_budget,
    avg_at_k,
    correct_matrix,
    maj_at_k,
    paired_bootstrap,
    pass_at_k,
    standard_error,
    token_matrix,
)
from fastmath_kit.inference.voting import majority_vote
from fastmath_kit.problems.records import Trace

MATRICES = hnp.arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 6)))


def trace(problem_id, sample, correct=True, answer=1, tokens=10):
    return Trace(
        problem_id=problem_id,
        sample=sample,
        completion_tokens=tokens,
        answer=answer,
        correct=correct,
    )


def test_matrices_follow_sorted_ids_and_sample_order_whatever_the_order_of_traces():
    traces = [
        trace("b", 1, correct=False, answer=None, tokens=40),
        trace("a", 1, correct=False, answer="x", tokens=20),
        trace("b", 0, correct=True, answer=7, tokens=30),
        trace("a", 0, correct=True, answer=5, tokens=10),
    ]
    assert correct_matrix(traces).tolist() == [[True, False], [True, False]]
    assert token_matrix(traces).tolist() == [[10, 20], [30, 40]]
    assert answer_matrix(traces) == [[5, "x"], [7, None]]


@pytest.mark.parametrize(
    ("traces", "message"),
    [
        ([], "no traces to score"),
        # one problem was sampled less often: it is named, with both counts
        (
            [trace(p, s) for p in "abc" for s in range(2) if (p, s) != ("b", 1)],
            "problem 'b' has 1 traces, the others 2",
        ),
        # two runs in one list
        ([trace("a", 0), trace("a", 0)], "problem 'a': sample 0 is there twice"),
        # a problem without a gold answer
        (
            [trace("a", 0), trace("b", 0, correct=None)],
            "1 of 2 problems have traces without a verdict: b. Add their gold",
        ),
        # many of them: the message stays one line
        ([trace(str(p), 0, correct=None) for p in range(8)], "0, 1, 2, 3, 4 and 3 more"),
    ],
)
def test_traces_that_cannot_be_scored_are_named(traces, message):
    with pytest.raises(DataError, match=message):
        correct_matrix(traces)


@pytest.mark.parametrize(
    ("correct_P_K", "average", "error"),
    [
        ([[1, 1], [0, 0]], 0.5, 0.5),  # means 1, 0: sd sqrt(1/2), over sqrt(2)
        ([[1, 0], [1, 0], [1, 0]], 0.5, 0.0),  # every problem alike: nothing between problems
        ([[1, 0, 0, 0], [1, 1, 1, 0]], 0.5, 0.25),  # means 1/4, 3/4: sd sqrt(1/8), over sqrt(2)
        ([[1], [1], [1], [0]], 0.75, 0.25),  # k=1: sd 1/2, over sqrt(4)
        ([[1, 0, 1]], 2 / 3, None),  # one problem says nothing about others
    ],
)
def test_average_and_its_error_clustered_by_problem(correct_P_K, average, error):
    correct_P_K = np.array(correct_P_K, dtype=bool)
    assert avg_at_k(correct_P_K) == pytest.approx(average)
    assert standard_error(correct_P_K) == (None if error is None else pytest.approx(error))


@pytest.mark.parametrize(
    ("answers_P_K", "correct_P_K", "expected"),
    [
        ([[7, 7, 3]], [[1, 1, 0]], 1.0),  # the majority is right
        ([[7, 3, 3]], [[1, 0, 0]], 0.0),  # outvoted
        ([[7, 3]], [[1, 0]], 1.0),  # tie: the earlier sample wins
        ([[3, 7]], [[0, 1]], 0.0),  # the same tie the other way round
        ([[None, None, 7]], [[0, 0, 1]], 1.0),  # no box is no vote
        ([[None, None]], [[0, 0]], 0.0),  # nobody voted
        ([["x^2", "x^2", 5], [1, 2, 2]], [[1, 1, 0], [1, 0, 0]], 0.5),  # text votes too
    ],
)
def test_majority(answers_P_K, correct_P_K, expected):
    assert maj_at_k(answers_P_K, np.array(correct_P_K, dtype=bool)) == expected


@given(st.lists(st.sampled_from([1, 2, 3, None]), min_size=1, max_size=12), st.integers(1, 3))
def test_majority_is_the_submissions_vote(answers, gold):
    correct_P_K = np.array([[answer == gold for answer in answers]])
    assert maj_at_k([answers], correct_P_K) == float(majority_vote(answers).answer == gold)


@pytest.mark.parametrize(
    ("correct_P_K", "k", "expected"),
    [
        ([[1, 0, 0, 0]], 2, 0.5),  # 1 - C(3,2)/C(4,2) = 1 - 3/6
        ([[1, 1, 0, 0]], 2, 5 / 6),  # 1 - C(2,2)/C(4,2) = 1 - 1/6
        ([[1, 1, 1, 0]], 2, 1.0),  # any two hold a right one: C(1,2) = 0
        ([[0, 0, 0]], 3, 0.0),  # never
        ([[1, 0, 0, 0, 0], [0, 0, 0, 0, 0]], 3, 0.3),  # (1 - C(4,3)/C(5,3)) / 2 = (1 - 4/10) / 2
    ],
)
def test_pass_at_k_is_unbiased(correct_P_K, k, expected):
    assert pass_at_k(np.array(correct_P_K, dtype=bool), k) == pytest.approx(expected)


@pytest.mark.parametrize("k", [0, 3])
def test_pass_at_k_says_which_k_there_are(k):
    with pytest.raises(ConfigError, match=f"k in 1..2, the samples per problem, got k={k}"):
        pass_at_k(np.ones((3, 2), dtype=bool), k)


@given(MATRICES)
def test_pass_at_1_is_avg_at_k_and_pass_at_k_grows_to_any_correct(correct_P_K):
    k = correct_P_K.shape[1]
    values = [pass_at_k(correct_P_K, j) for j in range(1, k + 1)]
    assert values[0] == pytest.approx(avg_at_k(correct_P_K))
    assert values == pytest.approx(sorted(values))
    assert values[-1] == pytest.approx(correct_P_K.any(axis=1).mean())


def test_budget_cuts_what_needed_more():
    correct, tokens = at_budget(np.array([[True, True, False]]), np.array([[50, 51, 80]]), 50)
    assert correct.tolist() == [[True, False, False]]  # exactly the budget is still in time
    assert tokens.tolist() == [[50, 50, 50]]


@given(MATRICES, st.integers(0, 99), st.integers(1, 60), st.integers(0, 60))
def test_more_budget_never_hurts(correct_P_K, seed, budget_tokens, more_tokens):
    tokens_P_K = np.random.default_rng(seed).integers(1, 100, correct_P_K.shape)
    small = at_budget(correct_P_K, tokens_P_K, budget_tokens)
    large = at_budget(correct_P_K, tokens_P_K, budget_tokens + more_tokens)
    assert (small[0] <= large[0]).all()
    assert (small[1] <= large[1]).all()


def test_bootstrap_of_identical_values_is_zero():
    values_P = np.array([0.0, 0.5, 1.0])
    assert paired_bootstrap(values_P, values_P, num_resamples=100) == (0.0, 0.0, 0.0)


def test_bootstrap_of_a_constant_change_has_no_width():
    # problems differ much in difficulty, the change does not: pairing removes all spread
    before_P = np.array([0.0, 0.25, 0.5, 0.75])
    assert paired_bootstrap(before_P, before_P + 0.25, num_resamples=100) == (0.25, 0.25, 0.25)


def test_bootstrap_interval_agrees_with_the_normal_one_where_that_is_right():
    difference_P = np.random.default_rng(1).normal(0.1, 0.3, size=400)
    difference, low, high = paired_bootstrap(np.zeros(400), difference_P)
    half_width = 1.96 * difference_P.std(ddof=1) / math.sqrt(400)
    assert difference == pytest.approx(difference_P.mean())
    assert (low, high) == pytest.approx(
        (difference - half_width, difference + half_width), abs=0.1 * half_width
    )


def test_bootstrap_is_reproducible():
    before_P, after_P = np.array([0.0, 1.0, 0.5]), np.array([1.0, 0.5, 0.5])
    assert paired_bootstrap(before_P, after_P) == paired_bootstrap(before_P, after_P)


@settings(max_examples=50)
@given(
    hnp.arrays(float, st.integers(1, 8), elements=st.integers(0, 8).map(lambda c: c / 8)),
    st.integers(0, 99),
)
def test_bootstrap_interval_holds_the_difference(before_P, seed):
    after_P = np.random.default_rng(seed).permutation(before_P)
    difference, low, high = paired_bootstrap(before_P, after_P, num_resamples=100)
    assert low - 1e-9 <= difference <= high + 1e-9


def test_bootstrap_refuses_other_problems():
    with pytest.raises(DataError, match="same problems"):
        paired_bootstrap(np.zeros(3), np.zeros(4))
