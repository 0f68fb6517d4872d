import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from fastmath_kit.errors import DataError
from fastmath_kit.problems.files import DiskFullGuard, atomic_path, read_text


def test_the_file_appears_whole_and_alone(tmp_path):
    target = tmp_path / "new" / "folder" / "a.txt"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent  # the same disk, so that the rename is atomic
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert os.listdir(target.parent) == ["a.txt"]


def test_permissions_are_those_of_a_plain_file(tmp_path):
    (tmp_path / "plain").touch()
    with atomic_path(tmp_path / "atomic"):
        pass
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(error), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "out").touch()
    with (
        pytest.raises(DataError, match=r"out/a.txt: cannot be written .* --out"),
        atomic_path(tmp_path / "out" / "a.txt"),
    ):
        pass


WRITE_TOO_MUCH = """
import resource, signal, sys
from fastmath_kit.errors import DataError
from fastmath_kit.problems.records import Problem, Trace, write_problems, write_traces

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the limit is then an OSError, as a full disk is
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
import random
text = [random.Random(0).randbytes(40).hex() for _ in range(4000)]  # does not compress
problems = [Problem(id=str(i), statement=x) for i, x in enumerate(text)]
traces = [
    Trace(problem_id=str(i), sample=0, completion_tokens=1, answer=1, completion=x)
    for i, x in enumerate(text)
]
for name, write, rows in [
    ("p.csv", write_problems, problems),
    ("t.csv", write_traces, traces),
    ("t.parquet", write_traces, traces),
]:
    try:
        write(rows, sys.argv[1] + "/" + name)
    except DataError as error:
        print(error)
"""


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WRITE_TOO_MUCH, str(tmp_path)], capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        str(tmp_path / name) for name in ("p.csv", "t.csv", "t.parquet")
    ], done.stderr
    assert all("cannot be written" in line and "Free disk space" in line for line in lines)
    assert os.listdir(tmp_path) == []


def test_read_text_drops_the_byte_order_mark(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfid,problem\r\n")
    assert read_text(path) == "id,problem\r\n"


def test_read_text_names_the_line_of_a_wrong_byte(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,problem\n1,caf\xe9\n")
    with pytest.raises(DataError, match=r"a.csv: line 2: not UTF-8 \(byte 0xe9\)"):
        read_text(path)


def test_read_text_of_a_folder(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_text(tmp_path)


@pytest.mark.parametrize(
    ("error", "free_bytes", "told"),
    [
        (RuntimeError("No space left on device (os error 28)"), 2**30, True),  # safetensors
        (RuntimeError("unexpected pos 1721088 vs 1720976"), 0, True),  # torch
        (RuntimeError("out of memory"), 2**30, False),  # something else
        (KeyboardInterrupt(), 0, False),
        (DataError("row 3"), 0, False),  # already one clear line
    ],
)
def test_a_full_disk_is_told_in_one_line(tmp_path, monkeypatch, error, free_bytes, told):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free_bytes))
    with pytest.raises(BaseException) as caught, DiskFullGuard(tmp_path / "new" / "folder"):
        raise error
    assert (caught.value is not error) == told
    if told:
        assert isinstance(caught.value, DataError) and "the disk is full" in str(caught.value)
        assert str(tmp_path / "new" / "folder") in str(caught.value)


def test_a_disk_with_room_is_nobodys_business(tmp_path):
    with DiskFullGuard(tmp_path):
        pass
