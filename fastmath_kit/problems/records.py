"""Problems, traces and votes, and the two files they live in.

A problem file is CSV `id,problem[,answer]`, the competition's own format. A trace file is parquet
(or CSV), one row a completion. Everything that samples writes trace files and everything that
counts reads them:

    problems = read_problems("reference.csv")
    write_traces(traces, "runs/base/traces.parquet")

Units: `completion_tokens` counts sampled tokens, without the prompt; `seconds` is wall-clock time.
"""

import csv
import dataclasses
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastmath_kit.errors import DataError
from fastmath_kit.problems.answers import Answer, parse_answer

_REQUIRED_TRACE_COLUMNS = ("problem_id", "sample", "completion_tokens", "answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One item of a competition.

    Attributes:
        id: The competition's identifier, kept as text.
        statement: LaTeX, as the competition gives it.
        solution: The gold answer as text (the column TRL's `accuracy_reward` reads), or None.
    """

    id: str
    statement: str
    solution: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One completion of one problem.

    Attributes:
        problem_id: `Problem.id`.
        sample: Index of the completion among those of its problem, from 0.
        completion_tokens: Sampled tokens.
        answer: What the completion boxed, or None.
        completion: The text, where it was kept.
        finish_reason: `stop`, `length` (truncated) or `abort` (the solver had decided).
        solution: Gold answer of the problem.
        correct: Whether `answer` is right, None where it was not graded.
        seconds: From launch to the last token.
        model: What sampled it.
    """

    problem_id: str
    sample: int
    completion_tokens: int
    answer: Answer | None
    completion: str | None = None
    finish_reason: str | None = None
    solution: str | None = None
    correct: bool | None = None
    seconds: float | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """What the traces of one problem agreed on.

    Attributes:
        answer: The winner, None when nobody voted.
        counts: `(answer, votes)`, the winner first.
        num_voters: Traces that gave a candidate in range.
    """

    answer: Answer | None
    counts: tuple[tuple[Answer, float], ...] = ()
    num_voters: int = 0


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` and renames it to `path` if the block succeeds.

    Nothing half-written stays behind: on an error the temporary file is removed and whatever stood
    at `path` is untouched.

    Raises:
        DataError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}). "
            "Free disk space or choose another folder with --out."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def read_problems(path: str | Path) -> list[Problem]:
    """Reads a problem file.

    Args:
        path: CSV with the columns `id`, `problem` and, where known, `answer`.

    Raises:
        DataError: the file is missing, lacks a column, or a row is empty or repeated. The message
            names the row (the header is row 1) and the column.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"{path}: no such problem file. Give a CSV with columns id,problem[,answer]."
        )
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            _check_header(path, reader.fieldnames)
            rows = list(enumerate(reader, start=2))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a UTF-8 CSV file ({error}). Save it as UTF-8 CSV.") from error
    if not rows:
        raise DataError(f"{path}: has a header but no rows. Add at least one problem.")
    problems, seen = [], {}
    for row_number, row in rows:
        problem = _problem(path, row_number, row)
        if problem.id in seen:
            raise DataError(
                f"{path}: row {row_number}, column id: {problem.id!r} already stands in row "
                f"{seen[problem.id]}. Ids must be unique."
            )
        seen[problem.id] = row_number
        problems.append(problem)
    return problems


def _check_header(path: Path, fieldnames: Sequence[str] | None) -> None:
    missing = [name for name in ("id", "problem") if name not in (fieldnames or ())]
    if missing:
        raise DataError(
            f"{path}: row 1: no column {missing[0]!r}, found {list(fieldnames or ())}. "
            "The header must be id,problem or id,problem,answer."
        )


def _problem(path: Path, row_number: int, row: dict) -> Problem:
    if None in row or None in row.values():
        raise DataError(
            f"{path}: row {row_number}: has another number of columns than the header. "
            "Quote statements that contain commas or line breaks."
        )
    for column in ("id", "problem"):
        if not row[column].strip():
            raise DataError(f"{path}: row {row_number}, column {column}: is empty. Fill it in.")
    solution = (row.get("answer") or "").strip()
    return Problem(id=row["id"].strip(), statement=row["problem"], solution=solution or None)


def write_problems(problems: Iterable[Problem], path: str | Path) -> None:
    """Writes a problem file; the column `answer` only if every problem has a solution."""
    problems = list(problems)
    has_answers = all(problem.solution is not None for problem in problems)
    header = ["id", "problem", "answer"] if has_answers else ["id", "problem"]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for problem in problems:
            row = [problem.id, problem.statement, problem.solution]
            writer.writerow(row[: len(header)])


def write_traces(traces: Iterable[Trace], path: str | Path) -> None:
    """Writes a trace file, parquet unless `path` ends in `.csv`; answers are written as text."""
    import polars as pl

    rows = [dataclasses.asdict(trace) for trace in traces]
    for row in rows:
        row["answer"] = None if row["answer"] is None else str(row["answer"])
    types = {"sample": pl.Int64, "completion_tokens": pl.Int64, "correct": pl.Boolean}
    types["seconds"] = pl.Float64
    names = [field.name for field in dataclasses.fields(Trace)]
    frame = pl.DataFrame(rows, schema={name: types.get(name, pl.String) for name in names})
    with atomic_path(path) as temporary:
        if Path(path).suffix == ".csv":
            frame.write_csv(temporary)
        else:
            frame.write_parquet(temporary)


def read_traces(path: str | Path) -> list[Trace]:
    """Reads a trace file (parquet or CSV); columns this version does not know are ignored.

    Raises:
        DataError: the file is missing, unreadable, lacks a required column, or a row is wrong.
    """
    import polars as pl

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such trace file. Sample one with `fastmath evaluate`.")
    try:
        if path.suffix == ".csv":
            frame = pl.read_csv(path, infer_schema_length=None)
        else:
            frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: not a readable trace file ({error}).") from error
    for name in _REQUIRED_TRACE_COLUMNS:
        if name not in frame.columns:
            raise DataError(f"{path}: no column {name!r}, found {frame.columns}.")
    known = [f.name for f in dataclasses.fields(Trace) if f.name in frame.columns]
    rows = frame.select(known).iter_rows(named=True)
    return [_trace(path, number, row) for number, row in enumerate(rows, start=1)]


def _trace(path: Path, number: int, row: dict) -> Trace:
    for name in ("sample", "completion_tokens"):
        if not isinstance(row[name], int) or row[name] < 0:
            raise DataError(
                f"{path}: trace {number}, column {name}: expected a whole number >= 0, "
                f"got {row[name]!r}."
            )
    answer = row["answer"]
    row["answer"] = None if answer is None else parse_answer(str(answer))
    row["problem_id"] = str(row["problem_id"])
    if row.get("solution") is not None:
        row["solution"] = str(row["solution"])
    return Trace(**row)
