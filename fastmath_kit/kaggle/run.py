"""One run of a submission: which engine, which rule, how it went, and what to answer.

    run = Run(keeper=keeper, clock=clock, policy=policy, solve=solve, legal=legal, record=record,
              max_tokens=32_768)
    run.solve(line, statement)  # may raise
    run.decide(line)  # the votes so far
    run.end(line)

Whatever happens under `solve`, `decide` knows what was voted until then.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace

from fastmath_kit.budget.fitted import FittedPolicy
from fastmath_kit.budget.guard import LEAST_S
from fastmath_kit.budget.policy import Rule, RunState
from fastmath_kit.errors import EngineError
from fastmath_kit.inference.protocol import Engine
from fastmath_kit.inference.solve import Solution
from fastmath_kit.inference.voting import majority_vote
from fastmath_kit.kaggle.clock import Clock
from fastmath_kit.kaggle.keeper import EngineKeeper
from fastmath_kit.kaggle.pace import Pace, Span
from fastmath_kit.kaggle.record import Line, LiveProblem, RunRecord
from fastmath_kit.problems.records import Problem, Trace

_LATE_S = 0.05  # after its time-out a solver is not waited for any longer
_NUM_TRIES = 2  # of a problem whose engine dies before anybody voted
_log = logging.getLogger(__name__)


class Run:
    """What lasts from one call of `predict` to the next."""

    def __init__(
        self,
        *,
        keeper: EngineKeeper,
        clock: Clock,
        policy: Callable[[RunState], Rule],
        solve: Callable[..., Solution],
        legal: Callable,
        record: RunRecord,
        max_tokens: int | None = None,
    ) -> None:
        """Begins to start the engine.

        Args:
            keeper: Holds the engine.
            clock: What is left of the time.
            policy: What the next problem may spend.
            solve: Solves a problem on an engine under a rule, telling `on_event`.
            legal: Turns an answer into a candidate or None.
            record: The run's files.
            max_tokens: Longest trace, whatever a rule allows; None leaves it to the rules.
        """
        self._keeper, self._clock, self._policy = keeper, clock, policy
        self._solve, self._legal, self._record = solve, legal, record
        planned = policy.model if isinstance(policy, FittedPolicy) else None
        self._pace = Pace(planned, share_s=clock.deadline_s / clock.num_problems)
        self._live = record.begin(legal)
        self._max_tokens = math.inf if max_tokens is None else max_tokens
        self._num_done = 0
        self._spent_s = self._expected_s = 0.0  # of problems whose rule expected a time
        self._traces: list[Trace] = []
        keeper.start(clock.end_s)

    def solve(self, line: Line, statement: str) -> None:
        """Solves a problem and writes how it went into the line; raises if it cannot."""
        self._live = self._record.begin(self._legal)
        if not statement.strip():
            line.why = "the statement is empty"
            return
        end_s = time.monotonic() + self._clock.left_s(self._num_done)
        problem = Problem(id=line.id, statement=statement)
        for tries_left in reversed(range(_NUM_TRIES)):
            if end_s - time.monotonic() < LEAST_S:
                line.why = "no time is left"
                return
            engine = self._engine(line, end_s)
            self._pace.calibrate(self._keeper.probes)
            rule = self._rule(line, end_s)
            if rule.timeout_s <= 0:
                line.why = "the policy allows no time"
                return
            try:
                alive = self._attempt(line, problem, engine, rule)
            except EngineError:
                if not tries_left:
                    raise
                alive = False
            if alive or any(vote is not None for vote in self._live.votes):
                return

    def _engine(self, line: Line, end_s: float) -> Engine:
        """Returns the engine once it is up, and notes how long that took."""
        begin_s = time.monotonic()
        try:
            return self._keeper.ready(end_s)
        finally:
            line.waited_s += time.monotonic() - begin_s

    def _rule(self, line: Line, end_s: float) -> Rule:
        """Returns the policy's rule, cut to the time that the guard leaves."""
        line.kappa = self._pace.kappa
        state = replace(
            self._clock.state(self._num_done),
            kappa=line.kappa,
            spent_s=self._spent_s,
            expected_s=self._expected_s,
        )
        rule = self._policy(state)
        rule = replace(
            rule,
            max_tokens=min(rule.max_tokens, self._max_tokens),
            timeout_s=min(rule.timeout_s, max(0.0, end_s - time.monotonic())),
        )
        line.rule = asdict(replace(rule, stop=None))
        line.rule["stop"] = rule.stop and f"{rule.stop!r:.300}"
        line.rule["why"] = rule.why or f"limits of {type(self._policy).__name__}"
        return rule

    def _attempt(self, line: Line, problem: Problem, engine: Engine, rule: Rule) -> bool:
        """Solves under a rule; whether the engine survived it."""
        live = self._live = self._record.begin(self._legal)

        def work() -> Solution:
            solution = self._solve(problem, engine, rule, on_event=live)
            self._traces += solution.traces  # also of a solver that comes back too late
            return solution

        begin_s = time.monotonic()
        solution = self._keeper.call(engine, work, limit_s=rule.timeout_s + _LATE_S)
        line.stop_reason = "left" if solution is None else solution.stop_reason
        if solution is not None:
            line.completion_tokens = sum(trace.completion_tokens for trace in solution.traces)
            line.predicted_s = self._pace.update(_spans(live, solution), seconds=solution.seconds)
        if line.stop_reason == "engine":
            self._keeper.restart("died", engine)
            return False
        if rule.expected_s is not None:
            self._spent_s += time.monotonic() - begin_s
            self._expected_s += rule.expected_s
        return True

    def decide(self, line: Line) -> None:
        """Answers with the votes heard so far, if there are any."""
        self._live.end()
        line.num_traces, line.decisions = len(self._live.starts_s), self._live.decisions
        vote = majority_vote(self._live.votes)
        line.votes = [list(count) for count in vote.counts]
        if vote.answer is not None:
            line.answer, line.fallback = vote.answer, False
        elif line.why is None:
            line.why = "no legal answer got a vote"

    def end(self, line: Line) -> None:
        """Counts a problem as done and writes its line and the traces so far."""
        self._num_done += 1
        line.elapsed_s = self._clock.elapsed_s()
        line.summary = line.in_words()
        if line.fallback:
            _log.warning("FALLBACK: problem %s: %s", line.id, line.why)
        _log.info("problem %s (%d): %s", line.id, self._num_done, line.summary)
        self._record.end(line, self._traces)


def _spans(live: LiveProblem, solution: Solution) -> list[Span]:
    return [
        Span(
            start_s=start_s,
            end_s=start_s + trace.seconds,
            completion_tokens=trace.completion_tokens,
        )
        for start_s, trace in zip(live.starts_s, solution.traces, strict=False)  # died in a launch
    ]
