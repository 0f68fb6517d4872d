"""What a second is worth with so many problems left: when each rule of a menu is the best one.

    shares = least_shares(outcomes, overhead_s=1.0)
    shares[2]  # the third rule is best from so many seconds a problem left; one a `NUM_LEFT`

Backward induction: the value of the last problem under each rule is known, that of the last two is
what the first solves plus the value of the time it leaves, and so on. Dividing the time evenly and
taking the rule whose mean time is the share would be right for endless problems. Some are left, and
their times vary: with few left a slower rule risks more than it gains, and a quicker one saves time
that a later problem may not be able to use.
"""

from collections.abc import Sequence

import numpy as np

NUM_LEFT = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # between them the lower one holds
_NUM_SHARES = 120
_NUM_GROUPS = 24  # an outcome's draws, ordered by time, are averaged in as many groups


def least_shares(
    outcomes: Sequence[tuple[np.ndarray, np.ndarray]], *, overhead_s: float
) -> list[tuple[float, ...]]:
    """Returns, for each rule, the least seconds a problem left at which it is best.

    Args:
        outcomes: By ascending mean time, the seconds and the share solved of each rule's draws,
            as many of each rule.
        overhead_s: What a problem costs besides.

    Returns:
        One number a `NUM_LEFT`. A rule that is never best has those of the next one; the first
        rule has zeros.
    """
    seconds_RG = np.array([_grouped(seconds, seconds) for seconds, _ in outcomes])
    solved_RG = np.array([_grouped(seconds, solved) for seconds, solved in outcomes])
    means = seconds_RG.mean(axis=1)
    shares_X = np.geomspace(0.02 * means[0], 4 * means[-1], _NUM_SHARES)
    value_X = np.zeros(_NUM_SHARES)
    columns = []
    for num_left in range(1, NUM_LEFT[-1] + 1):
        value_RX = _values(num_left, shares_X, value_X, seconds_RG, solved_RG, overhead_s)
        value_X = np.maximum.accumulate(value_RX.max(axis=0))
        if num_left in NUM_LEFT:
            columns.append(_thresholds(value_RX.argmax(axis=0), shares_X, len(outcomes)))
    return [tuple(row) for row in np.array(columns).T.tolist()]


def _grouped(seconds_D: np.ndarray, values_D: np.ndarray) -> list[float]:
    groups = np.array_split(np.argsort(seconds_D, kind="stable"), _NUM_GROUPS)
    return [float(values_D[group].mean()) for group in groups if len(group)]  # few draws: fewer


def _values(
    num_left: int,
    shares_X: np.ndarray,
    value_X: np.ndarray,
    seconds_RG: np.ndarray,
    solved_RG: np.ndarray,
    overhead_s: float,
) -> np.ndarray:
    """Returns `[R, X]` how many of the problems left are solved if a rule is taken now.

    Args:
        num_left: This problem and those to come.
        shares_X: Seconds left a problem left.
        value_X: Solved of one problem fewer.
        seconds_RG: Time of each rule and group of draws.
        solved_RG: Share solved.
        overhead_s: Of each problem to come; this one's is paid.
    """
    left_RXG = num_left * shares_X[:, None] - seconds_RG[:, None, :]
    value_RXG = np.broadcast_to(solved_RG[:, None, :], left_RXG.shape)
    if num_left > 1:
        share_RXG = np.maximum(left_RXG - overhead_s, 0.0) / (num_left - 1)
        value_RXG = value_RXG + np.interp(share_RXG, [0.0, *shares_X], [0.0, *value_X])
    return np.where(left_RXG >= 0, value_RXG, 0.0).mean(axis=2)  # who runs out of time gets nothing


def _thresholds(best_X: np.ndarray, shares_X: np.ndarray, num_rules: int) -> list[float]:
    """Returns from which share on each rule or a later one is best for good."""
    best_X = np.minimum.accumulate(best_X[::-1])[::-1]  # no gambling with a rich rule when poor
    is_best = [best_X >= rule for rule in range(1, num_rules)]
    return [0.0, *(float(shares_X[x.argmax()] if x.any() else shares_X[-1]) for x in is_best)]
