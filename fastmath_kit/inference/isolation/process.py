"""The parent's ends of the sandbox's processes; nothing waits, no word of a worker is trusted.

`Keeper` is the process that forks (`inference.isolation.worker`), `Worker` one confined process
that belongs to a session. A worker that writes anything but one well-formed answer is ended.
"""

import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict

from fastmath_kit.inference.isolation.limits import Limits

_numbers = itertools.count(1)  # of workers, also those of earlier keepers
_WORKER = "fastmath_kit.inference.isolation.worker"
_READ_BYTES = 65_536
_MAX_ANSWER_BYTES = 16_384
_MAX_ERROR_CHARS = 2_000
_PACKET_BYTES = 65_536
_NUM_SPARES = 4  # workers kept ready, since a fork takes some milliseconds
_END_S = 10.0  # how long the keeper may take to end everything


class Keeper:
    """The process that forks the workers."""

    def __init__(self, limits: Limits) -> None:
        """Starts the process; its first message says what became of it."""
        self.control, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.setblocking(False)
        self._spares: deque[Worker] = deque()
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        arguments = [str(os.getpid()), json.dumps(asdict(limits))]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-m", _WORKER, *arguments],
            stdin=its_end,
            stdout=subprocess.DEVNULL,
            stderr=self._complaints,
            env=_environment(),
            start_new_session=True,  # a Ctrl-C in a notebook is not for it
        )
        its_end.close()

    def stock_up(self) -> None:
        """Starts the workers that are kept ready."""
        while len(self._spares) < _NUM_SPARES:
            self._spares.append(self._start())

    def worker(self) -> "Worker":
        """Returns a worker that is ready, or will be at once, and has another one made.

        Raises:
            OSError: no file descriptors are left here, or the keeper is gone or stuck.
        """
        while self._spares:
            worker = self._spares.popleft()
            try:
                worker.answer()
            except EOFError:
                self.end(worker)  # killed while it waited
            else:
                with suppress(OSError):
                    self.stock_up()
                return worker
        return self._start()

    def _start(self) -> "Worker":
        channel, its_channel = socket.socketpair()
        printed, its_printed = os.pipe()
        worker = Worker(next(_numbers), channel, printed)
        try:
            packet = json.dumps(["start", worker.number]).encode()
            socket.send_fds(self.control, [packet], [its_channel.fileno(), its_printed])
        except OSError:
            worker.close()
            raise
        finally:
            its_channel.close()
            os.close(its_printed)
        return worker

    def end(self, worker: "Worker") -> None:
        """Asks for the end of a worker; a message will confirm it."""
        worker.close()
        with suppress(OSError):  # the keeper is gone, and all workers with it
            self.control.send(json.dumps(["end", worker.number]).encode())

    def messages(self) -> Iterator[list]:
        """Yields what it has said since the last time.

        Raises:
            EOFError: it is gone.
        """
        while True:
            try:
                packet = self.control.recv(_PACKET_BYTES)
            except BlockingIOError:
                return
            except ConnectionError:
                packet = b""
            if not packet:
                raise EOFError
            yield json.loads(packet)

    def close(self) -> str:
        """Ends all processes, waits for that and says how the keeper ended; may be called again."""
        if self._complaints.closed:
            return "closed"
        while self._spares:
            self._spares.pop().close()
        self.control.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with self._complaints as file:
            file.seek(0)
            lines = file.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit status {self._process.returncode}"


class Worker:
    """One confined process, as seen from outside.

    Attributes:
        number: Its number with the keeper.
        channel: The socket that takes calls and gives answers.
        printed: File descriptor of what it prints.
    """

    def __init__(self, number: int, channel: socket.socket, printed: int) -> None:
        """Takes our ends of the socket and of the pipe."""
        self.number, self.channel, self.printed = number, channel, printed
        channel.setblocking(False)
        os.set_blocking(printed, False)
        self._unsent, self._answer, self._output = bytearray(), bytearray(), bytearray()

    @property
    def wants_to_write(self) -> bool:
        """Whether part of the code is still to be sent."""
        return bool(self._unsent)

    def call(self, code: str) -> None:
        """Begins to send code to run; `write` sends the rest."""
        self._unsent += json.dumps(code).encode() + b"\n"
        self._answer.clear()
        self._output.clear()
        self.write()

    def write(self) -> None:
        """Sends what the socket takes now; a process that is gone is noticed on reading."""
        try:
            del self._unsent[: self.channel.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()

    def answer(self) -> tuple[str | None, bool] | None:
        """Returns the error of the call and whether its output is cut, or None if not yet there.

        Raises:
            EOFError: the process is gone, or says what is no answer.
        """
        try:
            part = self.channel.recv(_READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            part = b""
        self._answer += part
        if not part or len(self._answer) > _MAX_ANSWER_BYTES:
            raise EOFError
        if not part.endswith(b"\n"):
            return None
        return _checked(self._answer)

    def read(self, limit_bytes: int) -> bool:
        """Reads what has been printed; whether there may be more to come within the limit."""
        while len(self._output) < limit_bytes:
            try:
                part = os.read(self.printed, min(_READ_BYTES, limit_bytes - len(self._output)))
            except BlockingIOError:
                return True
            if not part:
                return False
            self._output += part
        return False

    def text(self, limit_chars: int) -> tuple[str, bool]:
        """Returns what the call has printed, and whether that is more than the limit."""
        text = self._output.decode(errors="replace")
        return text[:limit_chars], len(text) > limit_chars

    def close(self) -> None:
        """Closes our ends."""
        self.channel.close()
        os.close(self.printed)


def _checked(answer: bytearray) -> tuple[str | None, bool]:
    try:
        match json.loads(answer):
            case [None, bool(is_cut)]:
                return None, is_cut
            case [str(error), bool(is_cut)]:  # may hold halves of characters
                return error[:_MAX_ERROR_CHARS].encode(errors="replace").decode(), is_cut
    except (ValueError, RecursionError):
        pass
    raise EOFError


def _environment() -> dict[str, str]:
    """Returns what Python needs to import what this process can, and nothing secret."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return {"PYTHONPATH": path, "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", **kept}
