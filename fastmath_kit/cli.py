"""The command line: `fastmath COMMAND`, thin over the functions that the notebooks call.

A command parses its options, calls one function and returns that function's result, which is
printed as one JSON line, the only thing on stdout:

    fastmath evaluate --model runs/demo/sft --problems test.csv --out runs/eval | jq .avg_at_k

Everything else, logs of vLLM and TRL included, goes to stderr. Exit status: 0, 1 when something
failed, 2 for bad arguments or input, 130 when interrupted.
"""

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from fastmath_kit import cli_budget, cli_evaluate, cli_length
from fastmath_kit.errors import FastMathError
from fastmath_kit.problems.files import DiskFullGuard

app = typer.Typer(
    help="From an open reasoning model to a math-olympiad submission on Kaggle.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Runs the command line."""
    app(prog_name="fastmath")


def _command(function: Callable[..., dict]) -> Callable[..., None]:
    """Makes a typer command of a function that writes into `out` and returns a dict."""

    @functools.wraps(function)
    def run(*, out: Path, **kwargs) -> None:
        result_file = _claim_stdout()
        try:
            with DiskFullGuard(out):
                result = function(out=out, **kwargs)
        except FastMathError as error:
            print("Error:", " ".join(str(error).split()), file=sys.stderr)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            print(f"Interrupted. {_what_now(function, kwargs)}", file=sys.stderr)
            raise typer.Exit(130) from error
        print(json.dumps(result), file=result_file, flush=True)

    return run


def _what_now(function: Callable, options: dict) -> str:
    """Returns how the work of an interrupted command is done after all."""
    if "resume" in options:
        return "Run the same command with --resume to go on."
    if function.__name__ in ("demo", "evaluate"):
        return "Run the same command again to go on."
    return "Run the same command again, it starts over."


def _claim_stdout():
    """Returns the real stdout and points file descriptor 1 at stderr for all others.

    Libraries, their subprocesses and their exit handlers print to stdout as they like; whoever
    pipes a command gets the JSON line alone.
    """
    sys.stdout.flush()
    result_file = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return result_file


@contextmanager
def _progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """Yields `on_progress(done, total)`, which moves a bar with the time left on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@app.callback()
def _root() -> None:
    # With a callback, typer keeps the name of the command even where there is only one.
    pass


@app.command()
@_command
def demo(
    out: Annotated[Path, typer.Option(help="Run folder; a rerun resumes.")] = Path("runs/demo"),
) -> dict:
    """Runs the whole recipe in miniature on a CPU, about 10 minutes.

    Example: fastmath demo --out runs/demo
    """
    from fastmath_kit.demo import run_demo

    return run_demo(out)


app.command()(_command(cli_evaluate.evaluate))

_Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Value as YAML; repeatable.")
]


@app.command()
@_command
def train(
    stage: Annotated[Literal["sft", "grpo", "length"], typer.Argument(help="What to train.")],
    preset: Annotated[str, typer.Option(help="Name of a preset, or a YAML file.")],
    model: Annotated[str, typer.Option(help="Model folder, or a hub name.")],
    data: Annotated[
        Path,
        typer.Option(
            help="sft: JSONL or parquet with columns problem,completion. "
            "grpo: CSV with columns id,problem,answer. length: from `fastmath data length`."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Run folder for the checkpoints.")],
    set_: _Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from a checkpoint.")] = False,
) -> dict:
    """Trains a model with TRL, or a length predictor, as the preset says.

    Example: fastmath train grpo --preset grpo_tiny --model runs/demo/sft-10 --data train.csv
    --set max_steps=20 --out runs/grpo
    """
    from fastmath_kit.training.launch import train as train_model
    from fastmath_kit.training.presets import parse_overrides

    options = {"overrides": parse_overrides(set_ or ()), "resume": resume}
    with _progress("Training") as on_progress:
        return train_model(
            stage, preset, model=model, data=data, out=out, on_progress=on_progress, **options
        )


@app.command()
@_command
def quantize(
    model: Annotated[Path, typer.Option(help="Folder of a merged model.")],
    recipe: Annotated[str, typer.Option(help="gptq-w4a16 or gptq-w8a8.")],
    calibration: Annotated[Path, typer.Option(help="Trace file of this model.")],
    problems: Annotated[Path, typer.Option(help="The traces' problems, CSV id,problem[,answer].")],
    out: Annotated[Path, typer.Option(help="Model folder to write; it must not exist.")],
    max_tokens: Annotated[int, typer.Option(min=1, help="Longer texts are cut.")] = 2_048,
) -> dict:
    """Quantizes a model for the competition's GPUs, calibrated on its own traces.

    Example: fastmath quantize --model runs/demo/grpo --recipe gptq-w4a16
    --calibration runs/demo/evaluation/grpo/traces.parquet --problems runs/demo/held_out.csv
    --out runs/w4a16
    """
    from fastmath_kit.problems.records import read_problems, read_traces

    traces, rows = read_traces(calibration), read_problems(problems)

    from fastmath_kit.inference.model_folder import load_tokenizer, read_config
    from fastmath_kit.training.data import calibration_texts
    from fastmath_kit.training.quantize import quantize as quantize_model

    read_config(model)
    texts = calibration_texts(traces, rows, load_tokenizer(model))
    options = {"calibration_texts": texts, "max_tokens": max_tokens}
    return {"model": str(quantize_model(model, recipe, out, **options)), "num_texts": len(texts)}


@app.command()
@_command
def rehearse(
    competition: Annotated[str, typer.Option(help="Name of a competition, such as aimo3.")],
    problems: Annotated[Path, typer.Option(help="CSV with columns id,problem,answer.")],
    model: Annotated[Path, typer.Option(help="Folder of the model to serve.")],
    out: Annotated[Path, typer.Option(help="Folder for the executed notebook and its files.")],
    set_: _Set = None,
) -> dict:
    """Runs the submission notebook as Kaggle does, against a local gateway, and grades it.

    --set replaces values of the notebook's parameters cell.

    Example: fastmath rehearse --competition aimo3 --problems test.csv --model runs/w4a16
    --set MAX_MODEL_LEN=null --out runs/rehearsal
    """
    from fastmath_kit.kaggle.rehearsal import rehearse as rehearse_notebook
    from fastmath_kit.training.presets import parse_overrides

    parameters = parse_overrides(set_ or ())
    return rehearse_notebook(competition, problems, model, out, parameters=parameters)


_budget = typer.Typer(help="Fits and replays the budget policy.", no_args_is_help=True)
_budget.command()(_command(cli_budget.fit))
_budget.command()(_command(cli_budget.replay))
app.add_typer(_budget, name="budget")
_data = typer.Typer(help="Makes data to train on.", no_args_is_help=True)
_data.command("length")(_command(cli_length.length))
app.add_typer(_data, name="data")

if __name__ == "__main__":
    main()
