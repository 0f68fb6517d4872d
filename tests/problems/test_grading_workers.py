"""Workers that are killed, stopped, forked over, orphaned or fed hostile text."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fastmath_kit.errors import EngineError
from fastmath_kit.problems import grading_pool
from fastmath_kit.problems.grading import Grader, Verdict

pytestmark = pytest.mark.slow  # each starts workers, which import sympy

SPINS = r"\int_0^1 \frac{x^{17}}{\sqrt{1+x^{13}}} dx"  # sympy tries for minutes, in pure Python
NORMAL = [(rf"x^2+{n}x+1", f"1+{n}x+x^2") for n in range(20)]  # all right, all by math-verify
HAS_PROC = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


def stat_fields(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def children_of(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(stat_fields(int(entry.name))[1]) == pid:
                found.append(int(entry.name))
    return found


def is_running(pid: int) -> bool:
    try:
        return stat_fields(pid)[0] != "Z"
    except OSError:
        return False


def wait_until(condition, limit_s: float) -> bool:
    end = time.monotonic() + limit_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def all_right(verdicts: list[Verdict]) -> bool:
    return [verdict.correct for verdict in verdicts] == [True] * len(verdicts)


def test_an_endless_computation_is_killed_and_its_neighbours_are_graded():
    pairs = [*NORMAL[:5], ("7", SPINS), *NORMAL[5:10], (SPINS, "7"), (SPINS, "8"), *NORMAL[10:]]
    with Grader(time_limit_s=0.7) as grader:
        verdicts = dict(zip(pairs, grader.grade_many(pairs), strict=True))
    assert verdicts["7", SPINS] == Verdict(False, "time limit")
    assert all(verdicts[pair].correct for pair in NORMAL)


def test_memory_is_limited():
    with Grader(num_workers=1, memory_limit_bytes=2**20) as grader:
        verdict = grader.grade("x", "+".join(f"x_{{{n}}}" for n in range(140)))
        assert verdict.correct in (False, None)


@HAS_PROC
@pytest.mark.parametrize("victim", ["keeper", "grader"])
def test_a_killed_worker_is_replaced_and_its_pairs_are_graded_again(victim):
    with Grader(num_workers=1, time_limit_s=0.7) as grader:
        grader.grade("x+1", "1+x")
        keeper = grader._pool.workers[0].process.pid
        target = keeper if victim == "keeper" else children_of(keeper)[0]
        killer = threading.Timer(0.2, os.kill, (target, signal.SIGKILL))
        killer.start()
        pairs = [("7", SPINS), *NORMAL]  # busy for 0.7 s, so killed in the middle
        verdicts = grader.grade_many(pairs)
        killer.join()
    assert verdicts[0] == Verdict(False, "time limit")
    assert all_right(verdicts[1:])


@HAS_PROC
def test_a_worker_killed_while_idle_is_replaced():
    with Grader(num_workers=1) as grader:
        grader.grade("x+1", "1+x")
        os.killpg(grader._pool.workers[0].process.pid, signal.SIGKILL)
        assert all_right(grader.grade_many(NORMAL))


def test_full_pipes_and_a_stopped_worker_are_survived():
    long = [("é" * 1_000 + f"{n}+x", "é" * 1_000 + f"x+{n}") for n in range(200, 232)]
    with Grader(num_workers=1, time_limit_s=0.1) as grader:  # silent for 6 s at most
        grader.grade("x+1", "1+x")
        stopped = grader._pool.workers[0].process.pid
        os.killpg(stopped, signal.SIGSTOP)  # the pipe fills: é takes six bytes in JSON
        assert len(grader.grade_many(long)) == len(long)
        assert grader._pool.workers[0].process.pid != stopped


def test_workers_that_cannot_start_are_an_error(monkeypatch):
    monkeypatch.setattr(grading_pool, "_environment", lambda: {"PYTHONPATH": "/nowhere"})
    monkeypatch.setattr(grading_pool, "_WORKER", "no_such_module")
    with Grader() as grader, pytest.raises(EngineError, match="did not start"):
        grader.grade("x+1", "1+x")


def test_recycled_workers_lose_nothing():
    pairs = [(f"x+{n}", f"{n}+x") for n in range(60)]
    with Grader(num_workers=2, max_tasks=1) as grader:
        assert all_right(grader.grade_many(pairs))


def test_many_threads_share_a_grader():
    results = {}
    with Grader() as grader:

        def grade(name: int) -> None:
            pairs = [(f"x+{name}{n}", f"{name}{n}+x") for n in range(5)]
            results[name] = grader.grade_many(pairs)

        threads = [threading.Thread(target=grade, args=(name,)) for name in range(1, 7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(all_right(verdicts) for verdicts in results.values())
    assert len(results) == 6


def grade_in_child(grader: Grader, answers) -> None:
    answers.put([v.correct for v in grader.grade_many([("x+1", "1+x"), ("x+1", "x")])])


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_start_methods(method):
    context = multiprocessing.get_context(method)
    with Grader() as grader:
        grader.grade("x+2", "2+x")  # its workers run: a forked child must not use their pipes
        answers = context.Queue()
        process = context.Process(target=grade_in_child, args=(grader, answers))
        process.start()
        assert answers.get(timeout=60) == [True, False]
        process.join()
        assert grader.grade("x+3", "3+x").correct
    assert process.exitcode == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_another_thread_grades_does_not_hang():
    with Grader(num_workers=1) as grader:
        thread = threading.Thread(target=grader.grade_many, args=(NORMAL,))
        thread.start()
        time.sleep(0.1)  # the lock is held now
        child = os.fork()
        if child == 0:
            os._exit(0 if grader.grade("x+1", "1+x").correct else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        thread.join()
        assert all_right(grader.grade_many(NORMAL))


PARENT = """
import sys, threading
from fastmath_kit.problems.grading import Grader
grader = Grader()
grader.grade_many([("x+%d" % n, "%d+x" % n) for n in range(8)])
print(*(worker.process.pid for worker in grader._pool.workers), flush=True)
if sys.argv[1] == "busy":
    grader.grade_many([("7", sys.argv[2]), ("8", sys.argv[2])])
elif sys.argv[1] == "wait":
    threading.Event().wait()
"""


@HAS_PROC
@pytest.mark.parametrize("how", ["wait", "busy", "exit"])
def test_no_orphan_stays_behind(how):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, how, SPINS], stdout=subprocess.PIPE, text=True
    )
    keepers = [int(pid) for pid in parent.stdout.readline().split()]
    workers = [*keepers, *(child for keeper in keepers for child in children_of(keeper))]
    if how == "busy":
        time.sleep(0.3)
    if how != "exit":
        assert len(workers) == 4
        parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_until(lambda: not any(map(is_running, workers)), 30.0)


@HAS_PROC
def test_closing_ends_all_processes():
    with Grader() as grader:
        grader.grade_many(NORMAL)
        keepers = [worker.process.pid for worker in grader._pool.workers]
        workers = [*keepers, *(child for keeper in keepers for child in children_of(keeper))]
    assert wait_until(lambda: not any(map(is_running, workers)), 30.0)


@HAS_PROC
def test_workers_get_no_environment(monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_TEST", "1")
    with Grader(num_workers=1) as grader:
        grader.grade("x+1", "1+x")
        environment = Path(f"/proc/{grader._pool.workers[0].process.pid}/environ").read_bytes()
    assert b"SECRET" not in environment


def hostile_answers() -> list[str]:
    """1,000 answers, no two alike."""
    matrix = r"\begin{pmatrix}" + r"\\".join("1&2&3&4&5" for _ in range(5))
    families = [
        lambda n: f"9^9^9^9+{n}",
        lambda n: f"x+5^(5^(5^5))+{n}",
        lambda n: "(" * 10_000 + str(n) + ")" * 10_000,
        lambda n: r"\sqrt{" * 10_000 + str(n) + "}" * 10_000,
        lambda n: f"{10**6 + n}!+({n + 99}!)!",
        lambda n: matrix + rf"\end{{pmatrix}}^{{{n}}}",
        lambda n: str(n) + "7" * 2**20,
        lambda n: f"{n}\x00\x01",
        lambda n: r"\frac{" * 5 + f"{n}}}",
        lambda n: "٣" * 3 + "²" + chr(0x1D7D8 + n % 10) + f"^{n}",
    ]
    return [families[n % 10](n) for n in range(1_000)]


@HAS_PROC
def test_a_thousand_hostile_completions():
    normal = [(rf"\frac{{x+{n}}}{{2}}", f"(x+{n + n % 2})/2") for n in range(100)]
    with Grader() as clean:
        expected = clean.grade_many(normal)
    hostile = [("x+1", answer) for answer in hostile_answers()]
    mixed = []
    for index, pair in enumerate(hostile):
        mixed.append(pair)
        if index % 10 == 0:
            mixed.append(normal[index // 10])
    peak_bytes, done = 0, threading.Event()
    with Grader() as grader:

        def watch() -> None:
            nonlocal peak_bytes
            while not done.wait(0.05):
                peak_bytes = max(peak_bytes, resident_bytes(grader))

        watcher = threading.Thread(target=watch)
        watcher.start()
        start = time.monotonic()
        completions = [rf"so \boxed{{{answer}}}" for _, answer in mixed]
        verdicts = grader.grade_completions([gold for gold, _ in mixed], completions)
        elapsed_s = time.monotonic() - start
        done.set()
        watcher.join()
    by_pair = dict(zip(mixed, verdicts, strict=True))
    assert [by_pair[pair] for pair in normal] == expected
    assert not any(by_pair[pair].correct for pair in hostile)
    assert all(by_pair[pair].correct is False for pair in hostile)
    print(f"{elapsed_s:.1f} s, peak {peak_bytes / 2**20:.0f} MiB in all workers")
    assert elapsed_s < 300
    assert 0 < peak_bytes < 2**30


def resident_bytes(grader: Grader) -> int:
    """The memory of all workers' processes, shared pages counted for each."""
    total = 0
    for keeper in [worker.process.pid for worker in grader._pool.workers]:
        for pid in [keeper, *children_of(keeper)]:
            with contextlib.suppress(OSError):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4_096
    return total
