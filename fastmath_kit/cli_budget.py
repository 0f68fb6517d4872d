"""What `fastmath budget fit` and `fastmath budget replay` take; `cli` makes commands of them."""

from pathlib import Path
from typing import Annotated

import typer

_Traces = Annotated[list[Path], typer.Option(help="Trace file with solutions; repeat to mix.")]
_Hardware = Annotated[str, typer.Option(help="l4x4, h100, or a JSON file of a step time.")]
_Scale = Annotated[float, typer.Option(min=0.001, help="Multiplies recorded lengths.")]
_Seed = Annotated[int, typer.Option(help="Fixes all draws.")]


def fit(
    traces: _Traces,
    hardware: _Hardware,
    out: Annotated[Path, typer.Option(help="Policy file to write.")],
    length_scale: _Scale = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest trace.")] = 131_072,
    seed: _Seed = 0,
) -> dict:
    """Fits the budget policy on recorded traces and writes its small JSON file.

    Example: fastmath budget fit --traces traces.parquet --hardware l4x4 --out policy.json
    """
    from fastmath_kit.budget.commands import fit as fit_file

    options = {"length_scale": length_scale, "max_tokens": max_tokens, "seed": seed}
    return fit_file(traces, hardware, out, **options)


def replay(
    traces: _Traces,
    hardware: _Hardware,
    out: Annotated[Path, typer.Option(help="Folder for report.json, table.md and figures.")],
    policy: Annotated[
        Path | None,
        typer.Option(
            help="Policy file. Without one a policy is fitted on half of the problems and replayed "
            "on the other half; on the problems it was fitted on it looks better than it is."
        ),
    ] = None,
    seconds_per_problem: Annotated[
        str, typer.Option(help="Settings, comma-separated.")
    ] = "60,100,150,220,350,500",
    runs: Annotated[int, typer.Option(min=1, help="Runs of each setting.")] = 200,
    length_scale: _Scale = 1.0,
    seed: _Seed = 0,
) -> dict:
    """Replays a policy and every public rule on the same simulated runs of 50 problems.

    Example: fastmath budget replay --traces traces.parquet --hardware l4x4
    --seconds-per-problem 100,150 --runs 200 --out runs/replay
    """
    from fastmath_kit.budget.commands import replay as replay_file
    from fastmath_kit.cli import _progress
    from fastmath_kit.display.budget_figures import budget_policies_figure, run_timeline_figure

    with _progress("Replaying") as on_progress:
        report, run = replay_file(
            traces,
            hardware,
            out,
            policy_path=policy,
            seconds_per_problem=_seconds(seconds_per_problem),
            num_runs=runs,
            length_scale=length_scale,
            seed=seed,
            on_progress=on_progress,
        )
    budget_policies_figure(report["settings"]).savefig(out / "policies.png", dpi=150)
    run_timeline_figure(run).savefig(out / "run.png", dpi=150)
    return {
        "table": str(out / "table.md"),
        "policy": report["policy"],
        "settings": [
            {
                "seconds_per_problem": row["seconds_per_problem"],
                "best_public": row["best_public"],
                "fitted": {
                    name: value
                    for name, value in policy_row.items()
                    if name not in ("name", "is_public", "is_reference", "solved")
                },
            }
            for row in report["settings"]
            for policy_row in row["policies"]
            if policy_row["name"] == "fitted"
        ],
    }


def _seconds(text: str) -> tuple[float, ...]:
    """Parses `60,100` into ascending seconds."""
    try:
        seconds = sorted({float(part) for part in text.split(",") if part.strip()})
    except ValueError:
        seconds = []
    if not seconds or not 0 < seconds[0] <= seconds[-1] < float("inf"):
        raise typer.BadParameter(f"expected seconds such as 60,100,150, got {text!r}.")
    return tuple(seconds)
