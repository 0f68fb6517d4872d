"""Plays recorded traces as if a model wrote them: for tests, rehearsals and replays without a GPU.

    engine = ReplayEngine(read_traces("traces.parquet"), problems, tokens_per_s=40.0)
    solve(problem, engine, rule)

Each trace runs at its own speed, whatever else runs. The clock is the `time` module or a
`SimulatedClock`, on which an hour takes a millisecond.
"""

import itertools
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from fastmath_kit.errors import DataError
from fastmath_kit.inference.protocol import Engine, Sampling, Update
from fastmath_kit.problems.prompts import STOP
from fastmath_kit.problems.records import Problem, Trace


class Clock(Protocol):
    """What `ReplayEngine` needs of a clock; the `time` module has it."""

    def monotonic(self) -> float:
        """Returns the seconds on this clock."""

    def sleep(self, seconds: float, /) -> None:
        """Returns when the clock has advanced by `seconds`."""


class SimulatedClock:
    """A clock that only advances by being slept on.

    >>> clock = SimulatedClock()
    >>> clock.sleep(3600.0)
    >>> clock.monotonic()
    3600.0
    """

    def __init__(self) -> None:
        """Starts at 0."""
        self._now_s = 0.0

    def monotonic(self) -> float:
        """Returns the seconds slept so far."""
        return self._now_s

    def sleep(self, seconds: float, /) -> None:
        """Advances by `seconds`."""
        self._now_s += seconds


class StatementTokenizer:
    """Encodes a conversation as the characters of its last message, so that a replay knows it."""

    name_or_path = "replay"
    chat_template = "{{ messages[-1]['content'] }}"
    added_tokens_decoder: ClassVar[dict] = {}  # no control tokens

    def apply_chat_template(self, messages: list[dict[str, str]], **kwargs) -> dict:
        """Returns one id a character under `input_ids`, as transformers' method does."""
        return {"input_ids": [ord(character) for character in messages[-1]["content"]]}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Playback:
    """One trace on air: what is written at its end, when it began and when it ends."""

    text: str
    completion_tokens: int
    finish_reason: str
    start_s: float
    end_s: float


class ReplayEngine(Engine):
    """Recorded traces behind the protocol of a live engine."""

    def __init__(
        self,
        traces: Sequence[Trace],
        problems: Sequence[Problem],
        *,
        tokens_per_s: float | None = None,
        clock: Clock = time,
    ) -> None:
        """Takes the traces and the problems that they answer.

        Args:
            traces: The n-th launch of a problem plays its n-th trace, from the first one again
                after the last. Without a recorded text, a box with the answer is played.
            problems: Their statements say which problem a prompt asks.
            tokens_per_s: Speed of every trace; None plays each in its recorded seconds.
            clock: `time`, or a `SimulatedClock`.

        Raises:
            DataError: a trace has no recorded seconds and no speed is given.
        """
        self.name = "replay"
        self.tokenizer = StatementTokenizer()
        self._clock = clock
        self._tokens_per_s = tokens_per_s
        self._running: dict[str, _Playback] = {}
        self._aborted: list[Update] = []
        self._ids = itertools.count()
        by_problem = defaultdict(list)
        for trace in sorted(traces, key=lambda trace: trace.sample):
            if tokens_per_s is None and trace.seconds is None:
                raise DataError(
                    f"a trace of problem {trace.problem_id} has no seconds. Give tokens_per_s."
                )
            by_problem[trace.problem_id].append(trace)
        self._next = {
            problem.statement: itertools.cycle(by_problem[problem.id])
            for problem in problems
            if problem.id in by_problem
        }

    def launch(self, prompt_ids: list[int], sampling: Sampling) -> str:
        """Starts the problem's next trace, cut off at `sampling.max_tokens`.

        Raises:
            DataError: the prompt is none of the problems with traces.
        """
        statement = "".join(map(chr, prompt_ids))
        if statement not in self._next:
            raise DataError(f"no recorded trace answers {statement[:60]!r}. Record one first.")
        request_id = f"replay-{next(self._ids)}"
        self._running[request_id] = self._playback(next(self._next[statement]), sampling.max_tokens)
        return request_id

    def poll(self, timeout_s: float) -> list[Update]:
        """Sleeps until a trace ends or `timeout_s` has passed, then returns where all stand."""
        now_s = self._clock.monotonic()
        next_end_s = min((play.end_s for play in self._running.values()), default=float("inf"))
        wait_s = min(timeout_s, next_end_s - now_s)
        if not self._aborted and wait_s > 0:
            self._clock.sleep(wait_s)
        updates, self._aborted = self._aborted, []
        for request_id, play in sorted(self._running.items(), key=lambda item: item[1].end_s):
            updates.append(self._update(request_id, play))
            if updates[-1].finish_reason is not None:
                del self._running[request_id]
        return updates

    def abort(self, request_ids: Iterable[str]) -> None:
        """Stops traces where they stand."""
        for request_id in request_ids:
            if play := self._running.pop(request_id, None):
                self._aborted.append(self._update(request_id, play, aborted=True))

    def close(self) -> None:
        """Forgets what runs."""
        self._running.clear()

    def _playback(self, trace: Trace, max_tokens: int) -> _Playback:
        text = trace.completion
        if text is None:
            text = "" if trace.answer is None else rf"\boxed{{{trace.answer}}}{STOP}"
        tokens = min(trace.completion_tokens, max_tokens)
        cut = tokens < trace.completion_tokens
        share = tokens / max(trace.completion_tokens, 1)
        seconds = tokens / self._tokens_per_s if self._tokens_per_s else trace.seconds * share
        start_s = self._clock.monotonic()
        return _Playback(
            text=text[: int(len(text) * share)] if cut else text,
            completion_tokens=tokens,
            finish_reason="length" if cut else trace.finish_reason or "stop",
            start_s=start_s,
            end_s=start_s + seconds,
        )

    def _update(self, request_id: str, play: _Playback, *, aborted: bool = False) -> Update:
        now_s = self._clock.monotonic()
        done = now_s >= play.end_s - 1e-9
        share = 1.0 if done else (now_s - play.start_s) / (play.end_s - play.start_s)
        ended = play.finish_reason if done else None
        return Update(
            request_id=request_id,
            text=play.text[: int(len(play.text) * share)],
            completion_tokens=int(play.completion_tokens * share),
            finish_reason="abort" if aborted else ended,
        )
