"""Work in daemon threads, which unlike a pool's never hold up the end of the process.

calling = in_thread(engine.close)
wait([calling], timeout=20.0)  # concurrent.futures.wait: then it is left behind
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial

from fastmath_kit.errors import EngineError


def in_thread(function: Callable) -> Future:
    """Runs a function in a thread of its own and returns what will hold its result or error."""
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
