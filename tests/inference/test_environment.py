import io
import os
import sys

import pytest

from fastmath_kit.inference.environment import starting_environment


@pytest.mark.slow  # imports torch
def test_a_start_finds_what_it_needs_and_leaves_nothing(monkeypatch):
    stdout = io.StringIO()  # as in a notebook: without a file descriptor
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "3")
    before = dict(os.environ)
    with starting_environment(in_process=True):
        assert sys.stdout.fileno() >= 0
        assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
        assert os.environ["VLLM_CPU_KVCACHE_SPACE"] == "3"  # what the user set wins
        os.environ["LD_PRELOAD"] = "libfastmath.so"
    assert sys.stdout is stdout
    assert dict(os.environ) == before
