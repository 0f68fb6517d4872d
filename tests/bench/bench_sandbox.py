"""The sandbox against a fresh Python for each call: latency, throughput, and how late a limit is.

Three waits: the first call of a fresh session (sessions opened every 50 ms, and without a pause), a
call in a session that is there already, and calls that run into their time limit. Throughput is
that of 16 sessions at once, each asking something new of sympy in every call.
The baseline runs the same code with `python -c`. No GPU, no network.

    python tests/bench/bench_sandbox.py            # table, then one JSON line
    python tests/bench/bench_sandbox.py | tail -1  # machine-readable
"""

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from fastmath_kit.inference.sandbox import Sandbox

NUM_CALLS, NUM_BASELINE, NUM_LATE = 200, 10, 20
NUM_SESSIONS, THROUGHPUT_S = 16, 10.0
PAUSE_S, LIMIT_S = 0.05, 0.2
WORK = (  # what models ask; 1 to 13 ms each
    "solve(x**2 - {a}*x - {b}, x)",
    "factorint({a}**4 - {b})",
    "integrate({a}*x**{c} + {b}, (x, 0, 1))",
    "expand((x + {a})**{c}) - factor(x**2 - {a}**2)",
    "sum(p for p in primerange({a}, {a} + 2_000) if jacobi_symbol({b}, p) == 1)",
)
TRIVIAL = "import sympy; sympy.Integer(2) + 2"


def work(rng: random.Random) -> str:
    a, b, c = rng.randint(2, 999), rng.randint(2, 999), rng.randint(1, 9)
    return f"from sympy import *\nx = Symbol('x')\n{rng.choice(WORK).format(a=a, b=b, c=c)}"


def fresh(sandbox: Sandbox, code: str) -> float:
    start_s = time.perf_counter()
    with sandbox.session() as session:
        output = session.run(code, 30)
        taken_s = time.perf_counter() - start_s
    assert output.error is None, output
    return taken_s


def existing(session, code: str) -> float:
    start_s = time.perf_counter()
    output = session.run(code, 30)
    assert output.error is None, output
    return time.perf_counter() - start_s


def plain_python(code: str) -> float:
    start_s = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
    return time.perf_counter() - start_s


def many(function: Callable[[], float], count: int, pause_s: float = 0.0) -> dict[str, float]:
    """Returns the median and the 99th percentile of `count` runs, in ms."""
    taken_s = []
    for _ in range(count):
        taken_s.append(function())
        time.sleep(pause_s)
    p99_s = statistics.quantiles(taken_s, n=100, method="inclusive")[98]
    return {
        "median_ms": round(1e3 * statistics.median(taken_s), 2),
        "p99_ms": round(1e3 * p99_s, 2),
    }


def throughput(sandbox: Sandbox) -> dict[str, float]:
    """Returns calls a second, and the CPU time of a call here and in its process."""
    end_s, before_s = time.perf_counter() + THROUGHPUT_S, time.process_time()

    def solve_on(seed: int) -> tuple[int, float]:
        rng, count = random.Random(seed), 0
        with sandbox.session() as session:
            while time.perf_counter() < end_s:
                existing(session, work(rng))
                count += 1
            return count, float(session.run("import time; time.process_time()", 30).stdout)

    with ThreadPoolExecutor(NUM_SESSIONS) as threads:
        results = list(threads.map(solve_on, range(NUM_SESSIONS)))
    count = sum(result[0] for result in results)
    return {
        "calls_per_s": round(count / THROUGHPUT_S, 1),
        "cpu_ms_here": round(1e3 * (time.process_time() - before_s) / count, 3),
        "cpu_ms_there": round(1e3 * sum(result[1] for result in results) / count, 3),
    }


def lateness(sandbox: Sandbox) -> float:
    with sandbox.session() as session:
        return session.run("while True: pass", LIMIT_S).seconds - LIMIT_S


def main() -> None:
    rng, start_s = random.Random(0), time.perf_counter()
    with Sandbox() as sandbox:
        rows = {"start_s": round(time.perf_counter() - start_s, 2)}
        rows["fresh session"] = many(lambda: fresh(sandbox, TRIVIAL), NUM_CALLS, PAUSE_S)
        rows["fresh, no pause"] = many(lambda: fresh(sandbox, TRIVIAL), NUM_CALLS)
        rows["fresh, sympy work"] = many(lambda: fresh(sandbox, work(rng)), NUM_CALLS, PAUSE_S)
        with sandbox.session() as session:
            rows["existing session"] = many(lambda: existing(session, TRIVIAL), NUM_CALLS)
            rows["existing, sympy work"] = many(lambda: existing(session, work(rng)), NUM_CALLS)
        rows["late by"] = many(lambda: lateness(sandbox), NUM_LATE)
        rates = throughput(sandbox)
        isolation = str(sandbox.isolation)
    rows["python -c, sympy work"] = many(lambda: plain_python(work(rng)), NUM_BASELINE)
    print(f"{'call':<24} {'median ms':>10} {'p99 ms':>9}   ({isolation})")
    for name, row in rows.items():
        if isinstance(row, dict):
            print(f"{name:<24} {row['median_ms']:>10.2f} {row['p99_ms']:>9.2f}")
    print(
        f"{NUM_SESSIONS} sessions with sympy work: {rates['calls_per_s']} calls/s; CPU time "
        f"of a call {rates['cpu_ms_there']} ms there, {rates['cpu_ms_here']} ms here"
    )
    print(json.dumps(rows | rates | {"cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}))


if __name__ == "__main__":
    main()
