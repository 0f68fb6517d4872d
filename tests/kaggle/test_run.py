"""What the policy is told from problem to problem, and how an engine's death is survived."""

import threading
import time

import polars as pl
import pytest

from fastmath_kit.budget.fitted import FittedPolicy, MenuRule
from fastmath_kit.budget.policy import Rule
from fastmath_kit.budget.throughput import Probe, StepTime
from fastmath_kit.errors import EngineError
from fastmath_kit.inference.protocol import Sampling
from fastmath_kit.inference.replay_engine import ReplayEngine
from fastmath_kit.kaggle import keeper
from fastmath_kit.kaggle.submission import make_predict
from fastmath_kit.problems.competition import load_competition
from fastmath_kit.problems.records import Problem, Trace

PROBLEM = Problem(id="p", statement="What is $1-1$?")
MODEL = StepTime(base_s=0.001, per_sequence_s=0.0, prompt_tokens=0, prefill_tokens_per_s=1e9)
TOKENS = 40


def replay(tokens_per_s=1_000.0, engine=ReplayEngine):
    """Two traces with the same answer; 40 steps of 1 ms each, as the model says."""
    traces = [Trace(problem_id="p", sample=i, completion_tokens=TOKENS, answer=7) for i in range(2)]
    return engine(traces, [PROBLEM], tokens_per_s=tokens_per_s)


def predictor(folder, start_engine, policy, **options):
    return make_predict(
        start_engine,
        competition=load_competition("aimo3"),
        policy=policy,
        clock_start_s=time.monotonic(),
        deadline_s=11.0,
        reserve_s=1.0,
        num_problems=10,
        fallback_answer=5,
        log_path=folder / "log.jsonl",
        **options,
    )[0]


def ask(predict):
    row = predict(pl.Series("id", ["p"]), pl.Series("problem", [PROBLEM.statement]))
    return row["answer"][0]


def log(folder):
    return pl.read_ndjson(folder / "log.jsonl").to_dicts()


class Recorder:
    """A policy that keeps what it was told."""

    def __init__(self, **fields):
        self.states, self.fields = [], {"stop_votes": 3, "timeout_s": 3.0} | fields

    def __call__(self, state):
        self.states.append(state)
        return Rule(num_traces=2, max_tokens=99, **self.fields)


def test_the_policy_is_told_what_was_spent_and_expected(tmp_path):
    policy = Recorder(expected_s=0.02, why="because")
    predict = predictor(tmp_path, replay, policy)
    assert [ask(predict) for _ in range(3)] == [7, 7, 7]
    expected_s = [state.expected_s for state in policy.states]
    assert expected_s == pytest.approx([0.0, 0.02, 0.04])
    spent_s = [state.spent_s for state in policy.states]
    assert spent_s[0] == 0.0 and 0.04 <= spent_s[1] < spent_s[2]
    assert [state.num_done for state in policy.states] == [0, 1, 2]
    lines = log(tmp_path)
    assert {line["rule"]["why"] for line in lines} == {"because"}


def test_a_solver_that_is_left_has_spent_its_time_too(tmp_path):
    """Else the longest problems would count neither as spent nor as expected."""
    release = threading.Event()

    class Stuck(ReplayEngine):
        def poll(self, timeout_s):
            release.wait(10)
            return super().poll(timeout_s)

    policy = Recorder(expected_s=0.02, timeout_s=0.5)
    predict = predictor(tmp_path, lambda: replay(engine=Stuck), policy)
    assert ask(predict) == 5
    release.set()
    assert ask(predict) == 7
    assert log(tmp_path)[0]["stop_reason"] == "left"
    assert [state.expected_s for state in policy.states] == pytest.approx([0.0, 0.02])
    assert policy.states[1].spent_s >= 0.5


def fitted():
    rule = MenuRule(seconds=0.1, solved=0.5, num_traces=2, patience_s=(1.0, 1.0, 0.5))
    return FittedPolicy(menu=(rule,), max_tokens=99, model=MODEL)


@pytest.mark.parametrize(("slower", "probe_factor"), [(1.0, 1.0), (3.0, 3.0), (3.0, 1.0)])
def test_kappa_comes_from_the_probe_and_is_corrected(tmp_path_factory, calm, slower, probe_factor):
    """A probe that is right stays; one that promised too much is corrected upwards."""
    probe = Probe(num_running=2, context_tokens=9.0, step_s=probe_factor * MODEL.step_s(2, 9))

    def attempt():
        folder = tmp_path_factory.mktemp("run")
        predict = predictor(
            folder, lambda: replay(1_000.0 / slower), fitted(), measure=lambda engine: [probe]
        )
        for _ in range(5):
            assert ask(predict) == 7
        kappas = [line["kappa"] for line in log(folder)]
        assert kappas[0] == pytest.approx(probe_factor, rel=0.05)
        if slower == probe_factor:
            assert kappas[-1] == pytest.approx(slower, rel=0.5)  # the machine is busy
        else:
            assert kappas[-1] > kappas[1] > 1.0
        predicted_s = [line["predicted_s"] for line in log(folder)]
        assert predicted_s == pytest.approx([TOKENS * 0.001] * 5, rel=0.3)
        assert all("of plan" in line["rule"]["why"] for line in log(folder))

    calm(attempt)


@pytest.mark.parametrize(("limit", "expected"), [(50, 50), (200, 99), (None, 99)])
def test_a_trace_is_never_longer_than_the_sampling_allows(tmp_path, limit, expected):
    """A fitted policy knows the traces it was fitted on, the notebook what there is room for."""
    sampling = None if limit is None else Sampling(max_tokens=limit)
    predict = predictor(tmp_path, replay, Recorder(), sampling=sampling)
    assert ask(predict) == 7
    assert log(tmp_path)[0]["rule"]["max_tokens"] == expected


class Mortal(ReplayEngine):
    """Dies at its third poll, when one trace of two has been heard or none."""

    def __init__(self, lengths, answer):
        traces = [
            Trace(problem_id="p", sample=i, completion_tokens=length, answer=answer)
            for i, length in enumerate(lengths)
        ]
        super().__init__(traces, [PROBLEM], tokens_per_s=20.0)
        self.polls = 0

    def poll(self, timeout_s):
        self.polls += 1
        if self.polls == 3:
            raise EngineError("killed.")
        return super().poll(min(timeout_s, 0.05))


@pytest.mark.parametrize(
    ("lengths", "answer", "stop_reason", "num_votes"),
    [
        ((1, 99), 7, "engine", 1),  # a vote was heard: it decides
        ((99, 99), 7, "finished", 2),  # none was heard: another engine solves the problem
        ((1, 99), None, "finished", 2),  # a trace without an answer is no vote
    ],
)
def test_an_engine_dies_in_the_middle_of_a_problem(
    tmp_path, monkeypatch, lengths, answer, stop_reason, num_votes
):
    monkeypatch.setattr(keeper, "_BACK_OFF_S", (0.01, 0.01, 0.01))
    engines = iter([Mortal(lengths, answer), replay(), replay()])
    policy = Recorder()
    predict = predictor(tmp_path, lambda: next(engines), policy)
    assert ask(predict) == 7
    assert ask(predict) == 7
    first, second = log(tmp_path)
    assert first["stop_reason"] == stop_reason
    assert sum(votes for _, votes in first["votes"]) == num_votes
    assert not second["fallback"]


def test_a_policy_may_skip_a_problem(tmp_path):
    predict = predictor(tmp_path, replay, Recorder(timeout_s=0.0))
    assert ask(predict) == 5
    assert log(tmp_path)[0]["why"] == "the policy allows no time"
