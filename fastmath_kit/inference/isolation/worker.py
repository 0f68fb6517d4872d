"""The process that forks a confined Python for each session: `python -m` this module.

It loads and warms up sympy, puts up the walls (`inference.isolation.walls`), and then forks in
milliseconds what took seconds to load. It runs no code of a model itself, and a fork that cannot be
confined runs none either.

Standard input is a packet socket to the parent, each packet a JSON list. In: `["start", number]`
with two file descriptors, the channel of `inference.isolation.repl` and the pipe for what it
prints; `["end", number]`. Out, once: `["ready", used, missing]` or `["refused", why]`; then
`["ended", number, exit_code, cpu_s]` for every process that was told to end.

When the parent goes away, however it ends, so do all of these processes.
"""

import ctypes
import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress

from fastmath_kit.inference.isolation.limits import Limits
from fastmath_kit.inference.isolation.repl import serve
from fastmath_kit.inference.isolation.walls import Jail, why_not
from fastmath_kit.inference.isolation.warmup import warm_up

_LOOK_S, _REAP_S = 0.5, 0.003  # between two looks at the parent; at processes that are ending
_PACKET_BYTES = 1_024
_MAX_ARENAS = -8  # of malloc's, each of which takes 128 MB of address space from a thread


def main() -> None:
    """Serves the parent until it goes away."""
    parent, limits = int(sys.argv[1]), Limits(**json.loads(sys.argv[2]))
    control = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    ctypes.CDLL(None).mallopt(_MAX_ARENAS, 1)
    warm_up()
    jail = Jail()
    if why := why_not(lambda: jail.confine(limits, 0)):
        control.send(json.dumps(["refused", f"code cannot be confined, {why}"]).encode())
        return
    control.send(json.dumps(["ready", jail.isolation.used, jail.isolation.missing]).encode())
    _Keeper(control, jail, limits).keep(parent)


class _Keeper:
    """Starts and ends processes as the parent says."""

    def __init__(self, control: socket.socket, jail: Jail, limits: Limits) -> None:
        self._control, self._jail, self._limits = control, jail, limits
        self._living: dict[int, int] = {}  # number -> process id
        self._ending: dict[int, int] = {}

    def keep(self, parent: int) -> None:
        """Returns when the parent is gone and all processes are."""
        while os.getppid() == parent:
            wait_s = _REAP_S if self._ending else _LOOK_S
            if select.select([self._control], [], [], wait_s)[0]:
                packet, descriptors, *_ = socket.recv_fds(self._control, _PACKET_BYTES, 2)
                if not packet:
                    break
                kind, number = json.loads(packet)
                if kind == "start":
                    self._start(number, *descriptors)
                else:
                    self._end(number)
            self._reap()
        for number in list(self._living):
            self._end(number)
        for process in self._ending.values():
            os.waitpid(process, 0)
        self._jail.close()

    def _start(self, number: int, channel: int, printed: int) -> None:
        process = os.fork()  # if this fails so would the next: the parent starts another keeper
        if process == 0:
            try:
                self._control.close()
                self._be_confined(number, channel, printed)
            finally:
                os._exit(1)
        self._living[number] = process
        os.close(channel)
        os.close(printed)

    def _be_confined(self, number: int, channel: int, printed: int) -> None:
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        os.close(printed)
        if "numpy" in sys.modules:  # `random` does so by itself
            sys.modules["numpy"].random.seed()
        self._jail.confine(self._limits, number)
        serve(channel, 4 * self._limits.output_chars)

    def _end(self, number: int) -> None:
        if (process := self._living.pop(number, None)) is not None:
            os.kill(process, signal.SIGKILL)
            self._ending[number] = process

    def _reap(self) -> None:
        for number, process in list(self._ending.items()):
            ended, status, usage = os.wait4(process, os.WNOHANG)
            if ended:
                del self._ending[number]
                cpu_s = usage.ru_utime + usage.ru_stime
                code = os.waitstatus_to_exitcode(status)
                with suppress(OSError):  # the parent is gone
                    self._control.send(json.dumps(["ended", number, code, cpu_s]).encode())


if __name__ == "__main__":
    main()
