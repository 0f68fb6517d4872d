"""Datasets in the form TRL's trainers take, tokenised once and in one way for every stage.

SFT rows are token ids, not text: the prompt's ids come from `problems.prompts` as they do in GRPO,
evaluation and submission, so no template can drop the reasoning or add a second BOS.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from fastmath_kit.errors import DataError
from fastmath_kit.problems.files import read_text
from fastmath_kit.problems.grading import shared_grader
from fastmath_kit.problems.prompts import STOP, completion_ids, prompt_ids, prompt_messages
from fastmath_kit.problems.records import Problem, Trace

logger = logging.getLogger(__name__)


def read_sft_rows(path: str | Path) -> list[dict[str, str]]:
    """Reads traces to train on: JSONL or parquet with the columns `problem` and `completion`.

    Raises:
        DataError: the file is missing or of another kind, or a value is missing or no text. The
            message names the row (from 1) and the column.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"{path}: no such file. Give JSONL or parquet with columns problem,completion."
        )
    if path.suffix not in {".jsonl", ".parquet"}:
        raise DataError(f"{path}: expected a name ending in .jsonl or .parquet.")
    rows = _parquet_rows(path) if path.suffix == ".parquet" else _jsonl_rows(path)
    for number, row in rows:
        for column in ("problem", "completion"):
            value = row.get(column) if isinstance(row, dict) else None
            if not isinstance(value, str) or not value.strip():
                raise DataError(
                    f"{path}: row {number}, column {column}: expected text, got {value!r}."
                )
    if not rows:
        raise DataError(f"{path}: has no rows. Add at least one trace.")
    return [{"problem": row["problem"], "completion": row["completion"]} for _, row in rows]


def _jsonl_rows(path: Path) -> list[tuple[int, object]]:
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                rows.append((number, json.loads(line)))
            except ValueError as error:
                raise DataError(f"{path}: row {number}: not JSON ({error}).") from error
    return rows


def _parquet_rows(path: Path) -> list[tuple[int, dict]]:
    import polars as pl

    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{path}: not readable parquet ({' '.join(str(error).split())})."
        ) from error
    for column in ("problem", "completion"):
        if column not in frame.columns:
            raise DataError(f"{path}: no column {column!r}, found {frame.columns}.")
    return list(enumerate(frame.select("problem", "completion").iter_rows(named=True), start=1))


def sft_dataset(rows: Iterable[Mapping], tokenizer):
    """Returns a `datasets.Dataset` with `input_ids` and `completion_mask`, one row a trace.

    The loss falls on the completion and the end-of-turn token after it, never on the prompt.

    Args:
        rows: Mappings with `problem` (the statement) and `completion` (from after the template's
            generation prompt; it must close its reasoning with `STOP`).
        tokenizer: The model's, with its chat template.

    Raises:
        DataError: a completion never reaches `STOP`; the message names the row.
    """
    from datasets import Dataset

    examples = []
    for number, row in enumerate(rows, start=1):
        if STOP not in row["completion"]:
            raise DataError(
                f"training row {number}: the completion never reaches {STOP!r}, it was truncated. "
                "Leave it out."
            )
        prompt = prompt_ids(tokenizer, row["problem"])
        completion = [*completion_ids(tokenizer, row["completion"]), tokenizer.eos_token_id]
        mask = [0] * len(prompt) + [1] * len(completion)
        examples.append({"input_ids": prompt + completion, "completion_mask": mask})
    if not examples:
        raise DataError("there are no training rows. Give at least one.")
    return Dataset.from_list(examples)


def grpo_dataset(problems: Iterable[Problem]):
    """Returns a `datasets.Dataset` with `prompt` (messages), `solution` and `problem_id`.

    A gold that does not grade itself as correct would reward nothing, or the wrong thing: such
    problems are left out, each with a warning that names its row.

    Raises:
        DataError: a problem has no solution to reward, or no gold can be graded.
    """
    from datasets import Dataset

    problems = list(problems)
    for problem in problems:
        if problem.solution is None:
            raise DataError(f"problem {problem.id!r} has no answer to reward. Leave it out.")
    bad = {gold.row: gold for gold in shared_grader().check_golds(problems)}
    for row, gold in bad.items():
        name = problems[row].id
        logger.warning("row %d, problem %s: left out, gold %r: %s", row, name, *gold[1:])
    if len(bad) == len(problems):
        raise DataError(f"none of {len(problems)} golds can be graded. Look at the warnings.")

    rows = []
    for problem in (problem for row, problem in enumerate(problems) if row not in bad):
        prompt = prompt_messages(problem.statement)
        rows.append({"prompt": prompt, "solution": problem.solution, "problem_id": problem.id})
    return Dataset.from_list(rows)


def calibration_texts(
    traces: Iterable[Trace], problems: Iterable[Problem], tokenizer, *, limit: int = 512
) -> list[str]:
    """Returns prompts with their completions, what quantization calibrates on.

    Args:
        traces: The model's own, with completions; other problems' and aborted ones are left out.
        problems: Say what the traces answer.
        tokenizer: The model's, with its chat template.
        limit: Most texts; each problem's first trace comes before any second one.

    Raises:
        DataError: no trace of these problems kept its completion.
    """
    statements = {problem.id: problem.statement for problem in problems}
    usable = [
        trace
        for trace in sorted(traces, key=lambda trace: trace.sample)
        if trace.completion and trace.finish_reason != "abort" and trace.problem_id in statements
    ]
    if not usable:
        raise DataError(
            "no trace of these problems has a completion. Give the problem file the traces were "
            "sampled from."
        )
    return [_as_text(statements[t.problem_id], t.completion, tokenizer) for t in usable[:limit]]


def _as_text(statement: str, completion: str, tokenizer) -> str:
    return tokenizer.decode(prompt_ids(tokenizer, statement)) + completion
