"""Predicts how long a model's completions of a problem will be: an encoder reads its statement.

    result = train_length("length_modernbert", model="answerdotai/ModernBERT-base",
                          data="runs/length/length.parquet", out="runs/length/encoder")
    predictor = load_length(result["checkpoint"])
    predictor.predict(["What is $7-2$?"])  # [LengthPrediction(mean_tokens=…, sd_log=…)]

As in arXiv 2507.08267 it is a regression on the first 256 tokens of the statement. The head gives
mean and log standard deviation of the logarithm of tokens, and the loss is the negative
log-likelihood of all recorded traces, so that the spread is learned too. A preset that names a
`hidden_size` trains a ModernBERT of that size from random weights over the model's tokenizer.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastmath_kit.errors import CheckpointError, ConfigError
from fastmath_kit.inference.model_folder import load_tokenizer, read_config
from fastmath_kit.problems.files import atomic_path
from fastmath_kit.training.length_encoder import (
    LOG_SD_RANGE,
    LengthConfig,
    build_length,
    length_fields,
)
from fastmath_kit.training.length_features import fit_features, fit_median
from fastmath_kit.training.length_labels import (
    LengthLabel,
    LengthPrediction,
    prediction,
    read_labels,
    split_labels,
)
from fastmath_kit.training.length_scores import error_difference, scores
from fastmath_kit.training.presets import load_preset
from fastmath_kit.training.runs import (
    OnProgress,
    check_output_folder,
    is_finished,
    run_trainer,
)
from fastmath_kit.training.sft import pick_fields

_BATCH = 64  # statements read at once


class LengthPredictor:
    """An encoder with its tokenizer, on the device it was put on."""

    def __init__(self, model, tokenizer, *, max_length: int) -> None:
        """Takes a sequence classifier whose config holds a `length_law`, and its tokenizer."""
        self._model, self._tokenizer, self._max_length = model, tokenizer, max_length

    def predict(self, problems: Sequence[str]) -> list[LengthPrediction]:
        """Returns a prediction for each statement."""
        import torch

        law = self._model.config.length_law
        found: list[LengthPrediction] = []
        with torch.inference_mode():
            for start in range(0, len(problems), _BATCH):
                tokens = self._tokenizer(
                    list(problems[start : start + _BATCH]),
                    truncation=True,
                    max_length=self._max_length,
                    padding=True,
                    return_tensors="pt",
                ).to(self._model.device)
                logits_P_2 = self._model(**tokens).logits.float()
                means_P = law["mean_log_tokens"] + law["sd_log_tokens"] * logits_P_2[:, 0]
                sds_P = law["sd_log_tokens"] * logits_P_2[:, 1].clamp(*LOG_SD_RANGE).exp()
                found += map(prediction, means_P.tolist(), sds_P.tolist())
        return found


def load_length(folder: str | Path, *, device: str = "cpu") -> LengthPredictor:
    """Returns the predictor of a checkpoint that `train_length` wrote.

    Args:
        folder: The checkpoint.
        device: Where it runs; one statement takes a CPU a fraction of a second.

    Raises:
        CheckpointError: it is no such checkpoint.
    """
    import yaml
    from transformers import AutoModelForSequenceClassification

    folder = Path(folder)
    if "length_law" not in read_config(folder) or not (folder / "preset.yaml").is_file():
        raise CheckpointError(
            f"{folder}: no length predictor. Give a checkpoint of `fastmath train length`."
        )
    preset = yaml.safe_load((folder / "preset.yaml").read_text(encoding="utf-8"))
    config = LengthConfig(**pick_fields(preset, LengthConfig))
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype="float32", use_safetensors=True, local_files_only=True
    )
    return LengthPredictor(model.to(device), load_tokenizer(folder), max_length=config.max_length)


def train_length(
    preset: str | Path,
    *,
    model: str | Path,
    data: str | Path,
    out: str | Path,
    overrides: Mapping[str, object] | None = None,
    resume: bool = False,
    on_progress: OnProgress | None = None,
) -> dict:
    """Trains a length predictor, tests it on held-out problems and returns both.

    The checkpoint holds `model.safetensors`, the tokenizer, `preset.yaml`, `versions.json` and,
    written last, `metrics.json`: the encoder, the regression on text features and the median of the
    training problems, all fitted on the same problems.

    Args:
        preset: Name of a preset of this package, or the path of a YAML file.
        model: As in `build_length`.
        data: What `write_labels` wrote.
        out: Run folder.
        overrides: Fields that win over the preset's.
        resume: Whether to go on from the last checkpoint in `out`.
        on_progress: Called with (steps done, steps in all).

    Returns:
        `checkpoint` (a folder), `steps`, `seconds` of this start and `metrics`.

    Raises:
        CheckpointError: no model, or `out` is a file or holds checkpoints and `resume` is False.
        ConfigError: the preset is wrong, or would save no checkpoint.
        DataError: the data is wrong or too little, or the disk is full.
    """
    labels = read_labels(data)
    if Path(out).exists() and not Path(out).is_dir():
        raise CheckpointError(f"{out}: is a file. Choose a folder with --out.")
    values = load_preset(preset, length_fields(), overrides=overrides)
    if values.get("save_strategy") == "no":
        raise ConfigError("save_strategy is 'no': nothing would be left of the run. Use 'epoch'.")
    config = LengthConfig(**pick_fields(values, LengthConfig))
    train, held_out = split_labels(labels, held_out=config.held_out, seed=values.get("seed", 42))
    checkpoint, seconds = check_output_folder(out, resume=resume), 0.0
    if not (checkpoint and is_finished(checkpoint, values)):
        trainer = build_length(values, train, model=model, out=out, on_progress=on_progress)
        done = run_trainer(trainer, out, checkpoint)
        checkpoint, seconds = done["checkpoint"], done["seconds"]
    return {
        "checkpoint": checkpoint,
        "steps": int(checkpoint.rpartition("-")[2]),
        "seconds": seconds,
        "metrics": _metrics(Path(checkpoint), train, held_out, device=_device(values)),
    }


def _metrics(
    checkpoint: Path, train: Sequence[LengthLabel], held_out: Sequence[LengthLabel], device: str
) -> dict:
    """Returns `metrics.json`, which is computed if the checkpoint has none yet."""
    path = checkpoint / "metrics.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    features = fit_features(train)
    predictors = {
        "encoder": load_length(checkpoint, device=device),
        "features": features,
        "median": fit_median(train),
    }
    problems = [label.problem for label in held_out]
    said = {name: predictor.predict(problems) for name, predictor in predictors.items()}
    truncated = [cut for label in held_out for cut in label.truncated]
    metrics = {
        "num_train": len(train),
        "num_held_out": len(held_out),
        "truncated_share": sum(truncated) / len(truncated),
        "features_penalty": features.penalty,
        **{name: scores(predictions, held_out) for name, predictions in said.items()},
        "encoder_minus_features": error_difference(said["encoder"], said["features"], held_out),
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    return metrics


def _device(preset: Mapping) -> str:
    import torch

    return "cuda" if torch.cuda.is_available() and not preset.get("use_cpu") else "cpu"
