"""Training of the length predictor, a few real steps on the lengths of the teacher's traces."""

import json
import random

import pytest

from fastmath_kit import tiny
from fastmath_kit.errors import CheckpointError, ConfigError, DataError
from fastmath_kit.problems.records import Trace, write_traces
from fastmath_kit.training.length import load_length, train_length
from fastmath_kit.training.length_encoder import LengthConfig, build_length, length_fields
from fastmath_kit.training.length_labels import length_labels, write_labels
from fastmath_kit.training.presets import load_preset

SHORT = {"num_train_epochs": 4, "per_device_train_batch_size": 16, "logging_steps": 1}


@pytest.fixture(autouse=True)
def _one_thread():
    """On a busy machine an encoder this small trains ten times faster on one thread than on two."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def labels(lessons):
    tokenizer, rng = tiny.make_tokenizer(), random.Random(0)
    traces = [
        Trace(
            problem_id=lesson.problem.id,
            sample=sample,
            completion_tokens=len(tokenizer(tiny.teacher_completion(lesson, rng))["input_ids"]),
            answer=None,
        )
        for lesson in lessons
        for sample in range(4)
    ]
    return length_labels(traces, [lesson.problem for lesson in lessons])


@pytest.fixture
def files(tmp_path, labels, tiny_model):
    """Arguments of a run in an otherwise empty folder."""
    write_labels(labels, tmp_path / "length.parquet")
    data, out = tmp_path / "length.parquet", tmp_path / "run"
    return {"preset": "length_tiny", "model": tiny_model, "data": data, "out": out}


class Killed(BaseException):
    """Ends a run where no handler of the trainer's sees it."""


def kill_after(step):
    def on_progress(done, total):
        if done > step:
            raise Killed

    return on_progress


@pytest.mark.slow
def test_a_run_writes_a_predictor_that_is_loaded_again(files, labels):
    result = train_length(**files, overrides=SHORT)
    folder = files["out"] / f"checkpoint-{result['steps']}"
    assert result["checkpoint"] == str(folder)
    names = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "preset.yaml", "versions.json", "metrics.json"} <= names
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == result["metrics"]
    assert metrics["num_train"] + metrics["num_held_out"] == len(labels)
    for name in ("encoder", "features", "median"):
        assert metrics[name]["mean_abs_log_error"]["value"] < 1.0
        assert 0 <= metrics[name]["coverage"]["value"] <= 1

    predictor = load_length(folder)
    said = predictor.predict([label.problem for label in labels])
    assert len(said) == len(labels)
    assert all(5 < x.mean_tokens < 200 and 0.05 < x.sd_log < 2 for x in said)
    alone = predictor.predict([labels[3].problem])[0]  # padding changes nothing
    assert alone.mean_tokens == pytest.approx(said[3].mean_tokens, rel=1e-4)
    assert predictor.predict([]) == []
    assert predictor.predict(["$1+1$ " * 5_000])[0].mean_tokens > 0  # cut at max_length


@pytest.mark.slow
def test_the_likelihood_is_learned(files, labels, losses):
    train_length(**files, overrides=SHORT | {"num_train_epochs": 15})
    by_step = [loss for _, loss in losses(files["out"])]
    assert sum(by_step[-4:]) / 4 < sum(by_step[:4]) / 4 - 0.2


@pytest.mark.slow
def test_a_killed_run_resumes_on_the_same_curve(files, losses):
    straight = train_length(**files, overrides=SHORT)
    halves = files | {"out": files["out"].with_name("halves")}
    with pytest.raises(Killed):
        train_length(**halves, overrides=SHORT, on_progress=kill_after(8))
    with pytest.raises(CheckpointError, match="already holds checkpoint-8"):
        train_length(**halves, overrides=SHORT)
    resumed = train_length(**halves, overrides=SHORT, resume=True)
    assert losses(halves["out"]) == losses(files["out"])
    assert resumed["metrics"] == straight["metrics"]

    # Killed between the last checkpoint and its test: only the test is done again.
    folder = files["out"] / f"checkpoint-{straight['steps']}"
    (folder / "metrics.json").unlink()
    again = train_length(**files, overrides=SHORT, resume=True)
    assert again == straight | {"seconds": 0.0}


@pytest.mark.slow
def test_an_encoder_is_fine_tuned_by_the_same_code(files, labels, tmp_path):
    """A saved encoder stands for ModernBERT-base: its weights are taken, its head is new."""
    scratch = load_preset("length_tiny", length_fields(), overrides={"max_steps": 1})
    encoder = build_length(scratch, labels, model=files["model"], out=tmp_path / "scratch")
    encoder.save_model(str(tmp_path / "encoder"))
    preset = load_preset("length_modernbert", length_fields())
    assert (preset["max_length"], preset["learning_rate"], preset["num_train_epochs"]) == (
        256,
        1e-5,
        3,
    )
    tuned = build_length(
        preset | {"use_cpu": True}, labels, model=tmp_path / "encoder", out=tmp_path / "tuned"
    )
    ours, theirs = dict(tuned.model.named_parameters()), dict(encoder.model.named_parameters())
    name = "model.layers.0.attn.Wqkv.weight"
    assert ours[name].equal(theirs[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"preset": "length_tin"}, ConfigError, "Did you mean 'length_tiny'?"),
        ({"overrides": {"max_step": 1}}, ConfigError, "Did you mean 'max_steps'?"),
        ({"overrides": {"save_strategy": "no"}}, ConfigError, "save_strategy is 'no'"),
        ({"overrides": {"held_out": 1.0}}, ConfigError, "held_out is a share"),
        ({"model": "/no/model"}, CheckpointError, "no such model folder"),
        ({"data": "/no/length.parquet"}, DataError, "not a file of length labels"),
        ({"out": __file__}, CheckpointError, "is a file"),
    ],
)
def test_wrong_input_leaves_no_run_folder(files, fields, error, message):
    with pytest.raises(error, match=message):
        train_length(**files | fields)
    assert not files["out"].exists()


def test_a_model_that_predicts_no_length_is_refused(tiny_model):
    with pytest.raises(CheckpointError, match="no length predictor"):
        load_length(tiny_model)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"held_out": 0.0}, "held_out is a share"),
        ({"max_length": 0}, "max_length must be positive"),
        ({"hidden_size": 30, "num_attention_heads": 4}, "multiple of twice num_attention_heads"),
    ],
)
def test_a_wrong_config_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        LengthConfig(**fields)


def test_trace_files_become_labels_on_the_command_line(tmp_path, labels, lessons):
    from fastmath_kit.cli_length import length
    from fastmath_kit.problems.records import write_problems

    write_problems([lesson.problem for lesson in lessons], tmp_path / "p.csv")
    traces = [
        Trace(problem_id=x.problem_id, sample=sample, completion_tokens=num, answer=None)
        for x in labels
        for sample, num in enumerate(x.tokens)
    ]
    write_traces(traces, tmp_path / "t.parquet")
    result = length(tmp_path / "t.parquet", tmp_path / "p.csv", tmp_path / "out")
    assert result["num_problems"] == len(labels) and result["num_traces"] == 4 * len(labels)
    assert (tmp_path / "out" / "length.parquet").is_file()
