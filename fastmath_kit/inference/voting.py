"""Many answers become one: majority vote, plain or weighted, with a stated tie rule."""

import math
from collections.abc import Callable, Sequence

from fastmath_kit.problems.answers import Answer
from fastmath_kit.problems.records import Trace, Vote


def majority_vote(answers: Sequence[Answer | None], weights: Sequence[float] | None = None) -> Vote:
    """Returns the answer with most votes and all counts.

    Args:
        answers: One a trace, in the order the traces finished; None does not vote.
        weights: What each vote counts, at least 0; None counts one each.

    Returns:
        A tie goes to the answer that reached its count first; `Vote.counts` stands in that order.
        `Vote.answer` is None when nobody voted.

    >>> majority_vote([7, None, 12, 12, 7]).answer  # 12 reached two votes before 7 did
    12
    >>> majority_vote([7, 12, 12], weights=[0.9, 0.3, 0.4]).answer
    7
    """
    counts: dict[Answer, float] = {}
    reached: dict[Answer, int] = {}
    num_voters = 0
    for position, answer in enumerate(answers):
        if answer is not None:
            counts[answer] = counts.get(answer, 0) + (1 if weights is None else weights[position])
            reached[answer] = position
            num_voters += 1
    ranked = sorted(counts, key=lambda answer: (-counts[answer], reached[answer]))
    return Vote(
        answer=ranked[0] if ranked else None,
        counts=tuple((answer, counts[answer]) for answer in ranked),
        num_voters=num_voters,
    )


def probability_weight(trace: Trace) -> float:
    """Returns the geometric mean of a trace's token probabilities, 0 where they are unknown."""
    return 0.0 if trace.mean_logprob is None else math.exp(trace.mean_logprob)


def certainty_weight(trace: Trace) -> float:
    """Returns exp(-entropy) near a trace's end, 0 where it is unknown.

    Source: the tail confidence of DeepConf, arXiv 2508.15260, with the entropy of the likeliest
    tokens in place of their mean log-probability.
    """
    return 0.0 if trace.tail_entropy is None else math.exp(-trace.tail_entropy)


class Ballot:
    """The votes of one problem, in the order its traces finish."""

    def __init__(
        self,
        legal: Callable[[Answer | None], int | None] | None = None,
        weight: Callable[[Trace], float] | None = None,
    ) -> None:
        """Takes what makes an answer a candidate, and what its vote counts; see `solve`."""
        self._legal, self._weight = legal, weight
        self._weights: list[float] = []
        self.answers: list[Answer | None] = []

    @property
    def is_plain(self) -> bool:
        """Whether every vote counts the same."""
        return self._weight is None

    def add(self, trace: Trace) -> None:
        """Counts a finished trace."""
        self.answers.append(self._legal(trace.answer) if self._legal else trace.answer)
        self._weights.append(1 if self._weight is None else self._weight(trace))

    def top_votes(self) -> tuple[int, int]:
        """Returns how many traces agree on the most frequent answer and on the next one."""
        counts = [count for _, count in majority_vote(self.answers).counts]
        first, second = [*counts, 0, 0][:2]
        return int(first), int(second)

    def vote(self) -> Vote:
        """Returns the winner by weight, and all counts."""
        return majority_vote(self.answers, self._weights)
