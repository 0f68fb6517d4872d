"""Many answers become one: majority vote with a stated tie rule."""

from collections.abc import Sequence

from fastmath_kit.problems.answers import Answer
from fastmath_kit.problems.records import Vote


def majority_vote(answers: Sequence[Answer | None]) -> Vote:
    """Returns the most frequent answer and all counts.

    Args:
        answers: One a trace, in the order the traces finished; None does not vote.

    Returns:
        A tie goes to the answer that reached its count first; `Vote.counts` stands in that order.
        `Vote.answer` is None when nobody voted.

    >>> majority_vote([7, None, 12, 12, 7]).answer  # 12 reached two votes before 7 did
    12
    """
    counts: dict[Answer, int] = {}
    reached: dict[Answer, int] = {}
    for position, answer in enumerate(answers):
        if answer is not None:
            counts[answer] = counts.get(answer, 0) + 1
            reached[answer] = position
    ranked = sorted(counts, key=lambda answer: (-counts[answer], reached[answer]))
    return Vote(
        answer=ranked[0] if ranked else None,
        counts=tuple((answer, counts[answer]) for answer in ranked),
        num_voters=sum(counts.values()),
    )
