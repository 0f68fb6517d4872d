"""One problem under one rule: launch the traces, watch them, stop early, vote.

    solution = solve(problem, engine, rule, legal=competition.legal_answer)
    solution.vote.answer  # None when nobody voted

`sample_traces` draws many completions of many problems, for evaluation: no voting, no early stop.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

from fastmath_kit.budget.policy import ProblemState, Rule
from fastmath_kit.errors import ConfigError, EngineError
from fastmath_kit.inference.batch import Batch
from fastmath_kit.inference.protocol import Engine, Sampling
from fastmath_kit.inference.tools import PythonTool
from fastmath_kit.inference.voting import Ballot, majority_vote
from fastmath_kit.problems.answers import Answer
from fastmath_kit.problems.grading import shared_grader
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
            winner), `finished` (all traces ended), `timeout`, `engine` (it died), `no_traces` (the
            rule allowed no time), or what the rule's own stop said.
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
    weight: Callable[[Trace], float] | None = None,
    tool: PythonTool | None = None,
    on_event: Callable[[dict], None] | None = None,
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
        weight: What the vote of a trace counts, such as `voting.probability_weight`; None counts
            one each. The limits of the rule count traces all the same.
        tool: What the model may call while it writes, None for nothing.
        on_event: Told in one dict of every launch, call, ended trace and decision as it happens;
            its `t_s` counts from the call.
        clock: Seconds on a monotonic clock, the engine's.

    Raises:
        DataError: the prompt does not fit the model.
        EngineError: the engine was dead already.
    """
    start_s = clock()

    def tell(event: dict) -> None:
        if on_event is not None:
            on_event({"problem_id": problem.id, "t_s": clock() - start_s} | event)

    vote, reason, traces = majority_vote([]), "no_traces", []
    if rule.timeout_s > 0:
        sampling = replace(sampling or Sampling(max_tokens=1), max_tokens=rule.max_tokens)
        sampling = replace(sampling, weigh=sampling.weigh or weight is not None)
        with Batch(engine, clock, engine.name, tool=tool, on_event=tell) as batch:
            batch.launch(problem, rule.num_traces, sampling)
            launch = partial(batch.launch, problem, sampling=sampling)
            ballot = Ballot(legal, weight)
            reason = _Watch(batch, rule, ballot, launch, clock, start_s, tell).run()
            vote, traces = ballot.vote(), batch.traces()
    tell({"event": "stop", "reason": reason, "counts": vote.counts})
    return Solution(
        problem_id=problem.id,
        vote=vote,
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
    done: Sequence[Trace] = (),
    on_traces: Callable[[list[Trace]], None] | None = None,
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
        done: Traces of these problems that need not be sampled again.
        on_traces: Called with the traces that have just ended, graded as text only, and at least
            once a minute.
        on_progress: Called with the traces done and the traces in all.

    Raises:
        ConfigError: k is not positive.
        DataError: a prompt does not fit the model.
        EngineError: the engine died.
    """
    if k < 1:
        raise ConfigError(f"k must be at least 1, got {k}.")
    sampling = replace(sampling, seed=sampling.seed or 0)
    done, total = list(done), k * len(problems)
    known = {(trace.problem_id, trace.sample) for trace in done}
    with Batch(engine, time.monotonic, model or engine.name) as batch:
        for problem in problems:
            batch.launch(problem, k, sampling, known=known)
        while batch.num_running:
            ended = batch.poll(_POLL_S)
            if on_traces is not None:
                on_traces(ended)
            if ended and on_progress is not None:
                on_progress(total - batch.num_running, total)
        place = {problem.id: number for number, problem in enumerate(problems)}
        traces = [*done, *batch.traces()]
        return _grade(sorted(traces, key=lambda trace: (place[trace.problem_id], trace.sample)))


def _grade(traces: list[Trace]) -> list[Trace]:
    """Grades by math what `same_answer` compared as text; an ungradable gold becomes None."""
    known = [index for index, trace in enumerate(traces) if trace.correct is not None]
    pairs = [(traces[i].solution, traces[i].answer) for i in known]
    verdicts = shared_grader().grade_many((gold, "" if a is None else a) for gold, a in pairs)
    for index, verdict in zip(known, verdicts, strict=True):
        traces[index] = replace(traces[index], correct=verdict.correct)
    return traces


class _Watch:
    """One problem under way: asks its rule when a trace ends, and when the rule said to."""

    def __init__(
        self,
        batch: Batch,
        rule: Rule,
        ballot: Ballot,
        launch: Callable[[int], None],
        clock: Callable[[], float],
        start_s: float,
        tell: Callable[[dict], None],
    ) -> None:
        self._batch, self._rule, self._ballot = batch, rule, ballot
        self._launch, self._clock, self._start_s, self._tell = launch, clock, start_s, tell
        self._review_s = 0.0  # a rule with a stop of its own is asked at once

    def run(self) -> str:
        """Returns why no more votes are awaited."""
        try:
            return self._review() or self._watch()
        except EngineError as error:
            _log.error("an engine died under a problem, its votes so far decide: %s", error)
            return "engine"

    def _watch(self) -> str:
        while (left_s := self._rule.timeout_s - self._elapsed_s()) > 0:
            until_review_s = max(0.0, self._review_s - self._elapsed_s())
            finished = self._batch.poll(min(left_s, until_review_s))
            for trace in finished:
                self._ballot.add(trace)
            due = finished or self._elapsed_s() >= self._review_s
            reason = self._review() if due else None
            if reason := reason or self._stop_reason():
                return reason
        return "timeout"

    def _elapsed_s(self) -> float:
        return self._clock() - self._start_s

    def _review(self) -> str | None:
        """Does what the rule's own stop says now; returns its reason if that is to stop."""
        self._review_s = math.inf
        if self._rule.stop is None:
            return None
        first, second = self._ballot.top_votes()
        if first >= self._rule.stop_votes:
            return "votes"
        state = ProblemState(
            elapsed_s=self._elapsed_s(),
            answers=tuple(self._ballot.answers),
            leader_votes=first,
            second_votes=second,
            live_tokens=self._batch.live_tokens,
        )
        decision = self._rule.stop(state)
        self._tell({"event": "decision"} | asdict(decision) | {"leader_votes": first})
        self._review_s = decision.wake_s(state.elapsed_s)
        if decision.stop is None:
            self._launch(decision.launch)
        return decision.stop

    def _stop_reason(self) -> str | None:
        """Returns why the problem is decided, or None while running traces can change it."""
        first, second = self._ballot.top_votes()
        if first >= self._rule.stop_votes:
            return "votes"
        num_running = self._batch.num_running
        if num_running == 0:
            return "finished"
        if self._ballot.is_plain and first - second > num_running:
            return "lead"
        return None
