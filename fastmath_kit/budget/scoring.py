"""Many replayed runs of many policies: how many problems each solves, and is it ever late.

    rows = compare(pool, {"fitted": policy}, model=model, seconds_per_problem=[100], num_runs=200)
    write_comparison(rows, "runs/replay")

Every policy replays the same runs, so differences are paired. Times are in seconds.
"""

import bisect
import itertools
import json
import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastmath_kit.budget.baselines import public_policies
from fastmath_kit.budget.policy import NEVER, Rule, RunState
from fastmath_kit.budget.recorded import Recorded, draw_run
from fastmath_kit.budget.replay import Outcome, play, play_run
from fastmath_kit.budget.throughput import StepTime
from fastmath_kit.problems.files import atomic_path

Policy = Callable[[RunState], Rule]
NO_CLOCK, ORACLE = "no clock", "oracle"  # to compare with, no policies
_ORACLE_TRACES = 17  # the most that a policy here launches
_PATIENT = Rule(num_traces=16, stop_votes=NEVER, max_tokens=10**12, timeout_s=math.inf)


def oracle_solved(draws: Sequence[Recorded], model: StepTime, deadline_s: float) -> int:
    """Returns how many problems hindsight solves: no policy solves more.

    It knows the whole run: for each problem the shortest right trace among the first 17 launches,
    which it runs alone, and which problems to skip. A problem is right no sooner under any policy
    that launches at most 17 traces of it. What comes after the last problem it solves costs it
    nothing, and what comes before costs at least its overhead, as in `play_run`.
    """
    quickest: list[float] = []  # seconds of the problems so far, ascending
    most = 0
    for place, draw in enumerate(draws, start=1):
        bisect.insort(quickest, _soonest_right_s(draw, model))
        left_s = deadline_s - model.overhead_s * place + 1e-6  # as late as `is_late` lets one be
        most = max(most, bisect.bisect_right(list(itertools.accumulate(quickest)), left_s))
    return most


def no_clock_solved(draws: Sequence[Recorded], model: StepTime) -> int:
    """Returns how many problems a vote of 16 traces solves, or of all if fewer, without a deadline.

    No bound: a vote that is cut short can be luckier.
    """
    return sum(play(draw, _PATIENT, model=model).right for draw in draws)


def _soonest_right_s(draw: Recorded, model: StepTime) -> float:
    launched = itertools.islice(zip(draw.tokens, draw.answers, strict=True), _ORACLE_TRACES)
    tokens = min((tokens for tokens, answer in launched if answer in draw.right), default=None)
    if tokens is None:
        return math.inf
    prompt_s = model.prompt_tokens / model.prefill_tokens_per_s
    return prompt_s + model.seconds(tokens, 1, model.prompt_tokens)


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
    max_tokens: int,
    num_problems: int = 50,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Replays the policies, every public rule and the references on the same runs.

    Args:
        pool: Recorded traces.
        policies: Ours, by name; the public rules join them.
        model: Speed of the engine.
        seconds_per_problem: The settings: time for all problems over their number.
        num_runs: Runs of each setting.
        max_tokens: Longest trace of the public rules; give ours the same.
        num_problems: Problems of a run.
        seed: Fixes the runs.
        on_progress: Called with the settings done and all of them.

    Returns:
        One row a setting, as `setting_row`'s.
    """
    runs = [draw_run(pool, num_problems, random.Random(f"{seed}/{run}")) for run in range(num_runs)]
    no_clock = [no_clock_solved(draws, model) for draws in runs]
    rows = []
    for done, seconds in enumerate(seconds_per_problem, start=1):
        public = public_policies(seconds_per_problem=seconds, max_tokens=max_tokens)
        results = {name: Tally() for name in (*public, *policies, NO_CLOCK, ORACLE)}
        deadline_s = seconds * num_problems
        results[NO_CLOCK].solved += no_clock
        for draws in runs:
            for name, policy in {**public, **policies}.items():
                outcomes = play_run(
                    draws, policy, model=model, deadline_s=deadline_s, num_problems=num_problems
                )
                results[name].add(outcomes, deadline_s)
            results[ORACLE].solved.append(oracle_solved(draws, model, deadline_s))
        rows.append(setting_row(seconds, results, public))
        if on_progress is not None:
            on_progress(done, len(seconds_per_problem))
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


def setting_row(
    seconds: float,
    results: Mapping[str, Tally],
    public: Sequence[str],
    *,
    runs_per_split: int | None = None,
) -> dict[str, Any]:
    """Returns one setting's row; the best public rule is the one with the highest mean.

    Args:
        seconds: Seconds a problem.
        results: Runs of every policy by name.
        public: Names of the public rules.
        runs_per_split: If the runs are those of several splits one after the other, so many each:
            runs of one split share their problems and their fit.

    Returns:
        `seconds_per_problem`, `best_public` (a name) and `policies`, rows of `name`, `is_public`,
        `is_reference`, `solved` (one number a run), `mean_solved`; paired, to the best public rule,
        `difference`, `standard_error` (as if all runs were independent), `split_differences` and
        `split_error` (the standard error of their mean; both None without splits), `gap_closed`
        (the share of the oracle's lead); `time_used` (a share) and `violations`.
    """
    best = max(public, key=lambda name: statistics.fmean(results[name].solved))
    gap = statistics.fmean(results[ORACLE].solved) - statistics.fmean(results[best].solved)
    rows = []
    for name, tally in results.items():
        difference, error = paired(tally.solved, results[best].solved)
        splits, split_error = None, None
        if runs_per_split is not None:
            splits = split_means(tally.solved, results[best].solved, runs_per_split)
            split_error = paired(splits, [0.0] * len(splits))[1]
        rows.append(
            {
                "name": name,
                "is_public": name in public,
                "is_reference": name in (NO_CLOCK, ORACLE),
                "solved": tally.solved,
                "mean_solved": statistics.fmean(tally.solved),
                "difference": difference,
                "standard_error": error,
                "split_differences": splits,
                "split_error": split_error,
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


def split_means(ours: Sequence[float], theirs: Sequence[float], runs_per_split: int) -> list[float]:
    """Returns the mean difference within each split.

    >>> split_means([3, 5, 4, 4], [2, 4, 4, 4], 2)
    [1.0, 0.0]
    """
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    starts = range(0, len(differences), runs_per_split)
    return [statistics.fmean(differences[start : start + runs_per_split]) for start in starts]


def comparison_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a Markdown table: mean solved by policy and setting, ours with the difference.

    Its error is that over splits where there are splits.
    """
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
    if policy["is_public"] or policy["is_reference"]:
        return text
    error = policy["standard_error"] if policy["split_error"] is None else policy["split_error"]
    return f"{text} ({policy['difference']:+.2f}{'' if error is None else f' ± {error:.2f}'})"


def write_comparison(
    rows: Sequence[Mapping[str, Any]], out: str | Path, *, policy: str
) -> dict[str, Any]:
    """Writes `report.json` and `table.md` into `out` and returns the report."""
    report = {"policy": policy, "settings": list(rows)}
    with atomic_path(Path(out) / "report.json") as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    with atomic_path(Path(out) / "table.md") as temporary:
        temporary.write_text(comparison_table(rows), encoding="utf-8")
    return report
