"""What a run leaves on disk while it goes on: a line a problem, its events, and all traces.

    record = RunRecord("out/log.jsonl", clock)
    live = record.begin(legal=aimo3.legal_answer)
    solve(problem, engine, rule, on_event=live)
    live.votes  # so far, also of a solver that never comes back
    record.end(line, traces)

`log.jsonl` and `events.jsonl` are written at once. `traces.parquet` is written anew after every
problem, by a thread of its own: with hundreds of long traces it takes seconds.
"""

import json
import logging
import math
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from io import TextIOWrapper
from pathlib import Path

from fastmath_kit.errors import ConfigError, DataError
from fastmath_kit.kaggle.background import in_thread
from fastmath_kit.kaggle.clock import Clock
from fastmath_kit.problems.answers import Answer
from fastmath_kit.problems.records import Trace, write_traces

_NEVER_S = 86_400.0  # no problem lasts a day
_FLUSH_S = 60.0  # how long the last traces may take to write
_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Line:
    """One line of `log.jsonl`; what is not known stays None.

    Attributes:
        id: Of the problem.
        answer: What was submitted.
        fallback: Whether nothing better than the fallback was known.
        why: Why it was not, or what went wrong all the same.
        summary: The problem in one sentence.
        votes: `[answer, votes]`, the winner first.
        stop_reason: Of `Solution`; `left` for a solver that did not come back in time.
        num_traces: Launched.
        completion_tokens: Of all traces.
        rule: Of the policy, with its reason under `why`.
        decisions: What the rule's own stop said while the problem ran.
        kappa: How much slower than planned the policy took the engine to be.
        predicted_s: What the planned engine would have taken for the same work.
        seconds: In `predict`.
        waited_s: Of these, for the engine to be up.
        elapsed_s: Since the notebook's start.
    """

    id: str
    answer: int
    fallback: bool = True
    why: str | None = None
    summary: str | None = None
    votes: list = field(default_factory=list)
    stop_reason: str | None = None
    num_traces: int = 0
    completion_tokens: int | None = None
    rule: dict | None = None
    decisions: list[str] = field(default_factory=list)
    kappa: float | None = None
    predicted_s: float | None = None
    seconds: float | None = None
    waited_s: float = 0.0
    elapsed_s: float | None = None

    def in_words(self) -> str:
        """Returns the problem in one sentence.

        >>> Line(id="p", answer=7, fallback=False, votes=[[7, 3], [9, 1]], num_traces=8,
        ...     stop_reason="patience", seconds=12.0, kappa=1.1).in_words()
        '7 with 3 of 4 votes, 8 traces, ended by patience after 12.0 s at 1.10 of the planned time'
        """
        num_votes = sum(count for _, count in self.votes)
        chosen = f"{self.answer}, the fallback: {self.why}"
        if not self.fallback:
            chosen = f"{self.answer} with {self.votes[0][1]} of {num_votes} votes"
        ending = "" if self.stop_reason is None else f", ended by {self.stop_reason}"
        pace = "" if self.kappa is None else f" at {self.kappa:.2f} of the planned time"
        wait = "" if self.waited_s < 1 else f" and {self.waited_s:.1f} s of waiting for the engine"
        spent = f"{self.seconds - self.waited_s:.1f} s{wait}"
        return f"{chosen}, {self.num_traces} traces{ending} after {spent}{pace}"


class LiveProblem:
    """What is known of a problem while it runs; called with every event of `solve`.

    Attributes:
        votes: Legal answers of the finished traces, in the order they finished.
        starts_s: When each trace was launched, by sample.
        decisions: What the rule's stop said, for people.
    """

    def __init__(
        self, legal: Callable[[Answer | None], int | None], write: Callable[[dict], None]
    ) -> None:
        """Takes what makes an answer a candidate, and what keeps an event."""
        self._legal, self._write = legal, write
        self._lock, self._is_over = threading.Lock(), False
        self.votes: list[int | None] = []
        self.starts_s: list[float] = []
        self.decisions: list[str] = []

    def __call__(self, event: dict) -> None:
        """Takes an event, unless the problem is over."""
        with self._lock:
            if self._is_over:
                return
            self._write(event)
            match event["event"]:
                case "launch":
                    self.starts_s += [event["t_s"]] * event["num_traces"]
                case "trace":
                    self.votes.append(self._legal(event["answer"]))
                case "decision":
                    self.decisions.append(_decision_text(event))

    def end(self) -> None:
        """Ignores what comes from now on, of a solver that was left behind."""
        with self._lock:
            self._is_over = True


def _decision_text(event: dict) -> str:
    parts = [f"{event['leader_votes']} votes"]
    if event["stop"] is not None:
        parts.append(f"stop: {event['stop']}")
    elif event["launch"]:
        parts.append(f"launch {event['launch']} more")
    else:
        parts.append("go on")
    if event["stop"] is None and event["review_s"] < _NEVER_S:
        parts.append(f"ask again at {event['review_s']:.2f} s")
    return f"{event['t_s']:.2f} s: {', '.join(parts)}"


class RunRecord:
    """The files of a run. A disk that fails costs the record, never an answer."""

    def __init__(self, log_path: str | Path, clock: Clock) -> None:
        """Opens the log and, beside it, `events.jsonl`; an older run's files are replaced.

        Raises:
            ConfigError: they cannot be written.
        """
        path, self._clock = Path(log_path), clock
        self._traces_path = path.with_name("traces.parquet")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._log = path.open("w", encoding="utf-8")
            self._events = path.with_name("events.jsonl").open("w", encoding="utf-8")
            self._traces_path.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{path}: cannot be written ({error.strerror}). Choose another log_path."
            ) from error
        self._traces: tuple[Trace, ...] = ()
        self._go_on: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._writing = in_thread(self._write_traces)

    def begin(self, legal: Callable[[Answer | None], int | None]) -> LiveProblem:
        """Returns what listens to the next problem."""
        return LiveProblem(legal, self._write_event)

    def end(self, line: Line, traces: Sequence[Trace]) -> None:
        """Writes a problem's line, and all traces so far in the background."""
        self._append(self._log, asdict(line))
        self._traces = tuple(traces)
        self._go_on.put(True)

    def close(self) -> None:
        """Waits for the last traces and closes the files."""
        self._go_on.put(False)
        wait([self._writing], timeout=_FLUSH_S)
        with suppress(OSError):
            self._log.close()
            self._events.close()

    def _write_event(self, event: dict) -> None:
        finite = {k: None if v in (math.inf, -math.inf) else v for k, v in event.items()}
        self._append(self._events, finite | {"elapsed_s": self._clock.elapsed_s()})

    def _append(self, file: TextIOWrapper, values: dict) -> None:
        try:
            file.write(json.dumps(values, default=str) + "\n")
            file.flush()
        except (OSError, TypeError, ValueError) as error:  # a closed file is a ValueError
            _log.error("%s cannot be written, answering goes on (%s)", file.name, error)

    def _write_traces(self) -> None:
        num_written = 0
        while self._go_on.get():
            traces = self._traces
            if len(traces) == num_written:
                continue  # nothing new
            try:
                write_traces(traces, self._traces_path)
                num_written = len(traces)
            except DataError as error:
                _log.error("the traces cannot be written, answering goes on (%s)", error)
