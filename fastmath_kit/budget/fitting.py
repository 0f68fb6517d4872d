"""Fits the budget policy offline: which rules solve most in the same mean time.

    policy = fit_policy(recorded_problems(traces), HARDWARE["h100"])
    write_policy(policy, "policy.json")

A rule only cuts a problem short, so a problem is simulated once to its end and every rule is read
off that timeline. Of a coarse family of rules (so many traces, a first waiting time, by what factor
each vote shortens it, and how many votes decide at once) the menu is the concave hull of share
solved over mean seconds, up to four equal votes of eight traces without a time limit; above it a
ladder of more traces and more votes spends spare time. `pricing` says when each rule is the best.

Some fifteen problems are too few to believe in detail. Three things keep the fit coarse: each draw
is stretched at random, the family has four parameters, and whether a leader is right is partly what
votes say in general.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fastmath_kit.budget.fitted import FittedPolicy, MenuRule
from fastmath_kit.budget.pricing import least_shares
from fastmath_kit.budget.recorded import Recorded, shuffled
from fastmath_kit.budget.simulated import SimulatedEngine
from fastmath_kit.budget.throughput import StepTime
from fastmath_kit.budget.weather import FAIR
from fastmath_kit.errors import DataError

NUM_TRACES = (4, 8, 16)  # on the menu, if as many were recorded
_MOST_VOTES = 6  # a leader's votes beyond these make no difference
_QUICK_VOTES = 5  # a leader with as many decides at once, under a rule of the family
_SHORTER = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.08)  # what a vote leaves of the waiting time
_WAITS = 1.3 ** np.arange(-10.0, 14.0)  # first waiting times over the median time of an event
_MOST_RULES = 12  # on a menu, without the higher rungs; more differ by less than is known
_SAME = 1e-9  # shares solved that differ by less are the same
_LADDER = ((8, 4), (16, 6))  # traces, and votes that decide without a time limit
_PATIENT_S = 1e6  # longer than any notebook
_STEP = 0.01  # a rung of the ladder is taken to solve at least so much more than the one below
# The seconds from which on a rung is worth it are multiplied: for the lowest, as the best of many
# quicker rules looks better than it is; for higher ones, as lengths are not known well.
_EARLIER, _LATER = 0.85, 1.4
_STRETCH = 0.65  # standard deviation of the logarithm of a draw's random factor, whose mean is 1
_PRIOR_WEIGHT = 0.2  # of what votes say in general
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
) -> Timelines:
    """Returns `num_draws` timelines of every problem.

    Args:
        problems: Recorded traces.
        model: Speed of the engine.
        num_traces: Launched at once.
        max_tokens: Longest trace.
        num_draws: Draws a problem.
        seed: Fixes the draws; the same for every `num_traces`.
    """
    shape = (len(problems) * num_draws, num_traces + 1)
    seconds = np.full((shape[0], num_traces + 2), np.inf)
    votes, right, final = np.zeros(shape, int), np.zeros(shape), np.zeros(shape, bool)
    seconds[:, 0] = 0.0
    for row in range(shape[0]):
        rng = random.Random(f"{seed}/{row}")
        draw = shuffled(problems[row % len(problems)], rng)
        factor = math.exp(rng.gauss(-(_STRETCH**2) / 2, _STRETCH))
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
                right[row, event] = (1 - _PRIOR_WEIGHT) * seen + _PRIOR_WEIGHT * general
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
    timelines = {
        num: simulate_timelines(
            problems, model, num, max_tokens=max_tokens, num_draws=num_draws, seed=seed
        )
        for num in _counts(problems)
    }
    lowest, *higher = _ladder(timelines)
    quicker = [rule for rule in _family(timelines) if rule.solved < lowest.solved - _SAME]
    menu = [*_thinned(_hull([*quicker, lowest])), *higher]
    outcomes = [_outcome(rule, timelines[rule.num_traces]) for rule in menu]
    shares = least_shares(outcomes, overhead_s=model.overhead_s)
    times = [1.0] * (len(menu) - 1 - len(higher)) + [_EARLIER] + [_LATER] * len(higher)
    menu = [
        replace(rule, from_s=tuple(factor * share_s for share_s in row))
        for rule, row, factor in zip(menu, shares, times, strict=True)
    ]
    return FittedPolicy(menu=tuple(menu), max_tokens=max_tokens, model=model)


def _counts(problems: Sequence[Recorded]) -> list[int]:
    """Returns the numbers of traces to try: a trace must not vote twice."""
    fewest = min(len(problem.tokens) for problem in problems)
    return sorted({min(num, fewest) for num in NUM_TRACES})


def _ladder(timelines: Mapping[int, Timelines]) -> list[MenuRule]:
    """Returns the rules without a time limit, each with more traces than the one before.

    That more traces solve more is known in general, better than from some fifteen problems: each
    rung is taken to solve at least `_STEP` more, whatever the draws say.
    """
    ladder: list[MenuRule] = []
    for num_traces, stop_votes in _LADDER:
        line = timelines[min(num_traces, max(timelines))]
        rule = _rule(line, _patience_s(_PATIENT_S, 1.0, stop_votes))
        if not ladder:
            ladder = [rule]
        elif rule.num_traces > ladder[-1].num_traces and rule.seconds > ladder[-1].seconds:
            ladder.append(replace(rule, solved=max(rule.solved, ladder[-1].solved + _STEP)))
    return ladder


def _outcome(rule: MenuRule, line: Timelines) -> tuple[np.ndarray, np.ndarray]:
    """Returns the draws' seconds and share solved, moved to what the rule is taken to solve."""
    seconds_D, right_D = line.leave(np.array(rule.patience_s))
    return seconds_D, right_D + rule.solved - right_D.mean()


def _family(timelines: Mapping[int, Timelines]) -> list[MenuRule]:
    """Returns the rules of the family that take any time."""
    seconds = np.concatenate([line.seconds.ravel() for line in timelines.values()])
    waits_s = _WAITS * float(np.median(seconds[(seconds > 0) & np.isfinite(seconds)]))
    rules = []
    for num_traces, line in timelines.items():
        for stop_votes in range(1, min(_QUICK_VOTES, num_traces) + 1):
            for shorter in _SHORTER if stop_votes > 1 else (1.0,):
                for wait_s in waits_s:
                    rules.append(_rule(line, _patience_s(wait_s, shorter, stop_votes)))
    return [rule for rule in rules if rule.seconds > 0]


def _patience_s(wait_s: float, shorter: float, stop_votes: int) -> np.ndarray:
    """Returns the waiting times by votes of the leader, none from `stop_votes` on."""
    votes = np.arange(_MOST_VOTES + 1)
    return np.where(votes < stop_votes, wait_s * shorter**votes, 0.0)


def _rule(line: Timelines, patience_s: np.ndarray) -> MenuRule:
    mean_s, solved = line.outcome(patience_s)
    return MenuRule(
        seconds=mean_s,
        solved=solved,
        num_traces=line.num_traces,
        patience_s=tuple(patience_s.tolist()),
    )


def _thinned(menu: Sequence[MenuRule]) -> list[MenuRule]:
    """Returns the menu without those of its rules that lie closest to their neighbours."""
    menu = list(menu)
    while len(menu) > _MOST_RULES:
        inner = range(1, len(menu) - 1)
        menu.pop(min(inner, key=lambda row: menu[row + 1].seconds / menu[row - 1].seconds))
    return menu


def _hull(rules: Sequence[MenuRule]) -> list[MenuRule]:
    """Returns the rules that no mix of two others beats, nor of one with doing nothing."""
    hull: list[MenuRule] = []
    for rule in sorted(rules, key=lambda rule: (rule.seconds, -rule.solved)):
        if hull and rule.solved <= hull[-1].solved + _SAME:
            continue
        while hull and _slope(hull[-2:-1], hull[-1]) <= _slope(hull[-1:], rule):
            hull.pop()
        hull.append(rule)
    return hull


def _slope(low: Sequence[MenuRule], high: MenuRule) -> float:
    """Returns what a second buys from the lower rule on, from doing nothing without one."""
    seconds, solved = (low[0].seconds, low[0].solved) if low else (0.0, 0.0)
    return (high.solved - solved) / (high.seconds - seconds)
