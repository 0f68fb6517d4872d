"""Stages in a process of their own: the file descriptors belong to the whole process."""

import json
import os
import pty
import subprocess
import sys

import pytest

HEAD = """
import os, sys
from pathlib import Path
from fastmath_kit.display.progress import StageProgress
out = Path(sys.argv[1])

def work(name, fail=False):
    def run(on_progress):
        print("python noise", name, flush=True)
        os.system(f"echo process noise {name}")
        print("error noise", name, file=sys.stderr, flush=True)
        on_progress(1, 2)
        if fail:
            raise ValueError("broken " + name)
        (out / name).write_text("done")
    return run

"""
TWO_STAGES = """
with StageProgress(out, expected_s={"one": 1, "two": 3}) as stages:
    stages.run("one", [out / "one"], work("one"))
    stages.run("two", [out / "two"], work("two", fail=FAIL))
print("after")
"""


def run(out, *, fail=False, body=TWO_STAGES):
    program = HEAD + body.replace("FAIL", str(fail))
    command = [sys.executable, "-c", program, str(out)]
    return subprocess.run(command, capture_output=True, text=True)


def seconds(out):
    return json.loads((out / "seconds.json").read_text())


def test_a_line_per_stage_and_all_noise_in_the_log(tmp_path):
    done = run(tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "after\n"  # stdout is back
    lines = done.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["one", "two"]
    assert all(line.endswith(" left") for line in lines)
    assert "about 0:00 left" in lines[-1]
    noise = (tmp_path / "run" / "log.txt").read_text()
    for name in ("one", "two"):
        for kind in ("python", "process", "error"):
            assert f"{kind} noise {name}" in noise
    assert seconds(tmp_path / "run").keys() == {"one", "two"}


def test_an_error_restores_the_output_and_the_rerun_continues_there(tmp_path):
    failed = run(tmp_path, fail=True)
    assert failed.returncode == 1
    assert "ValueError: broken two" in failed.stderr  # the traceback reaches the terminal
    assert f"Stopped; what ran is in {tmp_path / 'log.txt'}. A rerun continues here." in (
        failed.stderr
    )
    assert seconds(tmp_path).keys() == {"one"}

    again = run(tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stderr.startswith("one: finished before (")
    noise = (tmp_path / "log.txt").read_text()
    assert noise.count("python noise one") == 1  # ran once in both starts
    assert noise.count("python noise two") == 2


def test_a_stage_whose_output_is_gone_runs_again(tmp_path):
    run(tmp_path)
    (tmp_path / "one").unlink()
    again = run(tmp_path)
    assert "two: finished before" in again.stderr
    assert "one: finished before" not in again.stderr
    assert (tmp_path / "one").exists()


def test_an_output_without_its_record_is_not_trusted(tmp_path):
    """A folder that exists may be half of one: only `seconds.json` says that a stage ended."""
    tmp_path.joinpath("one").write_text("half")
    assert "finished before" not in run(tmp_path).stderr
    assert (tmp_path / "one").read_text() == "done"


def test_the_time_left_follows_the_pace_of_this_machine():
    from fastmath_kit.display.progress import StageProgress

    stages = StageProgress("unused", expected_s={"one": 100, "two": 100})
    assert stages._left(0.0, 0.0) == "about 3:20 left"  # nothing known yet
    assert stages._left(50.0, 100.0) == "about 5:00 left"  # twice as slow as expected
    assert stages._left(50.0, 1.0) == "about 0:45 left"  # a fast start promises a little only


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_bar(tmp_path):
    master, slave = pty.openpty()
    program = HEAD + TWO_STAGES.replace("FAIL", "False")
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], stderr=slave, env=environment, check=True
    )
    os.close(slave)
    shown = os.read(master, 100_000).decode()
    os.close(master)
    assert "━" in shown and "left" in shown
    assert "noise" not in shown
