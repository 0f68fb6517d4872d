import json

import pytest
import yaml

from fastmath_kit.errors import CheckpointError
from fastmath_kit.training import runs
from fastmath_kit.training.runs import (
    check_output_folder,
    git_commit,
    remove_unfinished,
    versions,
    write_provenance,
)


def make_checkpoint(out, step, *, finished=True):
    folder = out / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text("")
    if finished:
        write_provenance(folder, {"max_steps": 4})
    return folder


def test_versions_name_what_a_result_depends_on():
    found = versions()
    assert {"python", "fastmath_kit", "torch", "trl", "transformers", "numpy"} <= found.keys()
    json.dumps(found)


def test_the_commit_is_short_or_unknown(tmp_path, monkeypatch):
    commit = git_commit()
    assert commit is None or len(commit.rstrip("+")) >= 7
    monkeypatch.setattr(runs, "__file__", str(tmp_path / "runs.py"))  # not in a checkout
    assert git_commit() is None
    monkeypatch.setenv("PATH", "")  # no git at all
    assert git_commit() is None


def test_provenance_is_readable_again(tmp_path):
    folder = make_checkpoint(tmp_path, 2)
    assert yaml.safe_load((folder / "preset.yaml").read_text()) == {"max_steps": 4}
    record = json.loads((folder / "versions.json").read_text())
    assert record.keys() == {"versions", "commit"}


def test_a_fresh_folder_starts_from_nothing(tmp_path):
    for resume in (False, True):
        assert check_output_folder(tmp_path / "new", resume=resume) is None
        assert check_output_folder(tmp_path, resume=resume) is None
    assert not (tmp_path / "new").exists()


def test_checkpoints_are_never_overwritten_and_the_last_one_is_resumed(tmp_path):
    for step in (9, 10):
        make_checkpoint(tmp_path, step)
    with pytest.raises(CheckpointError, match=r"already holds checkpoint-10\. Resume it"):
        check_output_folder(tmp_path, resume=False)
    assert check_output_folder(tmp_path, resume=True) == str(tmp_path / "checkpoint-10")


def test_a_half_written_checkpoint_is_not_resumed(tmp_path):
    """A run killed while it saved: the files of the last checkpoint are incomplete."""
    finished = make_checkpoint(tmp_path, 2)
    half = make_checkpoint(tmp_path, 4, finished=False)
    with pytest.raises(CheckpointError):
        check_output_folder(tmp_path, resume=False)
    assert half.exists()  # nothing is touched without --resume
    assert check_output_folder(tmp_path, resume=True) == str(finished)
    assert not half.exists()


def test_removing_what_is_unfinished_keeps_the_rest(tmp_path):
    (tmp_path / "log.jsonl").write_text("")
    finished = make_checkpoint(tmp_path, 2)
    remove_unfinished(tmp_path)
    remove_unfinished(tmp_path / "nowhere")
    assert finished.exists() and (tmp_path / "log.jsonl").exists()
