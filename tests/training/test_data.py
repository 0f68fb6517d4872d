import json

import polars as pl
import pytest

from fastmath_kit.errors import DataError
from fastmath_kit.problems.prompts import STOP, completion_ids, prompt_ids
from fastmath_kit.problems.records import Problem, Trace
from fastmath_kit.training.data import (
    calibration_texts,
    grpo_dataset,
    read_sft_rows,
    sft_dataset,
)

ROW = {"problem": "What is $7-2$?", "completion": "$7-2=5$\n\\boxed{5}\n" + STOP}


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    from fastmath_kit.inference.model_folder import load_tokenizer

    return load_tokenizer(tiny_model)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_rows_come_back_from_both_formats_without_other_columns(tmp_path, name):
    rows = [ROW | {"source": "teacher"}, ROW | {"problem": "π ≤ 4, \u2028 on", "source": "x"}]
    if name.endswith(".jsonl"):
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (tmp_path / name).write_text("\n".join([lines[0], "", lines[1], ""]), encoding="utf-8")
    else:
        pl.DataFrame(rows).write_parquet(tmp_path / name)
    expected = [{key: row[key] for key in ("problem", "completion")} for row in rows]
    assert read_sft_rows(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("no.jsonl", None, "no.jsonl: no such file"),
        ("rows.csv", "problem,completion\n", r"expected a name ending in .jsonl or .parquet"),
        ("rows.jsonl", "", "has no rows"),
        ("rows.jsonl", json.dumps(ROW) + "\n\n{", "rows.jsonl: row 3: not JSON"),  # which row
        ("rows.jsonl", '{"problem": "x"}', "row 1, column completion: expected text, got None"),
        ("rows.jsonl", '{"problem": 7, "completion": "x"}', "row 1, column problem: .* got 7"),
        ("rows.jsonl", '{"problem": " ", "completion": "x"}', "row 1, column problem"),  # blank
        ("rows.jsonl", "[1]", "row 1, column problem"),  # JSON, but no object
        ("rows.parquet", "no parquet", "rows.parquet: not readable parquet"),
    ],
)
def test_wrong_rows_are_named(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_sft_rows(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_missing_parquet_column_is_named(tmp_path):
    pl.DataFrame({"problem": ["x"], "answer": ["y"]}).write_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"no column 'completion', found .*answer"):
        read_sft_rows(tmp_path / "rows.parquet")


def test_the_loss_falls_on_the_completion_and_the_end_of_turn_only(tokenizer):
    (row,) = sft_dataset([ROW], tokenizer)
    learned = [i for i, m in zip(row["input_ids"], row["completion_mask"], strict=True) if m]
    given = [i for i, m in zip(row["input_ids"], row["completion_mask"], strict=True) if not m]
    assert given == prompt_ids(tokenizer, ROW["problem"])
    assert learned == [*completion_ids(tokenizer, ROW["completion"]), tokenizer.eos_token_id]
    assert row["completion_mask"] == sorted(row["completion_mask"])  # the prompt comes first


def test_truncated_rows_and_no_rows_are_refused(tokenizer):
    cut = ROW | {"completion": "so"}
    with pytest.raises(DataError, match="training row 2: the completion never reaches '</think>'"):
        sft_dataset([ROW, cut], tokenizer)
    with pytest.raises(DataError, match="no training rows"):
        sft_dataset([], tokenizer)


def test_grpo_rows_hold_messages_and_the_gold():
    (row,) = grpo_dataset([Problem(id="a", statement="What is $1-1$?", solution="0")])
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    assert row["prompt"][1]["content"] == "What is $1-1$?"
    assert (row["solution"], row["problem_id"]) == ("0", "a")


def test_a_problem_without_a_gold_cannot_be_rewarded():
    with pytest.raises(DataError, match="problem 'a' has no answer to reward"):
        grpo_dataset([Problem(id="a", statement="x")])


def trace(problem_id, sample, completion="y", finish_reason="stop"):
    return Trace(
        problem_id=problem_id,
        sample=sample,
        completion_tokens=1,
        answer=None,
        completion=completion,
        finish_reason=finish_reason,
    )


def test_calibration_sees_prompt_and_completion_of_every_problem_first(tokenizer):
    problems = [Problem(id=name, statement=f"What is ${name}$?") for name in "ab"]
    traces = [
        trace("a", 0, "first"),
        trace("a", 1, "second"),
        trace("b", 0, "other"),
        trace("b", 1, None),  # not kept
        trace("b", 2, "cut", "abort"),
        trace("c", 0),  # of another file
    ]
    texts = calibration_texts(traces, problems, tokenizer)
    assert [text.rpartition("<think>\n")[2] for text in texts] == ["first", "other", "second"]
    for text, statement in zip(texts, ["a", "b", "a"], strict=True):
        start = prompt_ids(tokenizer, f"What is ${statement}$?")
        assert completion_ids(tokenizer, text)[: len(start)] == start
    assert calibration_texts(traces, problems, tokenizer, limit=1) == texts[:1]
    with pytest.raises(DataError, match="no trace of these problems has a completion"):
        calibration_texts(traces[3:], problems, tokenizer)
