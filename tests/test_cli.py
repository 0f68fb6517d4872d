"""What a shell sees of the command line: exit status, stdout, stderr."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastmath_kit.cli import app

TRAIN = ["--preset", "sft_tiny", "--model", "no/model"]
QUANTIZE = ["quantize", "--model", "no/model", "--recipe", "w4a16", "--problems", "problems.csv"]
REHEARSE = ["rehearse", "--problems", "problems.csv", "--model", "no/model", "--competition"]
ASK = ["evaluate", "--model", "no/model", "--problems", "problems.csv"]
EVALUATE = [*ASK, "--out", "out"]


def fastmath(*arguments, cwd=None, code=""):
    """Runs the command line as a user does; `code` runs first, to replace a slow function."""
    program = f"import sys\n{code}\nfrom fastmath_kit.cli import main\nmain()"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def fake_demo(body: str) -> str:
    """Returns code that puts a module with `run_demo` where the real one would be imported from."""
    return (
        "import types\n"
        "def run_demo(out):\n"
        f"    {body}\n"
        "sys.modules['fastmath_kit.demo'] = types.SimpleNamespace(run_demo=run_demo)\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evalute"], "No such command 'evalute'. Did you mean 'evaluate'?"),  # a typo
        (["evaluate", "--k", "8"], "Missing option '--model'"),  # an option left out
        (
            [*EVALUATE, "--k", "0"],
            "'--k': Input should be greater than or equal to 1",
        ),  # out of range
        ([*EVALUATE, "--k", "many"], "'--k': Input should be a valid integer"),  # wrong type
        ([*EVALUATE, "--tempreture", "1"], "No such option: --tempreture"),  # a typo
        ([*EVALUATE, "--budgets", "8k"], "expected whole numbers such as 8000,16000, got '8k'"),
        ([*EVALUATE, "--budgets", "0,8"], "got '0,8'"),  # a budget of nothing
        (["train", "ppo"], "'ppo' is not one of 'sft', 'grpo', 'length'"),  # a stage there is not
        (["quantize", "--model", "m"], "Missing option '--recipe'"),
    ],
)
def test_bad_arguments_exit_with_2(arguments, message):
    done = fastmath(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("problems", "message"),
    [
        (None, "problems.csv: no such problem file. Give a CSV with columns id,problem[,answer]."),
        ("id,question\n1,x\n", "problems.csv: row 1: no column 'problem'"),  # which column
        ("id,problem\n1,x\n2,\n", "problems.csv: row 3, column problem: is empty."),  # which row
        ("id,problem\n1,x\n", "no gold answer"),  # nothing to score against
        ("id,problem,answer\n1,x,2\n", "no/model"),  # a folder without a model
    ],
)
def test_bad_input_is_one_line_and_exits_with_2(tmp_path, problems, message):
    if problems is not None:
        (tmp_path / "problems.csv").write_text(problems)
    done = fastmath(*EVALUATE, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*ASK, "--endpoint", "host:8000"], "'host:8000' is no URL of a server. Give one like"),
        (["train", "sft", *TRAIN, "--data", "no.jsonl"], "no.jsonl: no such file. Give JSONL"),
        (["train", "grpo", *TRAIN, "--data", "bad.csv"], "bad.csv: row 2, column problem"),
        (["train", "sft", *TRAIN, "--data", "x", "--set", "lr"], "--set takes key=value, got 'lr'"),
        ([*QUANTIZE, "--calibration", "no.parquet"], "no.parquet: no such trace file"),
        ([*QUANTIZE, "--calibration", "traces.csv"], "no/model: no such model folder"),
        ([*REHEARSE, "aimo4"], "unknown competition 'aimo4'. Did you mean 'aimo"),
        ([*REHEARSE, "aimo3"], "no/model: no such model folder"),
        ([*REHEARSE, "aimo3", "--set", "STOP=1"], "parameter 'STOP'. Did you mean 'STOP_AT'?"),
    ],
)
def test_wrong_files_and_names_leave_nothing_behind(tmp_path, arguments, message):
    (tmp_path / "problems.csv").write_text("id,problem,answer\n1,x,2\n")
    (tmp_path / "bad.csv").write_text("id,problem,answer\n1,,2\n")
    (tmp_path / "traces.csv").write_text("problem_id,sample,completion_tokens,answer\n1,0,5,2\n")
    before = sorted(tmp_path.rglob("*"))
    done = fastmath(*arguments, "--out", "out/run", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_help_names_every_command_and_an_example():
    done = fastmath("--help")
    assert done.returncode == 0
    commands = [command.callback.__name__ for command in app.registered_commands]
    assert {"demo", "evaluate", "train", "quantize", "rehearse"} == set(commands)
    for command in commands:
        assert command in done.stdout
        assert f"Example: fastmath {command}" in fastmath(command, "--help").stdout


def test_stdout_is_one_json_line_whatever_libraries_print():
    body = "import os; print('noise'); os.system('echo more noise'); return {'out': str(out)}"
    done = fastmath("demo", "--out", "runs/x", code=fake_demo(body))
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    assert json.loads(done.stdout) == {"out": "runs/x"}
    assert "more noise" in done.stderr


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (  # the user's mistake: one line, also where the message has several
            "from fastmath_kit import errors; raise errors.EngineError('port 50051:\\nin use')",
            2,
            "Error: port 50051: in use\n",
        ),
        (  # a library that cannot write, in its own words
            "raise RuntimeError('file write failed: No space left on device')",
            2,
            "Error: {cwd}/runs/demo: the disk is full. Free some space or choose another folder "
            "with --out.\n",
        ),
        ("raise KeyboardInterrupt", 130, "Interrupted. Run the same command again to go on.\n"),
    ],
)
def test_errors_end_in_one_line(body, status, message):
    done = fastmath("demo", code=fake_demo(body))
    message = message.format(cwd=Path.cwd())
    assert (done.returncode, done.stderr, done.stdout) == (status, message, "")


def test_an_interrupted_command_that_cannot_go_on_says_so(tmp_path):
    code = (
        "import types\n"
        "def replay(*arguments, **options):\n"
        "    raise KeyboardInterrupt\n"
        "sys.modules['fastmath_kit.budget.commands'] = types.SimpleNamespace(replay=replay)\n"
    )
    options = ["--traces", "t.csv", "--hardware", "h100", "--out", str(tmp_path)]
    done = fastmath("budget", "replay", *options, code=code)
    assert done.returncode == 130
    assert "Interrupted. Run the same command again, it starts over.\n" in done.stderr


def test_an_interrupted_training_names_the_option_that_goes_on():
    code = (
        "import types\n"
        "def train(*arguments, **options):\n"
        "    raise KeyboardInterrupt\n"
        "sys.modules['fastmath_kit.training.launch'] = types.SimpleNamespace(train=train)\n"
    )
    options = ["--preset", "p", "--model", "m", "--data", "d.jsonl", "--out", "runs/sft"]
    done = fastmath("train", "sft", *options, code=code)
    assert done.returncode == 130
    assert "Interrupted. Run the same command with --resume to go on.\n" in done.stderr


def test_our_own_mistakes_keep_their_traceback():
    done = fastmath("demo", code=fake_demo("raise AssertionError('ours')"))
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "AssertionError: ours" in done.stderr


def test_ctrl_c_in_a_terminal(tmp_path):
    ready = tmp_path / "ready"
    code = fake_demo(f"import time; open({str(ready)!r}, 'w').close(); time.sleep(60)")
    program = f"import sys\n{code}\nfrom fastmath_kit.cli import main\nmain()"
    process = subprocess.Popen([sys.executable, "-c", program, "demo"], stderr=subprocess.PIPE)
    deadline_s = time.monotonic() + 30
    while not ready.exists() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert process.stderr.read() == b"Interrupted. Run the same command again to go on.\n"
