"""Imports point one way, each heavy library has one owner, and starting is fast and light."""

import ast
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fastmath_kit"
MODULES = sorted(PACKAGE.rglob("*.py"))

# What a room may import, besides itself and `errors`.
BELOW_DISPLAY = {"problems"}
BELOW_INFERENCE = {"budget", "display", *BELOW_DISPLAY}
BELOW_EVALUATION = {"inference", *BELOW_INFERENCE}
ALLOWED = {
    "errors": set(),
    "problems": set(),
    "budget": BELOW_DISPLAY,
    "display": BELOW_DISPLAY,
    "inference": BELOW_INFERENCE,
    "evaluation": BELOW_EVALUATION,
    "training": BELOW_EVALUATION,
    "kaggle": {"evaluation", "training", *BELOW_EVALUATION},
}
# These may import every room.
ON_TOP = {"cli", "cli_length", "cli_budget", "cli_evaluate", "demo", "tiny", "__init__"}

OWNERS = {
    "vllm": ("inference/vllm_core.py",),
    "httpx": ("inference/endpoint_server.py",),
    "trl": ("training/sft.py", "training/grpo.py"),
    "peft": ("training/sft.py", "training/grpo.py"),
    "llmcompressor": ("training/quantize.py",),
    "kaggle": ("kaggle/",),
    "kagglehub": ("kaggle/",),
    "kaggle_evaluation": ("kaggle/",),
    "grpc": ("kaggle/",),
    "ipywidgets": ("display/",),
}
SLOW = {"torch", "transformers", "datasets", "polars", "pandas", "matplotlib", "math_verify"}
SLOW |= {"sympy", "pyarrow", "papermill", "nbformat", "rich", *OWNERS}


def imports_of(path: Path, *, outside_functions: bool = False) -> Iterator[str]:
    """Yields the dotted name of every module that a file imports."""
    nodes = [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if outside_functions and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        nodes.extend(ast.iter_child_nodes(node))


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(path: Path) -> str:
    return relative(path).partition("/")[0].removesuffix(".py")


def test_every_room_has_a_rule():
    rooms = {room_of(path) for path in MODULES}
    assert rooms <= ALLOWED.keys() | ON_TOP


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_room_imports_only_rooms_below_it(path):
    room = room_of(path)
    if room in ON_TOP:
        return
    names = [name.split(".") for name in imports_of(path)]
    used = {parts[1] for parts in names if parts[0] == "fastmath_kit" and len(parts) > 1}
    assert used <= ALLOWED[room] | {room, "errors", "__version__"}


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_each_heavy_library_has_one_owner(path):
    for name in imports_of(path):
        owners = OWNERS.get(name.partition(".")[0])
        assert owners is None or relative(path).startswith(owners), f"{name} belongs to {owners}"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_heavy_libraries_are_imported_inside_functions(path):
    top = {name.partition(".")[0] for name in imports_of(path, outside_functions=True)}
    assert top & SLOW == set()


@pytest.mark.parametrize("room", ["problems", "budget"])
def test_pure_rooms_use_no_ml_library(room):
    used = {name.partition(".")[0] for p in (PACKAGE / room).glob("*.py") for name in imports_of(p)}
    assert (
        used & {"torch", "transformers", "datasets", "vllm", "trl", "peft", "accelerate"} == set()
    )


def run_python(code: str) -> tuple[str, float]:
    """Returns what the code prints and the CPU seconds it took, the same on a busy machine."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


HELP = "import sys; sys.argv = ['fastmath', '--help']\nfrom fastmath_kit.cli import main\n"
HELP += "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"


@pytest.mark.parametrize(
    ("code", "limit_s"), [("import fastmath_kit\n", 0.2), (HELP, 0.6)], ids=["import", "help"]
)
def test_starting_is_light_and_fast(code, limit_s):
    loaded, _ = run_python(code + "import sys; print(*sys.modules)")
    assert {name.partition(".")[0] for name in loaded.split()} & SLOW == set()
    assert statistics.median(run_python(code)[1] for _ in range(3)) < limit_s
