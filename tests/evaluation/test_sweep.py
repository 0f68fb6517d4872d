import json

import pytest

from fastmath_kit.errors import ConfigError, DataError
from fastmath_kit.evaluation.report import write_json
from fastmath_kit.evaluation.setting import setting_of
from fastmath_kit.evaluation.sweep import compare, evaluate, summarize
from fastmath_kit.inference.protocol import Sampling
from fastmath_kit.inference.stops import stop_at
from fastmath_kit.problems.records import Problem, Trace, write_traces

SAMPLING = Sampling(max_tokens=64)
PROBLEMS = [Problem(id="a", statement="What is $1-1$?", solution="0")]


def trace(problem_id, sample, tokens, correct, finish_reason="stop", answer=0):
    return Trace(
        problem_id=problem_id,
        sample=sample,
        completion_tokens=tokens,
        answer=answer if correct else None,
        finish_reason=finish_reason,
        correct=correct,
    )


TRACES = [
    trace("a", 0, 10, True),
    trace("a", 1, 30, True),
    trace("b", 0, 50, True),
    trace("b", 1, 60, False, finish_reason="length"),
]


def test_summary_of_four_traces_counted_by_hand():
    assert summarize("sft-10", TRACES, budgets_tokens=(40, 20)) == {
        "name": "sft-10",
        "avg_at_k": 0.75,
        "k": 2,
        "standard_error": pytest.approx(0.25),  # means 1, 1/2: sd sqrt(1/8), over sqrt(2)
        "maj_at_k": 1.0,  # the only vote of b is right
        "pass_at_k": 1.0,
        "mean_tokens": 37.5,
        "num_problems": 2,
        "truncated": 0.25,
        "budgets": [  # ascending, whatever the order asked
            {
                "budget_tokens": 20,  # only a/0 is done
                "avg_at_k": 0.25,
                "standard_error": pytest.approx(0.25),
                "mean_tokens": 17.5,  # 10, 20, 20, 20
            },
            {
                "budget_tokens": 40,  # a/0 and a/1
                "avg_at_k": 0.5,
                "standard_error": pytest.approx(0.5),
                "mean_tokens": 30.0,  # 10, 30, 40, 40
            },
        ],
    }


def test_summary_is_json():
    assert json.loads(json.dumps(summarize("base", TRACES, (20,))))["name"] == "base"


def test_unknown_finish_is_unknown_truncation():
    assert summarize("x", [trace("a", 0, 10, True, finish_reason=None)])["truncated"] is None


@pytest.mark.parametrize(
    "budget_tokens",
    [
        0,  # no tokens, no answer
        61,  # b/1 was cut at 60: nobody knows what it would have said
    ],
)
def test_a_budget_the_run_cannot_answer_is_refused(budget_tokens):
    with pytest.raises(DataError, match=f"budget of {budget_tokens} tokens.*limit of 60"):
        summarize("base", TRACES, budgets_tokens=(budget_tokens,))


def test_a_large_budget_is_fine_where_nothing_was_cut():
    (row,) = summarize("base", TRACES[:3:2], budgets_tokens=(1_000,))["budgets"]
    assert row["avg_at_k"] == 1.0


def test_compare_counts_by_hand():
    before = [trace(p, s, 100, s == 0) for p in "abcd" for s in range(2)]  # 50 %, 100 tokens
    after = [trace(p, s, 60, True) for p in "abcd" for s in range(2)]  # 100 %, 60 tokens
    assert compare(before, after) == {
        "token_change": pytest.approx(-0.4),
        "accuracy_change": 0.5,
        "accuracy_change_ci95": [0.5, 0.5],  # the same change on each problem
    }


def test_compare_with_itself_is_no_change():
    assert compare(TRACES, TRACES[::-1]) == {  # paired by problem, not by position
        "token_change": 0.0,
        "accuracy_change": 0.0,
        "accuracy_change_ci95": [0.0, 0.0],
    }


def test_compare_allows_another_k():
    assert compare(TRACES, TRACES[::2])["accuracy_change"] == 0.25  # 75 % to 100 %


def test_compare_names_a_problem_of_one_side():
    with pytest.raises(DataError, match="1 problems are on one side only, such as 'b'"):
        compare(TRACES, TRACES[:2])


@pytest.mark.parametrize(
    ("problems", "k", "budgets_tokens", "message"),
    [
        (PROBLEMS, 0, (), "at least 1, got 0"),
        (PROBLEMS, 8, (65,), r"1\.\.64, its max_tokens, got 65"),
        ([], 8, (), "no problems"),
        ([*PROBLEMS, Problem(id="b", statement="?")], 8, (), "1 of 2 problems .*'b'.*`answer`"),
    ],
)
def test_evaluate_refuses_before_a_model_is_loaded(tmp_path, problems, k, budgets_tokens, message):
    options = {"k": k, "budgets_tokens": budgets_tokens, "out": tmp_path, "sampling": SAMPLING}
    with pytest.raises((ConfigError, DataError), match=message):
        evaluate(tmp_path / "no-model", problems, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("report.json", "{}", "is not a report of `evaluate`"),
        ("report.json", "{", "is not a report of `evaluate`"),  # cut off
        ("report.json", '{"setting": {"k": 4}}', "was measured with another model, .*k, sampling"),
        ("traces.parquet", "", "stands beside no report.json"),
    ],
)
def test_evaluate_never_overwrites_another_run(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    options = {"k": 8, "budgets_tokens": (), "out": tmp_path, "sampling": SAMPLING}
    with pytest.raises(ConfigError, match=f"{message}.*Choose another folder with --out, or"):
        evaluate(tmp_path / "no-model", PROBLEMS, **options)
    assert (tmp_path / name).read_text() == content


@pytest.fixture
def finished(tmp_path):
    """A finished run of a model whose weights are one byte: loading it would fail."""
    model, out = tmp_path / "model", tmp_path / "out"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"x")
    write_traces(TRACES[:2], out / "traces.parquet")
    write_json({"setting": setting_of(model, PROBLEMS, 2, SAMPLING)}, out / "report.json")
    return model, out


def test_a_finished_run_is_scored_again_for_other_budgets_without_sampling(finished):
    model, out = finished
    options = {"k": 2, "out": out, "sampling": SAMPLING}
    result = evaluate(model, PROBLEMS, budgets_tokens=(20,), **options)
    assert (result["name"], result["avg_at_k"]) == ("model", 1.0)
    assert [row["avg_at_k"] for row in result["budgets"]] == [0.5]
    assert json.loads((out / "report.json").read_text()) == result


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 3}, "another k"),
        ({"sampling": Sampling(max_tokens=32)}, "another sampling"),
        ({"problems": [Problem(id="a", statement="?", solution="0")]}, "another problems_sha256"),
        ({"endpoints": ["http://host:8000"]}, "another endpoints"),
        ({"served_model": "sft"}, "another served_model"),
    ],
)
def test_another_setting_is_refused(finished, change, message):
    model, out = finished
    options = {"problems": PROBLEMS, "k": 2, "sampling": SAMPLING, "budgets_tokens": ()} | change
    with pytest.raises(ConfigError, match=message):
        evaluate(model, out=out, **options)


def test_a_model_trained_on_in_place_is_another_model(finished):
    model, out = finished
    (model / "model.safetensors").write_bytes(b"xy")
    options = {"k": 2, "budgets_tokens": (), "out": out, "sampling": SAMPLING}
    with pytest.raises(ConfigError, match="another model_files_sha256"):
        evaluate(model, PROBLEMS, **options)


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer_config.json"])
def test_another_prompt_is_another_model(finished, name):
    model, out = finished
    (model / name).write_text("{{ messages }}")
    options = {"k": 2, "budgets_tokens": (), "out": out, "sampling": SAMPLING}
    with pytest.raises(ConfigError, match="another model_files_sha256"):
        evaluate(model, PROBLEMS, **options)


def test_a_setting_with_a_condition_is_json(tmp_path):
    sampling = Sampling(max_tokens=64, **stop_at("box"))
    setting = setting_of(tmp_path, PROBLEMS, 2, sampling)
    assert json.loads(json.dumps(setting)) == setting
    plain = setting_of(tmp_path, PROBLEMS, 2, Sampling(max_tokens=64, ends_at_stop=False))
    assert plain != setting and plain["sampling"]["until"] is None


def test_a_run_of_an_endpoint_is_known_by_its_url_without_the_password(finished):
    model, out = finished
    url, other = "http://me:secret@host:8000", "http://host:8001"
    setting = setting_of(model, PROBLEMS, 2, SAMPLING, [url], "sft")
    assert setting["endpoints"] == ["http://host:8000/v1"] and "secret" not in str(setting)
    write_json({"setting": setting}, out / "report.json")
    options = {"k": 2, "budgets_tokens": (), "out": out, "sampling": SAMPLING}
    assert evaluate(model, PROBLEMS, endpoints=[url], served_model="sft", **options)["k"] == 2
    for endpoints in ([other], [url, other], []):
        with pytest.raises(ConfigError, match="another endpoints"):
            evaluate(model, PROBLEMS, endpoints=endpoints, served_model="sft", **options)
