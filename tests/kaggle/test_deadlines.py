"""28 problems in real time whose engine never returns from a call: `predict` answers all the same.

The other 972 of the thousand run on a simulated clock in tests/inference/test_faults.py.
"""

import random
import threading
import time
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest

from fastmath_kit.budget.policy import Rule
from fastmath_kit.errors import EngineError
from fastmath_kit.inference.replay_engine import ReplayEngine
from fastmath_kit.kaggle import keeper
from fastmath_kit.kaggle.submission import make_predict
from fastmath_kit.problems.competition import load_competition
from fastmath_kit.problems.records import Problem, Trace

PROBLEM = Problem(id="p", statement="What is $1-1$?")
LATE_S = 0.25
FALLBACK = 99_999
KINDS = ("launch", "poll", "abort", "tokenizer", "late poll", "death", "death and close")


class StuckEngine(ReplayEngine):
    """Plays traces; one of its calls never returns, or it dies."""

    def __init__(self, traces, rng, kind, release):
        super().__init__(traces, [PROBLEM], tokens_per_s=1_000.0)
        self.kind, self.release = kind, release
        self.stuck_s = time.monotonic() + rng.uniform(0.0, 0.25)
        if kind == "tokenizer":
            self.tokenizer = self

    chat_template = name_or_path = "stuck"
    added_tokens_decoder = {}  # noqa: RUF012

    def apply_chat_template(self, messages, **kwargs):
        self.release.wait()

    def launch(self, prompt_ids, sampling):
        if self.kind == "launch":
            self.release.wait()
        return super().launch(prompt_ids, sampling)

    def poll(self, timeout_s):
        is_stuck = time.monotonic() > self.stuck_s
        if self.kind == "poll" and is_stuck:
            self.release.wait()
        if self.kind == "late poll" and is_stuck:
            time.sleep(timeout_s + 1.0)
        if "death" in self.kind and is_stuck:
            raise EngineError("killed.")
        return super().poll(min(timeout_s, 0.02))

    def abort(self, request_ids):
        if self.kind == "abort":
            self.release.wait()

    def close(self):
        if self.kind == "death and close":
            self.release.wait()


def starved_s():
    """Returns how long each thread of this process has waited for a processor so far."""
    waits_s = {}
    for path in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(OSError):  # a thread that has just ended
            waits_s[path.parent.name] = int(path.read_text().split()[1]) / 1e9
    return waits_s


@pytest.fixture
def release():
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_predict_answers_in_time_with_the_votes_so_far(
    tmp_path_factory, monkeypatch, release, calm, kind, number
):
    monkeypatch.setattr(keeper, "_BACK_OFF_S", (0.01, 0.01, 0.01))

    def attempt():
        folder = tmp_path_factory.mktemp("run")
        rng = random.Random(f"{kind}/{number}")
        traces = [
            Trace(problem_id="p", sample=i, completion_tokens=rng.randint(20, 400), answer=7)
            for i in range(8)
        ]
        rule = Rule(num_traces=8, stop_votes=9, max_tokens=999, timeout_s=rng.uniform(0.1, 0.3))
        started = iter([StuckEngine(traces, rng, kind, release)])

        def start_engine():
            for engine in started:
                return engine
            release.wait()  # no second engine comes up

        predict, _ = make_predict(
            start_engine,
            competition=load_competition("aimo3"),
            policy=lambda state: rule,
            clock_start_s=time.monotonic(),
            deadline_s=1.0,
            reserve_s=0.01,
            num_problems=1,
            fallback_answer=FALLBACK,
            log_path=folder / "log.jsonl",
        )
        before_s, start_s = starved_s(), time.monotonic()
        row = predict(pl.Series("id", ["p"]), pl.Series("problem", [PROBLEM.statement]))
        seconds = time.monotonic() - start_s
        limit_s = 0.8 if "death" in kind else rule.timeout_s  # the guard waits for an engine
        lost_s = sum(wait_s - before_s.get(name, 0.0) for name, wait_s in starved_s().items())
        assert seconds <= limit_s + LATE_S + lost_s  # other processes may crowd the machine
        ended = (folder / "events.jsonl").read_text().count('"event": "trace"')
        assert row["answer"][0] == (7 if ended else FALLBACK)

    calm(attempt)
