import pytest

from fastmath_kit.errors import ConfigError
from fastmath_kit.kaggle.environment import (
    Gpu,
    check_gpus,
    find_mount,
    gpus,
    is_rerun,
)
from fastmath_kit.problems.competition import load_competition


@pytest.mark.parametrize(
    ("kind", "name", "mounted"),
    [
        ("competition", "my-comp", "my-comp"),
        ("competition", "my-comp", "competitions/my-comp"),
        ("dataset", "me/wheels", "wheels"),
        ("dataset", "me/wheels", "datasets/me/wheels"),
        ("dataset", "wheels", "datasets/anyone/wheels"),
        ("notebook", "me/run", "notebooks/me/run"),
        ("model", "me/net/Transformers/w4/3", "net/transformers/w4/3"),
        ("model", "me/net/transformers/w4/3", "models/me/net/transformers/w4/3"),
        ("model", "me/net/transformers/w4", "models/me/net/transformers/w4/10"),  # the newest
    ],
)
def test_both_mount_layouts_are_found(tmp_path, kind, name, mounted):
    (tmp_path / mounted).mkdir(parents=True)
    (tmp_path / "models/me/net/transformers/w4/9").mkdir(parents=True)
    assert find_mount(kind, name, root=tmp_path) == tmp_path / mounted


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("competition", "my-comp", "Found: datasets, wheels. Add it under Input"),
        ("dataset", "me/other", "no dataset 'me/other' is mounted"),
        ("model", "net", "not the name of a model"),
        ("competition", "me/comp", "not the name of a competition"),
        ("modle", "me/net/a/b", "Did you mean 'model'?"),
    ],
)
def test_a_missing_mount_says_what_is_there(tmp_path, kind, name, message):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "datasets").mkdir()
    with pytest.raises(ConfigError) as raised:
        find_mount(kind, name, root=tmp_path)
    assert message in str(raised.value)


def test_without_a_mount_folder_nothing_is_found(tmp_path):
    with pytest.raises(ConfigError, match="Found: nothing"):
        find_mount("dataset", "me/wheels", root=tmp_path / "none")


@pytest.mark.parametrize(
    ("variables", "rerun"),
    [
        ({}, False),
        ({"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, False),
        ({"KAGGLE_KERNEL_RUN_TYPE": "Batch", "KAGGLE_IS_COMPETITION_RERUN": "1"}, True),
    ],
)
def test_the_hidden_run_is_known_by_kaggles_variable(monkeypatch, variables, rerun):
    for name in ("KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_IS_COMPETITION_RERUN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_rerun() == rerun


def install_driver(folder, monkeypatch, lines, *, status=0):
    listing = "".join(f"echo '{line}'\n" for line in lines)
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{listing}exit {status}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


H100 = "NVIDIA H100 80GB HBM3, 81559 MiB"
L4 = "NVIDIA L4, 23034 MiB"


@pytest.mark.parametrize(
    ("competition", "lines", "warning"),
    [
        ("aimo3", [H100], None),
        ("aimo2", [L4] * 4, None),
        ("aimo2", [L4] * 2, "4 x NvidiaL4, this session has NVIDIA L4 (23034 MiB), NVIDIA L4"),
        ("aimo2", ["NVIDIA L40S, 46068 MiB"] * 4, "this session has NVIDIA L40S"),  # not an L4
        ("aimo3", ["Tesla P100-PCIE-16GB, 16384 MiB"], "has Tesla P100-PCIE-16GB (16384 MiB)"),
        ("aimo3", [], "this session has no GPU"),
    ],
)
def test_the_wrong_gpus_are_one_warning(tmp_path, monkeypatch, competition, lines, warning):
    install_driver(tmp_path, monkeypatch, lines)
    told = check_gpus(load_competition(competition))
    assert (told is None) if warning is None else (warning in told and "\n" not in told)


def test_gpus_are_none_without_a_working_driver(tmp_path, monkeypatch):
    install_driver(tmp_path, monkeypatch, [H100], status=9)
    assert gpus() == []
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert gpus() == []


def test_gpus_are_listed(tmp_path, monkeypatch):
    install_driver(tmp_path, monkeypatch, [L4])
    assert gpus() == [Gpu(name="NVIDIA L4", memory="23034 MiB")]
