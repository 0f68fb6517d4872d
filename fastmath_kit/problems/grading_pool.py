"""Keeps grading workers busy, and kills and replaces those that stop answering.

One call of `WorkerPool.run` owns all pipes for as long as it lasts, in the calling thread: there
are no helper threads to fork over, and no pipe is ever waited for while another one is ready.
Workers start when first needed.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator

from fastmath_kit.errors import EngineError
from fastmath_kit.problems.grading_rules import Verdict
from fastmath_kit.problems.grading_worker import frame, unframe

Pair = tuple[str, str]

_WORKER = "fastmath_kit.problems.grading_worker"
_BATCH_PAIRS = 16
_START_LIMIT_S = 300.0  # importing sympy on a busy machine
_WALL_FACTOR = 60  # wall seconds a worker may be silent, per second of its CPU limit
_NUM_TRIES = 3  # of a pair whose worker was killed by something else
_READ_BYTES = 65_536
_EXIT_MEMORY = 1  # an uncaught MemoryError


class Worker:
    """One worker process and the batch it has in hand."""

    def __init__(self, time_limit_s: float, memory_limit_bytes: int, max_tasks: int) -> None:
        """Starts the process; it answers when its imports are done. See `Grader` for the limits."""
        arguments = [os.getpid(), time_limit_s, memory_limit_bytes, max_tasks]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", _WORKER, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,  # a Ctrl-C in a notebook is not for the worker
        )
        self.input, self.output = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self.input, False)
        os.set_blocking(self.output, False)
        self.is_ready = False
        self.batch: deque[Pair] = deque()
        self._silence_limit_s = time_limit_s * _WALL_FACTOR
        self._unsent, self._unread = bytearray(), bytearray()
        self._last_heard_s = time.monotonic()

    @property
    def wants_to_write(self) -> bool:
        """Whether part of the batch is still to be sent."""
        return bool(self._unsent)

    def is_overdue(self) -> bool:
        """Whether the worker has been silent for longer than any pair can take."""
        limit_s = self._silence_limit_s if self.is_ready else _START_LIMIT_S
        return time.monotonic() - self._last_heard_s > limit_s

    def submit(self, batch: list[Pair]) -> None:
        """Gives the worker its next batch; `write` sends it."""
        self.batch.extend(batch)
        self._unsent += frame(batch)
        self._last_heard_s = time.monotonic()

    def write(self) -> None:
        """Sends what the pipe takes now.

        Raises:
            OSError: the worker is gone.
        """
        with contextlib.suppress(BlockingIOError):
            del self._unsent[: os.write(self.input, self._unsent)]

    def messages(self) -> Iterator[list]:
        """Yields the messages that have arrived.

        Raises:
            EOFError: the worker is gone.
        """
        with contextlib.suppress(BlockingIOError):
            if not (part := os.read(self.output, _READ_BYTES)):
                raise EOFError
            self._unread += part
            self._last_heard_s = time.monotonic()
        while (message := unframe(self._unread)) is not None:
            yield message

    def kill(self) -> None:
        """Ends the worker's processes at once and closes its pipes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.forget()

    def forget(self) -> None:
        """Closes the pipes without touching the process, as a forked child must."""
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        self.process.returncode = self.process.returncode or 0  # not ours to wait for


class WorkerPool:
    """`num_workers` workers, started when needed and replaced when they die."""

    def __init__(self, num_workers: int, **limits: float) -> None:
        """Starts nothing yet; the limits are those of `Worker`."""
        self._num_workers, self._limits = num_workers, limits
        self.workers: list[Worker] = []
        self._num_failed_starts = 0

    def run(self, pairs: list[Pair]) -> dict[Pair, Verdict]:
        """Returns the verdict of each pair.

        Raises:
            EngineError: the workers do not start.
        """
        todo, self._verdicts, self._tries = deque(pairs), {}, {}
        try:
            while todo or any(worker.batch for worker in self.workers):
                self._hand_out(todo)
                for worker in self._ready_workers():
                    self._serve(worker, todo)
        finally:
            if any(worker.batch for worker in self.workers):  # after Ctrl-C or an error
                self.close()
        return self._verdicts

    def close(self) -> None:
        """Ends all workers."""
        while self.workers:
            self.workers.pop().kill()

    def forget(self) -> None:
        """Leaves the workers to the process this one was forked from."""
        while self.workers:
            self.workers.pop().forget()

    def _hand_out(self, todo: deque[Pair]) -> None:
        num_free = self._num_workers - sum(bool(worker.batch) for worker in self.workers)
        while todo and num_free > 0:
            worker = next((w for w in self.workers if not w.batch), None)
            if worker is None:
                worker = Worker(**self._limits)
                self.workers.append(worker)
            size = min(_BATCH_PAIRS, -(-len(todo) // (2 * self._num_workers)))
            worker.submit([todo.popleft() for _ in range(size)])
            num_free -= 1

    def _ready_workers(self) -> list[Worker]:
        """Waits until a busy worker can be read, written or is overdue."""
        poll, busy = select.poll(), [worker for worker in self.workers if worker.batch]
        for worker in busy:
            poll.register(worker.output, select.POLLIN)
            if worker.wants_to_write:
                poll.register(worker.input, select.POLLOUT)
        ready = {descriptor for descriptor, _ in poll.poll(1_000)}
        return [w for w in busy if w.output in ready or w.input in ready or w.is_overdue()]

    def _serve(self, worker: Worker, todo: deque[Pair]) -> None:
        try:
            if worker.wants_to_write:
                worker.write()
            for kind, *values in worker.messages():
                if kind == "ready":
                    worker.is_ready = True
                elif kind == "verdict":
                    self._verdicts[worker.batch.popleft()] = Verdict(*values)
                elif kind == "died" and not self._bury(worker, todo, *values):
                    return
            if worker.batch and worker.is_overdue():
                self._replace(worker, todo)
        except (EOFError, OSError):
            self._replace(worker, todo)

    def _bury(self, worker: Worker, todo: deque[Pair], code: int, reading_gold: bool) -> bool:
        """Judges the pair a grader died of; returns whether the worker can go on."""
        if code not in (-signal.SIGPROF, _EXIT_MEMORY) or not worker.batch:
            self._replace(worker, todo)
            return False
        limit = "time limit" if code == -signal.SIGPROF else "memory limit"
        is_right, reason = (None, f"gold: {limit}") if reading_gold else (False, limit)
        gold, answer = worker.batch.popleft()
        self._verdicts[gold, answer] = Verdict(is_right, reason)
        rest = list(worker.batch)
        worker.batch.clear()
        if reading_gold:  # its other answers would cost as much
            others = {pair for pair in (*rest, *todo) if pair[0] == gold}
            self._verdicts.update(dict.fromkeys(others, Verdict(is_right, reason)))
            rest = [pair for pair in rest if pair not in others]
            remaining = [pair for pair in todo if pair not in others]
            todo.clear()
            todo.extend(remaining)
        if rest:
            worker.submit(rest)
        return True

    def _replace(self, worker: Worker, todo: deque[Pair]) -> None:
        """Kills a worker and puts its pairs back; the first is tried `_NUM_TRIES` times."""
        self.workers.remove(worker)
        worker.kill()
        self._num_failed_starts = 0 if worker.is_ready else self._num_failed_starts + 1
        if self._num_failed_starts > _NUM_TRIES:
            raise EngineError(
                f"a grading worker did not start, {self._num_failed_starts} times. Run "
                f"`{sys.executable} -c 'import math_verify'` to see why."
            )
        if worker.batch and worker.is_ready:
            first = worker.batch[0]
            self._tries[first] = self._tries.get(first, 0) + 1
            if self._tries[first] >= _NUM_TRIES:
                self._verdicts[worker.batch.popleft()] = Verdict(False, "worker killed")
        todo.extendleft(reversed(worker.batch))


def _environment() -> dict[str, str]:
    """Returns what a worker needs to import what this process can, and nothing secret."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return {"PYTHONPATH": path, "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", **kept}
