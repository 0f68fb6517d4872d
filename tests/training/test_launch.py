import json

import pytest

from fastmath_kit.errors import CheckpointError, ConfigError, DataError
from fastmath_kit.problems.records import write_problems
from fastmath_kit.training.launch import train


@pytest.fixture
def files(tmp_path, sft_rows, lessons):
    """Options of a run in an otherwise empty folder."""
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in sft_rows))
    write_problems([lesson.problem for lesson in lessons], tmp_path / "problems.csv")
    return {"data": data, "out": tmp_path / "run"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"preset": "sft_tin"}, ConfigError, "unknown preset 'sft_tin'. Did you mean 'sft_tiny'?"),
        ({"overrides": {"max_step": 1}}, ConfigError, "Did you mean 'max_steps'?"),
        ({"overrides": {"save_strategy": "no"}}, ConfigError, "save_strategy is 'no'"),
        ({"model": "/no/model"}, CheckpointError, "no such model folder"),
        ({"stage": "grpo"}, DataError, "no column 'id'"),  # rows where problems belong
        ({"stage": "ppo"}, ConfigError, "stage must be 'sft', 'grpo' or 'length', got 'ppo'"),
        ({"data": "/no/rows.jsonl"}, DataError, "no such file"),
        ({"out": __file__}, CheckpointError, "is a file"),
    ],
)
def test_wrong_input_leaves_no_run_folder(files, tiny_model, fields, error, message):
    arguments = {"stage": "sft", "preset": "sft_tiny", "model": tiny_model, **files, **fields}
    with pytest.raises(error, match=message):
        train(**arguments)
    assert not files["out"].exists()


@pytest.mark.slow
def test_both_stages_run_from_files_and_an_unfinished_checkpoint_is_removed(files, tiny_model):
    short = {"max_steps": 1, "per_device_train_batch_size": 8, "num_generations": 4}
    short |= {"max_completion_length": 4}
    half = files["out"] / "checkpoint-7"
    half.mkdir(parents=True)  # as a kill -9 leaves it
    sft = train(
        "sft",
        "sft_tiny",
        model=tiny_model,
        overrides={"max_steps": 1, "per_device_train_batch_size": 8},
        resume=True,
        **files,
    )
    assert sft["checkpoint"] == str(files["out"] / "checkpoint-1") and sft["steps"] == 1
    assert not half.exists()
    problems = {"data": files["data"].with_name("problems.csv"), "out": files["out"] / "grpo"}
    grpo = train("grpo", "grpo_tiny", model=sft["checkpoint"], overrides=short, **problems)
    assert (files["out"] / "grpo" / "checkpoint-1" / "model.safetensors").is_file()
    assert grpo["seconds"] > 0
    again = train(
        "grpo", "grpo_tiny", model=sft["checkpoint"], overrides=short, resume=True, **problems
    )
    assert again == grpo | {"seconds": 0.0}  # finished: not a step more
    assert not (files["out"] / "grpo" / "checkpoint-2").exists()
