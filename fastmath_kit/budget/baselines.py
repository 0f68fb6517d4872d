"""The rules of public solutions, each as a policy: what a fitted policy has to beat.

    for name, policy in public_policies(seconds_per_problem=348, max_tokens=32_768).items():
        play_run(draws, policy, ...)

Their constants were chosen for some 350 seconds a problem; `public_policies` scales them to the
time at hand, which makes every rule at least as good as its author's constants would be. The known
mistakes (budgets above what is left, time saved counted twice) are not copied: `budget.guard` would
catch them.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from fastmath_kit.budget.policy import (
    NEVER,
    ClipPolicy,
    Decision,
    ProblemState,
    Rule,
    RunState,
)

_GO_ON = Decision()
_ON_TIME = 0.1  # of a problem's share: what the gateway takes between two problems is not lateness


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowStop:
    """Stops when `votes` equal answers stand among the last `window` finished ones, in any pair.

    Attributes:
        pairs: `(votes, window)`.
        only_first: The windows count from the first finished trace, not to the last.
        num_finished: So many ends decide in any case.
    """

    pairs: tuple[tuple[int, int], ...]
    only_first: bool = False
    num_finished: int = NEVER

    def __call__(self, state: ProblemState) -> Decision:
        """Returns a stop if a window agrees, or enough have ended."""
        answers = state.answers
        if len(answers) >= self.num_finished:
            return Decision(stop=f"{self.num_finished} ended")
        for votes, window in self.pairs:
            if len(answers) < votes or (self.only_first and len(answers) > window):
                continue
            counts = Counter(a for a in answers[-window:] if a is not None)
            if max(counts.values(), default=0) >= votes:
                return Decision(stop=f"{votes} of {window}")
        return _GO_ON


@dataclass(frozen=True, slots=True, kw_only=True)
class BetaStop:
    """Adaptive-Consistency: stops when P(leader beats the second) under a Beta reaches `level`.

    Source: arXiv 2305.11860, the Beta stopping criterion.
    """

    level: float = 0.95

    def __call__(self, state: ProblemState) -> Decision:
        """Returns a stop if P(Beta(a + 1, b + 1) > 1/2) is at least the level."""
        a, b = state.leader_votes, state.second_votes
        n = a + b + 1  # the Beta tail at 1/2 is a binomial tail
        if sum(math.comb(n, k) for k in range(b + 1, n + 1)) < self.level * 2**n:
            return _GO_ON
        return Decision(stop="beta")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnanimousStop:
    """ESC: stops when a whole window of new answers agrees, windows one after the other.

    Source: arXiv 2401.10480.
    """

    window: int = 4

    def __call__(self, state: ProblemState) -> Decision:
        """Returns a stop if one of the full windows is unanimous."""
        full = range(0, len(state.answers) + 1, self.window)
        for start, end in pairwise(full):
            window = state.answers[start:end]
            if window[0] is not None and len(set(window)) == 1:
                return Decision(stop="unanimous")
        return _GO_ON


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstStop:
    """short-m@k: stops when the first `num_finished` traces have ended.

    Source: arXiv 2505.17813.
    """

    num_finished: int = 3

    def __call__(self, state: ProblemState) -> Decision:
        """Returns a stop if enough traces have ended with an answer."""
        done = sum(answer is not None for answer in state.answers)
        return Decision(stop="first") if done >= self.num_finished else _GO_ON


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualPolicy:
    """Gives every problem an equal share of the time that is left."""

    num_traces: int
    max_tokens: int
    stop_votes: int = NEVER
    stop: Callable[[ProblemState], Decision] | None = None

    def __call__(self, state: RunState) -> Rule:
        """Returns the rule of the next problem."""
        return Rule(
            num_traces=self.num_traces,
            stop_votes=self.stop_votes,
            max_tokens=self.max_tokens,
            timeout_s=state.share_s,
            stop=self.stop,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BankPolicy:
    """A fixed base and part of the savings so far.

    Source: NemoSkills, first place of AIMO 2: 350 s and at most 210 s from the bank, 12 traces,
    stop at 4 equal among the first 5, or when 10 have ended.
    """

    base_s: float
    bank_s: float
    max_tokens: int
    num_traces: int = 12

    def __call__(self, state: RunState) -> Rule:
        """Returns the rule of the next problem."""
        saved_s = self.base_s * state.num_done - state.elapsed_s
        return Rule(
            num_traces=self.num_traces,
            stop_votes=NEVER,
            max_tokens=self.max_tokens,
            timeout_s=self.base_s + min(max(saved_s, 0.0), self.bank_s),
            stop=WindowStop(pairs=((4, 5),), only_first=True, num_finished=10),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptivePolicy:
    """Traces by the mean time left, windows of agreement, an equal share of the time.

    Source: imagination-research, second place of AIMO 2: 15 traces; stop on 4 of 4, 4 of the last
    5, 5 of 7, 6 of 9; from problem 30, every second one, 10, 12, 15, 16 or 17 traces for less than
    300, 345, 370, 420 s left a problem, or more.
    """

    seconds_per_problem: float
    max_tokens: int

    def __call__(self, state: RunState) -> Rule:
        """Returns the rule of the next problem."""
        scale = self.seconds_per_problem / 350
        # Between two looks the number would stay; a pure policy looks every time.
        limits = [limit_s * scale for limit_s in (300, 345, 370, 420)]
        row = sum(state.share_s >= limit_s for limit_s in limits)
        return Rule(
            num_traces=15 if state.num_done < 30 else (10, 12, 15, 16, 17)[row],
            stop_votes=NEVER,
            max_tokens=self.max_tokens,
            timeout_s=state.share_s,
            stop=WindowStop(pairs=((4, 4), (4, 5), (5, 7), (6, 9))),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CutOffPolicy:
    """Problem i must be done by its place on a line from start to deadline; the late get less.

    Source: public AIMO 2 notebooks with `linspace` cut-offs: behind the line tokens and traces are
    cut to two thirds.
    """

    num_traces: int
    max_tokens: int
    stop_votes: int

    def __call__(self, state: RunState) -> Rule:
        """Returns the rule of the next problem."""
        share_s = state.deadline_s / state.num_problems
        late = state.elapsed_s > share_s * (state.num_done + _ON_TIME)
        left_s = share_s * (state.num_done + 1) - state.elapsed_s
        return Rule(
            num_traces=self.num_traces * 2 // 3 if late else self.num_traces,
            stop_votes=self.stop_votes,
            max_tokens=self.max_tokens * 2 // 3 if late else self.max_tokens,
            timeout_s=max(left_s, 0.0),
        )


def public_policies(
    *, seconds_per_problem: float, max_tokens: int
) -> dict[str, Callable[[RunState], Rule]]:
    """Returns every public rule by name.

    Args:
        seconds_per_problem: Constants in seconds are scaled from 348 (AIMO 3), 350 or 360 (AIMO 2).
        max_tokens: Longest trace of rules that do not say.
    """
    x = seconds_per_problem
    tokens = {"max_tokens": max_tokens}

    def equal(num_traces: int, **fields) -> EqualPolicy:
        return EqualPolicy(num_traces=num_traces, **tokens, **fields)

    def clip(base_s: float, high_s: float) -> ClipPolicy:
        return ClipPolicy(base_s=base_s, high_s=high_s, num_traces=8, stop_votes=4, **tokens)

    return {
        "equal N8": equal(8),
        "equal N8, 4 votes": equal(8, stop_votes=4),
        "clip, AIMO 3 constants": clip(300.0, 900.0),
        "clip, AIMO 3": clip(300 * x / 348, 900 * x / 348),
        "bank, NemoSkills": BankPolicy(base_s=350 * x / 360, bank_s=210 * x / 360, **tokens),
        "imagination-research": AdaptivePolicy(seconds_per_problem=x, **tokens),
        "linspace cut-offs": CutOffPolicy(num_traces=8, stop_votes=4, **tokens),
        "paper, 12k tokens": EqualPolicy(num_traces=8, max_tokens=12_000, stop_votes=4),
        "Adaptive-Consistency": equal(16, stop=BetaStop()),
        "ESC": equal(16, stop=UnanimousStop()),
        "short-3@8": equal(8, stop=FirstStop()),
    }
