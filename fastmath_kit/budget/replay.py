"""Recorded traces through a policy on a simulated clock: fifty problems in milliseconds.

    pool = recorded_problems(read_traces("traces.parquet"))
    outcomes = play_run(draw_run(pool, 50, random.Random(0)), policy, model=HARDWARE["h100"],
                        deadline_s=17_400, num_problems=50)
    sum(outcome.right for outcome in outcomes)

The clock is event-driven: between two events every running trace grows a token a step, and the
step takes what `throughput.StepTime` says for their number and context. All policies that replay
one drawn run see the same problems in the same order, and the n-th launch of a problem is the same
trace for all of them: differences are paired. Times are in seconds.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastmath_kit.budget.fitted import FittedPolicy
from fastmath_kit.budget.guard import LEAST_S, guard_s
from fastmath_kit.budget.policy import Decision, Rule, RunState
from fastmath_kit.budget.recorded import Recorded
from fastmath_kit.budget.simulated import SimulatedEngine
from fastmath_kit.budget.throughput import Drift, StepTime
from fastmath_kit.budget.weather import FAIR, Weather

_GO_ON = Decision()
_PROBED = (8, 8 * 1_000)  # traces and context of the step that says how fast an engine is


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one replayed problem.

    Attributes:
        problem_id: `Recorded.problem_id`.
        right: Whether the winner of the vote is right.
        answered: Whether anybody voted; otherwise the fallback is the answer.
        reason: `votes`, `lead`, `finished`, `timeout`, `no_traces` or a stop's own word.
        start_s: When it started on the run's clock.
        seconds: How long it took.
        work_s: How long the same work takes on the engine that the policy counts on.
        num_traces: Traces launched.
        leader_votes: Votes of the winner.
        why: `Rule.why`.
    """

    problem_id: str
    right: bool
    answered: bool
    reason: str
    start_s: float
    seconds: float
    work_s: float
    num_traces: int
    leader_votes: int
    why: str = ""


def play_run(
    draws: Sequence[Recorded],
    policy: Callable[[RunState], Rule],
    *,
    model: StepTime,
    deadline_s: float,
    num_problems: int,
    weather: Weather = FAIR,
) -> list[Outcome]:
    """Returns what becomes of every problem of a run, under the guard.

    A policy that was fitted for another engine is told how much slower this one is, at first by a
    step of eight traces, as after a kernel's probe.

    Args:
        draws: The problems in the order they come; the traces of each in launch order.
        policy: What each may spend.
        model: Speed of the engine.
        deadline_s: When the last answer must be out; the run starts at 0.
        num_problems: How many are announced; more or fewer may come.
        weather: What goes wrong with the engine.
    """
    planned = policy.model if isinstance(policy, FittedPolicy) else model
    ratio = model.step_s(*_PROBED) / planned.step_s(*_PROBED)
    drift = Drift(observed_s=ratio * Drift().predicted_s)
    now_s, spent_s, expected_s, outcomes = 0.0, 0.0, 0.0, []
    for num_done, draw in enumerate(draws):
        now_s += model.overhead_s
        state = RunState(
            elapsed_s=now_s,
            deadline_s=deadline_s,
            num_done=num_done,
            num_problems=num_problems,
            kappa=drift.kappa,
            spent_s=spent_s,
            expected_s=expected_s,
        )
        rule = policy(state)
        limit_s = min(rule.timeout_s, guard_s(state))
        outcome = play(
            draw,
            rule,
            model=model,
            start_s=now_s,
            limit_s=limit_s,
            weather=weather,
            planned=planned,
        )
        drift = drift.update(predicted_s=outcome.work_s, observed_s=outcome.seconds)
        if rule.expected_s is not None and outcome.num_traces:
            spent_s += outcome.seconds
            expected_s += rule.expected_s
        now_s += outcome.seconds
        outcomes.append(outcome)
    return outcomes


def play(
    draw: Recorded,
    rule: Rule,
    *,
    model: StepTime,
    start_s: float = 0.0,
    limit_s: float = math.inf,
    weather: Weather = FAIR,
    planned: StepTime | None = None,
) -> Outcome:
    """Returns what becomes of one problem under one rule, within `limit_s` at the latest."""
    limit_s = min(limit_s, rule.timeout_s)
    engine = SimulatedEngine(draw.tokens, draw.answers, model, rule.max_tokens, planned=planned)
    reason = "no_traces"
    if limit_s >= LEAST_S:
        engine.launch(rule.num_traces)
        reason = _watch(engine, rule, start_s, limit_s, weather)
    return Outcome(
        problem_id=draw.problem_id,
        right=engine.leader in draw.right,
        answered=engine.leader is not None,
        reason=reason,
        start_s=start_s,
        seconds=engine.elapsed_s + (weather.late_s if reason != "no_traces" else 0.0),
        work_s=engine.work_s,
        num_traces=engine.num_launched,
        leader_votes=engine.leader_votes,
        why=rule.why,
    )


def _watch(
    engine: SimulatedEngine, rule: Rule, start_s: float, limit_s: float, weather: Weather
) -> str:
    """Runs the problem to its end and returns the reason of it."""
    decision = rule.stop(engine.state()) if rule.stop else _GO_ON
    while decision.stop is None:
        engine.launch(decision.launch)
        if not engine.num_live:
            return "finished"
        if engine.leader_votes - engine.second_votes > engine.num_live:
            return "lead"
        if engine.elapsed_s >= limit_s:
            return "timeout"
        wake_s = min(limit_s, decision.wake_s(engine.elapsed_s))
        engine.advance(start_s, wake_s, weather)
        if engine.leader_votes >= rule.stop_votes:
            return "votes"
        if rule.stop is not None:
            decision = rule.stop(engine.state())
    return decision.stop
