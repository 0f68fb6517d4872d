"""The benchmarks run, on a small scale: their figures are not judged here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent / "bench"


@pytest.mark.slow
def test_the_budget_benchmark_runs_and_ends_in_json():
    small = ("--splits", "2", "--runs", "1", "--hostile-runs", "5")
    command = [sys.executable, BENCH / "bench_budget.py", *small]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result = json.loads(printed.splitlines()[-1])
    assert [case["violations"] for case in result["cases"]] == [0, 0]
    assert result["hostile"]["late"] == 0
