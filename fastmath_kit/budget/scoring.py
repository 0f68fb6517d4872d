"""Many replayed runs of many policies: how many problems each solves, and is it ever late.

    rows = compare(pool, {"fitted": policy}, model=model, seconds_per_problem=[100], num_runs=200)
    write_comparison(rows, "runs/replay")

Every policy replays the same runs, so differences are paired. Times are in seconds.
"""

import json
import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastmath_kit.budget.baselines import public_policies
from fastmath_kit.budget.policy import Rule, RunState
from fastmath_kit.budget.replay import Outcome, Recorded, draw_run, play_run
from fastmath_kit.budget.simulated import SimulatedEngine
from fastmath_kit.budget.throughput import StepTime
from fastmath_kit.budget.weather import FAIR
from fastmath_kit.problems.files import atomic_path

Policy = Callable[[RunState], Rule]
ORACLE = "oracle"
_ORACLE_TRACES = (1, 2, 4, 8, 16)


def oracle_solved(draws: Sequence[Recorded], model: StepTime, deadline_s: float) -> int:
    """Returns how many problems hindsight solves: a bound for policies that launch at once.

    It knows when, under 1, 2, 4, 8 or 16 traces, the right answer first leads the vote, stops
    there, and spends the time on the quickest problems.
    """
    times = sorted(_first_right_s(draw, model) for draw in draws)
    left_s, solved = deadline_s - model.overhead_s * len(draws), 0
    for seconds in times:
        left_s -= seconds
        if left_s < 0:
            break
        solved += 1
    return solved


def _first_right_s(draw: Recorded, model: StepTime) -> float:
    best_s = math.inf
    for num_traces in _ORACLE_TRACES:
        engine = SimulatedEngine(draw.tokens, draw.answers, model, 10**9)
        engine.launch(num_traces)
        while engine.num_live and engine.elapsed_s < best_s:
            engine.advance(0.0, best_s, FAIR)
            if engine.leader in draw.right:
                best_s = min(best_s, engine.elapsed_s)
    return best_s


def is_late(outcomes: Sequence[Outcome], deadline_s: float) -> bool:
    """Whether a run passed its deadline."""
    return outcomes[-1].start_s + outcomes[-1].seconds > deadline_s + 1e-6


def compare(
    pool: Sequence[Recorded],
    policies: Mapping[str, Policy],
    *,
    model: StepTime,
    seconds_per_problem: Sequence[float],
    num_runs: int,
    num_problems: int = 50,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Replays the policies, every public rule and the oracle on the same runs.

    Args:
        pool: Recorded traces.
        policies: Ours, by name; the public rules join them.
        model: Speed of the engine.
        seconds_per_problem: The settings: time for all problems over their number.
        num_runs: Runs of each setting.
        num_problems: Problems of a run.
        seed: Fixes the runs.
        on_progress: Called with the settings done and all of them.

    Returns:
        One row a setting: `seconds_per_problem`, `best_public` (a name) and `policies`, rows of
        `name`, `is_public`, `solved` (one number a run), `mean_solved`, `difference` and
        `standard_error` (paired, to the best public rule), `time_used` (a share), `violations`.
    """
    rows = []
    for done, seconds in enumerate(seconds_per_problem):
        longest = math.ceil(max(max(problem.tokens) for problem in pool))
        public = public_policies(seconds_per_problem=seconds, max_tokens=longest)
        results = {name: Tally() for name in (*public, *policies, ORACLE)}
        deadline_s = seconds * num_problems
        for run in range(num_runs):
            draws = draw_run(pool, num_problems, random.Random(f"{seed}/{run}"))
            for name, policy in {**public, **policies}.items():
                outcomes = play_run(
                    draws, policy, model=model, deadline_s=deadline_s, num_problems=num_problems
                )
                results[name].add(outcomes, deadline_s)
            results[ORACLE].solved.append(oracle_solved(draws, model, deadline_s))
        rows.append(setting_row(seconds, results, public))
        if on_progress is not None:
            on_progress(done + 1, len(seconds_per_problem))
    return rows


class Tally:
    """One policy's runs at one setting.

    Attributes:
        solved: Problems solved, one number a run.
        time_used: Share of the time used, one number a run.
        violations: Runs that passed the deadline.
    """

    def __init__(self) -> None:
        """Starts without runs."""
        self.solved: list[int] = []
        self.time_used: list[float] = []
        self.violations = 0

    def add(self, outcomes: Sequence[Outcome], deadline_s: float) -> None:
        """Counts one run."""
        self.solved.append(sum(outcome.right for outcome in outcomes))
        self.time_used.append((outcomes[-1].start_s + outcomes[-1].seconds) / deadline_s)
        self.violations += is_late(outcomes, deadline_s)


def setting_row(seconds: float, results: Mapping[str, Tally], public: Sequence[str]) -> dict:
    """Returns one setting's row; the best public rule is the one with the highest mean."""
    best = max(public, key=lambda name: statistics.fmean(results[name].solved))
    gap = statistics.fmean(results[ORACLE].solved) - statistics.fmean(results[best].solved)
    rows = []
    for name, tally in results.items():
        difference, error = paired(tally.solved, results[best].solved)
        rows.append(
            {
                "name": name,
                "is_public": name in public,
                "solved": tally.solved,
                "mean_solved": statistics.fmean(tally.solved),
                "difference": difference,
                "standard_error": error,
                "gap_closed": difference / gap if gap > 0 else None,
                "time_used": statistics.fmean(tally.time_used) if tally.time_used else None,
                "violations": tally.violations,
            }
        )
    return {"seconds_per_problem": seconds, "best_public": best, "policies": rows}


def paired(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float | None]:
    """Returns the mean difference and its standard error, None for a single pair.

    >>> paired([3, 5, 4], [2, 4, 3])
    (1.0, 0.0)
    """
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    if len(differences) < 2:
        return statistics.fmean(differences), None
    return statistics.fmean(differences), statistics.stdev(differences) / len(differences) ** 0.5


def comparison_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a Markdown table: mean solved by policy and setting, ours with the difference."""
    settings = [f"{row['seconds_per_problem']:g} s" for row in rows]
    lines = [f"| policy | {' | '.join(settings)} |", "| --- |" + " --- |" * len(rows)]
    for place, policy in enumerate(rows[0]["policies"]):
        cells = [_cell(row["policies"][place], row["best_public"]) for row in rows]
        lines.append(f"| {policy['name']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(policy: Mapping[str, Any], best: str) -> str:
    text = f"{policy['mean_solved']:.1f}"
    if policy["violations"]:
        text += f", {policy['violations']} late"
    if policy["name"] == best:
        return f"**{text}**"
    if policy["is_public"] or policy["name"] == ORACLE:
        return text
    return f"{text} ({policy['difference']:+.2f} ± {policy['standard_error'] or 0:.2f})"


def write_comparison(rows: Sequence[Mapping[str, Any]], out: str | Path) -> dict[str, Any]:
    """Writes `report.json` and `table.md` into `out` and returns the report."""
    report = {"settings": list(rows)}
    with atomic_path(Path(out) / "report.json") as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    with atomic_path(Path(out) / "table.md") as temporary:
        temporary.write_text(comparison_table(rows), encoding="utf-8")
    return report
