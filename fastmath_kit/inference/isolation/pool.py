"""One thread that serves all sessions of a sandbox, and the process that forks their workers.

All state belongs to the thread; others only hand it functions to run. It waits for whatever comes
first: a function, words of a worker or of the keeper, or the end of the time of a call.
"""

import logging
import os
import selectors
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial

from fastmath_kit.errors import EngineError
from fastmath_kit.inference.isolation.limits import Isolation, Limits
from fastmath_kit.inference.isolation.process import Keeper
from fastmath_kit.inference.isolation.trace import Call, Shared, Trace

_log = logging.getLogger(__name__)


class Pool:
    """The thread, its keeper and the sessions."""

    def __init__(self, limits: Limits) -> None:
        """Starts thread and keeper; `isolation` has a result when the keeper is ready."""
        self.isolation: Future[Isolation] = Future()
        self._todo: deque[Callable[[], None]] = deque()
        self._lock, self._is_over = threading.Lock(), False  # of the hand-over
        self._wake, self._waker = os.pipe()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake, selectors.EVENT_READ, self._do_todo)
        self._shared = Shared(limits=limits, selector=self._selector, keeper=Keeper(limits))
        self._watch_keeper()
        self._traces: set[Trace] = set()
        self._is_serving = True
        self._was_ready, self._refusal = False, ""  # of the keeper
        self._thread = threading.Thread(target=self._serve, name="sandbox", daemon=True)
        self._thread.start()

    def trace(self) -> Trace:
        """Returns a new session."""
        return Trace(self._shared)

    def submit(self, trace: Trace, call: Call) -> None:
        """Runs a call after those of the session that wait before it.

        Raises:
            EngineError: the pool is closed.
        """
        self._hand_over(partial(self._take, trace, call))

    def end(self, trace: Trace) -> None:
        """Ends a session: its process and its calls."""
        with suppress(EngineError):
            self._hand_over(partial(self._end, trace))

    def close(self) -> None:
        """Ends all sessions and processes, and waits for that."""
        with suppress(EngineError):
            self._hand_over(self._stop)
        self._thread.join()

    def _hand_over(self, function: Callable[[], None]) -> None:
        with self._lock:
            if self._is_over:
                raise EngineError("the sandbox is closed.")
            self._todo.append(function)
            if len(self._todo) == 1:
                os.write(self._waker, b"!")

    def _do_todo(self, _events: int) -> None:
        with self._lock:
            os.read(self._wake, 1)
            todo = list(self._todo)
            self._todo.clear()
        for function in todo:
            function()

    def _take(self, trace: Trace, call: Call) -> None:
        self._traces.add(trace)
        trace.take(call)

    def _end(self, trace: Trace) -> None:
        trace.close()
        self._traces.discard(trace)

    def _stop(self) -> None:
        self._is_serving = False

    def _serve(self) -> None:
        try:
            while self._is_serving:
                for key, events in self._selector.select(self._wait_s()):
                    if self._selector.get_map().get(key.fd) is key:  # not closed meanwhile
                        key.data(events)
                now_s = time.monotonic()
                for trace in [trace for trace in self._traces if trace.running]:
                    if trace.running.end_s <= now_s:
                        trace.time_out()
        finally:  # whatever happened, nobody waits for ever
            self._shut()

    def _wait_s(self) -> float | None:
        ends_s = [trace.running.end_s for trace in self._traces if trace.running]
        return max(0.0, min(ends_s) - time.monotonic()) if ends_s else None

    def _shut(self) -> None:
        with self._lock:
            self._is_over = True
            todo = list(self._todo)
        self._give_up("the sandbox is closed.")
        for function in todo:
            function()
        self._selector.close()
        os.close(self._wake)
        os.close(self._waker)
        self._shared.keeper.close()

    def _watch_keeper(self) -> None:
        control = self._shared.keeper.control
        self._selector.register(control, selectors.EVENT_READ, self._on_keeper)

    def _on_keeper(self, _events: int) -> None:
        try:
            for kind, *values in self._shared.keeper.messages():
                if kind == "ready":
                    self._note_ready(*values)
                elif kind == "refused":
                    self._refusal = values[0]
                elif mourner := self._shared.mourners.pop(values[0], None):
                    mourner(self._cause(*values[1:]))
        except EOFError:
            self._replace_keeper()

    def _note_ready(self, used: list[str], missing: dict[str, str]) -> None:
        self._was_ready = True
        self._shared.keeper.stock_up()
        isolation = Isolation(used=tuple(used), missing=missing)
        if not self.isolation.done():
            self.isolation.set_result(isolation)
        _log.info("sandbox: %s", isolation)

    def _cause(self, exit_code: int, cpu_s: float) -> str:
        """Returns what a worker died of."""
        if exit_code == -signal.SIGXCPU or cpu_s >= self._shared.limits.cpu_s:
            return f"the process has used up its {self._shared.limits.cpu_s} CPU seconds"
        if exit_code >= 0:
            return f"the process has exited with status {exit_code}"
        return f"the process was ended by {signal.Signals(-exit_code).name}"

    def _replace_keeper(self) -> None:
        """Starts another keeper, if this one ever worked."""
        keeper, was_ready, self._was_ready = self._shared.keeper, self._was_ready, False
        self._selector.unregister(keeper.control)
        why = self._refusal or keeper.close()
        if not was_ready:
            self._give_up(f"the sandbox cannot start: {why}.")
            return
        _log.error("the sandbox's processes were killed (%s); starting others", why)
        self._shared.keeper, self._shared.mourners = Keeper(self._shared.limits), {}
        self._watch_keeper()
        for trace in self._traces:
            trace.lose_worker("the processes of the sandbox were killed")

    def _give_up(self, why: str) -> None:
        """Lets all calls fail from now on."""
        self._shared.broken = EngineError(why)
        if not self.isolation.done():
            self.isolation.set_exception(self._shared.broken)
        for trace in self._traces:
            trace.lose_worker(why.removesuffix("."))
