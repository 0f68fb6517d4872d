"""Real SFT of the random miniature, two steps at a time."""

import json
import math

import pytest

from fastmath_kit.errors import CheckpointError
from fastmath_kit.training.presets import load_preset
from fastmath_kit.training.runs import check_output_folder
from fastmath_kit.training.sft import build_sft, model_tokenizer, sft_fields

SHORT = {"max_steps": 4, "per_device_train_batch_size": 8, "logging_steps": 1, "save_steps": 2}
SHORT |= {"save_strategy": "steps", "warmup_steps": 1}


class Killed(BaseException):
    """Ends a run where no handler of the trainer's sees it."""


def kill_after_saving(step):
    def on_progress(done, total):
        if done > step:
            raise Killed

    return on_progress


def run_sft(rows, model, out, *, on_progress=None, resume=False):
    preset = load_preset("sft_tiny", sft_fields(), overrides=SHORT)
    trainer = build_sft(preset, rows, model=model, out=out, on_progress=on_progress)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train(resume_from_checkpoint=check_output_folder(out, resume=resume))
    return trainer, before


@pytest.mark.slow
def test_a_killed_run_resumes_on_the_same_curve(sft_rows, tiny_model, tmp_path, losses):
    straight, halves = tmp_path / "straight", tmp_path / "halves"
    seen = []
    trainer, before = run_sft(
        sft_rows, tiny_model, straight, on_progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(step, 4) for step in (1, 2, 3, 4)]
    for name, parameter in trainer.model.named_parameters():
        assert parameter.isfinite().all() and not parameter.equal(before[name]), name

    with pytest.raises(Killed):
        run_sft(sft_rows, tiny_model, halves, on_progress=kill_after_saving(2))
    resumed, _ = run_sft(sft_rows, tiny_model, halves, resume=True)
    expected = losses(straight)
    assert [step for step, _ in expected] == [1, 2, 3, 4]
    assert all(math.isfinite(loss) for _, loss in expected)
    assert losses(halves) == expected
    for one, other in zip(trainer.model.parameters(), resumed.model.parameters(), strict=True):
        assert one.equal(other)

    checkpoint = straight / "checkpoint-4"
    assert "max_steps: 4" in (checkpoint / "preset.yaml").read_text()
    assert "trl" in json.loads((checkpoint / "versions.json").read_text())["versions"]
    with pytest.raises(CheckpointError, match="already holds checkpoint-4"):
        run_sft(sft_rows, tiny_model, straight)


@pytest.mark.parametrize("model", ["no/model", "no/such/model", "/no/model"])
def test_a_folder_without_a_model_is_told_before_a_hub_is_asked(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "no" / "model").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"no config\.json|no such model folder"):
        model_tokenizer(model)
