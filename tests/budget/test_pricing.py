import numpy as np
import pytest

from fastmath_kit.budget.pricing import NUM_LEFT, least_shares

SURE = (np.full(5, 10.0), np.full(5, 0.5))
DEAR = (np.full(5, 30.0), np.full(5, 0.9))


def at(shares, num_left):
    return [row[NUM_LEFT.index(num_left)] for row in shares]


def test_the_last_problem_takes_what_fits():
    """30 s buy more than 10 s, if they are there; the grid of shares is 5 % wide."""
    first, second = at(least_shares([SURE, DEAR], overhead_s=0.0), 1)
    assert first == 0.0
    assert second == pytest.approx(30, rel=0.06)


def test_with_many_left_the_mean_time_decides():
    """A second buys .05 of a problem at first and then .02: no share below 10 s takes the dear
    rule, and from 30 s on every problem can have it."""
    _, second = at(least_shares([SURE, DEAR], overhead_s=0.0), 64)
    assert 10 < second <= 30


def test_a_risk_is_taken_with_many_left_and_not_with_few():
    """Ten seconds for half of a problem for sure, or 12 s on average that can be 60."""
    risky = (np.array([0.0] * 4 + [60.0]), np.full(5, 0.6))
    shares = least_shares([SURE, risky], overhead_s=0.0)
    assert at(shares, 2)[1] > at(shares, 64)[1]


def test_overheads_make_thrift_pointless():
    """Ten times the time is nothing beside what every problem costs anyway."""
    quick = (np.full(5, 0.1), np.full(5, 0.5))
    slow = (np.full(5, 1.0), np.full(5, 0.9))
    dear_overhead = at(least_shares([quick, slow], overhead_s=50.0), 32)
    assert dear_overhead[1] < at(least_shares([quick, slow], overhead_s=0.0), 32)[1]


def test_a_rule_that_is_never_best_is_skipped():
    worse = (np.full(5, 20.0), np.full(5, 0.4))
    _, second, third = least_shares([SURE, worse, DEAR], overhead_s=0.0)
    assert second == third
