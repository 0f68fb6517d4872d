"""What `fastmath data length` takes; `cli` makes a command of it."""

from pathlib import Path
from typing import Annotated

import typer


def length(
    traces: Annotated[Path, typer.Option(help="Trace file of one model.")],
    problems: Annotated[Path, typer.Option(help="The traces' problems, CSV id,problem[,answer].")],
    out: Annotated[Path, typer.Option(help="Folder for length.parquet.")],
) -> dict:
    """Writes how long a model's completions of each problem were, for `fastmath train length`.

    Example: fastmath data length --traces runs/demo/evaluation/grpo/traces.parquet
    --problems runs/demo/held_out.csv --out runs/length
    """
    from fastmath_kit.problems.records import read_problems, read_traces
    from fastmath_kit.training.length_labels import length_labels, write_labels

    labels = length_labels(read_traces(traces), read_problems(problems))
    write_labels(labels, out / "length.parquet")
    return {
        "data": str(out / "length.parquet"),
        "num_problems": len(labels),
        "num_traces": sum(len(label.tokens) for label in labels),
        "num_truncated": sum(sum(label.truncated) for label in labels),
    }
