"""Keeps one engine alive in the background: started early, never waited for too long.

    keeper = EngineKeeper(start_engine)  # returns at once
    engine = keeper.ready(end_s=time.monotonic() + 600)
    keeper.call(engine, partial(solve, problem, engine, rule), limit_s=rule.timeout_s + 5)
    keeper.restart("died", engine)

An engine that did not start, died or hangs is replaced once; a hung one is left behind.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import ExitStack
from functools import partial

from fastmath_kit.errors import EngineError
from fastmath_kit.inference.protocol import Engine

_logger = logging.getLogger(__name__)
_CLOSE_S = 30.0  # how long a broken engine may take to close
_NUM_RESTARTS = 1


class EngineKeeper:
    """Holds the engine of a submission and starts another one if it fails."""

    def __init__(self, start_engine: Callable[[], Engine]) -> None:
        """Begins to start the engine, in a background thread.

        Args:
            start_engine: Builds an engine; called again if that engine fails.
        """
        self._start_engine = start_engine
        self._num_restarts = 0
        self._starting = _in_thread(start_engine)

    def ready(self, end_s: float) -> Engine:
        """Returns the engine as soon as it has started.

        Args:
            end_s: Until when to wait, on `time.monotonic()`.

        Raises:
            EngineError: it has not started by then. What its start raised, if that failed twice.
        """
        while True:
            starting = self._starting
            wait([starting], timeout=max(0.0, end_s - time.monotonic()))
            if not starting.done():
                raise EngineError("the engine has not started in the time of this problem.")
            error = starting.exception()
            if error is None or not self.restart(f"did not start ({error!r})"):
                return starting.result()

    def call(self, engine: Engine, function: Callable, limit_s: float):
        """Returns what `function`, which uses the engine, returns within `limit_s`.

        Raises:
            EngineError: it did not return in time, or the engine died.
        """
        calling = _in_thread(function)
        wait([calling], timeout=limit_s)
        if not calling.done():
            self.restart("hangs", engine)
            raise EngineError(f"the engine hangs: nothing came back in {limit_s:.0f} s.")
        if isinstance(calling.exception(), EngineError):
            self.restart(f"died ({calling.exception()})", engine)
        return calling.result()

    def restart(self, why: str, broken: Engine | None = None) -> bool:
        """Starts another engine in the background and returns True, unless that was done before.

        Args:
            why: What is wrong with this one, for the log.
            broken: The engine to close first, None if it never started.
        """
        if self._num_restarts == _NUM_RESTARTS:
            _logger.error("ENGINE %s; it was restarted before, so this one stays", why)
            return False
        _logger.error("ENGINE %s; starting another one", why)
        self._num_restarts += 1

        def start() -> Engine:
            if broken is not None:
                wait([_in_thread(broken.close)], timeout=_CLOSE_S)
            return self._start_engine()

        self._starting = _in_thread(start)
        return True


def _in_thread(function: Callable) -> Future:
    """Runs a function in a daemon thread, which unlike a pool's never holds up the exit."""
    future: Future = Future()

    def work() -> None:
        with ExitStack() as at_end:
            at_end.push(partial(_hand_over, future))
            future.set_result(function())

    threading.Thread(target=work, daemon=True).start()
    return future


def _hand_over(future: Future, kind, error: BaseException | None, traceback) -> bool:
    """Gives what ended a thread to whoever waits, as the pools of concurrent.futures do."""
    if error is not None:
        known = isinstance(error, Exception)
        future.set_exception(error if known else EngineError(f"ended with {error!r}"))
    return True
