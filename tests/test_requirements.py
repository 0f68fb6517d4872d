"""The pinned requirements agree with each other, with pyproject.toml, and name no registry."""

import ast
import importlib.util
import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "requirements"
FILES = ["cpu.txt", "gpu.txt", "torch-cpu.txt", "vllm-cpu.txt"]
CUDA_ONLY = re.compile(r"nvidia-|cuda-|triton$|torch|vllm$")


def name_of(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).lower()


def pins(file: str) -> dict[str, str]:
    lines = (FOLDER / file).read_text().replace("\\\n", "").splitlines()
    found = [line.split()[0].partition("==") for line in lines]
    return {name_of(name): version for name, _, version in found}


@pytest.mark.parametrize("file", FILES)
def test_every_line_is_one_exact_pin(file):
    lines = (FOLDER / file).read_text().replace("\\\n", "").splitlines()
    for line in lines:
        assert re.fullmatch(r"[\w.\-]+==[\w.+!]+( +--hash=sha256:[0-9a-f]{64})*", line), line
    assert len({name_of(line.partition("==")[0]) for line in lines}) == len(lines) > 0


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_no_file_names_a_registry_or_a_machine(path):
    if path.is_file():
        text = path.read_text()
        for word in ("://", "--index-url", "--extra-index-url", "--find-links", "/home/", "/root/"):
            assert word not in text


def test_cpu_and_gpu_agree():
    cpu, gpu = pins("cpu.txt"), pins("gpu.txt")
    differ = {name: (cpu[name], gpu[name]) for name in cpu.keys() & gpu if cpu[name] != gpu[name]}
    assert differ == {}
    only_cpu = cpu.keys() - gpu
    assert only_cpu == {"intel-openmp", "intel-cmplr-lib-ur"}  # vllm-cpu's own
    assert pins("torch-cpu.txt") == {"torch": gpu["torch"] + "+cpu"}
    assert pins("vllm-cpu.txt") == {"vllm-cpu": gpu["vllm"]}


def test_cpu_leaves_out_what_only_cuda_needs():
    # torchvision and torchaudio of the registry are built for CUDA and break `import transformers`.
    assert [name for name in pins("cpu.txt") if CUDA_ONLY.match(name)] == []
    assert {"torch", "torchvision", "triton", "vllm"} < pins("gpu.txt").keys()


def test_the_community_build_of_vllm_is_pinned_by_hash():
    assert "--hash=sha256:" in (FOLDER / "vllm-cpu.txt").read_text()


def test_pyproject_agrees_with_the_pins():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    gpu = pins("gpu.txt")
    for line in lines:
        name = name_of(re.match(r"[\w.\-]+", line).group())
        assert name in gpu, f"{line} is not in requirements/: run `make lock`"
        if "==" in line:
            assert gpu[name] == line.partition("==")[2], f"{line}: run `make lock`"


def test_the_project_installs_offline():
    assert {"hatchling", "editables", "pathspec", "trove-classifiers"} < pins("cpu.txt").keys()


@pytest.fixture
def installer(tmp_path, monkeypatch):
    """Set-up in a copy of the project's files, with every download replaced by a note of it."""
    spec = importlib.util.spec_from_file_location("installer", FOLDER / "install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in module.INPUTS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").mkdir()
    module.installed = []
    monkeypatch.setattr(module, "ROOT", str(tmp_path))
    monkeypatch.setattr(module, "STAMP", str(tmp_path / ".venv" / ".installed"))
    monkeypatch.setattr(module, "create_venv", lambda: None)
    monkeypatch.setattr(module, "install", module.installed.append)
    monkeypatch.delenv("VLLM_WHEEL", raising=False)
    return module


def test_set_up_skips_what_is_current_and_sees_every_edit(installer, tmp_path):
    installer.main()
    installer.main()
    assert installer.installed == [""]  # once
    for num_installs, name in enumerate(installer.INPUTS, start=2):
        with (tmp_path / name).open("a") as file:
            file.write("# edited")
        installer.main()
        installer.main()
        assert len(installer.installed) == num_installs, name


def test_an_interrupted_set_up_is_not_taken_for_current(installer, monkeypatch):
    def stop(vllm_wheel):
        raise KeyboardInterrupt

    installer.main()
    wheel = FOLDER / "cpu.txt"  # any file: an official vLLM wheel in place of the community's
    monkeypatch.setenv("VLLM_WHEEL", str(wheel))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(installer, "install", stop)
        installer.main()
    monkeypatch.delenv("VLLM_WHEEL")
    installer.main()  # what stood before may be half replaced
    assert installer.installed == ["", ""]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("version_info", (3, 10, 4), "Python 3.11 or newer is needed"),
        ("platform", "darwin", "for Linux on x86-64"),
    ],
)
def test_set_up_says_what_the_machine_lacks(installer, monkeypatch, capsys, name, value, message):
    monkeypatch.setattr(sys, name, value)
    with pytest.raises(SystemExit) as end:
        installer.check_machine()
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_old_python_can_read_the_message():
    ast.parse((FOLDER / "install.py").read_text(), feature_version=(3, 7))
