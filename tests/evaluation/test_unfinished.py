"""An evaluation that is stopped keeps what it has sampled, and its rerun samples the rest."""

import json

import pytest

from fastmath_kit.errors import ConfigError, EngineError
from fastmath_kit.evaluation import sweep, unfinished
from fastmath_kit.evaluation.sweep import evaluate
from fastmath_kit.evaluation.unfinished import Unfinished
from fastmath_kit.inference.protocol import Sampling
from fastmath_kit.inference.replay_engine import ReplayEngine, SimulatedClock
from fastmath_kit.problems.records import Problem, Trace, read_traces

PROBLEMS = [Problem(id=name, statement=f"What is {name}?", solution="1") for name in "abc"]
K = 4


def traces():
    """The n-th completion of each problem takes n + 1 ms and answers n."""
    return [
        Trace(problem_id=problem.id, sample=i, completion_tokens=i + 1, answer=i)
        for problem in PROBLEMS
        for i in range(K)
    ]


class Mortal(ReplayEngine):
    """Dies once it has told of five completions."""

    num_launched = num_told = 0
    limit = 5

    def launch(self, prompt_ids, sampling):
        self.num_launched += 1
        return super().launch(prompt_ids, sampling)

    def poll(self, timeout_s):
        if self.num_told >= self.limit:
            raise EngineError("killed.")
        updates = super().poll(timeout_s)
        self.num_told += sum(update.finish_reason is not None for update in updates)
        return updates


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Evaluates on an engine of recorded traces; returns the report and what was launched."""

    def evaluate_on(limit, **changes):
        engine = Mortal(traces(), PROBLEMS, tokens_per_s=1_000.0, clock=SimulatedClock())
        engine.limit = limit
        monkeypatch.setattr(sweep, "_engine", lambda *arguments: engine)
        options = {"k": K, "budgets_tokens": (), "sampling": Sampling(max_tokens=64)} | changes
        try:
            return evaluate("model", PROBLEMS, out=tmp_path / "out", **options), engine.num_launched
        except EngineError:
            return None, engine.num_launched

    return evaluate_on


def test_a_rerun_samples_only_what_is_missing(run, tmp_path, caplog):
    assert run(5) == (None, 12)
    folder = tmp_path / "out/unfinished"
    kept = len(read_traces(folder / "traces.parquet"))
    assert kept >= 5 and f"{kept} completions are kept" in caplog.text
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["unfinished"]
    report, num_launched = run(99)
    assert num_launched == 12 - kept
    assert (report["k"], report["num_problems"]) == (K, 3)
    found = read_traces(tmp_path / "out/traces.parquet")
    assert [(t.problem_id, t.sample) for t in found] == [(t.problem_id, t.sample) for t in traces()]
    assert not folder.exists()


def test_a_stopped_run_of_another_setting_is_refused_and_kept(run, tmp_path):
    run(5)
    with pytest.raises(ConfigError, match=r"unfinished/report\.json: was measured with another k"):
        run(99, k=2)
    assert (tmp_path / "out/unfinished/traces.parquet").exists()


def test_it_is_saved_while_it_runs(tmp_path, monkeypatch):
    now_s = 0.0
    monkeypatch.setattr(unfinished.time, "monotonic", lambda: now_s)
    with Unfinished(tmp_path / "unfinished", {"k": K}) as kept:
        for number, trace in enumerate(traces()[:4]):
            now_s = 25.0 * number  # 0, 25, 50 and 75 s
            kept.add([trace])
            assert (tmp_path / "unfinished").exists() == (number == 3)
        assert len(read_traces(tmp_path / "unfinished/traces.parquet")) == 4
        assert json.loads((tmp_path / "unfinished/report.json").read_text())["setting"] == {"k": K}
        again = Unfinished(tmp_path / "unfinished", {"k": K})  # as after a kill
        assert again.traces == kept.traces
    assert not (tmp_path / "unfinished").exists()


def test_a_run_that_fails_before_its_first_trace_leaves_nothing(tmp_path):
    with pytest.raises(EngineError), Unfinished(tmp_path / "unfinished", {"k": K}):
        raise EngineError("did not start.")
    assert not list(tmp_path.iterdir())
