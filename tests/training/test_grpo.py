"""Real GRPO of the random miniature, with a reward that a random model can earn."""

import json
import math
from dataclasses import replace

import pytest

from fastmath_kit.errors import ConfigError, DataError
from fastmath_kit.training.data import grpo_dataset
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


@pytest.fixture
def advantages_of(lessons, tiny_model, tmp_path):
    """Returns a function from scripted completions of two groups to TRL's own advantages."""
    trainers = {}

    def advantages(completions, reward_funcs):
        key = tuple(reward_funcs)
        if key not in trainers:
            overrides = SHORT | {"reward_funcs": reward_funcs, "max_completion_length": 128}
            preset = load_preset("grpo_tiny", grpo_fields(), overrides=overrides)
            problems = [lesson.problem for lesson in lessons]
            trainers[key] = build_grpo(preset, problems, model=tiny_model, out=tmp_path)
        trainer = trainers[key]
        ids = [
            trainer.processing_class(t, add_special_tokens=False)["input_ids"] for t in completions
        ]
        trainer._generate_single_turn = lambda *args, **kwargs: (ids, None)
        rows = [trainer.train_dataset[0]] * 4 + [trainer.train_dataset[1]] * 4
        return trainer._generate_and_score_completions(rows)["advantages"].reshape(2, 4).tolist()

    return advantages


@pytest.mark.slow
@pytest.mark.parametrize("scale_rewards", ["batch", "group", "none"])
def test_trl_sees_no_gradient_in_wrong_groups_and_right_above_wrong(
    advantages_of, lessons, scale_rewards, monkeypatch
):
    monkeypatch.setitem(SHORT, "scale_rewards", scale_rewards)
    gold = lessons[1].problem.solution
    wrong = [r"\boxed{99999}</think>", r"long " * 30 + r"\boxed{99998}</think>", "cut", "</think>"]
    long_right = "Wait, let me check. " * 15 + rf"\boxed{{{gold}}}</think>"
    mixed = [r"\boxed{99999}</think>", long_right, rf"\boxed{{{gold}}}</think>", "cut"]
    all_wrong, some_right = advantages_of(
        wrong + mixed, ["fastmath_kit.training.rewards.short_correct_reward"]
    )
    assert all_wrong == [0.0] * 4
    short_wrong, long_correct, short_correct, truncated = some_right
    assert short_wrong == truncated < 0 < long_correct < short_correct


@pytest.mark.slow
def test_the_papers_sum_does_what_we_say_of_it(advantages_of, lessons):
    paper = load_preset("grpo_r1_14b_paper", grpo_fields())["reward_funcs"]
    wrong = [r"\boxed{99999}</think>", "long " * 30 + r"\boxed{99998}</think>", "cut", "</think>"]
    all_wrong, _ = advantages_of(wrong * 2, paper)
    assert any(abs(advantage) > 0.1 for advantage in all_wrong)  # a gradient from shaping alone


def test_golds_that_cannot_be_graded_are_listed_and_left_out(lessons, caplog):
    good, other = lessons[0].problem, replace(lessons[1].problem, solution=r"\frac{1}{")
    dataset = grpo_dataset([other, good])
    assert dataset["problem_id"] == [good.id]
    assert f"row 0, problem {other.id}: left out" in caplog.text
    with pytest.raises(DataError, match="none of 1 golds can be graded"):
        grpo_dataset([other])


@pytest.mark.slow
def test_a_preset_without_rewards_is_refused(lessons, tiny_model, tmp_path):
    with pytest.raises(ConfigError, match="the preset has no reward_funcs"):
        build_grpo({}, [lesson.problem for lesson in lessons], model=tiny_model, out=tmp_path)
