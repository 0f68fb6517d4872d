import time

import pytest

from fastmath_kit.errors import ConfigError
from fastmath_kit.kaggle.clock import Clock


def clock(elapsed_s, **fields):
    defaults = {"deadline_s": 1_060.0, "num_problems": 10, "reserve_s": 60.0}
    return Clock(start_s=time.monotonic() - elapsed_s, **{**defaults, **fields})


@pytest.mark.parametrize(
    ("elapsed_s", "num_done", "call_limit_s", "expected_s"),
    [
        (0, 0, None, 820),  # 1,000 s; the nine others keep a fifth of their 100 s each
        (500, 0, None, 320),
        (900, 0, None, 10),  # less than their floor is left: an equal share
        (0, 9, None, 980),  # the last one: one more may still come
        (0, 12, None, 980),  # more came than announced
        (1_000, 5, None, 0),  # into the reserve
        (1_160, 5, None, -32),  # too late
        (0, 0, 110, 820),  # the first call has no limit
        (0, 1, 110, 100),
    ],
)
def test_the_guard_keeps_a_floor_for_every_problem_to_come(
    elapsed_s, num_done, call_limit_s, expected_s
):
    left_s = clock(elapsed_s, call_limit_s=call_limit_s).left_s(num_done)
    assert left_s == pytest.approx(expected_s, abs=0.5)


def test_a_greedy_policy_never_starves_the_last_problem():
    """Every problem takes all the guard allows, and two more come than were announced."""
    taken_s = []
    for num_done in range(52):
        left_s = clock(sum(taken_s), deadline_s=17_460, num_problems=50).left_s(num_done)
        taken_s.append(left_s)
    assert min(taken_s[:49]) == pytest.approx(69.6, abs=0.1)  # a fifth of 348 s
    assert min(taken_s) > 5
    assert sum(taken_s) <= 17_400


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start_s": 1e12}, "still to come"),
        ({"reserve_s": 1_060.0}, "reserve_s < deadline_s"),
        ({"reserve_s": 0.0}, "0 < reserve_s"),
        ({"num_problems": 0}, "num_problems must be at least 1"),
    ],
)
def test_an_impossible_clock_is_refused(fields, message):
    defaults = {"start_s": 0.0, "deadline_s": 1_060.0, "num_problems": 10, "reserve_s": 60.0}
    with pytest.raises(ConfigError, match=message):
        Clock(**{**defaults, **fields})
