import pytest

from fastmath_kit.budget.baselines import (
    AdaptivePolicy,
    BankPolicy,
    BetaStop,
    CutOffPolicy,
    FirstStop,
    UnanimousStop,
    WindowStop,
    public_policies,
)
from fastmath_kit.budget.policy import ProblemState, RunState

IMAGINATION = WindowStop(pairs=((4, 4), (4, 5), (5, 7), (6, 9)))
NEMO = BankPolicy(base_s=350, bank_s=210, max_tokens=9)(
    RunState(elapsed_s=0, deadline_s=17_500, num_done=0, num_problems=50)
).stop


def state(text):
    """The answers in finishing order, a letter each; a dot did not vote."""
    answers = tuple(None if letter == "." else letter for letter in text)
    counts = [*sorted((text.count(x) for x in set(text) - {"."}), reverse=True), 0, 0]
    return ProblemState(
        elapsed_s=1.0, answers=answers, leader_votes=counts[0], second_votes=counts[1]
    )


@pytest.mark.parametrize(
    ("stop", "answers", "stops"),
    [
        (IMAGINATION, "aaa", False),
        (IMAGINATION, "aaaa", True),  # 4 of 4
        (IMAGINATION, "baaaa", True),
        (IMAGINATION, "aabaa", True),  # 4 of the last 5
        (IMAGINATION, "aabbaa", False),
        (IMAGINATION, "aabbaaa", True),  # 5 of 7
        (IMAGINATION, "....", False),  # nobody voted
        (NEMO, "aabaa", True),
        (NEMO, "abcaaa", False),  # 4 of 6
        (NEMO, "abcdefghi", False),
        (NEMO, "abcdefghij", True),  # 10 have ended
        (BetaStop(), "aaa", False),  # 1 - 1/16 = 0.9375
        (BetaStop(), "aaaa", True),  # 1 - 1/32 = 0.969
        (BetaStop(), "aaaab", False),
        (UnanimousStop(), "baaaa", False),  # windows do not slide
        (UnanimousStop(), "abcdaaaa", True),
        (UnanimousStop(), "....", False),
        (FirstStop(), "ab", False),
        (FirstStop(), "a.bc", True),
    ],
)
def test_stops_by_hand(stop, answers, stops):
    assert (stop(state(answers)).stop is not None) == stops


def run_state(elapsed_s, num_done):
    return RunState(elapsed_s=elapsed_s, deadline_s=17_500, num_done=num_done, num_problems=50)


def test_policies_by_hand():
    bank = BankPolicy(base_s=350, bank_s=210, max_tokens=9)
    assert bank(run_state(0, 0)).timeout_s == 350
    assert bank(run_state(250, 1)).timeout_s == 450  # 100 s were saved
    assert bank(run_state(100, 9)).timeout_s == 560
    adaptive = AdaptivePolicy(seconds_per_problem=350, max_tokens=9)
    assert adaptive(run_state(0, 0)).num_traces == 15
    assert adaptive(run_state(13_500, 40)).num_traces == 16  # 400 s left a problem
    assert adaptive(run_state(14_600, 40)).num_traces == 10
    line = CutOffPolicy(num_traces=9, max_tokens=900, stop_votes=4)
    assert line(run_state(350, 1)).timeout_s == 350
    on_time = line(run_state(352, 1))  # the gateway took 2 s
    assert (on_time.timeout_s, on_time.num_traces, on_time.max_tokens) == (348, 9, 900)
    assert line(run_state(1, 0)).num_traces == 9
    late = line(run_state(600, 1))
    assert (late.timeout_s, late.num_traces, late.max_tokens) == (100, 6, 600)


def test_every_public_rule_serves_late_and_extra_problems():
    for policy in public_policies(seconds_per_problem=350, max_tokens=1_000).values():
        for elapsed_s, num_done in [(0, 0), (17_400, 49), (17_499, 50), (99_999, 60)]:
            rule = policy(run_state(elapsed_s, num_done))
            assert rule.num_traces >= 1 and rule.timeout_s >= 0
