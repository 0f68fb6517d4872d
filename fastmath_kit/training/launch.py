"""One training run from files to a checkpoint: what `fastmath train` does, in one call.

    train("sft", "sft_tiny", model="runs/demo/base", data="traces.jsonl", out="runs/sft")

Notebooks that want the trainer itself call `build_sft` and `build_grpo`.
"""

from collections.abc import Mapping
from pathlib import Path

from fastmath_kit.errors import CheckpointError, ConfigError
from fastmath_kit.problems.records import read_problems
from fastmath_kit.training.data import read_sft_rows
from fastmath_kit.training.presets import load_preset
from fastmath_kit.training.runs import (
    OnProgress,
    check_output_folder,
    is_finished,
    run_trainer,
)


def train(
    stage: str,
    preset: str | Path,
    *,
    model: str | Path,
    data: str | Path,
    out: str | Path,
    overrides: Mapping[str, object] | None = None,
    resume: bool = False,
    on_progress: OnProgress | None = None,
) -> dict:
    """Trains a model and returns where it is and how training went.

    Args:
        stage: `sft`, `grpo` or `length`.
        preset: Name of a preset of this package, or the path of a YAML file.
        model: Model folder or hub name.
        data: For `sft` what `read_sft_rows` takes, for `grpo` a problem file with answers, for
            `length` what `write_labels` wrote.
        out: Run folder.
        overrides: Fields that win over the preset's.
        resume: Whether to go on from the last checkpoint in `out`; without one it starts afresh.
        on_progress: Called with (steps done, steps in all).

    Returns:
        `checkpoint` (the last one's folder), `steps` and `seconds` of this start; for `length` also
        `metrics`.

    Raises:
        CheckpointError: no model, or `out` is a file or holds checkpoints and `resume` is False.
        ConfigError: the preset is wrong, or would save no checkpoint.
        DataError: the data is wrong, the message names the row and the column; or the disk is full.
    """
    if stage not in ("sft", "grpo", "length"):
        raise ConfigError(f"stage must be 'sft', 'grpo' or 'length', got {stage!r}.")
    options = {"overrides": overrides, "resume": resume, "on_progress": on_progress}
    if stage == "length":
        from fastmath_kit.training.length import train_length

        return train_length(preset, model=model, data=data, out=out, **options)
    rows = read_sft_rows(data) if stage == "sft" else read_problems(data)
    if Path(out).exists() and not Path(out).is_dir():
        raise CheckpointError(f"{out}: is a file. Choose a folder with --out.")
    if stage == "sft":
        from fastmath_kit.training.sft import build_sft as build
        from fastmath_kit.training.sft import sft_fields as fields
    else:
        from fastmath_kit.training.grpo import build_grpo as build
        from fastmath_kit.training.grpo import grpo_fields as fields
    values = load_preset(preset, fields(), overrides=overrides)
    if values.get("save_strategy") == "no":
        raise ConfigError("save_strategy is 'no': nothing would be left of the run. Use 'steps'.")
    checkpoint = check_output_folder(out, resume=resume)
    if checkpoint and is_finished(checkpoint, values):
        steps = int(checkpoint.rpartition("-")[2])
        return {"checkpoint": checkpoint, "steps": steps, "seconds": 0.0}
    trainer = build(values, rows, model=model, out=out, on_progress=on_progress)
    return run_trainer(trainer, out, checkpoint)
