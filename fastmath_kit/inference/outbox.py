"""What completions have written so far, handed from an engine's thread to its caller's."""

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from fastmath_kit.errors import EngineError
from fastmath_kit.inference.protocol import Update

_TAIL_TOKENS = 2_048  # of a completion, over which `Update.tail_entropy` is taken


@dataclass(slots=True)
class _Growing:
    """One completion as it grows.

    Attributes:
        pieces: Text so far, in parts.
        completion_tokens: Sampled tokens so far.
        finish_reason: As in `Update`.
        logprob: Sum over the sampled tokens, None if unknown.
        entropies: Of the last places, empty if unknown.
        is_news: Whether the caller has not seen the newest state.
    """

    pieces: list[str] = field(default_factory=list)
    completion_tokens: int = 0
    finish_reason: str | None = None
    logprob: float | None = None
    entropies: deque[float] = field(default_factory=lambda: deque(maxlen=_TAIL_TOKENS))
    is_news: bool = False

    def text(self) -> str:
        """Returns the whole text so far."""
        self.pieces = ["".join(self.pieces)]
        return self.pieces[0]


class Outbox:
    """Keeps what every completion has written until the caller takes it. Thread-safe.

    The engine's thread adds a piece a step, which costs no copy of the text; the text is joined
    when the caller takes it.
    """

    def __init__(self) -> None:
        """Starts empty."""
        self._changed = threading.Condition()
        self._growing: dict[str, _Growing] = {}
        self._ended: list[Update] = []
        self._error: str | None = None

    def open(self, request_id: str) -> None:
        """Begins a completion."""
        with self._changed:
            self._growing[request_id] = _Growing()

    def add(self, request_id: str, piece: str, num_tokens: int) -> None:
        """Adds what a completion wrote; one that has ended is ignored."""
        with self._changed:
            if growing := self._growing.get(request_id):
                growing.pieces.append(piece)
                growing.completion_tokens += num_tokens
                growing.is_news = True

    def weigh(self, request_id: str, logprob: float, entropies: Iterable[float]) -> None:
        """Sets the log-probability of all tokens so far and adds the newest entropies."""
        with self._changed:
            if growing := self._growing.get(request_id):
                growing.logprob = logprob
                growing.entropies.extend(entropies)

    def text(self, request_id: str) -> str:
        """Returns what a completion that has not ended wrote so far."""
        with self._changed:
            return self._growing[request_id].text()

    def running(self, request_ids: Iterable[str]) -> list[str]:
        """Returns those that have begun and not ended."""
        return [request_id for request_id in request_ids if request_id in self._growing]

    def finish(self, request_ids: Iterable[str], finish_reason: str) -> None:
        """Ends completions and wakes the caller; unknown ones are ignored."""
        with self._changed:
            for request_id in request_ids:
                if growing := self._growing.pop(request_id, None):
                    growing.finish_reason = finish_reason
                    self._ended.append(_update(request_id, growing))
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Whether, within `timeout_s`, a completion or the engine has ended."""
        with self._changed:
            news = self._changed.wait_for(lambda: self._ended or self._error, timeout_s)
        return bool(news)

    def take(self) -> list[Update]:
        """Returns what the caller has not seen, the ended completions last, as they ended.

        Raises:
            EngineError: nothing is left to take and the engine has ended.
        """
        with self._changed:
            updates = [_update(*item) for item in self._growing.items() if item[1].is_news]
            updates += self._ended
            self._ended = []
        if not updates:
            self.check()
        return updates

    def close(self, message: str) -> None:
        """Makes `message` the error of everyone who asks from now on; the first one stays."""
        with self._changed:
            self._error = self._error or message
            self._changed.notify_all()

    def check(self) -> None:
        """Raises `EngineError` if the engine has ended."""
        if self._error is not None:
            raise EngineError(self._error)


def _update(request_id: str, growing: _Growing) -> Update:
    growing.is_news = False
    num_tokens, entropies = growing.completion_tokens, growing.entropies
    known = growing.logprob is not None and num_tokens
    return Update(
        request_id=request_id,
        text=growing.text(),
        completion_tokens=num_tokens,
        finish_reason=growing.finish_reason,
        mean_logprob=growing.logprob / num_tokens if known else None,
        tail_entropy=sum(entropies) / len(entropies) if entropies else None,
    )
