"""Reads and writes files so that nothing half-written stays behind and errors name the place."""

import csv
import errno
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastmath_kit.errors import DataError, FastMathError

_LEAST_FREE_BYTES = 2**20  # with less a disk counts as full, whatever the error says


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` and renames it to `path` if the block succeeds.

    Nothing half-written stays behind: on an error the temporary file is removed and whatever stood
    at `path` is untouched.

    Raises:
        DataError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}). "
            "Free disk space or choose another folder with --out."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


class DiskFullGuard:
    """A context in which a full disk is a `DataError`, in whose words ever a library says so.

    torch and safetensors raise errors of their own when they cannot write.
    """

    def __init__(self, path: str | Path) -> None:
        """Takes the file or folder that the block writes."""
        self._path = Path(path).absolute()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error: BaseException | None, traceback) -> None:
        if isinstance(error, Exception) and not isinstance(error, FastMathError):
            existing = next(p for p in (self._path, *self._path.parents) if p.exists())
            is_full = shutil.disk_usage(existing).free < _LEAST_FREE_BYTES
            if is_full or os.strerror(errno.ENOSPC) in str(error):
                raise DataError(
                    f"{self._path}: the disk is full. Free some space or choose another folder "
                    "with --out."
                ) from error


def read_text(path: Path) -> str:
    """Returns a UTF-8 file's text without its byte order mark.

    Raises:
        DataError: the file cannot be read, or a byte is not UTF-8; the message names the line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: line {line}: not UTF-8 (byte 0x{data[error.start]:02x}). "
            "Save the file as CSV UTF-8."
        ) from error


def read_csv_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Returns the rows of a CSV file that are not blank, numbered as a spreadsheet does, from 1.

    Raises:
        DataError: as `read_text`, or a row is not CSV; the message names the row.
    """
    rows = []
    try:
        for row in csv.reader(io.StringIO(read_text(path), newline=""), strict=True):
            rows.append(row)
    except csv.Error as error:
        raise DataError(
            f"{path}: row {len(rows) + 1}: not CSV ({error}). Look for an unclosed quote."
        ) from error
    return [(number, row) for number, row in enumerate(rows, start=1) if row]
