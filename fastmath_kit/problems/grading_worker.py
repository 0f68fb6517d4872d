"""The process that runs math-verify: `python -m fastmath_kit.problems.grading_worker`.

Two processes, because sympy takes a second to import and must be easy to kill. The keeper imports
it, forks a grader and waits. The grader reads batches from standard input and answers them one by
one; a kernel timer ends it when one answer takes too much CPU time (wall time would make verdicts
depend on the load), and `RLIMIT_AS` bounds its memory. The keeper then tells the parent, and forks
the next grader in milliseconds. After `max_tasks` the grader leaves by itself, with all that sympy
cached.

Messages are frames: four bytes of length, then JSON. In: `[[gold, answer], ...]`, never sent before
the last batch is answered. Out: `["ready"]` once, `["verdict", correct, reason]` per pair, or
`["died", exit_code, reading_gold]`, after which the rest of the batch is lost.

Both end when the parent does, however it ends: the keeper looks twice a second, and the grader
reads the end of its input or is killed by the kernel with the keeper.
"""

import gc
import json
import mmap
import os
import resource
import select
import signal
import struct
import sys

_LENGTH = struct.Struct(">I")
_RECYCLED = 3  # exit status of a grader that has had its share of tasks
_READING_GOLD, _COMPARING = 0, 1
_LOOK_S = 0.5  # between two looks at the parent
_GARBAGE_TASKS = 64  # tasks between two collections: ANTLR's trees are cycles


def frame(message: object) -> bytes:
    """Returns a message as it travels through the pipe."""
    body = json.dumps(message).encode()
    return _LENGTH.pack(len(body)) + body


def unframe(buffer: bytearray) -> list | None:
    """Takes the first complete message out of `buffer`, or returns None."""
    if len(buffer) < _LENGTH.size:
        return None
    end = _LENGTH.size + _LENGTH.unpack_from(buffer)[0]
    if len(buffer) < end:
        return None
    message = json.loads(bytes(buffer[_LENGTH.size : end]))
    del buffer[:end]
    return message


def main() -> None:
    """Keeps one grader alive until the parent goes away."""
    parent, time_limit_s, memory_limit_bytes, max_tasks = json.loads(sys.argv[1])
    from fastmath_kit.problems.grading_math import Judge

    judge = Judge()
    gc.collect()
    gc.freeze()  # shared with every grader: no collection touches these pages
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    _send(["ready"])
    while True:
        stage = mmap.mmap(-1, 1)
        alive, grader_end = os.pipe()
        grader = os.fork()
        if grader == 0:
            os.close(alive)
            _die_with_the_keeper()
            _limit_memory(memory_limit_bytes)
            sys.exit(_grade_forever(judge, stage, time_limit_s, max_tasks))
        os.close(grader_end)
        status = _wait(grader, alive, parent)
        os.close(alive)
        if status == 0:  # the input has ended
            return
        if os.waitstatus_to_exitcode(status) != _RECYCLED:
            _send(["died", os.waitstatus_to_exitcode(status), stage[0] == _READING_GOLD])


def _wait(grader: int, alive: int, parent: int) -> int:
    """Returns the grader's wait status; ends both if the parent is gone."""
    while not select.select([alive], [], [], _LOOK_S)[0]:
        if os.getppid() != parent:
            os.kill(grader, signal.SIGKILL)
            sys.exit(0)
    return os.waitpid(grader, 0)[1]


def _die_with_the_keeper() -> None:
    """Asks Linux to kill this process when the keeper dies; elsewhere the end of input does."""
    keeper = os.getppid()
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != keeper:
        sys.exit(0)


def _limit_memory(limit_bytes: int) -> None:
    """Limits what this process may add to the pages it shares with the keeper."""
    if sys.platform == "linux":
        with open("/proc/self/statm", "rb") as file:
            shared_bytes = int(file.read().split()[0]) * resource.getpagesize()
        limit_bytes += shared_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _grade_forever(judge, stage: mmap.mmap, time_limit_s: float, max_tasks: int) -> int:
    """Answers batches until the input ends (0) or `max_tasks` are done (`_RECYCLED`)."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # kills, whatever runs
    gc.disable()
    num_tasks = 0

    def read_gold() -> None:
        stage[0] = _COMPARING

    while num_tasks < max_tasks:
        if (batch := _receive()) is None:
            return 0
        for gold, answer in batch:
            stage[0] = _READING_GOLD
            signal.setitimer(signal.ITIMER_PROF, time_limit_s)
            correct, reason = judge(gold, answer, on_gold_read=read_gold)
            signal.setitimer(signal.ITIMER_PROF, 0)
            _send(["verdict", correct, reason])
            num_tasks += 1
            if num_tasks % _GARBAGE_TASKS == 0:
                gc.collect()
    return _RECYCLED


def _receive() -> list | None:
    """Reads exactly one message, no byte more: the next one may be for the next grader."""
    header = _read(_LENGTH.size)
    return None if header is None else json.loads(_read(_LENGTH.unpack(header)[0]) or b"[]")


def _read(size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        if not (part := os.read(0, size - len(parts))):
            return None
        parts += part
    return bytes(parts)


def _send(message: list) -> None:
    os.write(1, frame(message))  # far below PIPE_BUF, so whole or not at all


if __name__ == "__main__":
    main()
