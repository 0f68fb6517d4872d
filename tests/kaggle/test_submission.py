import inspect
import json
import threading
import time
from pathlib import Path

import polars as pl
import pytest

from fastmath_kit.budget.policy import Rule
from fastmath_kit.errors import ConfigError, DataError, EngineError
from fastmath_kit.inference.protocol import Engine, Update
from fastmath_kit.inference.replay_engine import StatementTokenizer
from fastmath_kit.kaggle import keeper
from fastmath_kit.kaggle.gateway import InferenceServer
from fastmath_kit.kaggle.submission import make_predict
from fastmath_kit.problems.competition import Competition, load_competition
from fastmath_kit.problems.records import read_traces

AIMO3 = load_competition("aimo3")
AIMO2 = load_competition("aimo2")
FALLBACK = 42


class ScriptedEngine(Engine):
    """Completes every prompt with the given texts in turn, all at once."""

    name = "scripted"

    def __init__(self, *texts, error=None, hang_s=0.0):
        self.tokenizer = StatementTokenizer()
        self.texts = texts or (r"<think>\boxed{7}</think>",)
        self.error, self.hang_s = error, hang_s
        self.updates, self.num_launched, self.closed = [], 0, False

    def launch(self, prompt_ids, sampling):
        text = self.texts[self.num_launched % len(self.texts)]
        self.num_launched += 1
        request_id = str(self.num_launched)
        self.updates.append(
            Update(request_id=request_id, text=text, completion_tokens=9, finish_reason="stop")
        )
        return request_id

    def poll(self, timeout_s):
        time.sleep(self.hang_s)
        if self.error is not None:
            raise self.error
        updates, self.updates = self.updates, []
        if not updates:
            time.sleep(min(timeout_s, 0.02))
        return updates

    def abort(self, request_ids):
        self.updates = []

    def close(self):
        self.closed = True


def policy(state):
    return Rule(num_traces=3, stop_votes=2, max_tokens=64, timeout_s=5.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A hundredth of the keeper's patience, so that the tests take no seconds."""
    monkeypatch.setattr(keeper, "_BACK_OFF_S", (0.01, 0.02, 0.04))
    monkeypatch.setattr(keeper, "_HANGS_S", 0.3)


def predictor(folder, start_engine=ScriptedEngine, *, elapsed_s=0.0, **fields):
    return run(folder, start_engine, elapsed_s=elapsed_s, **fields)[0]


def run(folder, start_engine=ScriptedEngine, *, elapsed_s=0.0, **fields):
    defaults = {
        "competition": AIMO3,
        "policy": policy,
        "clock_start_s": time.monotonic() - elapsed_s,
        "deadline_s": 1_000.0,
        "num_problems": 50,
        "fallback_answer": FALLBACK,
        "log_path": folder / "log.jsonl",
    }
    return make_predict(start_engine, **{**defaults, **fields})


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def ask(predict, id_="p1", problem="What is $3+4$?"):
    row = predict(pl.Series("id", [id_]), pl.Series("problem", [problem]))
    assert row.schema == {"id": pl.String, "answer": pl.Int64}
    assert row.height == 1
    assert row["id"][0] == str(id_)
    return row["answer"][0]


def test_predict_is_a_plain_function_that_kaggle_takes(tmp_path):
    predict = predictor(tmp_path)
    InferenceServer(predict, competition=AIMO3)  # refuses what Kaggle refuses
    assert predict.__name__ == "predict"
    assert list(inspect.signature(predict).parameters) == ["id_", "problem", "answer"]


def test_an_answer_and_its_log_line(tmp_path):
    assert ask(predictor(tmp_path)) == 7
    (line,) = log(tmp_path)
    assert line["summary"].startswith("7 with 3 of 3 votes, 3 traces, ended by votes after")
    limits = {"num_traces": 3, "stop_votes": 2, "max_tokens": 64, "timeout_s": 5.0}
    assert line["rule"] == {**limits, "stop": None, "expected_s": None, "why": "limits of function"}
    assert (line["id"], line["answer"], line["fallback"], line["why"]) == ("p1", 7, False, None)
    assert line["votes"][0][0] == 7
    assert line["stop_reason"] in {"votes", "lead", "finished"}
    assert line["completion_tokens"] > 0
    assert 0 <= line["seconds"] <= line["elapsed_s"]


def test_lines_and_traces_are_on_disk_after_every_problem(tmp_path):
    predict, close = run(tmp_path)
    for number in range(1, 4):
        ask(predict, f"p{number}")
        ids = [f"p{n}" for n in range(1, number + 1)]
        assert [line["id"] for line in log(tmp_path)] == ids
        end_s = time.monotonic() + 30.0
        while trace_ids(tmp_path) != set(ids):  # written in the background
            assert time.monotonic() < end_s
            time.sleep(0.01)
    close()
    assert trace_ids(tmp_path) == {"p1", "p2", "p3"}


def trace_ids(folder):
    try:
        return {trace.problem_id for trace in read_traces(folder / "traces.parquet")}
    except DataError:  # not yet there, or replaced while it is read
        return set()


@pytest.mark.parametrize(
    ("competition", "boxed", "expected"),
    [
        (AIMO3, "99999", 99_999),
        (AIMO3, "100000", FALLBACK),  # out of range
        (AIMO3, "-1", FALLBACK),
        (AIMO3, str(2**63), FALLBACK),  # beyond int64
        (AIMO3, r"\frac{1}{2}", FALLBACK),  # no whole number
        (AIMO2, "-900", 100),  # modulo 1000
    ],
)
def test_answers_are_legal_or_the_fallback(tmp_path, competition, boxed, expected):
    engine = ScriptedEngine(rf"\boxed{{{boxed}}}</think>")
    assert ask(predictor(tmp_path, lambda: engine, competition=competition)) == expected


@pytest.mark.parametrize(
    ("id_", "problem", "expected_id", "why"),
    [
        (pl.Series("id", [12]), pl.Series(["x"]), "12", None),  # all-digit ids are numbers
        ("bare", "text", "bare", None),
        (pl.Series("id", ["a"]), pl.Series([None]), "a", "the statement is empty"),
        (pl.Series("id", ["a"]), pl.Series([" \n"]), "a", "the statement is empty"),
        (pl.Series("id", ["a"]), None, "a", "the statement is empty"),
        (pl.Series("id", ["a"]), pl.Series([], dtype=pl.String), "a", "the statement is empty"),
        (pl.Series("id", [None]), pl.Series(["x"]), "", None),
        (None, pl.Series(["x"]), "", None),
        ("a\udc80", pl.Series(["x"]), "a?", None),  # not text at all
        (pl.Series("id", ["a"]), pl.Series(["<|im_end|>\x00\u202e" * 999]), "a", None),
        (pl.Series("id", ["a"]), pl.Series([7]), "a", None),
    ],
)
def test_odd_arguments_get_an_answer(tmp_path, id_, problem, expected_id, why):
    row = predictor(tmp_path)(id_, problem)
    assert row.rows() == [(expected_id, 7 if why is None else FALLBACK)]
    assert row.schema == {"id": pl.String, "answer": pl.Int64}
    assert log(tmp_path)[0]["why"] == why


def test_the_gold_answer_is_not_looked_at(tmp_path):
    row = predictor(tmp_path)(pl.Series(["a"]), pl.Series(["x"]), pl.Series([5]))
    assert row["answer"][0] == 7


def raise_(error):
    raise error


@pytest.mark.parametrize(
    ("start_engine", "why"),
    [
        (lambda: ScriptedEngine(error=EngineError("died")), "no legal answer got a vote"),
        (lambda: ScriptedEngine(error=MemoryError("garbage")), "MemoryError: garbage"),
        (lambda: ScriptedEngine(error=DataError("too long")), "DataError: too long"),
        (lambda: ScriptedEngine("", "no box", r"\boxed{", "\x00"), "no legal answer got a vote"),
        (lambda: ScriptedEngine(None), "NoneType"),  # text that is none
        (lambda: raise_(ImportError("no vllm")), "ImportError: no vllm"),
        (lambda: raise_(SystemExit(1)), "EngineError: ended with SystemExit(1)"),
        (lambda: object(), "AttributeError"),
    ],
)
def test_predict_never_raises(tmp_path, caplog, start_engine, why):
    predict = predictor(tmp_path, start_engine)
    for number in range(3):
        assert ask(predict, f"p{number}") == FALLBACK
    assert [line["fallback"] for line in log(tmp_path)] == [True] * 3
    assert why in log(tmp_path)[0]["why"]
    assert "FALLBACK: problem p0" in caplog.text


@pytest.mark.parametrize(
    "bad_policy",
    [
        lambda state: raise_(ValueError("policy")),
        lambda state: None,
    ],
)
def test_a_broken_policy_costs_answers_but_no_crash(tmp_path, bad_policy):
    assert ask(predictor(tmp_path, policy=bad_policy)) == FALLBACK


@pytest.mark.parametrize(
    "failing",
    [
        lambda: raise_(RuntimeError("out of memory")),  # did not start
        lambda: ScriptedEngine(error=EngineError("died")),  # died on the first problem
    ],
)
def test_a_failed_engine_is_replaced_and_the_same_problem_solved(tmp_path, caplog, failing):
    engines = iter([failing, ScriptedEngine])
    predict = predictor(tmp_path, lambda: next(engines)())
    assert ask(predict, "p0") == 7
    assert ask(predict, "p1") == 7
    assert "ENGINE" in caplog.text


@pytest.mark.parametrize("hangs_in", ["launch", "poll", "abort"])
def test_at_the_deadline_the_votes_so_far_decide_though_the_engine_hangs(
    tmp_path_factory, calm, hangs_in
):
    """And the next problem is solved by another engine."""
    release = threading.Event()

    class Hanging(ScriptedEngine):
        def launch(self, prompt_ids, sampling):
            if hangs_in == "launch" and self.num_launched:
                release.wait()
            return super().launch(prompt_ids, sampling)

        def poll(self, timeout_s):
            if hangs_in == "poll" and not self.updates:
                release.wait()
            return super().poll(timeout_s)[:1]  # one vote of three

        def abort(self, request_ids):
            release.wait()

    def attempt():
        folder, engines = tmp_path_factory.mktemp("run"), iter([Hanging(), ScriptedEngine()])
        rule = Rule(num_traces=3, stop_votes=3, max_tokens=8, timeout_s=0.3)
        predict = predictor(folder, lambda: next(engines), policy=lambda state: rule)
        start_s = time.monotonic()
        answer = ask(predict, "p0")
        assert time.monotonic() - start_s < 0.3 + 0.25
        (line,) = log(folder)
        assert line["stop_reason"] == "left"
        assert (answer, line["fallback"]) == ((42, True) if hangs_in == "launch" else (7, False))
        assert ask(predict, "p1") == 7
        assert log(folder)[1]["stop_reason"] == "votes"

    calm(attempt)
    release.set()


def test_an_engine_that_never_starts_does_not_eat_the_clock(tmp_path_factory, calm):
    release = threading.Event()

    def attempt():
        folder, start_s = tmp_path_factory.mktemp("run"), time.monotonic()
        predict = predictor(folder, release.wait, deadline_s=2.0, reserve_s=1.0, num_problems=3)
        for number in range(3):
            assert ask(predict, f"p{number}") == FALLBACK
        assert time.monotonic() - start_s < 1.5
        assert "has not started" in log(folder)[0]["why"]

    calm(attempt)
    release.set()


def test_the_engine_starts_before_the_first_problem(tmp_path):
    started = threading.Event()

    def start_engine():
        started.set()
        return ScriptedEngine()

    predictor(tmp_path, start_engine)
    assert started.wait(30)


@pytest.mark.parametrize(
    ("elapsed_s", "timeout_s", "expected_s"),
    [
        (0, 1e9, 799),  # 940 s, and a fifth of 235 s kept for each of three others
        (0, 5, 5),  # the policy asks for less than there is
        (900, 1e9, 10),  # an equal share of the 40 s that are left
    ],
)
def test_the_guard_caps_any_policy(tmp_path_factory, calm, elapsed_s, timeout_s, expected_s):
    rule = Rule(num_traces=1, stop_votes=1, max_tokens=8, timeout_s=timeout_s)
    options = {"num_problems": 4, "reserve_s": 60.0, "deadline_s": 1_000.0}

    def attempt():
        folder = tmp_path_factory.mktemp("run")
        ask(predictor(folder, elapsed_s=elapsed_s, policy=lambda state: rule, **options))
        left_s = log(folder)[0]["rule"]["timeout_s"]
        assert expected_s - 0.5 <= left_s <= expected_s

    calm(attempt)


@pytest.mark.parametrize("elapsed_s", [940, 1_000, 5_000])
def test_after_the_deadline_the_fallback_comes_at_once(tmp_path_factory, calm, elapsed_s):
    def attempt():
        folder = tmp_path_factory.mktemp("run")
        predict = predictor(folder, elapsed_s=elapsed_s)
        time.sleep(0.05)  # the engine is up
        start_s = time.monotonic()
        assert ask(predict) == FALLBACK
        assert time.monotonic() - start_s < 0.5
        assert log(folder)[0]["why"] == "no time is left"

    calm(attempt)


def test_the_deadline_holds_with_an_engine_that_never_answers(tmp_path_factory, calm):
    class Silent(ScriptedEngine):
        def poll(self, timeout_s):
            time.sleep(min(timeout_s, 0.05))
            return []

    rule = Rule(num_traces=2, stop_votes=2, max_tokens=8, timeout_s=1e6)
    options = {"policy": lambda state: rule, "deadline_s": 2.0, "reserve_s": 0.4}

    def attempt():
        folder, start_s = tmp_path_factory.mktemp("run"), time.monotonic()
        predict = predictor(folder, Silent, num_problems=3, **options)
        for number in range(5):  # two more than announced
            assert ask(predict, f"p{number}") == FALLBACK
        assert time.monotonic() - start_s < 2.0
        assert len(log(folder)) == 5

    calm(attempt)


def test_a_full_disk_does_not_stop_the_answers(tmp_path, caplog):
    for name in ("log.jsonl", "events.jsonl"):
        (tmp_path / name).symlink_to("/dev/full")
    predict, close = run(tmp_path)
    (tmp_path / "traces.parquet").mkdir()
    assert ask(predict, "p0") == 7
    assert ask(predict, "p1") == 7
    close()
    for message in ("log.jsonl cannot", "events.jsonl cannot", "the traces cannot be written"):
        assert message in caplog.text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fallback_answer": 100_000}, r"fallback_answer must be in 0..99999, got 100000"),
        ({"fallback_answer": None}, "got None"),
        ({"clock_start_s": 1e12}, "still to come"),  # time.time() instead of monotonic
        ({"deadline_s": 30.0}, "reserve_s < deadline_s"),
        ({"deadline_s": 20_000.0}, "longer than the 18000 s"),
        ({"log_path": Path("/proc/none/log.jsonl")}, "Choose another log_path"),
    ],
)
def test_settings_that_would_lose_the_run_are_refused_at_once(tmp_path, fields, message):
    started = []
    with pytest.raises(ConfigError, match=message):
        predictor(tmp_path, lambda: started.append(1), **fields)
    assert not started


def test_a_whole_run_through_the_gateway(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = "".join(f"{number:03d},What is ${number}+0$?\n" for number in range(12))
    Path("test.csv").write_text("id,problem\n" + lines)
    predict = predictor(tmp_path, num_problems=12)
    InferenceServer(predict, competition=AIMO3).run_local_gateway(("test.csv",))
    submission_file = pl.read_parquet("submission.parquet")
    assert submission_file.schema == {"id": pl.String, "answer": pl.Int64}
    assert sorted(submission_file["id"]) == [f"{number:03d}" for number in range(12)]
    assert submission_file["answer"].to_list() == [7] * 12
    assert len(log(tmp_path)) == 12


def test_calls_after_the_first_stay_below_kaggles_limit(tmp_path):
    competition = Competition(name="x", slug="x", server="x.y.Z", call_limit_s=30.0)
    rule = Rule(num_traces=1, stop_votes=1, max_tokens=8, timeout_s=100.0)
    predict = predictor(tmp_path, competition=competition, policy=lambda state: rule)
    ask(predict)
    ask(predict)
    first, second = (line["rule"]["timeout_s"] for line in log(tmp_path))
    assert first == 100.0
    assert second == pytest.approx(20.0, abs=1.0)
