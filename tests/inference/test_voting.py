import pytest

from fastmath_kit.inference.voting import majority_vote


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
