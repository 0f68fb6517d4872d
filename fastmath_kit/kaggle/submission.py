"""Makes the function the gateway calls: it always answers, in time, and says what it did.

    predict, close = make_predict(
        start_engine, competition=aimo3, policy=policy, clock_start_s=CLOCK_START_S,
        deadline_s=17_400, num_problems=50, fallback_answer=0, log_path="log.jsonl",
    )

A crash of `predict` loses all remaining problems, so whatever happens it returns a legal answer.
The engine starts in the background, so that the server listens within Kaggle's 15 minutes. At the
deadline of a problem the votes heard so far decide, even if the engine never comes back.
"""

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from fastmath_kit.budget.policy import Rule, RunState
from fastmath_kit.budget.throughput import Probe
from fastmath_kit.errors import ConfigError, EngineError, FastMathError
from fastmath_kit.inference.protocol import Engine, Sampling
from fastmath_kit.inference.sandbox import Sandbox
from fastmath_kit.inference.solve import solve
from fastmath_kit.inference.tools import PythonTool
from fastmath_kit.kaggle.clock import Clock
from fastmath_kit.kaggle.keeper import EngineKeeper
from fastmath_kit.kaggle.record import Line, RunRecord
from fastmath_kit.kaggle.run import Run
from fastmath_kit.problems.competition import Competition

_logger = logging.getLogger(__name__)


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
    tool: PythonTool | None = None,
    measure: Callable[[Engine], Sequence[Probe]] | None = None,
    reserve_s: float = 60.0,
) -> tuple[Callable, Callable[[], None]]:
    """Returns the plain function `predict(id_, problem, answer=None)`, and what ends the run.

    The second closes the engine, the tool's sandbox and the files; call it after the last problem.

    Args:
        start_engine: Builds the engine; called at once, in a background thread, and again if the
            engine fails.
        competition: Which answers are legal and how long one call may take.
        policy: What the next problem may spend.
        clock_start_s: `time.monotonic()` at the notebook's start.
        deadline_s: When the last answer must be out, in seconds after the clock's start.
        num_problems: Problems the gateway will send.
        fallback_answer: What is answered when nothing better is known.
        log_path: One JSON line per problem (`record.Line`); `events.jsonl` and `traces.parquet`
            come beside it. Older files are replaced.
        sampling: How completions are drawn; its `max_tokens` limits the rule's. None: as `solve`.
        tool: What the model may call while it writes, None for nothing.
        measure: Measures the started engine's speed, such as `warmup.measure_probes`.
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
    legal, record = competition.legal_answer, RunRecord(log_path, clock)
    keeper = EngineKeeper(start_engine, measure=measure)
    solving = partial(solve, legal=legal, sampling=sampling, tool=tool)
    run = Run(
        keeper=keeper,
        clock=clock,
        policy=policy,
        solve=solving,
        legal=legal,
        record=record,
        max_tokens=sampling and sampling.max_tokens,
    )
    closing = [keeper.close, *([] if tool is None else [tool.sandbox.close]), record.close]
    return _guarded(run, fallback_answer), partial(_call_all, closing)


def _call_all(functions: Sequence[Callable[[], None]]) -> None:
    for function in functions:
        function()


def python_tool(style: str) -> PythonTool | None:
    """Returns the tool in a style of `PythonTool`, None where code cannot be contained.

    A kernel never dies of it: the model then goes without.

    Args:
        style: `fenced` or `tool_call`; empty for no tool.

    Raises:
        ConfigError: another style.
    """
    if not style:
        return None
    try:
        sandbox = Sandbox()
    except EngineError as error:
        _logger.error("the model goes without Python: %s", error)
        return None
    _logger.info("the model may run Python; it is kept in by: %s", sandbox.isolation)
    return PythonTool(sandbox=sandbox, style=style)


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


def _guarded(run: Run, fallback_answer: int) -> Callable:
    """Returns the plain function that Kaggle asks for, around a run's bookkeeping."""

    def predict(id_, problem, answer=None):
        """Answers one problem; a third column, the gold answer of a rehearsal, is not looked at."""
        start_s = time.monotonic()
        line = Line(id="", answer=fallback_answer)
        try:
            line.id = _text(id_)
            run.solve(line, _text(problem))
        except Exception as error:  # a crash would lose all remaining problems
            line.why = f"{type(error).__name__}: {error}"
            unknown = not isinstance(error, FastMathError)
            _logger.error("problem %s: %s", line.id, line.why, exc_info=unknown)
        run.decide(line)
        line.seconds = time.monotonic() - start_s
        run.end(line)
        return _row(line)

    return predict


def _text(value) -> str:
    """Returns the text of a one-row polars Series, or of a bare value; None becomes empty."""
    import polars as pl

    if isinstance(value, pl.Series):
        value = value[0] if len(value) else None
    return "" if value is None else str(value).encode(errors="replace").decode()


def _row(line: Line):
    import polars as pl

    row = {"id": [line.id], "answer": [line.answer]}
    return pl.DataFrame(row, schema={"id": pl.String, "answer": pl.Int64})
