"""The encoder that reads a statement and gives the law of its completions' lengths, with its loss.

    trainer = build_length(preset, labels, model="answerdotai/ModernBERT-base", out="runs/length")
    trainer.train()

A sequence classifier of transformers with two outputs: the mean and the log standard deviation of
the logarithm of tokens, both relative to the law of all training traces, which stands in its
config as `length_law`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastmath_kit.errors import ConfigError
from fastmath_kit.training.length_labels import LengthLabel
from fastmath_kit.training.presets import field_types
from fastmath_kit.training.runs import OnProgress, run_callback
from fastmath_kit.training.sft import model_tokenizer, pick_fields

LOG_SD_RANGE = (-4.0, 2.0)  # of the second output; beyond it says nothing a trace could tell


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthConfig:
    """What a length preset holds besides fields of transformers' `TrainingArguments`.

    Attributes:
        max_length: Tokens of a statement; the rest is cut off.
        held_out: Share of the problems that are not trained on.
        hidden_size: Width of an encoder of random weights; None fine-tunes the model's own.
        intermediate_size: Of its MLPs.
        num_hidden_layers: Its layers.
        num_attention_heads: Its heads.
    """

    max_length: int = 256
    held_out: float = 0.2
    hidden_size: int | None = None
    intermediate_size: int = 128
    num_hidden_layers: int = 2
    num_attention_heads: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise ConfigError(f"held_out is a share in (0, 1), got {self.held_out}.")
        if self.max_length < 1:
            raise ConfigError(f"max_length must be positive, got {self.max_length}.")
        if self.hidden_size is not None and self.hidden_size % (2 * self.num_attention_heads):
            raise ConfigError(
                f"hidden_size must be a multiple of twice num_attention_heads, got "
                f"{self.hidden_size} and {self.num_attention_heads}."
            )


def length_fields() -> dict[str, str]:
    """Returns the fields a length preset may hold."""
    from transformers import TrainingArguments

    return field_types(TrainingArguments, LengthConfig)


def build_length(
    preset: Mapping,
    labels: Sequence[LengthLabel],
    *,
    model: str | Path,
    out: str | Path,
    on_progress: OnProgress | None = None,
):
    """Returns transformers' `Trainer` of a length predictor.

    Args:
        preset: Fields of `TrainingArguments` and `LengthConfig`, from `load_preset`.
        labels: What to train on.
        model: Model folder or hub name; its tokenizer, and its weights unless the preset names a
            `hidden_size`.
        out: Run folder.
        on_progress: Called with (steps done, steps in all).
    """
    from datasets import Dataset
    from transformers import Trainer, TrainingArguments, set_seed

    config = LengthConfig(**pick_fields(preset, LengthConfig))
    args = TrainingArguments(**pick_fields(preset, TrainingArguments) | {"output_dir": str(out)})
    tokenizer = model_tokenizer(model)
    law = _law(labels)
    set_seed(args.seed)
    tokens = tokenizer(
        [label.problem for label in labels], truncation=True, max_length=config.max_length
    )
    targets = [
        [(label.mean_log_tokens - law["mean_log_tokens"]), label.sd_log_tokens] for label in labels
    ]
    scaled = [[value / law["sd_log_tokens"] for value in row] for row in targets]
    return Trainer(
        model=_encoder(config, model, tokenizer, law),
        args=args,
        train_dataset=Dataset.from_dict({**tokens, "labels": scaled}),
        processing_class=tokenizer,
        compute_loss_func=traces_nll,
        callbacks=[run_callback(preset, on_progress=on_progress)],
    )


def _law(labels: Sequence[LengthLabel]) -> dict[str, float]:
    """Returns the law of all traces' log lengths, to which the head's outputs are relative."""
    means = [label.mean_log_tokens for label in labels]
    mean = sum(means) / len(means)
    squares = [(m - mean) ** 2 + x.sd_log_tokens**2 for m, x in zip(means, labels, strict=True)]
    sd = math.sqrt(sum(squares) / len(squares))
    return {"mean_log_tokens": mean, "sd_log_tokens": max(sd, 1e-3)}


def _encoder(config: LengthConfig, model: str | Path, tokenizer, law: dict[str, float]):
    """Returns a sequence classifier with two outputs: the model's own, or one of random weights."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, ModernBertConfig

    if config.hidden_size is None:
        loaded = AutoConfig.from_pretrained(model, num_labels=2)
        loaded.length_law = law
        return AutoModelForSequenceClassification.from_pretrained(
            model, config=loaded, dtype="float32", use_safetensors=True
        )
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"))
    scratch = ModernBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        max_position_embeddings=config.max_length,
        pad_token_id=tokenizer.pad_token_id,
        classifier_pooling="mean",
        num_labels=2,
        length_law=law,
        **special,
    )
    return AutoModelForSequenceClassification.from_config(scratch)


def traces_nll(outputs, labels, num_items_in_batch=None):
    """Returns the mean negative log-likelihood of the recorded traces under the predicted laws.

    All traces of a problem enter through their mean and standard deviation, which are sufficient;
    each problem counts the same. `num_items_in_batch` counts two values a problem.
    """
    mean, log_sd = outputs.logits.float().unbind(dim=-1)
    log_sd = log_sd.clamp(*LOG_SD_RANGE)
    recorded_mean, recorded_sd = labels.float().unbind(dim=-1)
    squares = (mean - recorded_mean) ** 2 + recorded_sd**2
    losses = log_sd + 0.5 * squares / (2 * log_sd).exp()
    return losses.mean() if num_items_in_batch is None else 2 * losses.sum() / num_items_in_batch
