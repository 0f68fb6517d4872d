"""The guard on a submission's clock, outside every policy: no policy can overrun the deadline.

    guard_s(state)  # the most seconds the next problem may take

It is pure: `kaggle.clock` reads the real clock and `budget.replay` a simulated one.
"""

from fastmath_kit.budget.policy import RunState

LEAST_S = 0.5  # less than this is no time to solve anything
_FLOOR = 0.2  # of an equal share of all the time: what every problem to come keeps


def guard_s(state: RunState) -> float:
    """Returns the most seconds the next problem may take, whatever the policy says.

    Every problem to come keeps a fifth of an equal share of the whole time, or an equal share of
    the rest if that is less, and after the announced number one more may always come. Negative when
    the deadline has passed.
    """
    floor_s = _FLOOR * state.deadline_s / state.num_problems
    rest_s = state.deadline_s - state.elapsed_s
    num_others = max(1, state.num_problems - state.num_done - 1)
    return max(rest_s - floor_s * num_others, rest_s / (num_others + 1))
