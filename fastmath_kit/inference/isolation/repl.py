"""What answers inside a confined process: Python that remembers, one call after the other.

Calls come in through a socket as JSON strings, one a line, and each is answered by one line
`[error or null, truncated]`; what the code prints goes through standard output meanwhile. The code
of a call is hostile and can write all of this itself, so the reader trusts no word of it.
"""

import ast
import code
import io
import json
import os
import signal
import sys
import traceback
import types
from collections.abc import Iterator
from contextlib import suppress

_NAME = "<python>"  # the file of the code, in tracebacks
_MAX_ERROR_CHARS = 1_000
_READ_BYTES = 65_536


def serve(channel: int, output_bytes: int) -> None:
    """Runs what the channel asks for until it is closed.

    Args:
        channel: File descriptor of a stream socket.
        output_bytes: Most that one call may print; the rest is dropped.
    """
    main = types.ModuleType("__main__")
    sys.modules["__main__"], sys.argv = main, [""]
    sys.set_int_max_str_digits(0)  # sums of the digits of 2**20000 are asked for
    python, printed = _Python(vars(main)), _Printed()
    stream = _text_stream(printed)
    for source in _calls(channel):
        if stream.closed:
            stream = _text_stream(printed := _Printed())
        printed.left_bytes, printed.truncated = output_bytes, False
        sys.stdout = sys.stderr = stream
        error = python.run(source)
        signal.setitimer(signal.ITIMER_REAL, 0)  # an alarm that the code forgot
        with suppress(ValueError, OSError):  # the code closed it
            stream.flush()
        _write_all(channel, json.dumps([error, printed.truncated]).encode() + b"\n")


class _Python(code.InteractiveInterpreter):
    """Runs code in one namespace; the value of a last expression is printed."""

    def run(self, source: str) -> str | None:
        """Returns what went wrong in one line, or None."""
        self._error = None
        try:
            tree = ast.parse(source, _NAME)
            last = [tree.body.pop()] if tree.body and isinstance(tree.body[-1], ast.Expr) else []
            parts = [compile(tree, _NAME, "exec")]
            parts += [compile(ast.Interactive([part]), _NAME, "single") for part in last]
        except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError):
            self.showtraceback()
            return self._error
        with suppress(SystemExit):
            for part in parts:
                if self._error is None:
                    self.runcode(part)
        return self._error

    def showtraceback(self) -> None:
        """Notes the exception being handled."""
        error, line = sys.exception(), None
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == _NAME:
                line = trace.tb_lineno
            trace = trace.tb_next
        if isinstance(error, SyntaxError):
            text, line = f"{type(error).__name__}: {error.msg}", error.lineno
        else:  # also says what cannot be said, such as a broken __str__
            text = traceback.format_exception_only(error)[0].strip()
        self._error = text[:_MAX_ERROR_CHARS] + (f" (line {line})" if line else "")


class _Printed(io.RawIOBase):
    """Standard output up to a number of bytes; what follows is dropped without an error."""

    left_bytes = 0
    truncated = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1

    def write(self, data: bytes) -> int:
        kept = bytes(data[: self.left_bytes])
        self.left_bytes -= len(kept)
        self.truncated |= len(kept) < len(data)
        _write_all(1, kept)
        return len(data)


def _text_stream(printed: _Printed) -> io.TextIOWrapper:
    return io.TextIOWrapper(printed, "utf-8", "backslashreplace", line_buffering=True)


def _calls(channel: int) -> Iterator[str]:
    unread = b""
    while part := os.read(channel, _READ_BYTES):
        *lines, unread = (unread + part).split(b"\n")
        yield from map(json.loads, lines)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
