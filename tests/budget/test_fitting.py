import random

import pytest

from fastmath_kit.budget.fitting import fit_policy
from fastmath_kit.budget.replay import Recorded, draw_run, play_run
from fastmath_kit.budget.scoring import (
    compare,
    comparison_table,
    is_late,
    oracle_solved,
    write_comparison,
)
from fastmath_kit.budget.throughput import HARDWARE, StepTime
from fastmath_kit.budget.weather import Weather
from fastmath_kit.errors import DataError

MODEL = HARDWARE["h100"]


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
    for rule in policy.menu:
        slopes.append((rule.solved - last[1]) / (rule.seconds - last[0]))
        last = rule.seconds, rule.solved
        assert list(rule.patience_s) == sorted(rule.patience_s, reverse=True)
    assert slopes == sorted(slopes, reverse=True)
    assert slopes[-1] > 0


def test_the_fit_is_repeatable(policy):
    assert fit_policy(problems(), MODEL, num_draws=4) == policy


def test_where_time_is_short_the_hard_half_is_given_up(policy):
    """60 s would do for the easy ones; the public rules spend it on both alike."""
    (row,) = compare(
        problems(), {"fitted": policy}, model=MODEL, seconds_per_problem=[60.0], num_runs=6
    )
    by_name = {result["name"]: result for result in row["policies"]}
    assert by_name["fitted"]["difference"] >= -1
    assert by_name["oracle"]["mean_solved"] >= by_name["fitted"]["mean_solved"] >= 24
    assert all(result["violations"] == 0 for result in row["policies"])


def test_too_few_traces_are_refused():
    with pytest.raises(DataError, match="at least two problems"):
        fit_policy(problems(num=1), MODEL)


def test_the_oracle_by_hand():
    model = StepTime(
        base_s=1.0, per_sequence_s=0.0, prompt_tokens=0, prefill_tokens_per_s=1e12, overhead_s=0.0
    )
    easy = Recorded(problem_id="a", tokens=(50, 10), answers=(1, 1), right=frozenset({1}))
    hard = Recorded(problem_id="b", tokens=(30, 9), answers=(1, 1), right=frozenset())
    assert oracle_solved([easy, hard, easy], model, deadline_s=20) == 2  # two traces, 10 s each
    assert oracle_solved([easy, hard, easy], model, deadline_s=19) == 1


def test_a_comparison_is_written(policy, tmp_path):
    rows = compare(
        problems(), {"fitted": policy}, model=MODEL, seconds_per_problem=[80.0, 90.0], num_runs=2
    )
    report = write_comparison(rows, tmp_path)
    assert (tmp_path / "table.md").read_text() == comparison_table(rows)
    assert (tmp_path / "report.json").is_file()
    assert "| fitted |" in comparison_table(rows)
    for row in report["settings"]:
        best = next(p for p in row["policies"] if p["name"] == row["best_public"])
        assert best["difference"] == 0
        assert best["mean_solved"] == max(
            p["mean_solved"] for p in row["policies"] if p["is_public"]
        )


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
        deadline_s=deadline_s,
        num_problems=num_announced,
        reserve_s=60.0,
        weather=weather,
    )
    assert len(outcomes) == 51
    assert not is_late(outcomes, deadline_s)
