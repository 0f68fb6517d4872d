r"""Python for the model: it remembers, it has sympy, and it cannot get out.

The code that a model writes is run as if an enemy had written it: in a process of its own that sees
no network, no other process, no environment and no files but Python's, with limited memory, CPU
time, threads and output, and that the kernel ends on time.

    with Sandbox() as sandbox:
        print(sandbox.isolation)  # what this system has to keep the code in
        with sandbox.session() as session:  # one for each trace
            session.run("from sympy import *; x = symbols('x')", timeout_s=5)
            session.run("solve(x**2 - 2, x)", timeout_s=5).stdout  # '[-sqrt(2), sqrt(2)]\n'

Starting a sandbox takes about two seconds, a session some milliseconds. There are no other
processes for the code: `os.fork`, `subprocess` and `multiprocessing` fail in it. Linux on x86-64
only.
"""

import math
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Self

from fastmath_kit.errors import ConfigError, EngineError
from fastmath_kit.inference.isolation.limits import Isolation, Limits, Output
from fastmath_kit.inference.isolation.pool import Pool
from fastmath_kit.inference.isolation.seccomp import why_impossible
from fastmath_kit.inference.isolation.trace import Call

__all__ = ["Isolation", "Limits", "Output", "Sandbox", "Session"]

MAX_CODE_CHARS = 100_000
_START_S = 120.0  # loading sympy on a busy machine


class Sandbox:
    """Sessions of Python, any number at once, from any thread.

    Attributes:
        isolation: What keeps the code in on this system, and what the system lacks.
    """

    def __init__(self, limits: Limits = Limits()) -> None:
        """Starts what the sessions are forked from.

        Args:
            limits: Of each session.

        Raises:
            EngineError: code cannot be contained on this system, or nothing starts.
        """
        if why := why_impossible():
            raise EngineError(f"the sandbox cannot start: {why}.")
        self._pool = Pool(limits)
        with ExitStack() as on_error:
            on_error.callback(self._pool.close)
            try:
                self.isolation: Isolation = self._pool.isolation.result(_START_S)
            except TimeoutError:
                raise EngineError(f"the sandbox did not start in {_START_S:g} s.") from None
            on_error.pop_all()

    def session(self) -> "Session":
        """Returns a new session, whose process starts with its first call."""
        return Session(self._pool)

    def close(self) -> None:
        """Ends all sessions and processes. May be called again."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception) -> None:
        self.close()


class Session:
    """The Python of one trace: what a call defines, the next one knows.

    A context manager that closes itself. After a time-out or a crash the next call starts afresh.
    """

    def __init__(self, pool: Pool) -> None:
        """Called by `Sandbox.session`."""
        self._pool, self._trace = pool, pool.trace()

    def submit(self, code: str, timeout_s: float) -> Future[Output]:
        """Runs code after the calls before it and returns at once.

        The future's callbacks run in the sandbox's own thread and must not wait.

        Args:
            code: Python. If its last statement is an expression, its value is printed.
            timeout_s: Wall seconds from the moment it is the call's turn.

        Raises:
            ConfigError: `timeout_s` is not a positive number.
            EngineError: the sandbox is closed.
        """
        if not 0 < timeout_s < math.inf:
            raise ConfigError(f"timeout_s must be a positive number of seconds, got {timeout_s}.")
        call = Call(code=code, timeout_s=timeout_s)
        if len(code) > MAX_CODE_CHARS:
            error = f"the code was not run: it has more than {MAX_CODE_CHARS:,} characters"
            refusal = Output(stdout="", error=error, timed_out=False, seconds=0.0, truncated=False)
            call.future.set_result(refusal)
            return call.future
        self._pool.submit(self._trace, call)
        return call.future

    def run(self, code: str, timeout_s: float) -> Output:
        """Runs code and waits for it; see `submit`.

        Raises:
            ConfigError: `timeout_s` is not a positive number.
            EngineError: the sandbox is closed or cannot start any more.
        """
        return self.submit(code, timeout_s).result()

    def close(self) -> None:
        """Ends the process and all calls, without waiting. May be called again."""
        self._pool.end(self._trace)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception) -> None:
        self.close()
