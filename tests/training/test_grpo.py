"""Real GRPO of the random miniature, with a reward that a random model can earn."""

import json
import math

import pytest

from fastmath_kit.errors import ConfigError
from fastmath_kit.training.grpo import build_grpo, grpo_fields
from fastmath_kit.training.presets import load_preset
from fastmath_kit.training.runs import check_output_folder

SHORT = {"max_steps": 4, "per_device_train_batch_size": 8, "num_generations": 4}
SHORT |= {"max_completion_length": 8, "logging_steps": 1, "save_steps": 2, "warmup_steps": 1}
SHORT |= {"mask_truncated_completions": False, "scale_rewards": "group"}


class Killed(BaseException):
    """Ends a run where no handler of the trainer's sees it."""


def distinct_tokens_reward(completion_ids, **kwargs):
    return [float(len(set(ids))) for ids in completion_ids]


def run_grpo(lessons, model, out, *, on_progress=None, resume=False):
    preset = load_preset("grpo_tiny", grpo_fields(), overrides=SHORT)
    problems = [lesson.problem for lesson in lessons]
    trainer = build_grpo(preset, problems, model=model, out=out, on_progress=on_progress)
    trainer.reward_funcs[0] = distinct_tokens_reward
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train(resume_from_checkpoint=check_output_folder(out, resume=resume))
    return trainer, before


@pytest.mark.slow
def test_a_killed_run_resumes_on_the_same_curve(lessons, tiny_model, tmp_path, losses):
    def kill(done, total):
        if done > 2:
            raise Killed

    straight, halves = tmp_path / "straight", tmp_path / "halves"
    trainer, before = run_grpo(lessons, tiny_model, straight)
    changed = [not p.equal(before[name]) for name, p in trainer.model.named_parameters()]
    assert all(changed)
    with pytest.raises(Killed):
        run_grpo(lessons, tiny_model, halves, on_progress=kill)
    resumed, _ = run_grpo(lessons, tiny_model, halves, resume=True)
    expected = losses(straight)
    assert [step for step, _ in expected] == [1, 2, 3, 4]
    assert all(math.isfinite(loss) for _, loss in expected)
    assert losses(halves) == expected
    for one, other in zip(trainer.model.parameters(), resumed.model.parameters(), strict=True):
        assert one.equal(other)
    record = json.loads((straight / "checkpoint-4" / "versions.json").read_text())
    assert "trl" in record["versions"]
    assert "num_generations: 4" in (straight / "checkpoint-4" / "preset.yaml").read_text()


@pytest.mark.slow
def test_a_preset_without_rewards_is_refused(lessons, tiny_model, tmp_path):
    with pytest.raises(ConfigError, match="the preset has no reward_funcs"):
        build_grpo({}, [lesson.problem for lesson in lessons], model=tiny_model, out=tmp_path)
