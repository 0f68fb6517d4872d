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
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fastmath_kit.errors import DataError
from fastmath_kit.problems.answers import Answer, parse_answer
from fastmath_kit.problems.files import atomic_path, read_csv_rows

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
        mean_logprob: `Update.mean_logprob`; None where nobody asked, as `tail_entropy`.
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
    mean_logprob: float | None = None
    tail_entropy: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """What the traces of one problem agreed on.

    Attributes:
        answer: The winner, None when nobody voted.
        counts: `(answer, votes)`, or the sums of their weights, the winner first.
        num_voters: Traces that gave a candidate in range.
    """

    answer: Answer | None
    counts: tuple[tuple[Answer, float], ...] = ()
    num_voters: int = 0


def read_problems(path: str | Path) -> list[Problem]:
    """Reads a problem file.

    Raises:
        DataError: the file is missing, lacks a column, or a row is empty or repeated. The message
            names the row (the header is row 1) and the column.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"{path}: no such problem file. Give a CSV with columns id,problem[,answer]."
        )
    (_, header), *rows = read_csv_rows(path) or [(1, [])]
    _check_header(path, header)
    if not rows:
        raise DataError(f"{path}: has a header but no rows. Add at least one problem.")
    problems, seen = [], {}
    for row_number, values in rows:
        problem = _problem(path, row_number, header, values)
        if problem.id in seen:
            raise DataError(
                f"{path}: row {row_number}, column id: {problem.id!r} already stands in row "
                f"{seen[problem.id]}. Ids must be unique."
            )
        seen[problem.id] = row_number
        problems.append(problem)
    return problems


def _check_header(path: Path, header: list[str]) -> None:
    for name in ("id", "problem"):
        if name not in header:
            raise DataError(
                f"{path}: row 1: no column {name!r}, found {header}. "
                "The header must be id,problem or id,problem,answer."
            )
    for name in ("id", "problem", "answer"):
        if header.count(name) > 1:
            raise DataError(f"{path}: row 1: the column {name!r} appears twice. Rename one.")


def _problem(path: Path, row_number: int, header: list[str], values: list[str]) -> Problem:
    if len(values) != len(header):
        raise DataError(
            f"{path}: row {row_number}: has {len(values)} columns, the header has {len(header)}. "
            "Quote statements that contain commas or line breaks."
        )
    row = dict(zip(header, values, strict=True))
    for column in ("id", "problem"):
        if not row[column].strip():
            raise DataError(f"{path}: row {row_number}, column {column}: is empty. Fill it in.")
    solution = row.get("answer", "").strip()
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
    types |= dict.fromkeys(("seconds", "mean_logprob", "tail_entropy"), pl.Float64)
    names = [field.name for field in dataclasses.fields(Trace)]
    frame = pl.DataFrame(rows, schema={name: types.get(name, pl.String) for name in names})
    buffer = io.BytesIO()  # polars reports a full disk in several ways, Python in one
    frame.write_csv(buffer) if Path(path).suffix == ".csv" else frame.write_parquet(buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


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
            # All text: polars would read the ids 007 and 424e18 as the numbers 7 and 4.24e20.
            frame = pl.read_csv(path, infer_schema=False)
        else:
            frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: not a readable trace file ({reason}).") from error
    for name in _REQUIRED_TRACE_COLUMNS:
        if name not in frame.columns:
            raise DataError(f"{path}: no column {name!r}, found {frame.columns}.")
    known = [f.name for f in dataclasses.fields(Trace) if f.name in frame.columns]
    rows = frame.select(known).iter_rows(named=True)
    return [_trace(path, number, row) for number, row in enumerate(rows, start=1)]


def _trace(path: Path, number: int, row: dict) -> Trace:
    for name in ("problem_id", "sample", "completion_tokens"):
        if row[name] is None:
            raise DataError(f"{path}: trace {number}, column {name}: is empty. Fill it in.")
    for name, convert in _TRACE_VALUES.items():
        value = row.get(name)
        if value is not None:
            try:
                row[name] = convert(value)
            except ValueError as error:
                raise DataError(
                    f"{path}: trace {number}, column {name}: {error}, got {value!r}."
                ) from error
    return Trace(**row)


def _whole_number(value: int | float | str) -> int:
    """Returns a count as CSV text, parquet or a pandas frame with gaps (floats) writes it."""
    number = parse_answer(str(value))
    if not isinstance(number, int) or number < 0:
        raise ValueError("expected a whole number >= 0")
    return number


def _boolean(value: bool | str) -> bool:
    known = {"true": True, "1": True, "false": False, "0": False}
    if (name := str(value).casefold()) not in known:
        raise ValueError("expected true or false")
    return known[name]


def _number(value: float | str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise ValueError("expected a number") from error


_TRACE_VALUES = {
    "problem_id": str,
    "sample": _whole_number,
    "completion_tokens": _whole_number,
    "answer": lambda value: parse_answer(str(value)),
    "solution": str,
    "correct": _boolean,
    "seconds": _number,
    "mean_logprob": _number,
    "tail_entropy": _number,
}
