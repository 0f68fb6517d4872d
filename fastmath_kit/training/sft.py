"""Trains by SFT: a preset and traces to TRL's own `SFTTrainer`, with resume.

A run is two lines:

    trainer = build_sft(preset, rows, model="runs/demo/base", out="runs/demo/sft")
    trainer.train(resume_from_checkpoint=check_output_folder("runs/demo/sft", resume=True))
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from fastmath_kit.inference.model_folder import load_tokenizer, read_config
from fastmath_kit.training.data import sft_dataset
from fastmath_kit.training.presets import field_types
from fastmath_kit.training.runs import OnProgress, run_callback


def sft_fields() -> dict[str, str]:
    """Returns the fields an SFT preset may hold: those of `trl sft`."""
    from trl import ModelConfig, ScriptArguments, SFTConfig

    return field_types(ScriptArguments, SFTConfig, ModelConfig)


def build_sft(
    preset: Mapping,
    rows: Iterable[Mapping],
    *,
    model: str | Path,
    out: str | Path,
    on_progress: OnProgress | None = None,
):
    """Returns an `SFTTrainer` whose loss is on completions only.

    Args:
        preset: Fields of TRL's `SFTConfig` and `ModelConfig`, from `load_preset`.
        rows: Traces with `problem` and `completion`.
        model: Model folder or hub name.
        out: Run folder.
        on_progress: Called with (steps done, steps in all).
    """
    from trl import SFTConfig, SFTTrainer

    tokenizer = model_tokenizer(model)
    config = pick_fields(preset, SFTConfig) | {"output_dir": str(out), "completion_only_loss": True}
    return SFTTrainer(
        **model_arguments(preset, model),
        args=SFTConfig(**config),
        train_dataset=sft_dataset(rows, tokenizer),
        processing_class=tokenizer,
        callbacks=[run_callback(preset, on_progress=on_progress)],
    )


def model_arguments(preset: Mapping, model: str | Path) -> dict:
    """Returns the trainer's `model`, loaded as `ModelConfig` says, and its `peft_config`."""
    from transformers import AutoModelForCausalLM
    from trl import ModelConfig, get_peft_config, get_quantization_config

    config = ModelConfig(**pick_fields(preset, ModelConfig) | {"model_name_or_path": str(model)})
    keywords = {"dtype": config.dtype, "attn_implementation": config.attn_implementation}
    if quantization := get_quantization_config(config):
        keywords |= {"quantization_config": quantization}
    keywords = {key: value for key, value in keywords.items() if value is not None}
    loaded = AutoModelForCausalLM.from_pretrained(
        model, revision=config.model_revision, use_safetensors=True, **keywords
    )
    return {"model": loaded, "peft_config": get_peft_config(config)}


def model_tokenizer(model: str | Path):
    """Returns the tokenizer of a model folder, checked first, or of a hub name."""
    from transformers import AutoTokenizer

    if Path(model).exists() or Path(model).is_absolute() or str(model).count("/") != 1:
        read_config(model)
        return load_tokenizer(model)
    return AutoTokenizer.from_pretrained(model)


def pick_fields(preset: Mapping, config: type) -> dict:
    """Returns the fields of `preset` that belong to one of TRL's config classes."""
    known = field_types(config)
    return {key: value for key, value in preset.items() if key in known}
