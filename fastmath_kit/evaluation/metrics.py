r"""How good a model is, in numbers with errors: avg@k, maj@k, pass@k, paired intervals.

Traces become arrays with named axes, `P` problems by `K` samples, and everything after that is
array in, number out:

    correct_P_K = correct_matrix(traces)
    avg_at_k(correct_P_K), standard_error(correct_P_K)  # 0.941, 0.009

All rates and errors are fractions in 0..1. Rows follow the problem ids in sorted order and columns
the sample index, so the order in which traces finished changes nothing.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from fastmath_kit.errors import ConfigError, DataError
from fastmath_kit.inference.voting import majority_vote
from fastmath_kit.problems.answers import Answer
from fastmath_kit.problems.records import Trace

_NUM_NAMED = 5  # ids an error message spells out


def traces_by_problem(traces: Iterable[Trace]) -> dict[str, list[Trace]]:
    """Returns the traces of each problem: ids sorted, samples in order, the same k for all.

    Raises:
        DataError: there are no traces, a sample is there twice, or a problem has another k.
    """
    groups: dict[str, list[Trace]] = {}
    for trace in sorted(traces, key=lambda trace: (trace.problem_id, trace.sample)):
        group = groups.setdefault(trace.problem_id, [])
        if group and group[-1].sample == trace.sample:
            raise DataError(
                f"problem {trace.problem_id!r}: sample {trace.sample} is there twice. "
                "Score the traces of one model and one run at a time."
            )
        group.append(trace)
    if not groups:
        raise DataError("there are no traces to score. Sample some with `fastmath evaluate`.")
    k_of = {problem_id: len(group) for problem_id, group in groups.items()}
    usual_k = max(k_of.values(), key=list(k_of.values()).count)
    for problem_id, k in k_of.items():
        if k != usual_k:
            raise DataError(
                f"problem {problem_id!r} has {k} traces, the others {usual_k}. "
                "Sample every problem equally often, or leave this one out."
            )
    return groups


def correct_matrix(traces: Iterable[Trace]) -> np.ndarray:
    """Returns which samples are right, bool `[P, K]`.

    Raises:
        DataError: a trace was not graded, because its problem has no gold answer; the message
            names the problems. `traces_by_problem` raises for the rest.
    """
    groups = traces_by_problem(traces)
    ungraded = [pid for pid, group in groups.items() if any(t.correct is None for t in group)]
    if ungraded:
        more = f" and {len(ungraded) - _NUM_NAMED} more" if len(ungraded) > _NUM_NAMED else ""
        raise DataError(
            f"{len(ungraded)} of {len(groups)} problems have traces without a verdict: "
            f"{', '.join(ungraded[:_NUM_NAMED])}{more}. Add their gold answers to the problem "
            "file's column `answer`, or leave these problems out."
        )
    return np.array([[trace.correct for trace in group] for group in groups.values()], dtype=bool)


def token_matrix(traces: Iterable[Trace]) -> np.ndarray:
    """Returns the completion tokens of each sample, int `[P, K]`."""
    groups = traces_by_problem(traces).values()
    return np.array([[trace.completion_tokens for trace in group] for group in groups], dtype=int)


def answer_matrix(traces: Iterable[Trace]) -> list[list[Answer | None]]:
    """Returns the answer of each sample, `[P][K]`; None where nothing was boxed."""
    return [[trace.answer for trace in group] for group in traces_by_problem(traces).values()]


def avg_at_k(correct_P_K: np.ndarray) -> float:
    """Returns the mean accuracy of one sample, estimated from k samples a problem.

    >>> avg_at_k(np.array([[True, False], [True, True]]))
    0.75
    """
    return float(correct_P_K.mean())


def standard_error(values_P_K: np.ndarray) -> float | None:
    """Returns the standard error of the mean of all values, clustered by problem.

    It is the standard deviation of the problem means (`ddof=1`) over `sqrt(P)`. The samples of one
    problem are alike, so treating all `P * K` as independent would promise too much. It includes
    what another draw of problems from the same source, and another draw of samples, would change.
    It does not include another training seed, another prompt, or wrong grading; and it is not the
    error of a difference between two models on the same problems: `paired_bootstrap` is.

    Returns:
        The error in the unit of the values, or None for fewer than two problems.

    >>> standard_error(np.array([[True, True], [False, False]]))  # means 1, 0
    0.5
    """
    means_P = np.asarray(values_P_K, dtype=float).mean(axis=1)
    if len(means_P) < 2:
        return None
    return float(means_P.std(ddof=1) / math.sqrt(len(means_P)))


def maj_at_k(answers_P_K: Sequence[Sequence[Answer | None]], correct_P_K: np.ndarray) -> float:
    """Returns the share of problems whose majority answer is right.

    The vote and its tie rule are the submission's own, `inference.voting.majority_vote`, over the
    samples in index order. A problem for which no sample boxed an answer counts as wrong.

    >>> maj_at_k([[7, 7, 3], [None, None, None]], np.array([[1, 1, 0], [0, 0, 0]], dtype=bool))
    0.5
    """
    num_right = 0
    for answers_K, correct_K in zip(answers_P_K, correct_P_K, strict=True):
        winner = majority_vote(answers_K).answer
        if winner is not None:
            num_right += bool(correct_K[list(answers_K).index(winner)])
    return num_right / len(correct_P_K)


def pass_at_k(correct_P_K: np.ndarray, k: int) -> float:
    """Returns the chance that at least one of k samples is right, unbiased, for k up to `K`.

    With c of the n samples of a problem right it is `1 - C(n-c, k) / C(n, k)`.

    Source: Chen et al. 2021, "Evaluating Large Language Models Trained on Code", equation 1.

    Raises:
        ConfigError: k is below 1 or above the samples there are.

    >>> pass_at_k(np.array([[True, False, False, False]]), k=2)  # 1 - C(3,2) / C(4,2)
    0.5
    """
    n = correct_P_K.shape[1]
    if not 1 <= k <= n:
        raise ConfigError(f"pass@k needs k in 1..{n}, the samples per problem, got k={k}.")
    num_correct_P = correct_P_K.sum(axis=1).tolist()
    return float(np.mean([1 - math.comb(n - c, k) / math.comb(n, k) for c in num_correct_P]))


def at_budget(
    correct_P_K: np.ndarray, tokens_P_K: np.ndarray, budget_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what the same samples give when each is cut at `budget_tokens`.

    A sample that needed more counts as wrong and as `budget_tokens` tokens: it would have been cut
    before its answer. One run at a large limit so answers for every smaller one.

    Returns:
        `correct_P_K` and `tokens_P_K` at the budget.

    >>> at_budget(np.array([[True, True]]), np.array([[30, 90]]), budget_tokens=60)
    (array([[ True, False]]), array([[30, 60]]))
    """
    return correct_P_K & (tokens_P_K <= budget_tokens), np.minimum(tokens_P_K, budget_tokens)


def paired_bootstrap(
    before_P: np.ndarray, after_P: np.ndarray, num_resamples: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Returns the mean of `after - before` and its 95 % interval, paired by problem.

    Problems are resampled with replacement and the interval is between the 2.5 and 97.5
    percentiles of the means. Pairing removes what makes problems differ in difficulty. Below about
    20 problems such an interval is somewhat too narrow.

    Args:
        before_P: One value a problem, such as the accuracy over its samples.
        after_P: The same for the same problems in the same order.
        num_resamples: Draws; the ends are good to about a fiftieth of the interval at 10,000.
        seed: Of the draws, so that a report can be reproduced.

    Returns:
        `(difference, low, high)`.

    Raises:
        DataError: the two are not over the same problems, or there are none.
    """
    before_P, after_P = np.asarray(before_P, dtype=float), np.asarray(after_P, dtype=float)
    if before_P.shape != after_P.shape or before_P.ndim != 1 or not len(before_P):
        raise DataError(
            "a paired comparison needs one value for each problem on both sides, got shapes "
            f"{before_P.shape} and {after_P.shape}. Evaluate both models on the same problems."
        )
    rng = np.random.default_rng(seed)
    difference_P = after_P - before_P
    num_problems = len(difference_P)
    means = [
        difference_P[rng.integers(num_problems, size=num_problems)].mean()
        for _ in range(num_resamples)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(difference_P.mean()), float(low), float(high)
