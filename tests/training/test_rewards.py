import itertools
import json
import pickle
import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmath_kit.errors import DataError
from fastmath_kit.problems.prompts import STOP, prompt_messages
from fastmath_kit.training.rewards import (
    ShortCorrectReward,
    accuracy_reward,
    boxed_in_think_reward,
    group_length_reward,
    short_correct_reward,
)

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


def messages(*completions):
    return [[{"role": "assistant", "content": text}] for text in completions]


@pytest.mark.parametrize(
    ("gold", "completion", "expected"),
    [
        ("7", RIGHT, 1.0),
        ("7", WRONG, 0.0),
        (r"\frac{1}{2}", rf"\boxed{{0.5}}{STOP}", 1.0),  # through math-verify
        ("7", r"\boxed{7}", 0.0),  # truncated
        (r"\frac{1}{", RIGHT, None),  # a gold that cannot be graded skips the row,
        (r"\frac{1}{", "no box", None),  # whatever the completion
    ],
)
def test_accuracy(gold, completion, expected):
    assert accuracy_reward(messages(completion), solution=[gold]) == [expected]
    short = rewards([completion], [10], solution=gold)[0]
    assert short == (1.5 if expected else expected)


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (RIGHT, 1.0),
        (WRONG, 1.0),  # the format is all it looks at
        (rf"\boxed{{\frac{{1}}{{2}}}}{STOP}", 1.0),  # nested braces
        (rf"\boxed{{}}{STOP}", 0.0),  # empty
        (rf"\boxed{{answer}}{STOP}", 0.0),  # an echo of the instruction
        (rf"{STOP}\boxed{{7}}", 0.0),  # after the reasoning
        (r"\boxed{7}", 0.0),  # truncated
    ],
)
def test_boxed_in_think(completion, expected):
    assert boxed_in_think_reward(messages(completion)) == [expected]


@pytest.mark.parametrize(
    ("completions", "lengths_tokens", "expected"),
    [
        ([RIGHT, RIGHT, RIGHT], [10, 20, 30], [0.5, 0.0, -0.5]),
        ([RIGHT, WRONG, WRONG], [20, 10, 30], [0.0, 0.0, -0.5]),  # wrong gains nothing by shortness
        ([RIGHT, WRONG], [10, 10], [0.0, 0.0]),  # equally long
        ([RIGHT], [10], [0.0]),  # alone
    ],
)
def test_group_length_is_that_of_kimi(completions, lengths_tokens, expected):
    assert rewards(completions, lengths_tokens, reward=group_length_reward) == expected


@pytest.mark.parametrize("reward", [accuracy_reward, boxed_in_think_reward, group_length_reward])
def test_every_reward_pickles(reward):
    assert pickle.loads(pickle.dumps(reward)) is reward


@pytest.mark.parametrize(
    ("completions", "solution", "message"),
    [
        ([None], ["7"], "row 0: a completion"),
        ([[{"role": "assistant", "content": b"7"}]], ["7"], "row 0: a completion"),
        ([*messages(RIGHT), "text"], ["7", "7"], "row 1: a completion"),
        (messages(RIGHT, RIGHT), ["7", ["7"]], "row 1"),  # a list where text is expected
    ],
)
def test_wrong_types_name_the_row(completions, solution, message):
    with pytest.raises(DataError, match=message):
        accuracy_reward(completions, solution=solution)


rollouts = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([RIGHT, WRONG, "cut"]), st.integers(1, 99)),
    min_size=1,
    max_size=24,
)


@pytest.mark.parametrize("reward", [short_correct_reward, group_length_reward])
@given(rows=rollouts, seed=st.integers(0, 9))
def test_groups_batched_apart_together_or_shuffled_get_the_same(reward, rows, seed):
    def score(rows):
        statements, completions, lengths = zip(*rows, strict=True)
        return dict(
            zip(rows, rewards(completions, lengths, statements, reward=reward), strict=True)
        )

    together = score(rows)
    assert score(random.Random(seed).sample(rows, len(rows))) == together
    for statement in {row[0] for row in rows}:
        alone = score([row for row in rows if row[0] == statement])
        assert alone == {row: together[row] for row in alone}


RANK = """
import json, sys
import torch.distributed as distributed
sys.path.insert(0, sys.argv[4])
rank, port = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group(
    "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
)
from fastmath_kit.training import rewards
rows = json.loads(sys.argv[3])[rank::2]
got = getattr(rewards, sys.argv[5])(
    prompts=[[{"role": "user", "content": row[0]}] for row in rows],
    completions=[[{"role": "assistant", "content": row[1]}] for row in rows],
    completion_ids=[[0] * row[2] for row in rows],
    solution=["7"] * len(rows),
)
print(json.dumps(got))
distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["short_correct_reward", "group_length_reward"])
def test_a_group_split_over_ranks_gets_the_same(name, free_port):
    rows = [("x", RIGHT, 10), ("x", RIGHT, 40), ("y", RIGHT, 30), ("x", WRONG, 5)]
    rows += [("y", RIGHT, 90), ("x", RIGHT, 20), ("y", "cut", 99), ("y", RIGHT, 60)]
    statements, completions, lengths = zip(*rows, strict=True)
    reward = {"short_correct_reward": short_correct_reward}.get(name, group_length_reward)
    expected = rewards(completions, lengths, statements, reward=reward)
    arguments = [str(free_port), json.dumps(rows), ".", name]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), *arguments], stdout=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    got = [json.loads(rank.communicate(timeout=120)[0].splitlines()[-1]) for rank in ranks]
    assert got == [expected[0::2], expected[1::2]]
