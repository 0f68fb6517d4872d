import logging
import threading
import time

import pytest

from fastmath_kit.budget.throughput import HARDWARE, calibrate
from fastmath_kit.errors import CheckpointError, EngineError
from fastmath_kit.inference import warmup
from fastmath_kit.inference.protocol import Engine, Update
from fastmath_kit.inference.replay_engine import ReplayEngine, SimulatedClock, StatementTokenizer
from fastmath_kit.inference.warmup import measure_probes, self_test, start_warm
from fastmath_kit.problems.prompts import STOP
from fastmath_kit.problems.records import Problem, Trace

PROBLEM = Problem(id="1", statement=warmup._STATEMENT)


class OneUpdate(Engine):
    """Answers every launch with one text of so many tokens, or never."""

    name = "one"

    def __init__(self, text, num_tokens):
        self.tokenizer = StatementTokenizer()
        self.text, self.num_tokens, self.aborted, self.closed = text, num_tokens, [], False

    def launch(self, prompt_ids, sampling):
        return "1"

    def poll(self, timeout_s):
        if self.text is None:
            time.sleep(timeout_s)
            return []
        done = {"text": self.text, "completion_tokens": self.num_tokens, "finish_reason": "stop"}
        return [Update(request_id="old"), Update(request_id="1", **done)]

    def abort(self, request_ids):
        self.aborted += request_ids

    def close(self):
        self.closed = True


@pytest.mark.parametrize(("text", "num_tokens"), [("Okay, so", 16), (r"\boxed{2}" + STOP, 9)])
def test_a_model_that_writes_passes(text, num_tokens):
    assert self_test(OneUpdate(text, num_tokens)) == text.removesuffix(STOP)


@pytest.mark.parametrize(
    ("text", "num_tokens"),
    [
        ("", 0),  # nothing at all
        ("", 16),  # ids beyond the vocabulary decode to nothing
        (STOP, 1),  # gives up at once
        (" \n", 16),
        ("!" * 16, 16),  # what is sampled from logits that are no numbers
    ],
)
def test_nothing_and_garbage_are_one_clear_line(text, num_tokens):
    with pytest.raises(
        EngineError, match=r"one: the self-test wrote .* Check the weights"
    ) as caught:
        self_test(OneUpdate(text, num_tokens))
    assert "\n" not in str(caught.value)


def test_a_model_that_hangs_is_not_waited_for():
    engine = OneUpdate(None, 0)
    with pytest.raises(EngineError, match="wrote nothing in 0 s"):
        self_test(engine, limit_s=0.05)
    assert engine.aborted == ["1"]


def test_a_model_without_a_chat_template_is_refused():
    engine = OneUpdate("x", 1)
    engine.tokenizer.chat_template = None
    with pytest.raises(CheckpointError, match="no chat template"):
        self_test(engine)


def test_a_start_reads_ahead_and_ends_reading_with_it(monkeypatch, caplog):
    stops = []
    monkeypatch.setattr(warmup, "read_ahead", lambda model, stop: stops.append((model, stop)))
    with caplog.at_level(logging.INFO):
        engine = start_warm(lambda: OneUpdate("words", 3), "folder")
    assert not engine.closed
    ((model, stop),) = stops
    assert model == "folder" and isinstance(stop, threading.Event) and stop.is_set()
    assert "one: works, its first words: 'words'" in caplog.text


def test_an_engine_that_fails_its_test_is_closed(tmp_path):
    engine = OneUpdate("", 0)
    with pytest.raises(EngineError, match="self-test"):
        start_warm(lambda: engine, tmp_path)
    assert engine.closed


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(warmup, "time", clock := SimulatedClock())
    return clock


def replay(tokens_per_s, num_tokens, clock):
    trace = Trace(problem_id="1", sample=0, completion_tokens=num_tokens, answer=2)
    return ReplayEngine([trace], [PROBLEM], tokens_per_s=tokens_per_s, clock=clock)


@pytest.mark.parametrize("num_tokens", [60, 5_000])  # ends within the probe, or does not
def test_probes_find_the_time_of_a_step(num_tokens, clock):
    probes = measure_probes(replay(200.0, num_tokens, clock), concurrencies=(1, 4), limit_s=0.5)
    assert [probe.num_running for probe in probes] == [1, 4]
    for probe in probes:
        assert probe.step_s == pytest.approx(0.005, rel=0.15)
        prompt_tokens = len(PROBLEM.statement)
        assert probe.context_tokens > probe.num_running * prompt_tokens
    model = calibrate(probes, HARDWARE["h100"])
    assert model.step_s(4, 200) == pytest.approx(0.005, rel=0.3)


def test_an_engine_too_slow_to_measure_gives_no_probe(clock):
    assert measure_probes(replay(10.0, 1_000, clock), limit_s=0.1) == []
    assert clock.monotonic() < 0.25


@pytest.mark.slow
def test_real_vllm_starts_warm_and_is_measured_in_two_seconds(tiny_model, calm):
    from functools import partial

    from fastmath_kit.inference.engine import VLLMEngine

    def measure():
        start_s = time.monotonic()
        probes = measure_probes(engine)
        assert time.monotonic() - start_s < 2.5
        assert probes and all(1e-4 < probe.step_s < 1.0 for probe in probes)
        model = calibrate(probes, HARDWARE["h100"])
        for probe in probes:  # fitted to what was measured, not to the prior
            step_s = model.step_s(probe.num_running, probe.context_tokens)
            assert step_s == pytest.approx(probe.step_s, rel=0.5)

    with start_warm(partial(VLLMEngine, tiny_model, in_process=True), tiny_model) as engine:
        calm(measure, num_tries=5)
