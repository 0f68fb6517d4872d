import math

import pytest

from fastmath_kit.inference.voting import (
    Ballot,
    certainty_weight,
    majority_vote,
    probability_weight,
)
from fastmath_kit.problems.records import Trace


@pytest.mark.parametrize(
    ("answers", "winner", "counts"),
    [
        ([], None, ()),  # nobody voted
        ([None, None], None, ()),  # unknown is not a candidate
        ([3], 3, ((3, 1),)),
        ([0, 0, 5], 0, ((0, 2), (5, 1))),  # 0 is an answer, not a missing one
        ([1, 2, 2, 1], 2, ((2, 2), (1, 2))),  # tie: 2 reached two votes first
        ([1, 2], 1, ((1, 1), (2, 1))),  # tie at one vote: the first to finish
        ([r"\frac12", 7, r"\frac12"], r"\frac12", ((r"\frac12", 2), (7, 1))),  # text votes too
    ],
)
def test_majority_and_ties(answers, winner, counts):
    vote = majority_vote(answers)
    assert (vote.answer, vote.counts) == (winner, counts)
    assert vote.num_voters == sum(count for _, count in counts)


def make_trace(answer, **weights):
    return Trace(problem_id="p", sample=0, completion_tokens=1, answer=answer, **weights)


@pytest.mark.parametrize(
    ("answers", "weights", "winner", "counts"),
    [
        ([1, 2, 2], [0.9, 0.3, 0.4], 1, ((1, 0.9), (2, 0.7))),  # one sure vote over two unsure
        ([1, 2], [0.5, 0.5], 1, ((1, 0.5), (2, 0.5))),  # tie: the first to finish
        ([None, 2], [1.0, 0.0], 2, ((2, 0.0),)),  # a vote of no weight is better than none
    ],
)
def test_weighted_votes(answers, weights, winner, counts):
    vote = majority_vote(answers, weights)
    assert vote.answer == winner
    assert [answer for answer, _ in vote.counts] == [answer for answer, _ in counts]
    assert [c for _, c in vote.counts] == pytest.approx([c for _, c in counts])
    assert vote.num_voters == sum(answer is not None for answer in answers)


def test_weights_come_from_token_probabilities():
    sure, unsure = make_trace(1, mean_logprob=-0.1), make_trace(2, mean_logprob=-1.0)
    assert probability_weight(sure) == pytest.approx(math.exp(-0.1))
    assert certainty_weight(make_trace(1, tail_entropy=0.5)) == pytest.approx(math.exp(-0.5))
    assert probability_weight(make_trace(1)) == certainty_weight(make_trace(1)) == 0.0
    ballot = Ballot(legal=lambda answer: None if answer == 9 else answer, weight=probability_weight)
    for trace in (unsure, unsure, sure, make_trace(9, mean_logprob=0.0)):
        ballot.add(trace)
    assert ballot.answers == [2, 2, 1, None]  # out of range does not vote
    assert ballot.vote().answer == 1 and ballot.top_votes() == (2, 1)
