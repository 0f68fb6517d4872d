"""Keeps one engine alive in the background: started early, never waited for too long.

    keeper = EngineKeeper(start_engine, measure=measure_probes)
    keeper.start(end_s=time.monotonic() + 17_000)  # returns at once
    engine = keeper.ready(end_s=time.monotonic() + 600)
    keeper.call(engine, partial(solve, problem, engine, rule), limit_s=rule.timeout_s + 0.05)
    keeper.close()

An engine that did not start or died is replaced as long as the time left is worth a start, which is
what the last one took. One that hangs is left behind. All times are on `time.monotonic()`.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack

from fastmath_kit.budget.throughput import Probe
from fastmath_kit.errors import CheckpointError, ConfigError, EngineError
from fastmath_kit.inference.protocol import Engine
from fastmath_kit.kaggle.background import in_thread

_BACK_OFF_S = (1.0, 2.0, 4.0)  # after the first, second and every later failed start in a row
_CLOSE_S = 30.0  # how long a broken engine may take to close
_HANGS_S = 5.0  # how long after its limit a call may come back before its engine counts as hung
_FOREVER = (CheckpointError, ConfigError, ImportError)  # no other start would go better
_log = logging.getLogger(__name__)


class EngineKeeper:
    """Holds the engine of a submission and starts another one if it fails.

    Attributes:
        probes: Step times that were measured right after the engine's start.
    """

    def __init__(
        self,
        start_engine: Callable[[], Engine],
        *,
        measure: Callable[[Engine], Sequence[Probe]] | None = None,
    ) -> None:
        """Takes how to start; nothing is started yet.

        Args:
            start_engine: Builds an engine; called again if that engine fails.
            measure: Measures an engine that has started, such as `warmup.measure_probes`; a failure
                counts as a failed start.
        """
        self._start_engine, self._measure = start_engine, measure
        self.probes: tuple[Probe, ...] = ()
        self._changed = threading.Condition()  # guards what follows
        self._engine: Engine | None = None
        self._error: BaseException = EngineError("no engine was started.")
        self._num_failed = 0  # starts in a row
        self._is_starting = False
        self._late: tuple[Engine, Future, float] | None = None  # a call that was left, and until
        self._closed = threading.Event()
        self._start_s = 0.0  # of the last start
        self._end_s = math.inf

    def start(self, end_s: float) -> None:
        """Begins to start the engine, in a background thread.

        Args:
            end_s: When the run is over; no engine is replaced that would not be up by then.
        """
        self._end_s, self._is_starting = end_s, True
        in_thread(self._bring_up)

    def ready(self, end_s: float) -> Engine:
        """Returns the engine as soon as it has started.

        Args:
            end_s: Until when to wait.

        Raises:
            EngineError: it has not started by then.
            Exception: what its start raised, if no other start is worth it, or after the fourth
                failure in a row. Others then still follow, and each call waits for one more.
        """
        self._settle(end_s)
        with self._changed:
            num_failed = max(self._num_failed, len(_BACK_OFF_S))
            self._changed.wait_for(
                lambda: not self._is_starting or self._num_failed > num_failed,
                max(0.0, end_s - time.monotonic()),
            )
            if self._engine is not None:
                return self._engine
            if self._is_starting and self._num_failed <= num_failed:
                raise EngineError("the engine has not started in the time of this problem.")
            raise self._error

    def call(self, engine: Engine, function: Callable, limit_s: float):
        """Returns what `function`, which uses the engine, returns within `limit_s`, else None.

        What takes longer is left behind. The engine counts as hung, and is replaced, if it is not
        back when the next problem has waited 5 s for it.

        Raises:
            EngineError: the engine died; it is replaced.
        """
        calling = in_thread(function)
        wait([calling], timeout=limit_s)
        if not calling.done():
            self._late = (engine, calling, time.monotonic() + _HANGS_S)
            return None
        if isinstance(calling.exception(), EngineError):
            self.restart(f"died ({calling.exception()})", engine)
        return calling.result()

    def restart(self, why: str, broken: Engine) -> bool:
        """Starts another engine in the background if the time left is worth it.

        Args:
            why: What is wrong with this one, for the log.
            broken: The engine to close first. One that was replaced before is not again.
        """
        with self._changed:
            if broken is not self._engine:
                return False
            if not self._is_worth_a_start():
                _log.error("ENGINE %s; it stays, no time is left for another start", why)
                return False
            self._engine, self._is_starting = None, True
        _log.error("ENGINE %s; starting another one", why)

        def replace() -> None:
            wait([in_thread(broken.close)], timeout=_CLOSE_S)
            self._bring_up()

        in_thread(replace)
        return True

    def close(self) -> None:
        """Closes the engine, also one that is starting; a hung one is left behind."""
        self._closed.set()
        with self._changed:
            self._changed.wait_for(lambda: not self._is_starting, _CLOSE_S)
            engine, self._engine = self._engine, None
            self._error = EngineError("the engine is closed.")
        if engine is not None:
            wait([in_thread(engine.close)], timeout=_CLOSE_S)

    def _settle(self, end_s: float) -> None:
        """Waits a moment for a call that was left behind; without it the engine hangs."""
        if self._late is None:
            return
        engine, calling, until_s = self._late
        wait([calling], timeout=max(0.0, min(until_s, end_s) - time.monotonic()))
        if not calling.done() and time.monotonic() < until_s:
            raise EngineError("the engine is still busy with the problem before.")
        self._late = None
        if not calling.done():
            self.restart("hangs", engine)
        elif isinstance(calling.exception(), EngineError):
            self.restart(f"died ({calling.exception()})", engine)

    def _bring_up(self) -> None:
        """Starts engines until one works or no other start is worth it."""
        while not self._closed.is_set():
            begin_s = time.monotonic()
            starting = in_thread(self._start_and_measure)
            wait([starting])
            with self._changed:
                self._start_s = time.monotonic() - begin_s
                if self._take(starting):
                    return
                pause_s = _BACK_OFF_S[min(self._num_failed, len(_BACK_OFF_S)) - 1]
            self._closed.wait(pause_s)
        with self._changed:
            self._is_starting = False
            self._changed.notify_all()

    def _take(self, starting: Future) -> bool:
        """Takes what came of a start; whether it was the last one for now."""
        error = starting.exception()
        if error is None:
            self._engine, self.probes = starting.result()
            self._num_failed = 0
            _log.info("engine: up after %.1f s", self._start_s)
        else:
            self._error = error
            self._num_failed += 1
            hopeless = isinstance(error, _FOREVER) or not self._is_worth_a_start()
            _log.error("ENGINE did not start (%r)%s", error, "; giving up" if hopeless else "")
        done = error is None or hopeless
        self._is_starting = not done
        self._changed.notify_all()
        return done

    def _start_and_measure(self) -> tuple[Engine, tuple[Probe, ...]]:
        engine = self._start_engine()
        with ExitStack() as on_error:
            on_error.callback(engine.close)
            probes = tuple(self._measure(engine)) if self._measure else ()
            on_error.pop_all()
        return engine, probes

    def _is_worth_a_start(self) -> bool:
        return self._end_s - time.monotonic() > self._start_s
