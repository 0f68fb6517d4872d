"""Reads a model's weights into the page cache before vLLM asks for them.

    read_ahead("/kaggle/input/model")  # ReadAhead(num_bytes=..., left_out_bytes=0, seconds=...)

A mounted disk gives one reader a fraction of its speed, and vLLM reads with one. Several threads
fill the page cache while vLLM still starts its processes; vLLM then finds the weights in memory.
"""

import logging
import queue
import threading
import time
from dataclasses import dataclass
from pathlib import Path

_NUM_THREADS = 8
_CHUNK_BYTES = 16 * 2**20
_SHARE = 0.8  # of the free memory; the rest is for what vLLM allocates
_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = (  # of a container: limit, statistics and the entry of what is no cache
    ("memory.max", "memory.stat", "anon"),
    ("memory/memory.limit_in_bytes", "memory/memory.stat", "total_rss"),
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAhead:
    """What was read into the page cache.

    Attributes:
        num_bytes: Read.
        left_out_bytes: Of files that do not fit the free memory.
        seconds: How long it took.
    """

    num_bytes: int
    left_out_bytes: int
    seconds: float


def read_ahead(model: str | Path, *, stop: threading.Event | None = None) -> ReadAhead:
    """Reads the weight files of a model folder in parallel, as far as they fit the free memory.

    Args:
        model: Folder of `*.safetensors`.
        stop: Ends the reading early once it is set.
    """
    paths = [path for path in sorted(Path(model).glob("*.safetensors")) if path.is_file()]
    files = {path: path.stat().st_size for path in paths}
    chosen = _fitting(files, free_memory_bytes())
    left_out_bytes = sum(files.values()) - sum(files[path] for path in chosen)
    if left_out_bytes:
        _log.warning("page cache: %s of weights do not fit the memory", _gb(left_out_bytes))
    chunks: queue.SimpleQueue[tuple[Path, int]] = queue.SimpleQueue()
    for path in chosen:
        for offset in range(0, files[path], _CHUNK_BYTES):
            chunks.put((path, offset))
    progress = _Progress(sum(files[path] for path in chosen))
    stop = stop or threading.Event()
    readers = [
        threading.Thread(target=_read_chunks, args=(chunks, progress, stop), daemon=True)
        for _ in range(_NUM_THREADS)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    return ReadAhead(
        num_bytes=progress.done_bytes, left_out_bytes=left_out_bytes, seconds=progress.seconds()
    )


def _fitting(files: dict[Path, int], free_bytes: int | None) -> list[Path]:
    """Returns the files, in the order they are loaded, that fit; none if it is unknown."""
    left_bytes, chosen = _SHARE * (free_bytes or 0), []
    for path, num_bytes in files.items():
        if num_bytes <= left_bytes:
            chosen.append(path)
            left_bytes -= num_bytes
    return chosen


def free_memory_bytes() -> int | None:
    """Returns the memory that programs and page cache may still take, None where it is unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return min([*free, *_container_bytes()], default=None)


def _container_bytes() -> list[int]:
    """Returns what the limit of a container leaves, nothing where there is no limit."""
    for limit_name, stats_name, used_name in _LIMITS:
        try:
            limit = (_CGROUP / limit_name).read_text().strip()
            stats = (_CGROUP / stats_name).read_text().split()
        except OSError:
            continue
        if limit != "max" and used_name in stats:  # the cache gives way and does not count
            return [int(limit) - int(stats[stats.index(used_name) + 1])]
    return []


class _Progress:
    """Counts bytes and logs every tenth of them."""

    def __init__(self, total_bytes: int) -> None:
        self.done_bytes, self._total_bytes = 0, total_bytes
        self._start_s, self._lock = time.monotonic(), threading.Lock()

    def seconds(self) -> float:
        return time.monotonic() - self._start_s

    def add(self, num_bytes: int) -> None:
        with self._lock:
            tenth = 10 * self.done_bytes // self._total_bytes
            self.done_bytes += num_bytes
            if 10 * self.done_bytes // self._total_bytes > tenth:
                done, total = _gb(self.done_bytes), _gb(self._total_bytes)
                _log.info("page cache: %s of %s after %.1f s", done, total, self.seconds())


def _read_chunks(chunks: queue.SimpleQueue, progress: _Progress, stop: threading.Event) -> None:
    buffer = bytearray(_CHUNK_BYTES)
    while not stop.is_set():
        try:
            path, offset = chunks.get_nowait()
            with path.open("rb", buffering=0) as file:
                file.seek(offset)
                progress.add(file.readinto(buffer))
        except queue.Empty:
            return
        except OSError as error:
            _log.warning("page cache: %s is not read ahead (%s)", path, error)
            return


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB"
