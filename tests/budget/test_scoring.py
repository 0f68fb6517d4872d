import random
from dataclasses import replace

import pytest

from fastmath_kit.budget.baselines import public_policies
from fastmath_kit.budget.recorded import Recorded, draw_run
from fastmath_kit.budget.replay import play_run
from fastmath_kit.budget.scoring import (
    Tally,
    compare,
    comparison_table,
    no_clock_solved,
    oracle_solved,
    setting_row,
    write_comparison,
)
from fastmath_kit.budget.throughput import StepTime

# A step takes 1 s however much runs; prompts and problems cost nothing.
UNIT = StepTime(
    base_s=1.0, per_sequence_s=0.0, prompt_tokens=0, prefill_tokens_per_s=1e12, overhead_s=0.0
)
EASY = Recorded(problem_id="a", tokens=(50, 10), answers=(1, 1), right=frozenset({1}))
HARD = Recorded(problem_id="b", tokens=(30, 9), answers=(1, 1), right=frozenset())
LONG = Recorded(problem_id="c", tokens=(20, 90), answers=(1, 1), right=frozenset({1}))


@pytest.mark.parametrize(
    ("draws", "overhead_s", "deadline_s", "solved"),
    [
        ([EASY, HARD, EASY], 0, 20, 2),  # 10 s each
        ([EASY, HARD, EASY], 0, 19, 1),
        ([EASY, HARD, EASY], 5, 34, 1),
        ([EASY, HARD, EASY], 5, 35, 2),  # the hard one costs its overhead
        ([EASY, HARD, HARD], 5, 15, 1),  # those after the last solved cost nothing
        ([HARD, HARD, EASY], 5, 24, 0),
        ([LONG, EASY, EASY], 0, 20, 2),  # the long one is skipped
        ([EASY], 0, 9, 0),
    ],
)
def test_the_oracle_by_hand(draws, overhead_s, deadline_s, solved):
    model = replace(UNIT, overhead_s=float(overhead_s))
    assert oracle_solved(draws, model, deadline_s=deadline_s) == solved


@pytest.mark.parametrize("seconds", [1.0, 2.0, 10.0])
def test_no_public_rule_beats_the_oracle_even_on_the_shortest_clocks(seconds):
    rng = random.Random(0)
    pool = [
        Recorded(
            problem_id=str(place),
            tokens=tuple(rng.uniform(5, 500 * (1 + place)) for _ in range(20)),
            answers=tuple(rng.choice((1, 1, 2, None)) for _ in range(20)),
            right=frozenset({1}),
        )
        for place in range(6)
    ]
    model = StepTime(base_s=0.002, per_sequence_s=0.0005, kv_capacity_tokens=4_000)
    for run in range(3):
        draws = draw_run(pool, 30, random.Random(run))
        bound = oracle_solved(draws, model, 30 * seconds)
        for policy in public_policies(seconds_per_problem=seconds, max_tokens=2_000).values():
            outcomes = play_run(
                draws, policy, model=model, deadline_s=30 * seconds, num_problems=30
            )
            assert sum(outcome.right for outcome in outcomes) <= bound


@pytest.mark.parametrize(
    ("answers", "solved"), [((1,), 1), ((2, 1, 1), 1), ((1, 2, 2), 0), ((1,) * 8 + (2,) * 20, 1)]
)
def test_without_a_clock_the_vote_of_at_most_sixteen_decides(answers, solved):
    """The first to finish win a tie, as everywhere."""
    tokens = tuple(float(10 + place) for place in range(len(answers)))
    draw = Recorded(problem_id="p", tokens=tokens, answers=answers, right=frozenset({1}))
    assert no_clock_solved([draw, HARD], UNIT) == solved


def tally(*solved):
    result = Tally()
    result.solved = list(solved)
    return result


def test_errors_by_run_and_by_split():
    results = {
        "ours": tally(5, 7, 3, 5),
        "best": tally(4, 6, 4, 6),
        "worst": tally(0, 0, 0, 0),
        "oracle": tally(9, 9, 9, 9),
    }
    row = setting_row(60.0, results, ["best", "worst"], runs_per_split=2)
    ours = row["policies"][0]
    assert row["best_public"] == "best"
    assert (ours["difference"], ours["split_differences"]) == (0.0, [1.0, -1.0])
    assert ours["standard_error"] == pytest.approx((4 / 3) ** 0.5 / 2)  # four runs
    assert ours["split_error"] == pytest.approx(1.0)  # of two splits, 1 and -1
    assert ours["gap_closed"] == 0.0
    plain = setting_row(60.0, results, ["best", "worst"])["policies"][0]
    assert (plain["split_differences"], plain["split_error"]) == (None, None)
    assert "± 1.00" in comparison_table([row])


def test_a_comparison_is_written(tmp_path):
    settings = {"seconds_per_problem": [20.0, 30.0], "num_runs": 2, "max_tokens": 1_000}
    rows = compare([EASY, HARD, LONG], {}, model=UNIT, **settings)
    report = write_comparison(rows, tmp_path, policy="p.json")
    assert (tmp_path / "table.md").read_text() == comparison_table(rows)
    assert (tmp_path / "report.json").is_file()
    assert "| no clock |" in comparison_table(rows)
    assert "| oracle |" in comparison_table(rows)
    for row in report["settings"]:
        best = next(p for p in row["policies"] if p["name"] == row["best_public"])
        assert best["difference"] == 0
        assert best["mean_solved"] == max(
            p["mean_solved"] for p in row["policies"] if p["is_public"]
        )
