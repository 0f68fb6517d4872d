"""Quantizes a model with llm-compressor, so that it fits the competition's GPUs.

    quantize("runs/demo/grpo", "gptq-w4a16", "runs/demo/w4a16", calibration_texts=texts)

The result is a compressed-tensors folder that vLLM serves as it is. Calibrate on the model's own
traces, prompts included: the activations that matter are those of reasoning.
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fastmath_kit.errors import CheckpointError, ConfigError, DataError, unknown_name
from fastmath_kit.inference.model_folder import load_tokenizer, read_config

_SCHEMES = {"gptq-w4a16": "W4A16", "gptq-w8a8": "W8A8"}
_EXTRA_FILES = ("generation_config.json", "chat_template.jinja")


def recipe_names() -> list[str]:
    """Returns the recipes: GPTQ with 4-bit weights, or with 8-bit weights and activations."""
    return sorted(_SCHEMES)


def quantize(
    model: str | Path,
    recipe: str,
    out: str | Path,
    *,
    calibration_texts: Sequence[str],
    max_tokens: int = 2_048,
) -> Path:
    """Writes a quantized copy of a model folder.

    Args:
        model: Folder of a merged model, no adapter.
        recipe: One of `recipe_names()`.
        out: Folder to write; it must not exist.
        calibration_texts: Prompts with their completions, as text. 128 to 512 are usual.
        max_tokens: Longer calibration texts are cut.

    Raises:
        ConfigError: unknown recipe.
        CheckpointError: `model` is no model folder, or `out` exists.
        DataError: no calibration texts.
    """
    if recipe not in _SCHEMES:
        raise ConfigError(unknown_name("quantization recipe", recipe, _SCHEMES))
    if not calibration_texts:
        raise DataError("calibration_texts is empty. Give some traces of the model.")
    if Path(out).exists():
        raise CheckpointError(
            f"{out}: already exists and is not overwritten. Choose another folder."
        )
    read_config(model)
    tokenizer = load_tokenizer(model)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=Path(out).parent, prefix=".quantize-") as folder:
        written = Path(folder) / "model"
        _compress(model, _SCHEMES[recipe], written, tokenizer, calibration_texts, max_tokens)
        tokenizer.save_pretrained(written)
        for name in _EXTRA_FILES:
            if (Path(model) / name).is_file():
                shutil.copy(Path(model) / name, written)
        written.rename(out)
    return Path(out)


def _compress(model, scheme: str, out: Path, tokenizer, texts: Sequence[str], max_tokens: int):
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype="auto", use_safetensors=True)
    rows = [{"input_ids": tokenizer(t, add_special_tokens=False)["input_ids"]} for t in texts]
    for row in rows:
        row["input_ids"] = row["input_ids"][:max_tokens]
        row["attention_mask"] = [1] * len(row["input_ids"])
    oneshot(
        model=loaded,
        dataset=Dataset.from_list(rows),
        recipe=GPTQModifier(targets="Linear", scheme=scheme, ignore=["lm_head"]),
        num_calibration_samples=len(rows),
        max_seq_length=max_tokens,
    )
    loaded.save_pretrained(out, save_compressed=True)
