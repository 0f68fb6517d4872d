"""Where a notebook runs: mounts, accelerators, the hidden rerun or not.

Kaggle mounts inputs in two layouts and has changed them before, so nothing here is hard-coded to
one: paths are searched, and an error lists what was found instead.

    find_mount("competition", "ai-mathematical-olympiad-progress-prize-3") / "test.csv"
    check_gpus(load_competition("aimo3"))  # None, or one line that says what is wrong
"""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fastmath_kit.errors import ConfigError, unknown_name
from fastmath_kit.problems.competition import Competition

INPUT_ROOT = Path("/kaggle/input")
_NVIDIA_SMI = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU as the driver reports it.

    Attributes:
        name: For example `NVIDIA H100 80GB HBM3`.
        memory: For example `81559 MiB`.
    """

    name: str
    memory: str


def is_rerun() -> bool:
    """Whether this is the hidden run that is scored."""
    return bool(os.environ.get("KAGGLE_IS_COMPETITION_RERUN"))


def find_mount(kind: str, name: str, *, root: str | Path = INPUT_ROOT) -> Path:
    """Returns the folder where an input of this notebook is mounted.

    Args:
        kind: `competition`, `dataset`, `notebook` (a kernel's output) or `model`.
        name: The slug of a competition; `owner/slug` or the slug of a dataset or notebook;
            `owner/model/framework/variation[/version]` of a model, where the newest version mounted
            is taken if none is named.
        root: Folder of all mounts.

    Raises:
        ConfigError: unknown kind, a malformed name, or nothing mounted under it.
    """
    root = Path(root)
    for candidate in _candidates(kind, name):
        if found := [path for path in root.glob(candidate) if path.is_dir()]:
            return max(found, key=_version)
    mounted = sorted(str(path.relative_to(root)) for path in root.glob("*") if path.is_dir())
    raise ConfigError(
        f"no {kind} {name!r} is mounted under {root}. Found: {', '.join(mounted) or 'nothing'}. "
        "Add it under Input of the notebook or in kernel-metadata.json."
    )


def _candidates(kind: str, name: str) -> list[str]:
    """Returns glob patterns of both layouts, the older layout first."""
    parts = name.split("/")
    if kind == "competition" and len(parts) == 1:
        return [name, f"competitions/{name}"]
    if kind in {"dataset", "notebook"} and len(parts) in {1, 2}:
        owner = parts[0] if len(parts) == 2 else "*"
        return [parts[-1], f"{kind}s/{owner}/{parts[-1]}"]
    if kind == "model" and len(parts) in {4, 5}:
        owner, model, framework, variation = parts[:4]
        version = parts[4] if len(parts) == 5 else "*"
        rest = f"{model}/{framework.lower()}/{variation}/{version}"
        return [rest, f"models/{owner}/{rest}"]
    if kind not in (kinds := ("competition", "dataset", "model", "notebook")):
        raise ConfigError(unknown_name("kind of input", kind, kinds))
    raise ConfigError(
        f"{name!r} is not the name of a {kind}. Write a competition as slug, a dataset or notebook "
        "as owner/slug, a model as owner/model/framework/variation[/version]."
    )


def _version(path: Path) -> tuple[int, str]:
    return (int(path.name), "") if path.name.isdecimal() else (-1, path.name)


def gpus() -> list[Gpu]:
    """Returns the GPUs that `nvidia-smi` lists, none where there is no driver."""
    try:
        listing = subprocess.run(_NVIDIA_SMI, capture_output=True, text=True, timeout=60)
    except (FileNotFoundError, PermissionError, subprocess.TimeoutExpired):
        return []
    if listing.returncode != 0:
        return []
    rows = [line.rpartition(",") for line in listing.stdout.splitlines() if "," in line]
    return [Gpu(name=name.strip(), memory=memory.strip()) for name, _, memory in rows]


def check_gpus(competition: Competition) -> str | None:
    """Returns one line if the GPUs here are not those the competition allots, else None."""
    found = gpus()
    chip = re.sub(r"^Nvidia(Tesla)?|X1$", "", competition.gpu)  # NvidiaTeslaP100 is a P100
    words = r"\s*".join(re.findall(r"[A-Z][a-z]*|[0-9]+", chip))  # RtxPro6000 is an RTX PRO 6000
    pattern = re.compile(rf"{words}(?![0-9])", re.IGNORECASE)  # an L40S is no L4
    matching = [gpu for gpu in found if pattern.search(gpu.name)]
    if len(matching) == len(found) == competition.num_gpus:
        return None
    seen = ", ".join(f"{gpu.name} ({gpu.memory})" for gpu in found) or "no GPU"
    return (
        f"{competition.name} is scored on {competition.num_gpus} x {competition.gpu}, this session "
        f"has {seen}. Choose the accelerator in the notebook's settings or set machine_shape in "
        "kernel-metadata.json."
    )
