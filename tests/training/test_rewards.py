import itertools
import pickle
import random

import pytest

from fastmath_kit.problems.prompts import STOP, prompt_messages
from fastmath_kit.training.rewards import ShortCorrectReward

REWARD = ShortCorrectReward(weight=0.5)
RIGHT, WRONG = rf"so \boxed{{7}}{STOP}", rf"so \boxed{{8}}{STOP}"


def rewards(completions, lengths_tokens, statements=None, solution="7", reward=REWARD):
    statements = statements or ["x"] * len(completions)
    return reward(
        prompts=[prompt_messages(statement) for statement in statements],
        completions=[[{"role": "assistant", "content": text}] for text in completions],
        completion_ids=[[0] * length for length in lengths_tokens],
        solution=[solution] * len(completions),
        trainer_state=None,  # TRL passes more than is read
    )


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (RIGHT, 1.5),  # alone in its group it is the shortest
        (WRONG, 0.0),
        (rf"\boxed{{007}}{STOP}", 1.5),  # the same number
        (r"\boxed{7}", 0.0),  # truncated: the reasoning never closed
        (rf"no box {STOP} \boxed{{7}}", 0.0),  # the submission stops decoding before this box
        (rf"\boxed{{}}{STOP}", 0.0),  # an echo
        (STOP, 0.0),
        ("", 0.0),
        (rf"\boxed{{8}}, no: \boxed{{7}}{STOP}", 1.5),  # the last box counts
    ],
)
def test_right_is_rewarded_where_the_submission_would_read_it(completion, expected):
    assert rewards([completion], [10]) == [expected]


def test_shorter_is_better_within_the_group():
    assert rewards([RIGHT] * 3, [10, 20, 30]) == [1.5, 1.25, 1.0]
    assert rewards([RIGHT, WRONG, RIGHT], [30, 1, 40]) == [1.5, 0.0, 1.0]  # wrong sets no scale
    assert rewards([RIGHT] * 2, [10, 10]) == [1.5, 1.5]  # nothing to prefer


def test_groups_do_not_see_each_other_in_any_order():
    completions, lengths = [RIGHT] * 4, [10, 20, 100, 200]
    statements = ["x", "x", "y", "y"]
    expected = dict(zip(lengths, [1.5, 1.0, 1.5, 1.0], strict=True))
    for order in itertools.permutations(range(4)):
        got = rewards(completions, [lengths[i] for i in order], [statements[i] for i in order])
        assert got == [expected[lengths[i]] for i in order]


def test_wrong_never_beats_right_whatever_the_lengths():
    rng = random.Random(0)
    for _ in range(300):
        size, weight = rng.randint(2, 16), rng.choice([0.0, 0.5, 1.0, 5.0])
        right = [rng.random() < 0.5 for _ in range(size)]
        completions = [RIGHT if is_right else rng.choice([WRONG, "", "cut"]) for is_right in right]
        lengths = [rng.choice([1, 100, 16_384]) for _ in range(size)]
        got = rewards(completions, lengths, reward=ShortCorrectReward(weight=weight))
        assert all(reward >= 1.0 for reward, is_right in zip(got, right, strict=True) if is_right)
        assert all(reward == 0 for reward, is_right in zip(got, right, strict=True) if not is_right)


def test_a_group_without_a_right_answer_gives_no_gradient():
    assert len(set(rewards([WRONG, "cut", "", WRONG], [1, 5, 10, 128]))) == 1


def test_it_travels_to_other_processes_under_a_readable_name():
    reward = pickle.loads(pickle.dumps(ShortCorrectReward(weight=0.25)))
    assert reward.__name__ == "short_correct_reward"
    assert rewards([RIGHT, RIGHT], [1, 2], reward=reward) == [1.25, 1.0]
