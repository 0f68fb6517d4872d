"""Fits the budget policy offline: which rules solve most in the same mean time.

    policy = fit_policy(recorded_problems(traces), HARDWARE["h100"])
    write_policy(policy, "policy.json")

For each price of a second, and each number of traces, the waiting times of `fitted.PatienceStop`
are found by coordinate ascent on simulated problems. A rule only cuts a problem short, so a problem
is simulated once to its end and every rule is read off that timeline.

Some fifteen problems are too few to believe in detail. Three things keep the fit coarse: each draw
is stretched at random, waiting times never ascend with the votes, and whether a leader is right is
partly what votes say in general.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastmath_kit.budget.fitted import FittedPolicy, MenuRule
from fastmath_kit.budget.replay import Recorded, shuffled
from fastmath_kit.budget.simulated import SimulatedEngine
from fastmath_kit.budget.throughput import StepTime
from fastmath_kit.budget.weather import FAIR
from fastmath_kit.errors import DataError

NUM_TRACES = (2, 4, 8, 16)  # on the menu
_MOST_VOTES = 5  # a leader with as many decides at once
_STRETCH = 1.0  # standard deviation of the logarithm of a draw's random factor
_PRIOR_WEIGHT = 0.2  # of what votes say in general
_LEAST_SOLVED = 0.5  # of what the top solves; hastier rules proved to be believed in too much
_TRUSTED = 0.8  # share of problems that the patient solve where votes can be trusted
_NOISE = 0.1  # of the share of one problem's draws
_PRIOR_WRONG = (0.35, 0.5)  # P(wrong) = 0.35 x 0.5 ^ (lead in votes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timelines:
    """Simulated problems, run to their ends; axes are draws and events, the launch being event 0.

    Attributes:
        num_traces: Launched at once.
        seconds: `[D, E + 1]` time of each event, infinite after the last.
        votes: `[D, E]` votes of the leader after it.
        right: `[D, E]` how likely the leader is right.
        final: `[D, E]` nothing can change any more.
    """

    num_traces: int
    seconds: np.ndarray
    votes: np.ndarray
    right: np.ndarray
    final: np.ndarray

    def leave(self, patience_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns seconds and `right`, both `[D]`, where one patience ends each draw."""
        wait_s = np.where(self.final, 0.0, patience_s[self.votes])
        leave_s = np.maximum(self.seconds[:, :-1], wait_s)
        event = (leave_s < self.seconds[:, 1:]).argmax(axis=1)[:, None]
        seconds = np.take_along_axis(leave_s, event, axis=1)
        return seconds[:, 0], np.take_along_axis(self.right, event, axis=1)[:, 0]

    def outcome(self, patience_s: np.ndarray) -> tuple[float, float]:
        """Returns mean seconds and share solved under one patience."""
        seconds, right = self.leave(patience_s)
        return float(seconds.mean()), float(right.mean())


def simulate_timelines(
    problems: Sequence[Recorded],
    model: StepTime,
    num_traces: int,
    *,
    max_tokens: int,
    num_draws: int,
    seed: int,
    stretch: float = _STRETCH,
    prior_weight: float = _PRIOR_WEIGHT,
) -> Timelines:
    """Returns `num_draws` timelines of every problem.

    Args:
        problems: Recorded traces.
        model: Speed of the engine.
        num_traces: Launched at once.
        max_tokens: Longest trace.
        num_draws: Draws a problem.
        seed: Fixes the draws; the same for every `num_traces`.
        stretch: Standard deviation of the logarithm of a draw's length factor.
        prior_weight: Share of the general chance that a leader is right in `right`.
    """
    shape = (len(problems) * num_draws, num_traces + 1)
    seconds = np.full((shape[0], num_traces + 2), np.inf)
    votes, right, final = np.zeros(shape, int), np.zeros(shape), np.zeros(shape, bool)
    seconds[:, 0] = 0.0
    for row in range(shape[0]):
        rng = random.Random(f"{seed}/{row}")
        draw = shuffled(problems[row % len(problems)], rng)
        factor = math.exp(rng.gauss(0.0, stretch))
        tokens = tuple(length * factor for length in draw.tokens)
        engine = SimulatedEngine(tokens, draw.answers, model, max_tokens)
        engine.launch(num_traces)
        event = 0
        while not final[row, event]:
            engine.advance(0.0, math.inf, FAIR)
            event += 1
            lead = engine.leader_votes - engine.second_votes
            seconds[row, event] = engine.elapsed_s
            votes[row, event] = min(engine.leader_votes, _MOST_VOTES)
            if engine.leader_votes:
                general = 1 - _PRIOR_WRONG[0] * _PRIOR_WRONG[1] ** lead
                seen = float(engine.leader in draw.right)
                right[row, event] = (1 - prior_weight) * seen + prior_weight * general
            final[row, event] = not engine.num_live or lead > engine.num_live
    return Timelines(num_traces=num_traces, seconds=seconds, votes=votes, right=right, final=final)


def fit_policy(
    problems: Sequence[Recorded],
    model: StepTime,
    *,
    max_tokens: int = 131_072,
    num_draws: int = 30,
    seed: int = 0,
) -> FittedPolicy:
    """Returns the policy that solves most of such problems on such an engine.

    Args:
        problems: Recorded traces, at least two problems of at least two traces.
        model: Speed of the engine.
        max_tokens: Longest trace the engine can write.
        num_draws: Simulated draws of every problem.
        seed: Fixes the draws.

    Raises:
        DataError: too few traces.
    """
    if len(problems) < 2 or min(len(problem.tokens) for problem in problems) < 2:
        raise DataError("a policy needs at least two problems with two traces each. Sample more.")
    timelines = [
        simulate_timelines(
            problems, model, num, max_tokens=max_tokens, num_draws=num_draws, seed=seed
        )
        for num in NUM_TRACES
    ]
    hull = _hull(_priced_rules(timelines))
    menu = [rule for rule in hull if rule.solved >= _LEAST_SOLVED * hull[-1].solved]
    return FittedPolicy(
        menu=tuple(menu),
        plenty_s=_plenty_s(menu[-1], problems, model, max_tokens, num_draws),
        max_tokens=max_tokens,
        model=model,
    )


def _priced_rules(timelines: Sequence[Timelines]) -> list[MenuRule]:
    """Returns the best rule at each price of a second, the highest price first."""
    seconds = np.concatenate([line.seconds[np.isfinite(line.seconds)] for line in timelines])
    scale_s = float(np.median(seconds[seconds > 0]))
    grid_s = np.concatenate([[0.0], scale_s * 1.25 ** np.arange(-18.0, 13.0)])
    starts = [np.array([scale_s] + [0.0] * _MOST_VOTES) for _ in timelines]
    rules = []
    for price in (1.0 / scale_s) * 1.6 ** -np.arange(0.0, 16.0):
        found = [
            _ascend(line, start, price, grid_s)
            for line, start in zip(timelines, starts, strict=True)
        ]
        starts = [patience_s for _, patience_s in found]
        best = max(range(len(found)), key=lambda row: found[row][0])
        mean_s, solved = timelines[best].outcome(starts[best])
        if mean_s > 0:
            rules.append(
                MenuRule(
                    seconds=mean_s,
                    solved=solved,
                    num_traces=timelines[best].num_traces,
                    patience_s=tuple(starts[best].tolist()),
                )
            )
    return rules


def _ascend(
    line: Timelines, patience_s: np.ndarray, price: float, grid_s: np.ndarray
) -> tuple[float, np.ndarray]:
    """Returns the best value, share solved less price times seconds, and the patience for it."""

    def value(candidate_s: np.ndarray) -> float:
        mean_s, solved = line.outcome(candidate_s)
        return solved - price * mean_s

    best, improved = value(patience_s), True
    while improved:
        improved = False
        for votes in range(min(_MOST_VOTES, line.num_traces + 1)):
            for wait_s in grid_s:
                candidate_s = patience_s.copy()
                candidate_s[votes] = wait_s
                candidate_s[:votes] = np.maximum(candidate_s[:votes], wait_s)
                candidate_s[votes + 1 :] = np.minimum(candidate_s[votes + 1 :], wait_s)
                if (new := value(candidate_s)) > best + 1e-6:
                    best, patience_s, improved = new, candidate_s, True
    return best, patience_s


def _hull(rules: Sequence[MenuRule]) -> list[MenuRule]:
    """Returns the rules that no mix of two others beats, nor of one with doing nothing."""
    hull: list[MenuRule] = []
    for rule in sorted(rules, key=lambda rule: (rule.seconds, -rule.solved)):
        if hull and rule.solved <= hull[-1].solved + 1e-9:
            continue
        while hull and _slope(hull[-2] if len(hull) > 1 else None, hull[-1]) <= _slope(
            hull[-1], rule
        ):
            hull.pop()
        hull.append(rule)
    return hull


def _slope(low: MenuRule | None, high: MenuRule) -> float:
    if low is None:
        return high.solved / high.seconds
    return (high.solved - low.solved) / (high.seconds - low.seconds)


def _plenty_s(
    top: MenuRule, problems: Sequence[Recorded], model: StepTime, max_tokens: int, num_draws: int
) -> float | None:
    """Returns from how many seconds a problem the clip rule is safer, None for never.

    It is what four votes of eight take without a cap; never, if the menu's top solves most problems
    and none less often than those four votes do.
    """
    patient_s = np.full(_MOST_VOTES + 1, 1e12)
    patient_s[4:] = 0.0
    solved, seconds = [], []
    draws = {"max_tokens": max_tokens, "num_draws": num_draws, "seed": 1}
    plain = {"stretch": 0.0, "prior_weight": 0.0}
    for num_traces, patience_s in ((8, patient_s), (top.num_traces, np.array(top.patience_s))):
        line = simulate_timelines(problems, model, num_traces, **draws, **plain)
        seconds_D, right_D = line.leave(patience_s)
        seconds.append(float(seconds_D.mean()))
        solved.append(right_D.reshape(num_draws, len(problems)).mean(axis=0))
    is_trusted = solved[1].mean() >= _TRUSTED and (solved[1] >= solved[0] - _NOISE).all()
    return None if is_trusted else seconds[0]
