import random
from dataclasses import replace

import pytest

from fastmath_kit.budget.fitting import fit_policy
from fastmath_kit.budget.recorded import Recorded, draw_run
from fastmath_kit.budget.replay import play_run
from fastmath_kit.budget.scoring import compare, is_late
from fastmath_kit.budget.throughput import HARDWARE
from fastmath_kit.budget.weather import Weather
from fastmath_kit.errors import DataError

MODEL = HARDWARE["h100"]
PATIENT_S = (1e6,) * 4 + (0.0,) * 3  # four votes, without a limit
SIX_RUNS = {"model": MODEL, "num_runs": 6, "max_tokens": 131_072}


def problems(num=8, num_samples=16):
    """Half are short and always right, half long and right in every other trace."""
    rng, rows = random.Random(0), []
    for place in range(num):
        hard = place % 2
        tokens = tuple(
            rng.uniform(0.7, 1.4) * (40_000 if hard else 3_000) for _ in range(num_samples)
        )
        answers = tuple(
            1 if not hard or sample % 2 else 2 + sample for sample in range(num_samples)
        )
        rows.append(
            Recorded(problem_id=str(place), tokens=tokens, answers=answers, right=frozenset({1}))
        )
    return rows


@pytest.fixture(scope="module")
def policy():
    return fit_policy(problems(), MODEL, num_draws=4)


def test_a_menu_buys_less_and_less_for_more_time(policy):
    slopes, last = [], (0.0, 0.0)
    for rule in policy.menu[:-1]:  # the last is for spare time
        slopes.append((rule.solved - last[1]) / (rule.seconds - last[0]))
        last = rule.seconds, rule.solved
        assert list(rule.patience_s) == sorted(rule.patience_s, reverse=True)
    assert slopes == sorted(slopes, reverse=True)
    assert slopes[-1] > 0
    assert policy.menu[-1].solved > last[1]


def test_the_fit_is_repeatable(policy):
    assert fit_policy(problems(), MODEL, num_draws=4) == policy


def test_where_time_is_short_the_hard_half_is_given_up(policy):
    """60 s would do for the easy ones; the public rules spend it on both alike."""
    (row,) = compare(problems(), {"fitted": policy}, seconds_per_problem=[60.0], **SIX_RUNS)
    by_name = {result["name"]: result for result in row["policies"]}
    assert by_name["fitted"]["difference"] >= 2
    assert by_name["fitted"]["mean_solved"] >= 24
    assert all(result["violations"] == 0 for result in row["policies"])


@pytest.mark.parametrize("num_tokens", [100, 400])
def test_where_overheads_alone_take_the_clock_some_are_solved(num_tokens):
    """A second a problem, of which answering takes one: later problems are not waited for."""
    quick = [
        replace(problem, tokens=tuple(num_tokens * t / 3_000 for t in problem.tokens))
        for problem in problems()[::2]
    ]
    policy = fit_policy(quick, MODEL, num_draws=4)
    (row,) = compare(quick, {"fitted": policy}, seconds_per_problem=[1.0], **SIX_RUNS)
    by_name = {result["name"]: result for result in row["policies"]}
    assert by_name["fitted"]["difference"] >= -1
    assert by_name["oracle"]["mean_solved"] >= by_name["fitted"]["mean_solved"] > 5


def test_spare_time_buys_more_votes_even_where_none_of_them_helped(policy):
    """Every answer right: four of eight solve them all, and yet spare time is not left unused."""
    easy = fit_policy(problems()[::2], MODEL, num_draws=4)
    for menu in (policy.menu, easy.menu):
        patient, spare = menu[-2:]
        assert (patient.num_traces, patient.patience_s) == (8, PATIENT_S)
        assert (spare.num_traces, spare.patience_s) == (16, (1e6,) * 6 + (0.0,))
        assert min(spare.from_s) > spare.seconds > patient.seconds


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_samples", [8, 16])
@pytest.mark.parametrize("right", [frozenset(), frozenset({1})])
def test_the_patient_rule_is_always_on_the_menu(seed, num_samples, right):
    """Quicker rules that solve as much to within a rounding do not push it out; more votes of the
    same traces are no rule of their own."""
    pool = [replace(problem, right=right) for problem in problems(num_samples=num_samples)]
    menu = fit_policy(pool, MODEL, num_draws=4, seed=seed).menu
    assert [rule.num_traces for rule in menu if rule.patience_s == PATIENT_S] == [8]
    assert len(menu) <= 12 + (num_samples == 16)
    assert (menu[-1].num_traces, menu[-1].patience_s[0]) == (num_samples, 1e6)


@pytest.mark.parametrize(("num_samples", "most"), [(2, 2), (7, 7), (8, 8), (20, 16)])
def test_no_more_traces_than_were_recorded(num_samples, most):
    policy = fit_policy(problems(num=4, num_samples=num_samples), MODEL, num_draws=2)
    assert max(rule.num_traces for rule in policy.menu) <= most


def test_too_few_traces_are_refused():
    with pytest.raises(DataError, match="at least two problems"):
        fit_policy(problems(num=1), MODEL)


@pytest.mark.parametrize(
    "weather",
    [
        Weather(slowdown=3.0, late_s=5.0),
        Weather(slowdown=1 / 3),
        Weather(stalls=((100.0, 900.0), (2_000.0, 2_000.0))),
        Weather(hangs_at_s=500.0, late_s=5.0),  # nothing is ever written again
    ],
)
@pytest.mark.parametrize("num_announced", [40, 50, 65])
@pytest.mark.parametrize("seconds_per_problem", [60, 350])
def test_never_late(policy, weather, num_announced, seconds_per_problem):
    """Fifty problems and an extra one, whatever was announced; the reserve is a minute."""
    deadline_s = 50.0 * seconds_per_problem + 60.0
    outcomes = play_run(
        draw_run(problems(), 51, random.Random(1)),
        policy,
        model=MODEL,
        deadline_s=deadline_s - 60.0,
        num_problems=num_announced,
        weather=weather,
    )
    assert len(outcomes) == 51
    assert not is_late(outcomes, deadline_s)
