import json
import random

import pytest
import typer

from fastmath_kit.budget.commands import fit, replay
from fastmath_kit.cli_budget import _seconds
from fastmath_kit.errors import ConfigError
from fastmath_kit.problems.records import Trace, write_traces


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    rng, rows = random.Random(0), []
    for model in ("a", "b"):
        for problem in range(2):
            for sample in range(4):
                tokens = rng.randint(1_000, 4_000) * (1 + problem)
                rows.append(
                    Trace(
                        problem_id=f"p{problem}",
                        sample=sample,
                        completion_tokens=tokens,
                        answer=rng.choice((1, 1, 2)),
                        solution="1",
                        model=model,
                    )
                )
    path = tmp_path_factory.mktemp("budget") / "traces.parquet"
    write_traces(rows, path)
    return path


def test_fit_then_replay(traces, tmp_path):
    policy_path = tmp_path / "policy.json"
    fitted = fit([traces], "h100", policy_path)
    assert fitted["num_problems"] == 4  # the problems of two models are mixed
    assert json.loads(policy_path.read_text())["menu"]
    report, run = replay(
        [traces],
        "h100",
        tmp_path / "out",
        policy_path=policy_path,
        seconds_per_problem=(60.0,),
        num_runs=2,
        length_scale=2.0,
    )
    assert len(run) == 50
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    assert (tmp_path / "out" / "table.md").read_text().startswith("| policy | 60 s |")


def test_without_a_policy_one_is_fitted_on_the_other_half(traces, tmp_path):
    options = {"seconds_per_problem": (60.0,), "num_runs": 2}
    report, run = replay([traces], "h100", tmp_path, **options)
    assert report["policy"] == "fitted on 2 problems, replayed on 2 others"
    assert len({outcome.problem_id for outcome in run}) == 1  # of both models
    other, _ = replay([traces], "h100", tmp_path, seed=1, **options)
    assert other != report  # replaced: a replay's report may be


@pytest.mark.parametrize("content", ['{"setting": {}}', "{", "[]", "3"])
def test_the_report_of_another_command_is_kept(tmp_path, content):
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(ConfigError, match=r"report\.json: is no report of a replay.*--out"):
        replay(["no.parquet"], "h100", tmp_path, seconds_per_problem=(60.0,))
    assert (tmp_path / "report.json").read_text() == content


def test_seconds_are_parsed_and_sorted():
    assert _seconds("150, 60") == (60.0, 150.0)
    for text in ("", "0,10", "ten", "inf"):
        with pytest.raises(typer.BadParameter, match="seconds such as"):
            _seconds(text)
