"""What `fastmath evaluate` takes; `cli` makes a command of it."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    model: Annotated[
        str, typer.Option(help="Model folder, or a hub name. With --endpoint: its tokenizer.")
    ],
    problems: Annotated[Path, typer.Option(help="CSV with columns id,problem,answer.")],
    out: Annotated[Path, typer.Option(help="Folder for traces.parquet and report.json.")],
    k: Annotated[int, typer.Option(min=1, help="Completions per problem.")] = 8,
    budgets: Annotated[str, typer.Option(help="Token budgets to report, comma-separated.")] = "",
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Limit of one completion.")] = 16_384,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(help="URL of an OpenAI-compatible server to ask instead; repeat for a fleet."),
    ] = None,
    served_model: Annotated[
        str | None, typer.Option(help="The model's name there; needed where there are several.")
    ] = None,
    max_concurrent: Annotated[
        int, typer.Option(min=1, help="Most completions at once, over all servers.")
    ] = 64,
) -> dict:
    """Samples k completions per problem and scores them: avg@k, maj@k, pass@k and tokens.

    Example: fastmath evaluate --model runs/demo/sft --problems test.csv --k 8
    --budgets 50,100 --max-tokens 200 --out runs/eval

    With --endpoint http://host:8000 servers sample, with the environment's OPENAI_API_KEY.
    """
    from fastmath_kit.problems.records import read_problems

    budgets_tokens = _budgets(budgets)
    rows = read_problems(problems)  # before the heavy imports: bad input is told at once

    from fastmath_kit.cli import _progress
    from fastmath_kit.evaluation.sweep import evaluate as evaluate_model
    from fastmath_kit.inference.protocol import Sampling

    with _progress("Sampling") as on_progress:
        return evaluate_model(
            model,
            rows,
            k=k,
            budgets_tokens=budgets_tokens,
            out=out,
            sampling=Sampling(max_tokens=max_tokens, temperature=temperature),
            endpoints=endpoint or (),
            served_model=served_model,
            max_concurrent=max_concurrent,
            on_progress=on_progress,
        )


def _budgets(text: str) -> tuple[int, ...]:
    """Parses `8000,16000` into ascending token budgets."""
    try:
        budgets = sorted({int(part) for part in text.split(",") if part.strip()})
    except ValueError:
        budgets = [0]
    if budgets and budgets[0] < 1:
        raise typer.BadParameter(f"expected whole numbers such as 8000,16000, got {text!r}.")
    return tuple(budgets)
