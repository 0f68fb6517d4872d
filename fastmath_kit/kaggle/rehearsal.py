"""Rehearses a submission: the notebook runs as Kaggle runs it, against a gateway, and is graded.

    rehearse("aimo3", "reference.csv", "runs/demo/w4a16", "runs/demo/rehearsal")

papermill executes the notebook in a process of its own; where the competition's own package is not
mounted, our gateway sends the problems over real gRPC. Ten problems mislead: rehearse on fifty.
"""

import ast
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastmath_kit.errors import CheckpointError, ConfigError, EngineError, unknown_name
from fastmath_kit.inference.model_folder import read_config
from fastmath_kit.problems.answers import same_answer
from fastmath_kit.problems.competition import load_competition
from fastmath_kit.problems.records import Problem, read_problems

_KERNELS = Path(__file__).parents[2] / "kernels_submission"


def kernel_notebook(competition: str) -> Path:
    """Returns the submission notebook of a competition in this checkout.

    Raises:
        ConfigError: there is none.
    """
    path = _KERNELS / load_competition(competition).name / "submission.ipynb"
    if not path.is_file():
        found = ", ".join(sorted(p.parent.name for p in _KERNELS.glob("*/submission.ipynb")))
        raise ConfigError(
            f"{path}: no such notebook. Found: {found or 'none'}. Rehearse from a git checkout, "
            "with one folder per competition in kernels_submission."
        )
    return path


def rehearse(
    competition: str,
    problems_csv: str | Path,
    model: str | Path,
    out: str | Path,
    *,
    parameters: Mapping[str, object] | None = None,
) -> dict:
    """Runs the submission notebook on a problem file and grades what it submitted.

    Args:
        competition: Name of the competition, also of the folder in `kernels_submission`.
        problems_csv: Problem file with answers.
        model: Folder of the model to serve.
        out: Run folder; gets the executed notebook, `submission.parquet`, `log.jsonl`,
            `events.jsonl` and `traces.parquet`.
        parameters: Values for the notebook's `parameters` cell that win over its own.

    Returns:
        `num_problems`, `num_correct`, `num_fallbacks`, `answers` (by id), `stop_reasons` (how
        many problems ended by each) and `submission`.

    Raises:
        ConfigError: the competition has no notebook, or the notebook no such parameter.
        CheckpointError: `model` is no model folder, or `out` already holds a submission.
        EngineError: the notebook failed; the message names the executed copy.
    """
    notebook, problems = kernel_notebook(competition), read_problems(problems_csv)
    _check_parameters(notebook, parameters or {})
    read_config(model)
    out = Path(out).resolve()
    if (submission := out / "submission.parquet").exists():
        raise CheckpointError(f"{submission}: already exists. Choose another folder with --out.")
    values = {
        "COMPETITION": competition,
        "MODEL": str(Path(model).resolve()),
        "PROBLEMS_CSV": str(Path(problems_csv).resolve()),
        "OUT": str(out),
        "NUM_PROBLEMS": len(problems),
    }
    _execute(notebook, out, values | dict(parameters or {}))
    return _grade(problems, out)


def _grade(problems: Sequence[Problem], out: Path) -> dict:
    """Returns what `rehearse` returns, read from the files of the run."""
    import polars as pl

    submission = out / "submission.parquet"
    answers = dict(pl.read_parquet(submission).select("id", "answer").iter_rows())
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    # Both files are in served order; all-digit ids reach `predict`, and its log, as numbers.
    served = zip(answers, lines, strict=True)
    fallbacks = {id_ for id_, line in served if line["fallback"]}
    right = [
        problem.id not in fallbacks and same_answer(answers[problem.id], problem.solution)
        for problem in problems
    ]
    return {
        "num_problems": len(problems),
        "num_correct": sum(right),
        "num_fallbacks": len(fallbacks),
        "answers": answers,
        "stop_reasons": Counter(line["stop_reason"] or "none" for line in lines),
        "submission": str(submission),
    }


def _check_parameters(notebook: Path, parameters: Mapping[str, object]) -> None:
    """Refuses what the notebook's `parameters` cell does not set; papermill only warns."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    cell = next(c for c in cells if "parameters" in c["metadata"].get("tags", []))
    known = [node.targets[0].id for node in ast.parse("".join(cell["source"])).body]
    for name in parameters:
        if name not in known:
            raise ConfigError(f"{notebook}: {unknown_name('parameter', name, known)}")


def _execute(notebook: Path, out: Path, parameters: dict) -> None:
    import papermill

    out.mkdir(parents=True, exist_ok=True)
    executed = out / "submission.ipynb"
    try:
        papermill.execute_notebook(
            notebook,
            executed,
            parameters=parameters,
            cwd=out,
            kernel_name="python3",
            progress_bar=False,
            log_output=False,
        )
    except papermill.PapermillExecutionError as error:
        raise EngineError(
            f"{notebook}: cell {error.exec_count} failed with {error.ename}: {error.evalue} "
            f"See {executed}."
        ) from error
