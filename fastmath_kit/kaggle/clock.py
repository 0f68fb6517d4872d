"""The clock of a submission, with `budget.guard` on it.

    clock = Clock(start_s=CLOCK_START_S, deadline_s=17_400, num_problems=50, reserve_s=60)
    clock.left_s(num_done=3)  # the most seconds the fourth problem may take

Time is `time.monotonic()` and counts from the notebook's start: set-up and model loading cost what
problems cost.
"""

import time
from dataclasses import dataclass

from fastmath_kit.budget.guard import guard_s
from fastmath_kit.budget.policy import RunState
from fastmath_kit.errors import ConfigError

_CALL_MARGIN_S = 10.0  # of a call's limit: the gateway and the engine's last moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """When a run started and must end.

    Attributes:
        start_s: `time.monotonic()` at the notebook's start.
        deadline_s: When the last answer must be out, in seconds after the start.
        num_problems: Problems the gateway will send.
        reserve_s: Kept back before the deadline.
        call_limit_s: Longest call after the first, None without a limit.
    """

    start_s: float
    deadline_s: float
    num_problems: int
    reserve_s: float = 60.0
    call_limit_s: float | None = None

    def __post_init__(self) -> None:
        if self.start_s > time.monotonic():
            raise ConfigError(
                "the clock's start must be time.monotonic() at the notebook's start, got "
                f"{self.start_s}, which is still to come."
            )
        if not 0 < self.reserve_s < self.deadline_s:
            raise ConfigError(
                f"0 < reserve_s < deadline_s must hold, got reserve_s={self.reserve_s}, "
                f"deadline_s={self.deadline_s}."
            )
        if self.num_problems < 1:
            raise ConfigError(f"num_problems must be at least 1, got {self.num_problems}.")

    @property
    def end_s(self) -> float:
        """When the run is over, on `time.monotonic()`: the deadline less the reserve."""
        return self.start_s + self.deadline_s - self.reserve_s

    def elapsed_s(self) -> float:
        """Returns the seconds since the start."""
        return time.monotonic() - self.start_s

    def state(self, num_done: int) -> RunState:
        """Returns what a policy is told; its deadline is this one less the reserve."""
        return RunState(
            elapsed_s=self.elapsed_s(),
            deadline_s=self.deadline_s - self.reserve_s,
            num_done=num_done,
            num_problems=self.num_problems,
        )

    def left_s(self, num_done: int) -> float:
        """Returns the most seconds the next problem may take, whatever the policy says.

        `budget.guard` keeps a floor for every problem to come. Negative when the deadline has
        passed.
        """
        left_s = guard_s(self.state(num_done))
        if self.call_limit_s is None or num_done == 0:  # the first call has no limit
            return left_s
        return min(left_s, self.call_limit_s - _CALL_MARGIN_S)
