import dataclasses
import random

import pytest

from fastmath_kit.budget.policy import ClipPolicy, Rule, RunState
from fastmath_kit.errors import ConfigError

POLICY = ClipPolicy(base_s=300, high_s=900, num_traces=8, stop_votes=4, max_tokens=32_768)


@pytest.mark.parametrize(
    ("elapsed_s", "num_done", "expected_s"),
    [
        (0, 0, 900),  # 17400 - 49 * 300 = 2700 to spare: the most
        (2_100, 0, 600),  # 15300 - 49 * 300 = 600
        (2_500, 0, 298),  # 14900 - 14700 = 200 to spare is less than the share, 14900 / 50
        (8_700, 0, 174),  # 8700 / 50: base for each is no longer there, an equal share is
        (16_800, 48, 300),  # 600 left for two problems
        (17_000, 49, 400),  # the last one may take all that is left
        (15_000, 49, 900),  # but no more than the most
        (17_400, 49, 0),
        (20_000, 10, 0),  # past the deadline: never negative
        (17_000, 50, 200),  # an extra problem leaves as much for one more
        (15_000, 57, 900),  # time is plentiful even for extra ones
    ],
)
def test_clip_policy_by_hand(elapsed_s, num_done, expected_s):
    state = RunState(elapsed_s=elapsed_s, deadline_s=17_400, num_done=num_done, num_problems=50)
    rule = POLICY(state)
    assert rule.timeout_s == pytest.approx(expected_s)
    assert (rule.num_traces, rule.stop_votes, rule.max_tokens) == (8, 4, 32_768)


@pytest.mark.parametrize("seed", range(20))
def test_a_run_never_passes_the_deadline(seed):
    """Whatever part of its time each problem takes, up to all of it, and with extra problems."""
    rng = random.Random(seed)
    deadline_s = rng.uniform(1_000, 30_000)
    policy = dataclasses.replace(POLICY, base_s=rng.uniform(10, 900))
    elapsed_s = rng.uniform(0, deadline_s / 2)
    shares = [1.0 if seed % 2 else rng.random() for _ in range(55)]
    for num_done, share in enumerate(shares):
        state = RunState(
            elapsed_s=elapsed_s, deadline_s=deadline_s, num_done=num_done, num_problems=50
        )
        timeout_s = policy(state).timeout_s
        assert 0 < timeout_s <= policy.high_s or elapsed_s >= deadline_s - 1e-6
        elapsed_s += share * timeout_s
        assert elapsed_s <= deadline_s + 1e-6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rule(num_traces=0, stop_votes=1, max_tokens=1, timeout_s=1), "num_traces"),
        (lambda: Rule(num_traces=1, stop_votes=1, max_tokens=1, timeout_s=-1), "timeout_s"),
        (lambda: Rule(num_traces=1, stop_votes=1, max_tokens=1, timeout_s=float("nan")), "timeout"),
        (lambda: RunState(elapsed_s=-1, deadline_s=9, num_done=0, num_problems=1), "elapsed_s=-1"),
        (lambda: RunState(elapsed_s=0, deadline_s=0, num_done=0, num_problems=1), "deadline_s"),
        (lambda: dataclasses.replace(POLICY, high_s=10), "Raise high_s or lower base_s"),
    ],
)
def test_impossible_values_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
