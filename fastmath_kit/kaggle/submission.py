"""Makes the function the gateway calls: it always answers, in time, and says what it did.

    predict = make_predict(
        start_engine, competition=aimo3, policy=policy, clock_start_s=CLOCK_START_S,
        deadline_s=17_400, num_problems=50, fallback_answer=0, log_path="log.jsonl",
    )

A crash of `predict` loses all remaining problems, so whatever happens it returns a legal answer.
The engine starts in the background, so that the server listens within Kaggle's 15 minutes.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from fastmath_kit.budget.policy import Rule, RunState
from fastmath_kit.errors import ConfigError, DataError
from fastmath_kit.inference.protocol import Engine, Sampling
from fastmath_kit.inference.solve import solve
from fastmath_kit.kaggle.clock import LATE_S, Clock
from fastmath_kit.kaggle.keeper import EngineKeeper
from fastmath_kit.problems.competition import Competition
from fastmath_kit.problems.records import Problem, Trace, write_traces

_logger = logging.getLogger(__name__)
_LEAST_S = 0.5  # less than this is no time to solve anything


@dataclass(slots=True, kw_only=True)
class _Record:
    """One line of the log; what no solution filled in stays None."""

    id: str
    answer: int
    fallback: bool = True
    why: str | None = None
    votes: list | None = None
    stop_reason: str | None = None
    completion_tokens: int | None = None
    rule: dict | None = None
    seconds: float | None = None
    elapsed_s: float | None = None


def make_predict(
    start_engine: Callable[[], Engine],
    *,
    competition: Competition,
    policy: Callable[[RunState], Rule],
    clock_start_s: float,
    deadline_s: float,
    num_problems: int,
    fallback_answer: int,
    log_path: str | Path,
    sampling: Sampling | None = None,
    reserve_s: float = 60.0,
) -> Callable:
    """Returns the plain function `predict(id_, problem, answer=None)` for the inference server.

    Args:
        start_engine: Builds the engine; called at once, in a background thread, and once more if
            the engine fails.
        competition: Which answers are legal and how long one call may take.
        policy: What the next problem may spend.
        clock_start_s: `time.monotonic()` at the notebook's start.
        deadline_s: When the last answer must be out, in seconds after the clock's start.
        num_problems: Problems the gateway will send.
        fallback_answer: What is answered when nothing better is known.
        log_path: One JSON line per problem. The traces go to `traces.parquet` beside it; older
            files of both names are replaced.
        sampling: How completions are drawn; the rule sets `max_tokens`. None for the solver's own.
        reserve_s: Kept back before the deadline.

    Raises:
        ConfigError: an illegal fallback, an impossible clock, or a log that cannot be written.
    """
    _check_settings(competition, fallback_answer, deadline_s)
    clock = Clock(
        start_s=clock_start_s,
        deadline_s=deadline_s,
        num_problems=num_problems,
        reserve_s=reserve_s,
        call_limit_s=competition.call_limit_s,
    )
    run = _Run(
        clock=clock,
        policy=policy,
        solve=partial(solve, legal=competition.legal_answer, sampling=sampling),
        log_path=_new_log(Path(log_path)),
        keeper=EngineKeeper(start_engine),  # last: it starts the engine
    )
    return _guarded(run, fallback_answer)


def _check_settings(competition: Competition, fallback_answer: int, deadline_s: float) -> None:
    if fallback_answer is None or competition.legal_answer(fallback_answer) != fallback_answer:
        raise ConfigError(
            f"fallback_answer must be in {competition.min_answer}..{competition.max_answer}, got "
            f"{fallback_answer!r}."
        )
    if deadline_s > competition.notebook_limit_s:
        raise ConfigError(
            f"deadline_s={deadline_s} is longer than the {competition.notebook_limit_s:.0f} s of a "
            f"notebook in {competition.name}. Lower it."
        )


def _guarded(run: "_Run", fallback_answer: int) -> Callable:
    """Returns the plain function that Kaggle asks for, around a run's bookkeeping."""

    def predict(id_, problem, answer=None):
        """Answers one problem; a third column, the gold answer of a rehearsal, is not looked at."""
        start_s = time.monotonic()
        record = _Record(id="", answer=fallback_answer)
        try:
            record.id = _text(id_)
            run.fill(record, _text(problem))
        except Exception as error:  # a crash would lose all remaining problems
            record.why = f"{type(error).__name__}: {error}"
            _logger.exception("problem %s is answered with the fallback", record.id)
        record.seconds = time.monotonic() - start_s
        run.close(record)
        return _row(record)

    return predict


class _Run:
    """What lasts from one call to the next."""

    def __init__(
        self,
        *,
        keeper: EngineKeeper,
        clock: Clock,
        policy: Callable[[RunState], Rule],
        solve: Callable,
        log_path: Path,
    ) -> None:
        self._keeper = keeper
        self._clock = clock
        self._policy = policy
        self._solve = solve
        self._log_path = log_path
        self._num_done = 0
        self._spent_s = self._expected_s = 0.0  # of problems whose rule expected a time
        self._traces: list[Trace] = []

    def fill(self, record: _Record, statement: str) -> None:
        """Solves a problem and writes what came out into the record; raises if it cannot."""
        if not statement.strip():
            record.why = "the statement is empty"
            return
        end_s = time.monotonic() + self._clock.left_s(self._num_done)
        engine = self._keeper.ready(end_s)
        state = self._clock.state(self._num_done)
        rule = self._policy(replace(state, spent_s=self._spent_s, expected_s=self._expected_s))
        left_s = max(0.0, end_s - time.monotonic())
        rule = replace(rule, timeout_s=min(left_s, rule.timeout_s))
        record.rule = asdict(replace(rule, stop=None)) | {"stop": rule.stop and repr(rule.stop)}
        if rule.timeout_s < _LEAST_S:
            record.why = "no time is left"
            return
        problem = Problem(id=record.id, statement=statement)
        solving = partial(self._solve, problem, engine, rule)
        solution = self._keeper.call(engine, solving, limit_s=rule.timeout_s + LATE_S)
        if solution.stop_reason == "engine":
            self._keeper.restart("died", engine)
        if rule.expected_s is not None:
            self._spent_s += solution.seconds
            self._expected_s += rule.expected_s
        self._traces += solution.traces
        record.votes = [list(count) for count in solution.vote.counts]
        record.stop_reason = solution.stop_reason
        record.completion_tokens = sum(trace.completion_tokens for trace in solution.traces)
        if solution.vote.answer is None:
            record.why = "no legal answer got a vote"
        else:
            record.answer, record.fallback = solution.vote.answer, False

    def close(self, record: _Record) -> None:
        """Counts a problem as done and writes its line and the traces so far."""
        self._num_done += 1
        record.elapsed_s = self._clock.elapsed_s()
        if record.fallback:
            _logger.warning("FALLBACK: problem %s: %s", record.id, record.why)
        try:
            with self._log_path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(record)) + "\n")
            if self._traces:
                write_traces(self._traces, self._log_path.with_name("traces.parquet"))
        except (OSError, DataError) as error:
            _logger.error("the log cannot be written, answering goes on (%s)", error)


def _new_log(path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")
        path.with_name("traces.parquet").unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror}). Choose another log_path."
        ) from error
    return path


def _text(value) -> str:
    """Returns the text of a one-row polars Series, or of a bare value; None becomes empty."""
    import polars as pl

    if isinstance(value, pl.Series):
        value = value[0] if len(value) else None
    return "" if value is None else str(value).encode(errors="replace").decode()


def _row(record: _Record):
    import polars as pl

    row = {"id": [record.id], "answer": [record.answer]}
    return pl.DataFrame(row, schema={"id": pl.String, "answer": pl.Int64})
