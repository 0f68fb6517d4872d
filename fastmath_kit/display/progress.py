"""Shows stages of long work as one bar with the time left, and resumes after the finished ones.

    with StageProgress("runs/demo", expected_s={"sft": 200, "grpo": 50}) as stages:
        stages.run("sft", [out / "sft-10"], train_sft)

What libraries print goes to `log.txt` in the run folder. Where there is no terminal, as in a log or
a batch run, each stage is one line.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from fastmath_kit.problems.files import atomic_path

OnProgress = Callable[[int, int], None]
_MIN_PACE = 0.3  # of expected: a fast first stage must not promise too much


class StageProgress:
    """Runs stages in order, skips finished ones, and records the seconds of each."""

    def __init__(self, out: str | Path, *, expected_s: Mapping[str, float]) -> None:
        """Reads what an earlier start finished.

        Args:
            out: Run folder; `seconds.json` and `log.txt` are kept there.
            expected_s: Every stage with the seconds it takes on some machine; only ratios matter.
        """
        self._record = Path(out) / "seconds.json"
        self._log = Path(out) / "log.txt"
        self._expected_s = dict(expected_s)
        self._done_s = 0.0  # expected seconds behind us
        self._worked_s = self._worked_expected_s = 0.0  # of this start, to know the pace
        self.seconds: dict[str, float] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        if self._record.exists():
            self.seconds = json.loads(self._record.read_text())
        terminal = self._stack.enter_context(_output_to(self._log))
        self._console = Console(file=terminal, soft_wrap=True)
        columns = (
            TextColumn("{task.description:>10}"),
            BarColumn(),
            TextColumn("{task.fields[left]}"),
        )
        bar = Progress(
            *columns,
            console=self._console,
            disable=not self._console.is_terminal,
            redirect_stdout=False,  # into the log, not above the bar
            redirect_stderr=False,
        )
        self._bar = self._stack.enter_context(bar)
        self._task = bar.add_task("start", total=sum(self._expected_s.values()), left="")
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._stack.close()
        if error is not None:
            sys.stderr.write(f"Stopped; what ran is in {self._log}. A rerun continues here.\n")

    def run(self, name: str, outputs: Sequence[Path], work: Callable[[OnProgress], object]) -> None:
        """Runs one stage unless all its outputs exist.

        Args:
            name: One of the expected stages.
            outputs: Files and folders that exist, complete, once the stage is finished.
            work: Called with `on_progress(done, total)`.
        """
        if name in self.seconds and all(path.exists() for path in outputs):
            self._done_s += self._expected_s[name]
            self._console.print(f"{name}: finished before ({self.seconds[name]:.0f} s)")
            return
        start_s = time.monotonic()

        def on_progress(done: int, total: int) -> None:
            self._show(name, done / max(1, total), time.monotonic() - start_s)

        on_progress(0, 1)
        work(on_progress)
        seconds = time.monotonic() - start_s
        self._worked_s += seconds
        self._worked_expected_s += self._expected_s[name]
        self._done_s += self._expected_s[name]
        self.seconds[name] = round(seconds, 1)
        with atomic_path(self._record) as temporary:
            temporary.write_text(json.dumps(self.seconds))
        self._console.print(f"{name}: {seconds:.0f} s, {self._left(0.0, 0.0)}")

    def _show(self, name: str, fraction: float, seconds: float) -> None:
        expected_s = fraction * self._expected_s[name]
        left = self._left(expected_s, seconds)
        self._bar.update(
            self._task, completed=self._done_s + expected_s, description=name, left=left
        )

    def _left(self, expected_s: float, seconds: float) -> str:
        left_s = sum(self._expected_s.values()) - self._done_s - expected_s
        behind_s = self._worked_expected_s + expected_s
        if behind_s > 10:
            left_s *= max(_MIN_PACE, (self._worked_s + seconds) / behind_s)
        minutes, seconds = divmod(round(left_s), 60)
        return f"about {minutes}:{seconds:02} left"


@contextmanager
def _output_to(path: Path) -> Iterator:
    """Sends stdout and stderr, of subprocesses too, to the end of a file; yields the old stderr."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    with open(path, "ab") as log, os.fdopen(os.dup(2), "w") as terminal:
        old_stdout = os.dup(1)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield terminal
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(old_stdout, 1)
            os.dup2(terminal.fileno(), 2)
            os.close(old_stdout)
