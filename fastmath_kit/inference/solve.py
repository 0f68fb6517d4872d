"""One problem under one rule: launch the traces, watch them, stop early, vote.

    solution = solve(problem, engine, rule, legal=competition.legal_answer)
    solution.vote.answer  # None when nobody voted

`sample_traces` draws many completions of many problems, for evaluation: no voting, no early stop.
"""

import logging
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from fastmath_kit.budget.policy import Rule
from fastmath_kit.errors import ConfigError, DataError, EngineError
from fastmath_kit.inference.protocol import Engine, Sampling, Update
from fastmath_kit.inference.voting import majority_vote
from fastmath_kit.problems.answers import Answer, extract_answer, same_answer
from fastmath_kit.problems.grading import shared_grader
from fastmath_kit.problems.prompts import prompt_ids
from fastmath_kit.problems.records import Problem, Trace, Vote

_POLL_S = 60.0  # how long bulk sampling waits at a time; nothing depends on it
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """What became of one problem.

    Attributes:
        problem_id: `Problem.id`.
        vote: The winner and all counts.
        traces: Every launched trace by `sample`, the aborted ones with what they had written.
        stop_reason: `votes` (stop_votes equal answers), `lead` (the rest could not change the
            winner), `finished` (all traces ended), `timeout`, `engine` (it died), or `no_traces`
            (the rule allowed no time).
        seconds: From the call to the decision.
    """

    problem_id: str
    vote: Vote
    traces: tuple[Trace, ...]
    stop_reason: str
    seconds: float


def solve(
    problem: Problem,
    engine: Engine,
    rule: Rule,
    *,
    legal: Callable[[Answer | None], int | None] | None = None,
    sampling: Sampling | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Solution:
    """Returns the majority answer of `rule.num_traces` traces, by `rule.timeout_s` at the latest.

    Nothing is waited for after the decision: running traces are aborted and left to the engine. An
    engine that dies ends the problem with the votes so far; the next launch then raises.

    Args:
        problem: What to solve.
        engine: Serves the traces.
        rule: How many traces, and when to stop.
        legal: Turns an answer into a candidate or None, such as `Competition.legal_answer`. Answers
            it rejects do not vote. None lets every answer vote.
        sampling: How traces are drawn; its `max_tokens` gives way to the rule's. None is vLLM's
            default.
        clock: Seconds on a monotonic clock, the engine's.

    Raises:
        DataError: the prompt does not fit the model.
        EngineError: the engine was dead already.
    """
    start_s = clock()
    votes, reason, traces = [], "no_traces", []
    if rule.timeout_s > 0:
        sampling = replace(sampling or Sampling(max_tokens=1), max_tokens=rule.max_tokens)
        with _Batch(engine, clock, engine.name) as batch:
            batch.launch(problem, rule.num_traces, sampling)
            votes, reason = _watch(batch, rule, legal, start_s + rule.timeout_s, clock)
            traces = batch.traces()
    return Solution(
        problem_id=problem.id,
        vote=majority_vote(votes),
        traces=tuple(traces),
        stop_reason=reason,
        seconds=clock() - start_s,
    )


def sample_traces(
    problems: Sequence[Problem],
    engine: Engine,
    *,
    k: int,
    sampling: Sampling,
    model: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Trace]:
    """Returns `k` traces of every problem, by problem and then sample.

    All completions are launched at once; the engine decides how many run together. A trace is
    graded where its problem has a solution.

    Args:
        problems: What to sample.
        engine: Serves the traces.
        k: Completions a problem.
        sampling: How they are drawn. Each has its own seed, made of `sampling.seed` (None counts as
            0), the problem's id and the sample, so a subset of the problems repeats its seeds.
        model: Name recorded in the traces; None takes the engine's.
        on_progress: Called with the traces done and the traces in all.

    Raises:
        ConfigError: k is not positive.
        DataError: a prompt does not fit the model.
        EngineError: the engine died.
    """
    if k < 1:
        raise ConfigError(f"k must be at least 1, got {k}.")
    sampling = replace(sampling, seed=sampling.seed or 0)
    with _Batch(engine, time.monotonic, model or engine.name) as batch:
        for problem in problems:
            batch.launch(problem, k, sampling)
        total = num_running = batch.num_running
        while num_running:
            batch.poll(_POLL_S)
            if on_progress is not None and batch.num_running < num_running:
                on_progress(total - batch.num_running, total)
            num_running = batch.num_running
        return _grade(batch.traces())


def _grade(traces: list[Trace]) -> list[Trace]:
    """Grades by math what `same_answer` compared as text; an ungradable gold becomes None."""
    known = [index for index, trace in enumerate(traces) if trace.correct is not None]
    pairs = [(traces[i].solution, traces[i].answer) for i in known]
    verdicts = shared_grader().grade_many((gold, "" if a is None else a) for gold, a in pairs)
    for index, verdict in zip(known, verdicts, strict=True):
        traces[index] = replace(traces[index], correct=verdict.correct)
    return traces


class _Batch:
    """Launched completions and what was heard of them; leaving it aborts what still runs."""

    def __init__(self, engine: Engine, clock: Callable[[], float], model: str) -> None:
        self._engine, self._clock, self._model = engine, clock, model
        self._launched: dict[str, tuple[Problem, int, float]] = {}  # with sample and start
        self._running: dict[str, Update] = {}
        self._finished: dict[str, Trace] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception) -> None:
        if self._running:
            self._engine.abort(list(self._running))

    @property
    def num_running(self) -> int:
        return len(self._running)

    def launch(self, problem: Problem, num_traces: int, sampling: Sampling) -> None:
        """Starts samples 0 to `num_traces - 1` of a problem."""
        ids = prompt_ids(self._engine.tokenizer, problem.statement)
        for sample in range(num_traces):
            seed = sampling.seed
            if seed is not None:
                seed = zlib.crc32(f"{seed}/{problem.id}/{sample}".encode())
            try:
                request_id = self._engine.launch(ids, replace(sampling, seed=seed))
            except DataError as error:
                raise DataError(f"problem {problem.id}: {error}") from error
            self._launched[request_id] = (problem, sample, self._clock())
            self._running[request_id] = Update(request_id=request_id)

    def poll(self, timeout_s: float) -> list[Trace]:
        """Returns the traces that finished, waiting at most `timeout_s` for any news."""
        finished = []
        for update in self._engine.poll(timeout_s):
            if update.request_id not in self._running:
                continue  # of an earlier batch
            self._running[update.request_id] = update
            if update.finish_reason is not None:
                del self._running[update.request_id]
                self._finished[update.request_id] = self._trace(update, update.finish_reason)
                finished.append(self._finished[update.request_id])
        return finished

    def traces(self) -> list[Trace]:
        """Returns all traces as launched, those still running as aborted."""
        running = {name: self._trace(update, "abort") for name, update in self._running.items()}
        return [(self._finished | running)[name] for name in self._launched]

    def _trace(self, update: Update, finish_reason: str) -> Trace:
        problem, sample, start_s = self._launched[update.request_id]
        answer = extract_answer(update.text) if finish_reason == "stop" else None
        graded = problem.solution is not None
        return Trace(
            problem_id=problem.id,
            sample=sample,
            completion_tokens=update.completion_tokens,
            answer=answer,
            completion=update.text,
            finish_reason=finish_reason,
            solution=problem.solution,
            correct=same_answer(answer, problem.solution) if graded else None,
            seconds=self._clock() - start_s,
            model=self._model,
        )


def _watch(
    batch: _Batch,
    rule: Rule,
    legal: Callable[[Answer | None], int | None] | None,
    deadline_s: float,
    clock: Callable[[], float],
) -> tuple[list[Answer | None], str]:
    """Returns the votes in finishing order and why no more of them were awaited."""
    votes: list[Answer | None] = []
    while (left_s := deadline_s - clock()) > 0:
        try:
            finished = batch.poll(left_s)
        except EngineError as error:
            _log.error("an engine died under a problem, its votes so far decide: %s", error)
            return votes, "engine"
        votes += [trace.answer if legal is None else legal(trace.answer) for trace in finished]
        reason = _stop_reason(majority_vote(votes), batch.num_running, rule)
        if reason is not None:
            return votes, reason
    return votes, "timeout"


def _stop_reason(vote: Vote, num_running: int, rule: Rule) -> str | None:
    """Returns why the problem is decided, or None while running traces can change it."""
    first, second = [*(count for _, count in vote.counts), 0, 0][:2]
    if first >= rule.stop_votes:
        return "votes"
    if num_running == 0:
        return "finished"
    return "lead" if first - second > num_running else None
