"""How much of the clock the next problem may have.

A submission answers its problems one at a time before one deadline. A policy maps what is known, a
`RunState`, to the `Rule` under which the next problem is solved:

    policy = ClipPolicy(base_s=300, high_s=900, num_traces=8, stop_votes=4, max_tokens=32_768)
    state = RunState(elapsed_s=600, deadline_s=18_000, num_done=0, num_problems=50)
    policy(state).timeout_s  # 900.0

A rule may carry a `stop` of its own, asked while the problem runs: a `ProblemState` goes in, a
`Decision` to go on, to stop or to launch more comes out.

Policies and stops are pure: they read no clock and keep no history. All times of a run are
wall-clock seconds since the notebook started, all times of a problem since its first launch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from fastmath_kit.errors import ConfigError
from fastmath_kit.problems.answers import Answer

NEVER = 1_000_000  # more votes than any problem gets


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemState:
    """What is known while a problem runs.

    Attributes:
        elapsed_s: Seconds since the first launch.
        answers: One a finished trace, in the order they finished; None did not vote.
        leader_votes: Votes of the most frequent answer.
        second_votes: Votes of the next one.
        live_tokens: Tokens so far of every running trace.
    """

    elapsed_s: float
    answers: tuple[Answer | None, ...] = ()
    leader_votes: int = 0
    second_votes: int = 0
    live_tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do with a running problem.

    Attributes:
        stop: Why the votes so far decide; None goes on.
        launch: More traces to start.
        review_s: Seconds since the first launch at which to ask again, if no trace ends before.
    """

    stop: str | None = None
    launch: int = 0
    review_s: float = math.inf

    def wake_s(self, elapsed_s: float) -> float:
        """Returns `review_s` if that is still to come, else infinity: nothing has changed since."""
        return self.review_s if self.review_s > elapsed_s else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Limits of one problem.

    Attributes:
        num_traces: Completions launched at once.
        stop_votes: Equal answers that end the problem; more than `num_traces` never does.
        max_tokens: Most completion tokens of one trace.
        timeout_s: Seconds after which the votes so far decide; 0 skips the problem.
        stop: Asked when a trace ends and when it said to ask again; None leaves it to the limits.
        expected_s: Seconds it takes on average, None if its policy does not know.
        why: One line for the log.
    """

    num_traces: int
    stop_votes: int
    max_tokens: int
    timeout_s: float
    stop: Callable[[ProblemState], Decision] | None = None
    expected_s: float | None = None
    why: str = ""

    def __post_init__(self) -> None:
        _require_positive(self, "num_traces", "stop_votes", "max_tokens")
        if not self.timeout_s >= 0:
            raise ConfigError(f"timeout_s must be at least 0, got {self.timeout_s}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """What is known before a problem starts.

    Attributes:
        elapsed_s: Seconds since the notebook started.
        deadline_s: When the last answer must be out, on the same clock.
        num_done: Problems answered so far.
        num_problems: Problems expected in all; the gateway may send more.
        kappa: Observed over predicted seconds of the same work, `throughput.Drift.kappa`.
        spent_s: Seconds taken so far by problems whose rule had an `expected_s`.
        expected_s: The sum of what those rules expected.
    """

    elapsed_s: float
    deadline_s: float
    num_done: int
    num_problems: int
    kappa: float = 1.0
    spent_s: float = 0.0
    expected_s: float = 0.0

    def __post_init__(self) -> None:
        _require_positive(self, "deadline_s", "num_problems")
        if self.elapsed_s < 0 or self.num_done < 0:
            raise ConfigError(
                f"elapsed_s and num_done must be at least 0, got elapsed_s={self.elapsed_s}, "
                f"num_done={self.num_done}."
            )

    @property
    def left_s(self) -> float:
        """Seconds to the deadline, 0 after it."""
        return max(self.deadline_s - self.elapsed_s, 0.0)

    @property
    def num_left(self) -> int:
        """Problems left with this one; one beyond the expected number: as if one more followed."""
        expected = self.num_problems - self.num_done
        return expected if expected > 0 else 2

    @property
    def share_s(self) -> float:
        """An equal share of the time left."""
        return self.left_s / self.num_left


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPolicy:
    """Gives a problem what the later ones can spare, within a least and a most.

    Each later problem is promised `base_s`; what is left beyond that is this problem's, at least
    `base_s` or an equal share, whichever is less, and at most `high_s`. The result never exceeds
    the time that is left. A problem beyond the expected number is treated as if one more followed.

    Source: the rule of the public AIMO 3 notebooks (base 300 s, high 900 s, stop at 4 of 8 equal),
    with their `max(budget, base)`, which overshoots the deadline, replaced by the equal share.

    Attributes:
        base_s: Seconds promised to each problem.
        high_s: Most seconds of one problem.
        num_traces: As in `Rule`.
        stop_votes: As in `Rule`.
        max_tokens: As in `Rule`.
    """

    base_s: float
    high_s: float
    num_traces: int
    stop_votes: int
    max_tokens: int

    def __post_init__(self) -> None:
        _require_positive(self, "base_s", "num_traces", "stop_votes", "max_tokens")
        if self.high_s < self.base_s:
            raise ConfigError(
                f"high_s must be at least base_s, got high_s={self.high_s}, base_s={self.base_s}. "
                "Raise high_s or lower base_s."
            )

    def __call__(self, state: RunState) -> Rule:
        """Returns the rule of the next problem; its `timeout_s` is 0 when no time is left."""
        floor_s = min(self.base_s, state.share_s)
        spare_s = state.left_s - self.base_s * (state.num_left - 1)
        return Rule(
            num_traces=self.num_traces,
            stop_votes=self.stop_votes,
            max_tokens=self.max_tokens,
            timeout_s=min(max(spare_s, floor_s), self.high_s),
        )


def _require_positive(config, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise ConfigError(f"{name} must be positive, got {getattr(config, name)}.")
