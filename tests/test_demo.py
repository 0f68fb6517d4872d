"""The demo on a handful of problems: every stage runs, and a stopped demo continues."""

import json
import shutil

import pytest

from fastmath_kit import demo
from fastmath_kit.errors import ConfigError
from fastmath_kit.training import presets


@pytest.fixture
def short(monkeypatch):
    """Shrinks the demo's data and steps, not its code."""
    for name, value in {"NUM_TRAIN": 64, "NUM_HELD_OUT": 4, "K": 2, "NUM_REHEARSED": 1}.items():
        monkeypatch.setattr(demo, name, value)
    monkeypatch.setattr(demo, "NUM_CALIBRATION", 8)
    load = presets.load_preset
    steps = {"grpo_tiny": {"max_steps": 2, "save_steps": 2, "per_device_train_batch_size": 8}}

    def load_short(name, known):
        return load(name, known, overrides=steps.get(name))

    monkeypatch.setattr(presets, "load_preset", load_short)


def test_a_file_in_place_of_the_run_folder(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(ConfigError, match="is a file"):
        demo.run_demo(tmp_path / "out")


@pytest.mark.slow
def test_the_demo_continues_where_it_was_stopped(tmp_path, short, monkeypatch, capfd):
    out = tmp_path / "demo"
    with monkeypatch.context() as patch:
        patch.setattr(demo._Demo, "train_grpo", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            demo.run_demo(out)
    assert not (out / "report.json").exists()
    trained_ns = (out / "sft-10" / "model.safetensors").stat().st_mtime_ns
    shutil.rmtree(out / "evaluation" / "sft-4")  # a stage whose output is lost runs again

    report = demo.run_demo(out)

    assert (out / "sft-10" / "model.safetensors").stat().st_mtime_ns == trained_ns
    assert "sft: finished before" in capfd.readouterr().err
    assert report == json.loads((out / "report.json").read_text())
    assert [stage["name"] for stage in report["stages"]] == list(demo.STAGES)
    assert {stage["num_problems"] for stage in report["stages"]} == {4}
    assert set(report["grpo_vs_sft"]) == {"token_change", "accuracy_change", "accuracy_change_ci95"}
    assert report["rehearsal"]["num_problems"] == 4  # the three toys and one
    assert len(report["rehearsal"]["toy_answers"]) == 3
    assert sum(report["rehearsal"]["stop_reasons"].values()) == 4
    _check_submission(report["rehearsal"]["submission"])
    page = (out / "report.html").read_text()
    assert "w8a8" in page and "data:image/png" in page
    assert not list(out.glob(".*")), "half-written folders stay behind"


def _check_submission(path):
    import polars as pl

    submission = pl.read_parquet(path)
    assert submission.schema == {"id": pl.String, "answer": pl.Int64}
    assert submission.height == 4


def _interrupt(self, on_progress):
    raise KeyboardInterrupt
