"""One session as the pool's thread sees it: its calls in order, its worker, what that prints.

A worker that is late, gone or out of line is dropped, and the next call gets a new one. Everything
here runs in the thread of `inference.isolation.pool` and never waits.
"""

import math
import selectors
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from fastmath_kit.errors import EngineError
from fastmath_kit.inference.isolation.limits import Limits, Output
from fastmath_kit.inference.isolation.process import Keeper, Worker

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_MAX_CHAR_BYTES = 4
_LOST = "; the variables of this session are lost"
_CLOSED = "the session was closed"


@dataclass(slots=True, kw_only=True)
class Shared:
    """What all sessions of a pool share.

    Attributes:
        limits: Of each session.
        selector: Where the pool's thread waits; the data of a key is called with the events.
        keeper: Starts and ends workers.
        broken: Why no code can be run any more.
        mourners: Number of a dead worker -> what to call with the reason of its end.
    """

    limits: Limits
    selector: selectors.BaseSelector
    keeper: Keeper
    broken: EngineError | None = None
    mourners: dict[int, Callable[[str], None]] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """Code to run; its time starts with its turn."""

    code: str
    timeout_s: float
    future: Future[Output] = field(default_factory=Future)
    start_s: float = math.nan

    @property
    def end_s(self) -> float:
        """When the call is late, on `time.monotonic()`."""
        return self.start_s + self.timeout_s


class Trace:
    """The calls of one session and the process that runs them.

    Attributes:
        running: The call that has been sent to the worker, or whose worker has just died.
    """

    def __init__(self, shared: Shared) -> None:
        """There is no worker before the first call."""
        self.running: Call | None = None
        self._shared = shared
        self._waiting: deque[Call] = deque()
        self._worker: Worker | None = None
        self._printed = ("", False)  # and whether that is cut
        self._lost: str | None = None  # to be told with the next call
        self._is_closed = False

    def take(self, call: Call) -> None:
        """Runs a call after those that wait before it."""
        self._waiting.append(call)
        self._start_next_call()

    def time_out(self) -> None:
        """Ends the running call, which is late, and its process."""
        self._drop_worker()
        self._finish(f"timed out after {self.running.timeout_s:g} s{_LOST}", timed_out=True)

    def lose_worker(self, why: str) -> None:
        """Tells the running call, or else the next one, that the process has been killed."""
        if self._worker is not None or self.running is not None:
            self._lost = why + _LOST
        self._drop_worker()
        if self.running is not None:
            self._finish(None)

    def close(self) -> None:
        """Ends the process and all calls."""
        self._is_closed = True
        self._drop_worker()
        if self.running is not None:
            self._finish(_CLOSED)
        self._start_next_call()

    def _start_next_call(self) -> None:
        while self.running is None and self._waiting:
            call = self._waiting.popleft()
            if not call.future.set_running_or_notify_cancel():
                continue
            if self._shared.broken is not None:
                call.future.set_exception(self._shared.broken)
                continue
            call.start_s, self.running, self._printed = time.monotonic(), call, ("", False)
            if self._is_closed:
                self._finish(_CLOSED)
            else:
                self._send(call)

    def _send(self, call: Call) -> None:
        shared = self._shared
        if self._worker is None:
            try:
                self._worker = shared.keeper.worker()
            except OSError as error:
                self._finish(f"the code was not run: no process could be started ({error})")
                return
            shared.selector.register(self._worker.channel, _READ, self._on_channel)
        self._worker.call(call.code)
        shared.selector.register(self._worker.printed, _READ, self._on_printed)
        self._watch_channel()

    def _watch_channel(self) -> None:
        events = _READ | _WRITE if self._worker.wants_to_write else _READ
        self._shared.selector.modify(self._worker.channel, events, self._on_channel)

    def _on_printed(self, _events: int) -> None:
        """Reads what the code prints; the pipe of one that prints too much is left to fill up."""
        if not self._worker.read(self._shared.limits.output_chars * _MAX_CHAR_BYTES + 1):
            self._shared.selector.unregister(self._worker.printed)

    def _on_channel(self, events: int) -> None:
        if events & _WRITE:
            self._worker.write()
            self._watch_channel()
        if not events & _READ:
            return
        try:
            if (answer := self._worker.answer()) is None:
                return
            if self.running is None:
                raise EOFError  # nobody asked
        except EOFError:
            self._mourn()
        else:
            error, is_cut = answer
            self._collect(is_cut=is_cut)
            self._finish(error)

    def _mourn(self) -> None:
        """Drops a worker that is gone or out of line; a call waits to hear what it died of."""
        if (call := self.running) is None:
            self._lost = f"the process had ended after the call before{_LOST}"
        else:

            def tell(why: str) -> None:
                if self.running is call:
                    self._finish(why + _LOST)

            self._shared.mourners[self._worker.number] = tell
        self._drop_worker()

    def _drop_worker(self) -> None:
        if (worker := self._worker) is None:
            return
        self._collect()
        self._shared.selector.unregister(worker.channel)
        self._shared.keeper.end(worker)
        self._worker = None

    def _collect(self, *, is_cut: bool = False) -> None:
        """Takes what the worker has printed in this call and stops to read it."""
        if self.running is None:
            return
        worker, selector = self._worker, self._shared.selector
        if worker.printed in selector.get_map():
            self._on_printed(_READ)
        if worker.printed in selector.get_map():
            selector.unregister(worker.printed)
        text, is_long = worker.text(self._shared.limits.output_chars)
        self._printed = text, is_cut or is_long

    def _finish(self, error: str | None, *, timed_out: bool = False) -> None:
        call, self.running = self.running, None
        error, self._lost = "; ".join(filter(None, (error, self._lost))) or None, None
        stdout, truncated = self._printed
        output = Output(
            stdout=stdout,
            error=error,
            timed_out=timed_out,
            seconds=time.monotonic() - call.start_s,
            truncated=truncated,
        )
        call.future.set_result(output)
        self._start_next_call()
