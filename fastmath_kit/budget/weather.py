"""What goes wrong with a simulated engine: its speed is off, it stalls, it hangs.

Weather(slowdown=2.0, stalls=((600.0, 90.0),), hangs_at_s=9_000.0)
"""

import math
from dataclasses import dataclass

from fastmath_kit.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How an engine differs from its model.

    Attributes:
        slowdown: Seconds for what the model says takes one.
        stalls: `(start_s, seconds)` on the run's clock, ascending and apart: nothing is written.
        hangs_at_s: After this nothing is ever written again.
        late_s: From a problem's decision to its answer.
    """

    slowdown: float = 1.0
    stalls: tuple[tuple[float, float], ...] = ()
    hangs_at_s: float = math.inf
    late_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.slowdown < math.inf:
            raise ConfigError(f"slowdown must be positive, got {self.slowdown}.")

    def seconds(self, start_s: float, work_s: float) -> float:
        """Returns how long work takes that starts at `start_s`; infinite if it never ends."""
        if not self.stalls and self.hangs_at_s == math.inf:
            return work_s * self.slowdown
        end_s, busy_s = start_s, work_s * self.slowdown
        for stall_s, length_s in self.stalls:
            if stall_s + length_s <= end_s:
                continue
            if end_s + busy_s <= stall_s:
                break
            busy_s -= max(stall_s - end_s, 0.0)
            end_s = stall_s + length_s
        return end_s + busy_s - start_s if end_s + busy_s <= self.hangs_at_s else math.inf

    def work_s(self, start_s: float, seconds: float) -> float:
        """Returns how much work is done in `seconds` from `start_s`, the inverse of `seconds`."""
        end_s = min(start_s + seconds, max(self.hangs_at_s, start_s))
        idle_s = sum(
            max(0.0, min(end_s, stall_s + length_s) - max(start_s, stall_s))
            for stall_s, length_s in self.stalls
        )
        return (end_s - start_s - idle_s) / self.slowdown


FAIR = Weather()
