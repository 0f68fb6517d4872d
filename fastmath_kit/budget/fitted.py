"""The fitted policy: a menu of rules, and when each of them is worth its time.

    policy = load_policy("policy.json", fallback=ClipPolicy(...))
    rule = policy(RunState(elapsed_s=600, deadline_s=18_000, num_done=0, num_problems=50))
    rule.why  # "258 s a problem, 1.00 of plan: rule 9 of 12, 8 traces, 187 s"

Each entry of the menu is a number of traces and how long to wait for more votes once the leader has
0, 1, 2, … of them; `fitting.fit_policy` chose them so that no other mix of rules solves more in the
same mean time. Before every problem the time left is divided by the problems left and by how much
more than planned the problems so far took; for that share and that many problems left `pricing`
found which entry is best. Its waits are scaled by the engine's drift, and half as much by the rest
of what is over plan: longer traces are worth waiting for, harder problems are not. The file is
plain JSON.
"""

import bisect
import json
import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from fastmath_kit.budget.policy import NEVER, Decision, ProblemState, Rule, RunState
from fastmath_kit.budget.pricing import NUM_LEFT
from fastmath_kit.budget.throughput import StepTime
from fastmath_kit.errors import ConfigError, DataError
from fastmath_kit.problems.files import atomic_path, read_text

KIND = "fastmath budget policy"
VERSION = 3
_PRIOR_PROBLEMS = 10  # that went as planned, before any did
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PatienceStop:
    """Stops when the votes so far have been waited for long enough.

    Attributes:
        patience_s: Seconds since the launch at which a leader with 0, 1, 2, … votes decides; with
            more votes than entries, the last holds.
    """

    patience_s: tuple[float, ...]

    def __call__(self, state: ProblemState) -> Decision:
        """Returns a stop, or when to ask again.

        >>> PatienceStop(patience_s=(90.0, 60.0, 0.0))(ProblemState(elapsed_s=70.0, leader_votes=1))
        Decision(stop='patience', launch=0, review_s=inf)
        """
        patience_s = self.patience_s[min(state.leader_votes, len(self.patience_s) - 1)]
        if state.elapsed_s >= patience_s - 1e-6:
            reason = "patience" if patience_s else "votes"
            return Decision(stop=reason if state.leader_votes else "gave up")
        return Decision(review_s=patience_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class MenuRule:
    """One entry of a menu.

    Attributes:
        seconds: Mean seconds of a problem under it.
        solved: Share of problems it is taken to solve; that of the last may pass 1.
        num_traces: Traces launched at once.
        patience_s: As in `PatienceStop`, never ascending.
        from_s: With `pricing.NUM_LEFT` problems left, the least seconds for each of them at which
            it is chosen before the entries below it.
    """

    seconds: float
    solved: float
    num_traces: int
    patience_s: tuple[float, ...]
    from_s: tuple[float, ...] = (0.0,) * len(NUM_LEFT)

    def __post_init__(self) -> None:
        if not (isinstance(self.num_traces, int) and self.num_traces >= 1 and self.patience_s):
            raise ConfigError("a menu rule needs a whole number of traces and a patience.")
        if list(self.patience_s) != sorted(self.patience_s, reverse=True):
            raise ConfigError(f"patience_s must not ascend, got {self.patience_s}.")
        if len(self.from_s) != len(NUM_LEFT):
            raise ConfigError(f"from_s needs {len(NUM_LEFT)} numbers, got {len(self.from_s)}.")
        numbers = (self.seconds, self.solved, *self.patience_s, *self.from_s)
        if not all(0 <= number < math.inf for number in numbers):
            raise ConfigError(f"a menu rule's numbers must be finite and not negative: {numbers}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedPolicy:
    """Chooses from a menu by the time left and the problems left.

    Attributes:
        menu: By ascending seconds and share solved.
        max_tokens: Longest trace.
        model: The engine the menu was fitted for.
    """

    menu: tuple[MenuRule, ...]
    max_tokens: int
    model: StepTime

    def __post_init__(self) -> None:
        seconds = [rule.seconds for rule in self.menu]
        if not seconds or seconds[0] <= 0 or seconds != sorted(set(seconds)):
            raise ConfigError(f"a menu needs rules by ascending seconds, got {seconds}.")
        if not (isinstance(self.max_tokens, int) and self.max_tokens >= 1):
            raise ConfigError(f"max_tokens must be a positive integer, got {self.max_tokens}.")

    def __call__(self, state: RunState) -> Rule:
        """Returns the rule of the next problem; its `timeout_s` is 0 when no time is left."""
        ratio = _over_plan(state)
        row = self._choose(state.share_s / ratio, state.num_left)
        entry = self.menu[row]
        longer = math.sqrt(state.kappa * ratio)
        patience_s = tuple(seconds * longer for seconds in entry.patience_s)
        return Rule(
            num_traces=entry.num_traces,
            stop_votes=NEVER,
            max_tokens=self.max_tokens,
            timeout_s=min(patience_s[0], state.left_s),
            stop=PatienceStop(patience_s=patience_s),
            expected_s=entry.seconds,
            why=f"{state.share_s:.0f} s a problem, {ratio:.2f} of plan: rule {row + 1} of "
            f"{len(self.menu)}, {entry.num_traces} traces, {entry.seconds * ratio:.3g} s",
        )

    def _choose(self, share_s: float, num_left: int) -> int:
        """Returns the row of the last entry that is worth its time."""
        column = bisect.bisect_right(NUM_LEFT, num_left) - 1
        rows = [row for row, rule in enumerate(self.menu) if rule.from_s[column] <= share_s]
        return rows[-1] if rows else 0


def _over_plan(state: RunState) -> float:
    """Returns seconds spent over seconds expected, shrunk towards the drift of the engine."""
    prior_s = max(_PRIOR_PROBLEMS * state.share_s, 1e-6)
    ratio = (state.spent_s + prior_s * state.kappa) / (state.expected_s + prior_s)
    return min(max(ratio, 0.4 * state.kappa), 2.5 * state.kappa)


def write_policy(policy: FittedPolicy, path: str | Path) -> None:
    """Writes a policy file: versioned JSON with units in the names."""
    value = {"kind": KIND, "version": VERSION, **asdict(policy)}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def read_policy(path: str | Path) -> FittedPolicy:
    """Reads a policy file.

    Raises:
        DataError: the file is missing, damaged, of another kind or of another version.
    """
    path = Path(path)
    try:
        value = json.loads(read_text(path))
        kind, version = value.pop("kind", None), value.pop("version", None)
        if (kind, version) != (KIND, VERSION):
            raise ValueError(f"kind {kind!r}, version {version!r}")
        menu = tuple(
            MenuRule(**{**rule, **{name: tuple(rule[name]) for name in ("patience_s", "from_s")}})
            for rule in value["menu"]
        )
        return FittedPolicy(**{**value, "menu": menu, "model": StepTime(**value["model"])})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: not a policy file of version {VERSION} ({error}). "
            "Write one with `fastmath budget fit`."
        ) from error


def load_policy(
    path: str | Path, *, fallback: Callable[[RunState], Rule]
) -> Callable[[RunState], Rule]:
    """Returns the policy of a file, or the fallback with a warning: a kernel never dies of it."""
    try:
        return read_policy(path)
    except DataError as error:
        _log.warning("the fitted budget policy is not used, %s is: %s", fallback, error)
        return fallback
