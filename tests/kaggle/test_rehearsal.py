import ast
import json
from pathlib import Path

import polars as pl
import pytest

from fastmath_kit.budget.fitted import FittedPolicy, MenuRule, write_policy
from fastmath_kit.budget.throughput import HARDWARE
from fastmath_kit.errors import CheckpointError, ConfigError, DataError, EngineError
from fastmath_kit.kaggle.rehearsal import kernel_notebook, rehearse
from fastmath_kit.problems.records import read_traces

PROBLEMS = "id,problem,answer\n007,What is $1-1$?,0\n008,What is $9-1$?,8\n009,What is $5-1$?,4\n"
RULES = "name: aimo9\nslug: ai-mathematical-olympiad-9\nserver: a.b.C\n"


@pytest.fixture
def arguments(tmp_path, tiny_model):
    (tmp_path / "problems.csv").write_text(PROBLEMS)
    (tmp_path / "own.yaml").write_text(RULES)
    return {
        "competition": "aimo3",
        "problems_csv": tmp_path / "problems.csv",
        "model": tiny_model,
        "out": tmp_path / "out",
    }


def test_every_competition_with_a_folder_has_its_notebook():
    assert kernel_notebook("aimo3").parts[-3:] == (
        "kernels_submission",
        "aimo3",
        "submission.ipynb",
    )


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"competition": "aimo4"}, ConfigError, r"unknown competition 'aimo4'\. Did you mean"),
        ({"competition": "own.yaml"}, ConfigError, r"no such notebook\. Found: aimo3"),
        ({"problems_csv": "no.csv"}, DataError, r"no\.csv: no such problem file"),
        ({"model": "no/model"}, CheckpointError, "no/model: no such model folder"),
        ({"parameters": {"MAX_TOKEN": 1}}, ConfigError, "Did you mean 'MAX_TOKENS'"),  # a typo
    ],
)
def test_bad_arguments_are_told_before_the_notebook_runs(
    arguments, tmp_path, monkeypatch, fields, error, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        rehearse(**{**arguments, **fields})
    assert not arguments["out"].exists()


def test_a_submission_is_never_overwritten(arguments):
    arguments["out"].mkdir()
    (arguments["out"] / "submission.parquet").write_text("precious")
    with pytest.raises(CheckpointError, match=r"already exists\. Choose another folder"):
        rehearse(**arguments)
    assert (arguments["out"] / "submission.parquet").read_text() == "precious"


@pytest.mark.slow
def test_the_notebook_runs_as_kaggle_runs_it_and_is_graded(arguments):
    """A random model answers nothing: each problem gets the fallback, which never counts."""
    parameters = {"MAX_MODEL_LEN": None, "IN_PROCESS": True, "SMOKE": True, "FALLBACK_ANSWER": 4}
    parameters["POLICY"] = str(arguments["out"].with_name("none.json"))  # missing: the clip rule
    result = rehearse(**arguments, parameters=parameters)
    assert result["num_problems"] == 3
    assert result["answers"].keys() == {"007", "008", "009"}
    frame = pl.read_parquet(result["submission"])
    assert frame.schema == {"id": pl.String, "answer": pl.Int64}
    assert frame.height == 3
    log = (arguments["out"] / "log.jsonl").read_text().splitlines()
    served = {f"{int(line['id']):03}": line for line in map(json.loads, log)}  # sent as numbers
    assert list(served) == frame["id"].to_list()
    fallbacks = [id_ for id_, line in served.items() if line["fallback"]]
    assert result["num_fallbacks"] == len(fallbacks)
    assert all(result["answers"][id_] == 4 for id_ in fallbacks)  # right by chance for 009
    assert result["num_correct"] <= 3 - len(fallbacks)
    assert {line["rule"]["why"] for line in served.values()} == {"limits of ClipPolicy"}
    executed = json.loads((arguments["out"] / "submission.ipynb").read_text())
    assert "the fitted budget policy is not used" in json.dumps(executed)
    cells = ["".join(cell["source"]) for cell in executed["cells"] if "injected" in str(cell)]
    (values,) = [ast.parse(cell) for cell in cells if "NUM_PROBLEMS" in cell]
    names = {node.targets[0].id: ast.literal_eval(node.value) for node in values.body}
    assert (names["NUM_PROBLEMS"], names["IN_PROCESS"]) == (3, True)
    assert Path(names["MODEL"]) == arguments["model"]


@pytest.mark.slow
def test_the_kernel_runs_under_a_fitted_policy_and_says_what_it_decided_and_why(arguments):
    """Its engine is closed in the end: no process of vLLM dies with the kernel and cries."""
    rule = MenuRule(seconds=0.5, solved=0.5, num_traces=3, patience_s=(60.0, 30.0))
    policy = FittedPolicy(menu=(rule,), max_tokens=64, model=HARDWARE["h100"])
    path = arguments["out"].with_name("policy.json")
    write_policy(policy, path)
    parameters = {"MAX_MODEL_LEN": None, "POLICY": str(path), "DEADLINE_S": 600.0}
    result = rehearse(**arguments, parameters=parameters)
    log = [json.loads(line) for line in (arguments["out"] / "log.jsonl").open()]
    assert sum(result["stop_reasons"].values()) == len(log) == 3
    for line in log:
        assert "of plan" in line["rule"]["why"]
        assert line["rule"]["num_traces"] == line["num_traces"] == 3
        assert "0 votes, go on, ask again" in line["decisions"][0]
        assert line["kappa"] > 0 and line["predicted_s"] > 0
    events = [json.loads(line) for line in (arguments["out"] / "events.jsonl").open()]
    kinds = {event["event"] for event in events}
    assert {"launch", "trace", "decision", "stop"} <= kinds
    assert len(read_traces(arguments["out"] / "traces.parquet")) == 9
    executed = (arguments["out"] / "submission.ipynb").read_text()
    assert "works, its first words" in executed and "of what the policy counts on" in executed
    assert "Traceback" not in executed and "EngineDeadError" not in executed


@pytest.mark.slow
def test_a_notebook_that_fails_is_one_line_with_the_executed_copy(arguments):
    parameters = {"FALLBACK_ANSWER": -1, "MAX_MODEL_LEN": None, "IN_PROCESS": True}
    with pytest.raises(
        EngineError, match="failed with ConfigError: fallback_answer must"
    ) as caught:
        rehearse(**arguments, parameters=parameters)
    assert str(arguments["out"] / "submission.ipynb") in str(caught.value)
    assert not (arguments["out"] / "submission.parquet").exists()
