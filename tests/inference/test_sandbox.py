"""The sandbox as a solver uses it: calls that remember, time-outs, crashes, many sessions."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fastmath_kit.errors import ConfigError, EngineError
from fastmath_kit.inference.isolation import process
from fastmath_kit.inference.isolation.seccomp import why_impossible
from fastmath_kit.inference.sandbox import Isolation, Limits, Sandbox

pytestmark = pytest.mark.skipif(why_impossible() is not None, reason=str(why_impossible()))

starts_one = pytest.mark.slow  # a sandbox of its own, which loads sympy first
ENOUGH_S = 60.0  # for what takes milliseconds, on a busy machine
LATE_S = 0.3  # how much later than its limit a call may come back, on a busy machine


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(Limits(output_chars=2_000)) as sandbox:
        yield sandbox


@pytest.fixture
def session(sandbox):
    with sandbox.session() as session:
        yield session


def prints(session, code: str) -> str:
    output = session.run(code, ENOUGH_S)
    assert output.error is None and not output.timed_out
    return output.stdout


def children_of(pid: int) -> set[int]:
    found = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(entry.read_text().rpartition(")")[2].split()[1]) == pid:
                found.add(int(entry.parent.name))
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def keeper_of(sandbox: Sandbox) -> int:
    return sandbox._pool._shared.keeper._process.pid


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        ("1 + 1", "2\n"),
        ("x = 3", ""),
        ("None", ""),
        ("", ""),
        ("# nothing", ""),
        ("print('a'); 'b'", "a\n'b'\n"),
        ("for n in range(3): n", ""),
        ("def f(n):\n    return n + 1\n\nf(1)", "2\n"),
        ("'é∞'", "'é∞'\n"),
        ("len(str(2**20_000))", "6021\n"),
        ("from sympy import *; solve(Symbol('x')**2 - 2)", "[-sqrt(2), sqrt(2)]\n"),
        ("import sympy; sympy.factorint(360)", "{2: 3, 3: 2, 5: 1}\n"),
        ("from sympy import *; x = Symbol('x'); integrate(exp(-x**2), (x, -oo, oo))", "sqrt(pi)\n"),
        (
            "import mpmath; mpmath.mp.dps = 30; +mpmath.pi",
            "mpf('3.14159265358979323846264338327933')\n",
        ),
        ("import numpy as np; int(np.linalg.det(np.eye(3)))", "1\n"),
        (
            "import math, itertools; math.comb(10, 3), len(list(itertools.permutations('abc')))",
            "(120, 6)\n",
        ),
        ("import dataclasses\n@dataclasses.dataclass\nclass A: n: int\nA(1)", "A(n=1)\n"),
        ("if __name__ == '__main__': print('main')", "main\n"),
        ("import sys; print('a'); print('b', file=sys.stderr); print('c')", "a\nb\nc\n"),
        ("import warnings; from sympy import *; npartitions(4)", "5\n"),
        ("raise SystemExit", ""),
        ("print('a', end=''); exit()", "a"),
    ],
)
def test_a_call_prints_what_python_would(session, code, printed):
    assert prints(session, code) == printed


def test_long_code_arrives_whole(session):
    assert prints(session, f"x = '{'é' * 99_000}'; len(x)") == "99000\n"


def test_calls_remember(session):
    prints(session, "from sympy import *\nx = symbols('x')\ndef f(n):\n    return x**n")
    assert prints(session, "f(3)") == "x**3\n"
    assert session.run("1 / 0", ENOUGH_S).error == "ZeroDivisionError: division by zero (line 1)"
    assert prints(session, "_, f(2)") == "(x**3, x**2)\n"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("a = 1\nb", "NameError: name 'b' is not defined (line 2)"),
        ("def f():\n    raise ValueError('no root')\n\nf()", "ValueError: no root (line 2)"),
        ("print('a'\n", "SyntaxError: '(' was never closed (line 1)"),
        ("def f():\nreturn 1", "IndentationError: expected an indented block"),
        ("import sympy\nsympy.sympify('2 +')", "SympifyError"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt (line 1)"),
        ("import not_there", "ModuleNotFoundError: No module named 'not_there' (line 1)"),
        ("input()", "EOFError"),
        ("assert 1 == 2, 'wrong'", "AssertionError: wrong (line 1)"),
    ],
)
def test_errors_are_short_and_say_where(session, code, error):
    output = session.run(code, ENOUGH_S)
    assert error in output.error
    assert not output.timed_out and output.stdout == ""


def test_what_was_printed_before_an_error_is_kept(session):
    output = session.run("print('a')\n1 / 0\nprint('b')", ENOUGH_S)
    assert (output.stdout, output.error[:17]) == ("a\n", "ZeroDivisionError")


def test_a_late_call_is_ended_on_time_and_the_next_starts_afresh(session, calm):
    def attempt():
        prints(session, "x = 1")
        start_s = time.monotonic()
        output = session.run("print('so far')\nwhile True: pass", 0.3)
        assert 0.3 <= time.monotonic() - start_s < 0.3 + LATE_S
        assert output.timed_out and output.stdout == "so far\n"
        assert output.error == "timed out after 0.3 s; the variables of this session are lost"
        assert 0.3 <= output.seconds < 0.3 + LATE_S
        assert "NameError" in session.run("x", ENOUGH_S).error

    calm(attempt)


def test_a_crash_says_that_the_variables_are_lost(session):
    prints(session, "x = 1")
    error = session.run("print('a')\nimport os; os._exit(3)", ENOUGH_S).error
    assert error == "the process has exited with status 3; the variables of this session are lost"
    assert prints(session, "'x' in globals()") == "False\n"


def test_a_crash_between_calls_is_told_with_the_next(session, comes_true):
    prints(session, "import os, threading; threading.Timer(0.05, os._exit, (0,)).start()")
    assert comes_true(lambda: session._trace._worker is None)
    output = session.run("1 + 1", ENOUGH_S)
    assert output.stdout == "2\n" and "had ended after the call before" in output.error
    assert prints(session, "1 + 1") == "2\n"


def test_a_forgotten_alarm_does_not_end_the_session(session):
    prints(session, "import signal; x = 1; signal.setitimer(signal.ITIMER_REAL, 0.1)")
    time.sleep(0.3)
    assert prints(session, "x") == "1\n"


def test_an_own_alarm_ends_a_loop_and_keeps_the_variables(session):
    code = (
        "import signal\n"
        "def late(*_): raise TimeoutError('mine')\n"
        "signal.signal(signal.SIGALRM, late); signal.setitimer(signal.ITIMER_REAL, 0.1)\n"
        "x = 1\n"
        "while True: pass"
    )
    assert session.run(code, ENOUGH_S).error == "TimeoutError: mine (line 2)"
    assert prints(session, "x") == "1\n"


def test_long_output_is_cut_and_the_code_goes_on(session):
    output = session.run("for n in range(10**4): print(n)\nx = 5", ENOUGH_S)
    assert (
        output.truncated and len(output.stdout) == 2_000 and output.stdout.startswith("0\n1\n2\n")
    )
    assert output.error is None
    again = session.run("x", ENOUGH_S)
    assert again.stdout == "5\n" and not again.truncated
    assert not session.run("print('x' * 1_999)", ENOUGH_S).truncated


def test_a_closed_stdout_is_replaced(session):
    prints(session, "import sys; sys.stdout.close()")
    assert prints(session, "print('again')") == "again\n"
    prints(session, "sys.stdout = None")
    assert prints(session, "print('again')") == "again\n"


def test_random_numbers_differ_between_sessions(sandbox):
    code = "import random, numpy; print(random.random(), numpy.random.rand())"
    drawn = []
    for _ in range(2):
        with sandbox.session() as session:
            drawn.append(prints(session, code).split())
    assert not set(drawn[0]) & set(drawn[1])


def test_calls_of_a_session_run_in_order(session):
    prints(session, "seen = []")
    futures = [session.submit(f"seen.append({n}); seen", ENOUGH_S) for n in range(20)]
    assert futures[-1].result().stdout == f"{list(range(20))}\n"
    assert futures[4].result().stdout == "[0, 1, 2, 3, 4]\n"


def test_a_waiting_call_can_be_cancelled(session):
    first, second = session.submit("import time; time.sleep(0.2)", 5), session.submit("x = 1", 5)
    assert second.cancel()
    assert first.result().error is None
    assert "NameError" in session.run("x", ENOUGH_S).error


def test_sixteen_sessions_at_once_keep_their_variables(sandbox):
    def work(number: int) -> list[str]:
        with sandbox.session() as session:
            prints(session, f"from sympy import *; n = {number}")
            return [prints(session, "n += 16; factorint(n**2)[max(primefactors(n))]; n")] * 3

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(work, range(16)))
    assert [result[-1].split()[-1] for result in results] == [str(n + 16) for n in range(16)]


def test_closing_a_session_ends_its_calls(sandbox):
    session = sandbox.session()
    running = session.submit("while True: pass", 60)
    waiting = session.submit("1", 60)
    time.sleep(0.1)
    session.close()
    session.close()
    for future in (running, waiting, session.submit("1", 60)):
        assert future.result(ENOUGH_S).error == "the session was closed"


def test_a_session_never_used_needs_no_process(sandbox):
    sandbox.session().close()


@pytest.mark.parametrize("timeout_s", [0, -1, float("inf"), float("nan")])
def test_a_time_limit_must_be_one(session, timeout_s):
    with pytest.raises(ConfigError, match="timeout_s must be a positive number"):
        session.run("1", timeout_s)


@pytest.mark.parametrize("field", ["memory_bytes", "cpu_s", "num_threads", "scratch_bytes"])
def test_limits_must_be_positive(field):
    with pytest.raises(ConfigError, match="must be positive"):
        Limits(**{field: 0})


def test_files_live_as_long_as_the_process(sandbox, session):
    if not sandbox.isolation.has_scratch:
        pytest.skip("no scratch folder on this system")
    prints(session, "with open('a.txt', 'w') as file: file.write('kept')")
    assert prints(session, "open('/scratch/a.txt').read()") == "'kept'\n"
    prints(session, "import tempfile; tempfile.NamedTemporaryFile('w').write('x')")
    with sandbox.session() as other:
        assert "FileNotFoundError" in other.run("open('/scratch/a.txt')", ENOUGH_S).error


def test_every_wall_is_either_used_or_missing_with_a_reason(sandbox):
    isolation = sandbox.isolation
    assert {"seccomp", "limits"} <= set(isolation.used)
    for wall in ("namespaces", "landlock", "own user"):
        assert (wall in isolation.used) != bool(isolation.missing.get(wall))
    assert str(isolation).startswith("in use: seccomp, limits")


def test_the_report_says_what_the_code_cannot_have():
    bare = Isolation(used=("seccomp", "limits"), missing={"landlock": "no such call"})
    assert not (bare.has_scratch or bare.reads_python or bare.has_threads)
    assert "Missing: landlock: no such call." in str(bare)
    assert str(bare).endswith("no scratch folder, no files at all, no threads.")
    full = Isolation(used=("seccomp", "namespaces", "own user"), missing={})
    assert full.has_scratch and full.reads_python and full.has_threads


@starts_one
def test_cpu_time_is_limited():
    with Sandbox(Limits(cpu_s=1)) as sandbox, sandbox.session() as session:
        error = session.run("while True: pass", ENOUGH_S).error
        assert "used up its 1 CPU seconds" in error
        assert prints(session, "1 + 1") == "2\n"


@starts_one
def test_killed_processes_are_replaced():
    with Sandbox() as sandbox, sandbox.session() as busy, sandbox.session() as idle:
        prints(idle, "x = 1")
        call = busy.submit("import time; time.sleep(60)", 60)
        time.sleep(0.2)
        os.kill(keeper_of(sandbox), signal.SIGKILL)
        assert "processes of the sandbox were killed" in call.result(ENOUGH_S).error
        output = idle.run("'x' in globals()", ENOUGH_S)
        assert output.stdout == "False\n" and "variables of this session are lost" in output.error
        assert prints(busy, "1 + 1") == "2\n"


def namespace_ids(pid: int) -> list[str]:
    """Returns the ids of a process, in our namespace first."""
    return re.search(r"NSpid:(.*)", Path(f"/proc/{pid}/status").read_text())[1].split()


@starts_one
def test_workers_killed_while_they_wait_are_not_used(comes_true):
    with Sandbox() as sandbox:
        with sandbox.session() as session:
            prints(session, "1")
        children = children_of(keeper_of(sandbox))
        killed = [child for child in children if namespace_ids(child)[1:] != ["1"]]
        for child in killed:
            os.kill(child, signal.SIGKILL)
        assert comes_true(lambda: not any(map(is_running, killed)))
        with sandbox.session() as session:
            assert prints(session, "1 + 1") == "2\n"


@starts_one
def test_the_first_process_of_the_namespace_is_replaced(comes_true):
    with Sandbox() as sandbox, sandbox.session() as session:
        if not sandbox.isolation.has_scratch:
            pytest.skip("no namespaces on this system")
        prints(session, "1")
        ids = {child: namespace_ids(child)[1:] for child in children_of(keeper_of(sandbox))}
        first = next(child for child in ids if ids[child] == ["1"])
        os.kill(first, signal.SIGKILL)  # it ends after the others, which the keeper must reap
        assert comes_true(lambda: not any(map(is_running, ids.keys() - {first})))
        outputs = [session.run("1 + 1", ENOUGH_S) for _ in range(3)]
        assert outputs[0].error is not None
        assert (outputs[2].stdout, outputs[2].error) == ("2\n", None)


@starts_one
def test_closing_leaves_no_process_and_no_thread(comes_true):
    sandbox = Sandbox()
    keeper, sessions = keeper_of(sandbox), [sandbox.session() for _ in range(5)]
    calls = [session.submit("while True: pass", 60) for session in sessions]
    assert comes_true(lambda: len(children_of(keeper)) >= 5)
    processes = {keeper, *children_of(keeper)}
    open_before, threads_before = len(os.listdir("/proc/self/fd")), threading.active_count()
    sandbox.close()
    sandbox.close()
    assert not any(map(is_running, processes))
    assert all("the sandbox is closed" in call.result(1).error for call in calls)
    assert threading.active_count() == threads_before - 1
    assert len(os.listdir("/proc/self/fd")) < open_before
    sessions[0].close()
    with pytest.raises(EngineError, match="the sandbox is closed"):
        sessions[0].run("1", 1)


PARENT = """
import os, sys, time
from fastmath_kit.inference.sandbox import Sandbox
sandbox = Sandbox()
sessions = [sandbox.session() for _ in range(3)]
for session in sessions:
    session.run("x = 1", 60)
sessions[0].submit("while True: pass", 600)
print(sandbox._pool._shared.keeper._process.pid, flush=True)
if sys.argv[1] == "fork":  # a child that keeps our file descriptors
    os.fork() or time.sleep(60)
time.sleep(60)
"""


@starts_one
@pytest.mark.parametrize("how", ["plain", "fork"])
def test_nothing_outlives_a_killed_parent(how, comes_true):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, how],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        start_new_session=True,
    )
    with parent:
        try:
            keeper = int(parent.stdout.readline())
            assert comes_true(lambda: len(children_of(keeper)) >= 3)
            processes = {keeper, *children_of(keeper)}
            os.kill(parent.pid, signal.SIGKILL)
            assert comes_true(lambda: not any(map(is_running, processes)))
        finally:
            os.killpg(parent.pid, signal.SIGKILL)


@starts_one
def test_a_killed_keeper_takes_its_workers_along(comes_true):
    with Sandbox() as sandbox, sandbox.session() as session:
        session.submit("while True: pass", 60)
        keeper = keeper_of(sandbox)
        assert comes_true(lambda: len(children_of(keeper)) >= 2)
        processes = children_of(keeper)
        os.kill(keeper, signal.SIGKILL)
        assert comes_true(lambda: not any(map(is_running, processes)))


def test_a_sandbox_that_cannot_start_says_why(monkeypatch):
    monkeypatch.setattr(process, "_WORKER", "fastmath_kit.not_there")
    with pytest.raises(EngineError, match=r"the sandbox cannot start: .*No module named"):
        Sandbox()
