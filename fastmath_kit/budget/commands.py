"""What `fastmath budget fit` and `fastmath budget replay` do.

fit("traces.parquet", "h100", "policy.json", length_scale=1.6)
replay(["traces.parquet"], "h100", "runs/replay", policy_path="policy.json", num_runs=200)
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastmath_kit.budget.fitted import read_policy, write_policy
from fastmath_kit.budget.fitting import fit_policy
from fastmath_kit.budget.replay import Outcome, Recorded, draw_run, play_run, recorded_problems
from fastmath_kit.budget.scoring import compare, write_comparison
from fastmath_kit.budget.throughput import read_hardware
from fastmath_kit.problems.records import read_traces


def read_pool(traces: Sequence[str | Path], length_scale: float = 1.0) -> list[Recorded]:
    """Returns the problems of all trace files; those of several models are mixed."""
    rows = [trace for path in traces for trace in read_traces(path)]
    return recorded_problems(rows, length_scale=length_scale)


def fit(
    traces: Sequence[str | Path],
    hardware: str,
    out: str | Path,
    *,
    length_scale: float = 1.0,
    max_tokens: int = 131_072,
    seed: int = 0,
) -> dict[str, Any]:
    """Fits a policy, writes its file and returns what is in it.

    Args:
        traces: Trace files.
        hardware: A name of `throughput.HARDWARE`, or a JSON file.
        out: The policy file.
        length_scale: Multiplies the recorded lengths.
        max_tokens: Longest trace the engine can write.
        seed: Fixes the draws.
    """
    pool = read_pool(traces, length_scale)
    policy = fit_policy(pool, read_hardware(hardware), max_tokens=max_tokens, seed=seed)
    write_policy(policy, out)
    return {
        "policy": str(out),
        "num_problems": len(pool),
        "menu": [
            {"seconds": rule.seconds, "solved": rule.solved, "num_traces": rule.num_traces}
            for rule in policy.menu
        ],
    }


def replay(
    traces: Sequence[str | Path],
    hardware: str,
    out: str | Path,
    *,
    policy_path: str | Path,
    seconds_per_problem: Sequence[float],
    num_runs: int = 200,
    length_scale: float = 1.0,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Any], list[Outcome]]:
    """Replays a policy file against the public rules; writes `report.json` and `table.md`.

    Returns:
        The report, and the outcomes of one run of the policy at the middle setting.
    """
    pool, model = read_pool(traces, length_scale), read_hardware(hardware)
    policy = read_policy(policy_path)
    rows = compare(
        pool,
        {"fitted": policy},
        model=model,
        seconds_per_problem=seconds_per_problem,
        num_runs=num_runs,
        max_tokens=policy.max_tokens,
        seed=seed,
        on_progress=on_progress,
    )
    middle_s = sorted(seconds_per_problem)[(len(seconds_per_problem) - 1) // 2]
    draws = draw_run(pool, 50, random.Random(f"{seed}/0"))
    run = play_run(draws, policy, model=model, deadline_s=50 * middle_s, num_problems=50)
    return write_comparison(rows, out), run
