r"""How long a model's completions of a problem are: labels from trace files, and predictions.

    labels = length_labels(read_traces("traces.parquet"), read_problems("problems.csv"))
    write_labels(labels, "length.parquet")

Lengths are counted in completion tokens and compared on a logarithmic scale, where the lengths of
one problem's traces are near to normal.

A truncated trace (`length`, or `abort`) is censored: its length is at least what was recorded. It
counts as long as such a trace is on average, given the recorded limit and a normal law of its
problem, whose mean solves this and whose spread is the usual one of the file (a Tobit fit with one
spread). Where all traces of a problem are truncated nothing bounds its length from above: one of
them counts as if it had ended at its limit, so that such labels are too short.
"""

import dataclasses
import io
import math
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastmath_kit.errors import DataError
from fastmath_kit.problems.files import atomic_path
from fastmath_kit.problems.records import Problem, Trace

_USUAL_SD_LOG = 0.35  # of one problem's traces, where a file cannot tell
_CENSORED = ("length", "abort")
_LEAST_PROBLEMS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthLabel:
    """What was recorded of one problem.

    Attributes:
        problem_id: `Problem.id`.
        problem: The statement.
        mean_log_tokens: Mean of the logarithm of its traces' tokens.
        sd_log_tokens: Their standard deviation (of these traces, not of a population).
        tokens: Of each trace, as recorded.
        truncated: Whether each was cut, so that its length is at least its tokens.
    """

    problem_id: str
    problem: str
    mean_log_tokens: float
    sd_log_tokens: float
    tokens: tuple[int, ...]
    truncated: tuple[bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthPrediction:
    """What a completion of a problem will take; its length is log-normal.

    Attributes:
        mean_tokens: Expected completion tokens of one trace.
        sd_log: Standard deviation of the logarithm of its tokens: how much the traces of a problem
            differ, and how far off the prediction is.
    """

    mean_tokens: float
    sd_log: float

    @property
    def mean_log_tokens(self) -> float:
        """Mean of the logarithm of the tokens, which is the logarithm of their median."""
        return math.log(self.mean_tokens) - 0.5 * self.sd_log**2


def prediction(mean_log_tokens: float, sd_log: float) -> LengthPrediction:
    """Returns the prediction of a normal law of the logarithm.

    >>> prediction(0.0, 2.0).mean_tokens == math.exp(2.0)
    True
    """
    return LengthPrediction(mean_tokens=math.exp(mean_log_tokens + 0.5 * sd_log**2), sd_log=sd_log)


def length_labels(traces: Iterable[Trace], problems: Iterable[Problem]) -> list[LengthLabel]:
    """Returns a label for every problem that has traces, in the order of `problems`.

    Raises:
        DataError: the traces are of several models, or none is of these problems.
    """
    groups: dict[str, list[Trace]] = defaultdict(list)
    models = set()
    for trace in traces:
        groups[trace.problem_id].append(trace)
        models.add(trace.model)
    if len(models) > 1:
        raise DataError(
            f"the traces are of {len(models)} models ({', '.join(sorted(map(str, models))[:3])}), "
            "whose lengths differ. Give the trace file of one."
        )
    known = [problem for problem in problems if problem.id in groups]
    if not known:
        raise DataError(
            "no trace is of these problems. Give the problem file the traces were sampled from."
        )
    usual_sd = _usual_sd([groups[problem.id] for problem in known])
    return [_label(problem, groups[problem.id], usual_sd) for problem in known]


def _label(problem: Problem, traces: Sequence[Trace], usual_sd: float) -> LengthLabel:
    truncated = [trace.finish_reason in _CENSORED for trace in traces]
    mean, sd = censored_law(_logs(traces), truncated, usual_sd)
    return LengthLabel(
        problem_id=problem.id,
        problem=problem.statement,
        mean_log_tokens=mean,
        sd_log_tokens=sd,
        tokens=tuple(trace.completion_tokens for trace in traces),
        truncated=tuple(truncated),
    )


def _logs(traces: Sequence[Trace]) -> list[float]:
    return [math.log(max(trace.completion_tokens, 1)) for trace in traces]


def _usual_sd(groups: Iterable[Sequence[Trace]]) -> float:
    """Returns the pooled standard deviation of the problems that have two finished traces."""
    squares, degrees = 0.0, 0
    for traces in groups:
        logs = np.array(_logs([t for t in traces if t.finish_reason not in _CENSORED]))
        if len(logs) > 1:
            squares += float(((logs - logs.mean()) ** 2).sum())
            degrees += len(logs) - 1
    return max(math.sqrt(squares / degrees), 1e-3) if degrees else _USUAL_SD_LOG


def censored_law(
    log_tokens: Sequence[float], truncated: Sequence[bool], usual_sd: float
) -> tuple[float, float]:
    """Returns mean and standard deviation of one problem's log lengths, some of them cut.

    >>> censored_law([1.0, 3.0], [False, False], 0.5)
    (2.0, 1.0)
    >>> censored_law([1.0, 3.0], [False, True], 0.5)[0] > 2.0
    True
    """
    is_cut = np.array(truncated)
    logs = np.array(log_tokens)
    if not is_cut.any():
        return float(logs.mean()), float(logs.std())
    if is_cut.all():
        is_cut[0] = False
    limits, mean = logs[is_cut], float(logs.mean())
    for _ in range(200):  # converges: each step moves the mean by less than the last
        hazards = np.array([_hazard((limit - mean) / usual_sd) for limit in limits])
        new = float((logs[~is_cut].sum() + (mean + usual_sd * hazards).sum()) / len(logs))
        if abs(new - mean) < 1e-9:
            break
        mean = new
    beyond = usual_sd**2 * (1 + (limits - mean) / usual_sd * hazards)  # E[(x - mean)^2 | x > limit]
    squares = ((logs[~is_cut] - mean) ** 2).sum() + beyond.sum()
    return mean, math.sqrt(squares / len(logs))


def _hazard(z: float) -> float:
    """Returns E[x | x > z] of a standard normal x."""
    if z > 10:
        return z + 1 / z
    return math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi) / (0.5 * math.erfc(z / math.sqrt(2)))


def split_labels(
    labels: Sequence[LengthLabel], *, held_out: float, seed: int
) -> tuple[list[LengthLabel], list[LengthLabel]]:
    """Returns labels to train on and held-out ones; a statement is in one of them only.

    Args:
        labels: Of one model.
        held_out: Share of the statements held out, in (0, 1).
        seed: Fixes the split.

    Raises:
        DataError: fewer than 10 different statements.
    """
    by_statement = defaultdict(list)
    for label in labels:
        by_statement[" ".join(label.problem.split())].append(label)
    if len(by_statement) < _LEAST_PROBLEMS:
        raise DataError(
            f"a length predictor needs at least {_LEAST_PROBLEMS} different problems, got "
            f"{len(by_statement)}. Sample traces of more."
        )
    names = sorted(by_statement)
    random.Random(seed).shuffle(names)
    num_held_out = min(max(round(held_out * len(names)), 2), len(names) - 2)
    parts = names[num_held_out:], names[:num_held_out]
    train, test = ([label for name in part for label in by_statement[name]] for part in parts)
    return train, test


def write_labels(labels: Iterable[LengthLabel], path: str | Path) -> None:
    """Writes labels as parquet."""
    import polars as pl

    buffer = io.BytesIO()
    pl.DataFrame([dataclasses.asdict(label) for label in labels]).write_parquet(buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_labels(path: str | Path) -> list[LengthLabel]:
    """Reads what `write_labels` wrote.

    Raises:
        DataError: the file is missing or of another kind.
    """
    import polars as pl

    names = [field.name for field in dataclasses.fields(LengthLabel)]
    try:
        rows = pl.read_parquet(path).select(names).to_dicts()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{path}: not a file of length labels ({' '.join(str(error).split())}). "
            "Write one with `fastmath data length`."
        ) from error
    lists = ("tokens", "truncated")
    return [LengthLabel(**row | {name: tuple(row[name]) for name in lists}) for row in rows]
