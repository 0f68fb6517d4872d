import json
import math
import threading
import time

import pytest

from fastmath_kit.budget.fitted import PatienceStop
from fastmath_kit.budget.policy import Rule
from fastmath_kit.errors import ConfigError
from fastmath_kit.inference.replay_engine import ReplayEngine
from fastmath_kit.inference.solve import solve
from fastmath_kit.kaggle import record as record_module
from fastmath_kit.kaggle.clock import Clock
from fastmath_kit.kaggle.record import Line, RunRecord
from fastmath_kit.problems.competition import load_competition
from fastmath_kit.problems.records import Problem, Trace, read_traces

LEGAL = load_competition("aimo3").legal_answer
PROBLEM = Problem(id="p", statement="What is $1-1$?")


@pytest.fixture
def record(tmp_path):
    clock = Clock(start_s=time.monotonic(), deadline_s=100.0, num_problems=2, reserve_s=1.0)
    record = RunRecord(tmp_path / "out" / "log.jsonl", clock)
    yield record
    record.close()


def lines(folder, name="events.jsonl"):
    return [json.loads(line) for line in (folder / "out" / name).read_text().splitlines()]


def trace(sample, answer):
    return Trace(problem_id="p", sample=sample, completion_tokens=10, answer=answer, seconds=0.01)


def test_events_are_on_disk_as_they_happen_and_votes_are_counted(record, tmp_path):
    live = record.begin(LEGAL)
    live({"event": "launch", "t_s": 0.1, "num_traces": 2})
    assert lines(tmp_path)[0]["event"] == "launch"  # at once
    live({"event": "trace", "t_s": 0.2, "answer": 7})
    live({"event": "trace", "t_s": 0.3, "answer": -1})
    live({"event": "launch", "t_s": 0.4, "num_traces": 1})
    assert live.votes == [7, None]
    assert live.starts_s == [0.1, 0.1, 0.4]
    assert all(0 <= event["elapsed_s"] < 10 for event in lines(tmp_path))


def test_what_a_solver_says_after_the_end_is_ignored(record, tmp_path):
    live = record.begin(LEGAL)
    live.end()
    live({"event": "trace", "t_s": 0.2, "answer": 7})
    assert live.votes == [] and lines(tmp_path) == []


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        ({"stop": "patience"}, "1.25 s: 2 votes, stop: patience"),
        ({"review_s": 3.0}, "1.25 s: 2 votes, go on, ask again at 3.00 s"),
        ({"launch": 4}, "1.25 s: 2 votes, launch 4 more"),
    ],
)
def test_decisions_are_readable(record, tmp_path, decision, expected):
    live = record.begin(LEGAL)
    told = {"event": "decision", "t_s": 1.25, "leader_votes": 2, "stop": None, "launch": 0}
    live(told | {"review_s": math.inf} | decision)
    assert live.decisions == [expected]
    assert "Infinity" not in (tmp_path / "out" / "events.jsonl").read_text()


def test_a_real_solve_leaves_launches_traces_decisions_and_its_stop(record, tmp_path):
    live = record.begin(LEGAL)
    engine = ReplayEngine([trace(i, 7) for i in range(3)], [PROBLEM])
    rule = Rule(
        num_traces=3,
        stop_votes=9,
        max_tokens=50,
        timeout_s=5.0,
        stop=PatienceStop(patience_s=(1.0, 0.005)),
    )
    solution = solve(PROBLEM, engine, rule, legal=LEGAL, on_event=live)
    kinds = [event["event"] for event in lines(tmp_path)]
    assert kinds[0] == "launch" and kinds[-1] == "stop"
    assert {"launch", "decision", "trace", "stop"} == set(kinds)
    assert live.votes[0] == solution.vote.answer == 7
    assert "stop: patience" in live.decisions[-1]


def test_lines_and_traces(record, tmp_path):
    record.end(Line(id="p", answer=7, why="x"), [trace(0, 7)])
    assert lines(tmp_path, "log.jsonl")[0]["why"] == "x"
    record.end(Line(id="q", answer=8), [trace(0, 7), trace(1, 8)])
    record.close()
    assert [t.answer for t in read_traces(tmp_path / "out" / "traces.parquet")] == [7, 8]


def test_slow_traces_hold_up_nobody(record, monkeypatch):
    release, written = threading.Event(), []

    def write(traces, path):
        written.append(len(traces))
        release.wait(10)

    monkeypatch.setattr(record_module, "write_traces", write)
    for number in range(1, 6):
        record.end(Line(id="p", answer=7), [trace(0, 7)] * number)
    release.set()
    record.close()
    assert written[-1] == 5 and len(written) <= 2  # whoever waited would have seen all five


def test_the_fallback_in_words():
    line = Line(id="p", answer=0, why="no legal answer got a vote", num_traces=8, seconds=3.0)
    line.stop_reason, line.kappa, line.waited_s = "timeout", 2.0, 1.25
    assert line.in_words() == (
        "0, the fallback: no legal answer got a vote, 8 traces, ended by timeout after 1.8 s "
        "and 1.2 s of waiting for the engine at 2.00 of the planned time"
    )


def test_a_record_that_cannot_be_written_is_told_at_once(tmp_path):
    clock = Clock(start_s=0.0, deadline_s=100.0, num_problems=2, reserve_s=1.0)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="Choose another log_path"):
        RunRecord(tmp_path / "file" / "log.jsonl", clock)
