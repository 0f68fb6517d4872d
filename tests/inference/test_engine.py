"""Real vLLM on the random miniature, in this process and in processes of its own."""

import contextlib
import math
import os
import threading
import time

import psutil
import pytest

from fastmath_kit.budget.policy import Rule
from fastmath_kit.errors import ConfigError, DataError, EngineError
from fastmath_kit.inference import engine as engine_module
from fastmath_kit.inference.engine import VLLMEngine
from fastmath_kit.inference.protocol import Sampling
from fastmath_kit.inference.solve import sample_traces, solve
from fastmath_kit.inference.stops import Until
from fastmath_kit.problems.prompts import STOP, prompt_ids
from fastmath_kit.problems.records import Problem

PROBLEMS = [Problem(id=str(i), statement=f"What is ${i + 9}-{i}$?", solution="9") for i in range(4)]
GREEDY = Sampling(max_tokens=24, temperature=0.0)


def greedy_traces(engine):
    traces = sample_traces(PROBLEMS, engine, k=1, sampling=GREEDY)
    return [(t.completion, t.completion_tokens, t.finish_reason) for t in traces]


def launch(engine, max_tokens, **fields):
    ids = prompt_ids(engine.tokenizer, PROBLEMS[0].statement)
    return engine.launch(ids, Sampling(max_tokens=max_tokens, **fields))


def vllm_processes():
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            if any(name in " ".join(child.cmdline()) for name in ("spawn_main", "VLLM::")):
                found.append(child)
    return found


@pytest.mark.parametrize(
    "fields", [{"max_tokens": 0}, {"temperature": -1}, {"top_p": 0}, {"min_p": 2}]
)
def test_impossible_sampling_is_refused(fields):
    with pytest.raises(ConfigError, match=next(iter(fields))):
        Sampling(**{"max_tokens": 1} | fields)


@pytest.mark.slow
def test_start_and_close_in_one_process_three_times(tiny_model):
    """Also: nothing of vLLM's start stays in this process, and temperature 0 repeats."""
    import torch

    environment, set_num_threads = dict(os.environ), torch.set_num_threads
    seen, resident_bytes = [], []
    for _ in range(3):
        with VLLMEngine(tiny_model, in_process=True) as engine:
            seen.append(greedy_traces(engine))
        resident_bytes.append(psutil.Process().memory_info().rss)
    assert seen[0] == seen[1] == seen[2]
    assert resident_bytes[2] - resident_bytes[0] < 100 * 2**20  # a cache of 1 GiB is freed
    assert dict(os.environ) == environment and torch.set_num_threads is set_num_threads
    with pytest.raises(EngineError, match="the engine is closed"):
        launch(engine, 1)
    engine.close()  # again, harmlessly


@pytest.mark.slow
def test_stop_abort_and_limits(tiny_model, calm):
    with VLLMEngine(tiny_model, in_process=True) as engine:
        eos = engine.tokenizer.eos_token
        sampled = sample_traces(PROBLEMS, engine, k=24, sampling=Sampling(max_tokens=100, seed=0))
        stopped = [t.completion for t in sampled if t.finish_reason == "stop"]
        ends = {text.endswith(STOP) for text in stopped}
        assert ends == {True, False}  # at STOP, which is kept, and at eos, which is not
        assert all(text.count(STOP) <= 1 and eos not in text for text in stopped)
        assert all(t.completion_tokens == 100 for t in sampled if t.finish_reason == "length")
        same = sample_traces(PROBLEMS, engine, k=24, sampling=Sampling(max_tokens=100, seed=0))
        assert [t.completion_tokens for t in same] == [t.completion_tokens for t in sampled]

        running = [launch(engine, 400, temperature=0.0) for _ in range(4)]
        while not (grown := {update.request_id for update in engine.poll(0.01)}):
            pass
        assert grown <= set(running)
        engine.abort([*running, "unknown"])
        engine.abort(running)
        last = {}
        while any(last.get(name) is None for name in running):
            last |= {update.request_id: update.finish_reason for update in engine.poll(5.0)}
        assert set(last.values()) == {"abort"}
        assert engine.poll(0.2) == []  # nothing runs on

        with pytest.raises(DataError, match="a prompt of 600 tokens does not fit model"):
            engine.launch([1] * 600, GREEDY)
        rule = Rule(num_traces=8, stop_votes=4, max_tokens=400, timeout_s=0.3)
        seeded = Sampling(max_tokens=1, seed=0)  # without a seed vLLM compiles a sampler first

        def solve_on_time():
            start_s = time.monotonic()
            solution = solve(PROBLEMS[0], engine, rule, sampling=seeded)
            assert time.monotonic() - start_s < 0.3 + 0.25
            assert len(solution.traces) == 8 and solution.stop_reason in {"timeout", "finished"}

        calm(solve_on_time)


@pytest.mark.slow
def test_a_refused_start_is_one_line_and_the_next_start_works(tiny_model):
    with pytest.raises(EngineError, match="vLLM died or did not start") as caught:
        VLLMEngine(tiny_model, in_process=True, max_model_len=10**6)
    assert "\n" not in str(caught.value)
    with VLLMEngine(tiny_model, in_process=True, max_model_len=64) as engine:
        assert greedy_traces(engine)


@pytest.mark.slow
@pytest.mark.parametrize("limit_s", [0.1, 10.0])
def test_a_start_that_never_ends_is_given_up(tiny_model, monkeypatch, limit_s, comes_true):
    """Before vLLM has made a process, or when that one is frozen: nothing stays behind."""

    def freeze():
        comes_true(vllm_processes)
        for process in vllm_processes():
            with contextlib.suppress(psutil.Error):
                process.suspend()

    if limit_s > 1.0:
        threading.Thread(target=freeze).start()
    with monkeypatch.context() as short:
        short.setattr(engine_module, "_START_S", limit_s)
        with pytest.raises(EngineError, match=rf"vLLM did not start in {limit_s:.0f} s\. Start ag"):
            VLLMEngine(tiny_model, in_process=False)
    assert comes_true(lambda: not vllm_processes(), 3_000)
    with VLLMEngine(tiny_model, in_process=False, max_model_len=64) as engine:
        assert greedy_traces(engine)


@pytest.mark.slow
def test_own_processes_answer_alike_and_leave_nothing_behind(tiny_model):
    with VLLMEngine(tiny_model, in_process=True, dtype="float32") as engine:
        expected = greedy_traces(engine)
    with VLLMEngine(tiny_model, in_process=False, dtype="float32") as engine:
        assert greedy_traces(engine) == expected
        processes = vllm_processes()
        assert processes
    assert not psutil.wait_procs(processes, timeout=30.0)[1] and not vllm_processes()


@pytest.mark.slow
def test_a_process_killed_while_idle_is_told_and_leaves_nothing_behind(tiny_model):
    """Killed while it runs: test_solve_vllm.py."""
    with VLLMEngine(tiny_model, in_process=False) as engine:
        processes = vllm_processes()
        next(p for p in processes if p.ppid() == os.getpid()).kill()  # the core, not its worker
        start_s = time.monotonic()
        with pytest.raises(EngineError, match="vLLM died"):
            while True:
                engine.poll(10.0)
        assert time.monotonic() - start_s < 5.0
    assert not psutil.wait_procs(processes, timeout=30.0)[1] and not vllm_processes()


@pytest.mark.slow
def test_weights_conditions_and_measured_cache(tiny_model):
    with VLLMEngine(tiny_model, in_process=True) as engine:
        assert engine.kv_capacity_tokens > 100_000
        launch(engine, 30, temperature=0.0, weigh=True)
        (weighed,) = engine.poll(60.0)
        assert weighed.mean_logprob < 0 < weighed.tail_entropy < math.log(5)
        plain_id = launch(engine, 30, temperature=0.0)
        (plain,) = engine.poll(60.0)
        assert (plain.request_id, plain.text) == (plain_id, weighed.text)
        assert plain.mean_logprob is None and plain.tail_entropy is None

        fifth = plain.text[:5]
        launch(engine, 30, temperature=0.0, until=Until(plain.text[4], lambda t: len(t) >= 5))
        (ended,) = engine.poll(60.0)
        assert (ended.text, ended.finish_reason) == (fifth, "stop")
        assert ended.completion_tokens < plain.completion_tokens
