import pytest

from fastmath_kit.errors import DataError
from fastmath_kit.inference.protocol import Sampling
from fastmath_kit.inference.replay_engine import ReplayEngine, SimulatedClock
from fastmath_kit.problems.prompts import prompt_ids
from fastmath_kit.problems.records import Problem, Trace

PROBLEM = Problem(id="p", statement="What is $1-1$?")
SAMPLING = Sampling(max_tokens=1_000)


def make_trace(sample, tokens, **fields):
    return Trace(problem_id="p", sample=sample, completion_tokens=tokens, answer=sample, **fields)


def launch(engine, sampling=SAMPLING):
    return engine.launch(prompt_ids(engine.tokenizer, PROBLEM.statement), sampling)


def test_traces_grow_and_end_on_the_clock():
    clock = SimulatedClock()
    traces = [make_trace(0, 40, completion="abcd"), make_trace(1, 20)]
    with ReplayEngine(traces, [PROBLEM], tokens_per_s=10.0, clock=clock) as engine:
        slow, fast = launch(engine), launch(engine)
        first = {update.request_id: update for update in engine.poll(1.0)}
        assert clock.monotonic() == 1.0  # nothing ended: the whole timeout
        assert (first[slow].text, first[slow].completion_tokens) == ("a", 10)
        second = {update.request_id: update for update in engine.poll(60.0)}
        assert clock.monotonic() == 2.0  # until the first end
        assert second[fast].finish_reason == "stop"
        assert second[fast].text == r"\boxed{1}</think>"  # no text was recorded
        engine.abort([slow, fast, "unknown"])
        (last,) = engine.poll(60.0)
        assert (last.text, last.finish_reason, clock.monotonic()) == ("ab", "abort", 2.0)
        assert engine.poll(3.0) == [] and clock.monotonic() == 5.0  # silence takes its time


def test_recorded_seconds_and_token_limit():
    clock = SimulatedClock()
    engine = ReplayEngine([make_trace(0, 100, seconds=8.0)], [PROBLEM], clock=clock)
    launch(engine)
    assert engine.poll(60.0)[0].completion_tokens == 100 and clock.monotonic() == 8.0
    launch(engine, Sampling(max_tokens=25))  # the first trace again, cut off
    (update,) = engine.poll(60.0)
    assert (update.completion_tokens, update.finish_reason) == (25, "length")
    assert clock.monotonic() == 10.0


def test_speed_must_be_known():
    with pytest.raises(DataError, match="Give tokens_per_s"):
        ReplayEngine([make_trace(0, 1)], [PROBLEM])
