"""GRPO: a preset and problems to TRL's own `GRPOTrainer`, with resume.

    trainer = build_grpo(preset, problems, model="runs/demo/sft-10", out="runs/demo/grpo")
    trainer.train()

Rollouts end at the same token as the submission: `STOP` joins the end-of-sequence tokens of the
model's generation config, which transformers and TRL's masks read, and of vLLM's requests.
"""

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path

from fastmath_kit.errors import ConfigError, unknown_name
from fastmath_kit.problems.prompts import stop_token_id
from fastmath_kit.problems.records import Problem
from fastmath_kit.training.data import grpo_dataset
from fastmath_kit.training.presets import field_types
from fastmath_kit.training.runs import OnProgress, run_callback
from fastmath_kit.training.sft import model_arguments, model_tokenizer, pick_fields


def grpo_fields() -> dict[str, str]:
    """Returns the fields a GRPO preset may hold: those of `trl grpo`."""
    from trl import GRPOConfig, ModelConfig, ScriptArguments
    from trl.scripts.grpo import GRPOScriptArguments

    return field_types(ScriptArguments, GRPOScriptArguments, GRPOConfig, ModelConfig)


def build_grpo(
    preset: Mapping,
    problems: Iterable[Problem],
    *,
    model: str | Path,
    out: str | Path,
    on_progress: OnProgress | None = None,
):
    """Returns a `GRPOTrainer` whose rewards are the preset's `reward_funcs`.

    Args:
        preset: Fields of TRL's `GRPOConfig`, `ModelConfig` and `reward_funcs`, dotted paths.
        problems: Problems with solutions.
        model: Model folder or hub name, usually the last SFT checkpoint.
        out: Run folder.
        on_progress: Called with (steps done, steps in all).

    Raises:
        ConfigError: a reward cannot be imported.
    """
    from trl import GRPOConfig, GRPOTrainer

    rewards = [import_reward(path) for path in preset.get("reward_funcs") or ()]
    if not rewards:
        raise ConfigError("the preset has no reward_funcs. Name at least one by its dotted path.")
    tokenizer = model_tokenizer(model)
    arguments = model_arguments(preset, model)
    end_at_stop(arguments["model"], tokenizer)
    config = pick_fields(preset, GRPOConfig) | {"output_dir": str(out)}
    if config.get("use_vllm"):  # vLLM reads the folder's generation config, not the model's
        stop = {"stop_token_ids": [stop_token_id(tokenizer)]}
        config["generation_kwargs"] = (config.get("generation_kwargs") or {}) | stop
    return GRPOTrainer(
        **arguments,
        args=GRPOConfig(**config),
        reward_funcs=rewards,
        train_dataset=grpo_dataset(problems),
        processing_class=tokenizer,
        callbacks=[run_callback(preset, on_progress=on_progress)],
    )


def import_reward(path: str) -> Callable:
    """Returns the reward at a dotted path such as `trl.rewards.accuracy_reward`.

    Raises:
        ConfigError: there is no such module or name; the message holds the nearest name.
    """
    module_name, _, name = path.rpartition(".")
    try:
        module = import_module(module_name)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"reward_funcs: cannot import {path!r} ({error}). Give a dotted path such as "
            "fastmath_kit.training.rewards.short_correct_reward."
        ) from error
    if not hasattr(module, name):
        rewards = [known for known in dir(module) if known.endswith("_reward")]
        raise ConfigError(f"reward_funcs: {unknown_name('reward', path, _paths(module, rewards))}")
    return getattr(module, name)


def _paths(module, names: Iterable[str]) -> list[str]:
    return [f"{module.__name__}.{name}" for name in names]


def paper_cosine_reward(
    completions: list, solution: list[str], completion_ids: list[list[int]], **kwargs
) -> list[float | None]:
    """TRL's cosine reward with the paper's bounds: right 1.0 to 0.1, wrong -1.0 to -0.1, by length.

    Lengths are tokens of the paper's 16,384. Source: arXiv 2507.08267.
    """
    from trl.rewards import get_cosine_scaled_reward

    reward = get_cosine_scaled_reward(max_len=16_384, max_value_wrong=-0.1, min_value_correct=0.1)
    return reward(completions, solution, completion_ids, **kwargs)


def end_at_stop(model, tokenizer) -> None:
    """Adds `STOP` to the tokens that end this model's completions."""
    known = model.generation_config.eos_token_id
    known = [known] if isinstance(known, int) else list(known or [])
    ends = [*known, tokenizer.eos_token_id, stop_token_id(tokenizer)]
    model.generation_config.eos_token_id = list(dict.fromkeys(ends))
