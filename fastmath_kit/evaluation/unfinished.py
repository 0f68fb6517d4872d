"""What an evaluation has sampled so far, kept for its rerun if it is stopped.

    with Unfinished("runs/eval/unfinished", setting) as unfinished:
        traces = sample_traces(..., done=unfinished.traces, on_traces=unfinished.add)
        write_traces(traces, "runs/eval/traces.parquet")

The folder holds the same two files as a finished run. It is written about every minute and when the
block ends with an error, and it is gone when the block ends well.
"""

import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from fastmath_kit.evaluation.report import write_json
from fastmath_kit.evaluation.setting import is_finished
from fastmath_kit.problems.records import Trace, read_traces, write_traces

_SAVE_EVERY_S = 60.0
_LEAST_FACTOR = 20  # of the time a save takes, seconds where there are gigabytes, until the next
logger = logging.getLogger(__name__)


class Unfinished:
    """Traces of a run under way.

    Attributes:
        traces: Those of an earlier start of the same setting and, behind them, what was added.
    """

    def __init__(self, folder: str | Path, setting: dict[str, Any]) -> None:
        """Reads what an earlier start left.

        Args:
            folder: Where it is kept.
            setting: What is measured, from `setting_of`.

        Raises:
            ConfigError: the folder is another setting's.
            DataError: its traces cannot be read.
        """
        self._report_path = Path(folder) / "report.json"
        self._traces_path = Path(folder) / "traces.parquet"
        self._setting = setting
        found = is_finished(self._report_path, self._traces_path, setting)
        self.traces: list[Trace] = read_traces(self._traces_path) if found else []
        self._num_saved = len(self.traces)
        self._save_s = time.monotonic() + _SAVE_EVERY_S

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind, *exception) -> None:
        if kind is None:
            shutil.rmtree(self._report_path.parent, ignore_errors=True)
        elif self.traces:
            self._save()
            logger.warning(
                "%s: %d completions are kept, the same call goes on from them",
                self._traces_path,
                len(self.traces),
            )

    def add(self, traces: Sequence[Trace]) -> None:
        """Takes traces that have ended, if any, and saves if it is time."""
        self.traces += traces
        if time.monotonic() >= self._save_s:
            self._save()

    def _save(self) -> None:
        if self._num_saved == len(self.traces):
            return
        begin_s = time.monotonic()
        write_json({"setting": self._setting}, self._report_path)
        write_traces(self.traces, self._traces_path)
        self._num_saved, now_s = len(self.traces), time.monotonic()
        self._save_s = now_s + max(_SAVE_EVERY_S, _LEAST_FACTOR * (now_s - begin_s))
