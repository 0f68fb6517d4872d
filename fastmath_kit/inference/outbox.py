"""The newest update of each completion, handed from an engine's thread to its caller's."""

import threading
from collections.abc import Iterable

from fastmath_kit.errors import EngineError
from fastmath_kit.inference.protocol import Update


class Outbox:
    """Keeps one update a completion, the newest, until the caller takes it. Thread-safe."""

    def __init__(self) -> None:
        """Starts empty."""
        self._changed = threading.Condition()
        self._updates: dict[str, Update] = {}
        self._error: str | None = None

    def put(self, updates: Iterable[Update]) -> None:
        """Replaces what the caller has not yet taken of the same completions."""
        with self._changed:
            for update in updates:  # removed first: the newest stand last, in finishing order
                self._updates.pop(update.request_id, None)
                self._updates[update.request_id] = update
            self._changed.notify_all()

    def take(self, timeout_s: float) -> list[Update]:
        """Returns and forgets all updates, waiting at most `timeout_s` for the first.

        Raises:
            EngineError: nothing is left to take and the engine has ended.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._updates or self._error, timeout_s)
            updates, self._updates = self._updates, {}
        if not updates:
            self.check()
        return list(updates.values())

    def end(self, message: str) -> None:
        """Makes `message` the error of everyone who asks from now on."""
        with self._changed:
            self._error = message
            self._changed.notify_all()

    def check(self) -> None:
        """Raises `EngineError` if the engine has ended."""
        if self._error is not None:
            raise EngineError(self._error)
