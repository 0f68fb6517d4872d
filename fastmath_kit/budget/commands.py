"""What `fastmath budget fit` and `fastmath budget replay` do.

fit("traces.parquet", "h100", "policy.json", length_scale=1.6)
replay(["traces.parquet"], "h100", "runs/replay", seconds_per_problem=(100, 150))
"""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastmath_kit.budget.fitted import read_policy, write_policy
from fastmath_kit.budget.fitting import fit_policy
from fastmath_kit.budget.recorded import Recorded, draw_run, halves, recorded_problems
from fastmath_kit.budget.replay import Outcome, play_run
from fastmath_kit.budget.scoring import compare, write_comparison
from fastmath_kit.budget.throughput import read_hardware
from fastmath_kit.errors import ConfigError, DataError
from fastmath_kit.problems.files import read_text
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
    policy_path: str | Path | None = None,
    seconds_per_problem: Sequence[float],
    num_runs: int = 200,
    length_scale: float = 1.0,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Any], list[Outcome]]:
    """Replays a policy against the public rules; writes `report.json` and `table.md`.

    Args:
        traces: Trace files.
        hardware: A name of `throughput.HARDWARE`, or a JSON file.
        out: Folder for the two files.
        policy_path: A policy file. None fits a policy on half of the problems and replays the other
            half: a policy looks better on the problems it was fitted on.
        seconds_per_problem: The settings.
        num_runs: Runs of each setting.
        length_scale: Multiplies the recorded lengths.
        seed: Fixes the halves and the runs.
        on_progress: Called with the settings done and all of them.

    Returns:
        The report, and the outcomes of one run of the policy at the middle setting.

    Raises:
        ConfigError: `out` holds another command's report.
        DataError: a file cannot be read, or there are too few traces.
    """
    _check_folder(Path(out))
    pool, model = read_pool(traces, length_scale), read_hardware(hardware)
    if policy_path is None:
        for_fit, pool = halves(pool, random.Random(seed))
        policy = fit_policy(for_fit, model, seed=seed)
        source = f"fitted on {len(for_fit)} problems, replayed on {len(pool)} others"
    else:
        policy, source = read_policy(policy_path), str(policy_path)
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
    return write_comparison(rows, out, policy=source), run


def _check_folder(out: Path) -> None:
    """Raises `ConfigError` where a report stands that no replay wrote, before it is replaced."""
    path = out / "report.json"
    if not path.exists():
        return
    try:
        ours = "settings" in json.loads(read_text(path))
    except (TypeError, ValueError, DataError):
        ours = False
    if not ours:
        raise ConfigError(f"{path}: is no report of a replay. Choose another folder with --out.")
