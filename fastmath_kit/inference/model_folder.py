"""Looks into a model folder before a heavy library does: a wrong one costs one clear line."""

import json
from pathlib import Path

from fastmath_kit.errors import CheckpointError

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def read_config(model: str | Path) -> dict:
    """Returns the config.json of a folder that holds a model's safetensors weights.

    Raises:
        CheckpointError: the folder, its config or its weights are missing or damaged.
    """
    folder = Path(model)
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: no such model folder. Give the folder that holds config.json."
        )
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder}: no config.json, so this is no model folder.")
    if next(folder.glob("*.safetensors"), None) is None:
        raise CheckpointError(
            f"{folder}: no *.safetensors weights. Save the model with save_pretrained; a LoRA "
            "adapter must be merged first."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error}). Copy the model again.") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: expected an object. Save or copy the model again.")
    return config


def has_four_bit_weights(config: dict) -> bool:
    """Whether a config describes 4-bit quantized weights (compressed-tensors, GPTQ or AWQ).

    >>> has_four_bit_weights({"quantization_config": {"bits": 4}}), has_four_bit_weights({})
    (True, False)
    """
    quantization = config.get("quantization_config") or {}
    groups = (quantization.get("config_groups") or {}).values()
    widths = [(group.get("weights") or {}).get("num_bits") for group in groups]
    return 4 in [quantization.get("bits"), *widths]


def load_tokenizer(model: str | Path):
    """Returns the transformers tokenizer of a model folder.

    Raises:
        CheckpointError: the folder has none, or it is damaged.
    """
    from transformers import AutoTokenizer

    hint = "Copy tokenizer.json and tokenizer_config.json into it."
    if not any((Path(model) / name).is_file() for name in _TOKENIZER_FILES):
        raise CheckpointError(f"{model}: no tokenizer. {hint}")  # transformers invents an empty one
    try:
        return AutoTokenizer.from_pretrained(str(model), local_files_only=True)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{model}: its tokenizer is damaged ({reason}). {hint}") from error
