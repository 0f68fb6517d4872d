"""The rules of size and safety that ruff does not check."""

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "fastmath_kit").rglob("*.py"))
OURS = PACKAGE + sorted((ROOT / "requirements").glob("*.py"))
NOTEBOOKS = [p for f in ("notebooks", "kernels_submission") for p in (ROOT / f).rglob("*.ipynb")]
NOTEBOOKS = [path for path in NOTEBOOKS if ".ipynb_checkpoints" not in path.parts]
MAY_PRINT = {"fastmath_kit/cli.py", "fastmath_kit/demo.py"}
MAY_CATCH_ALL = {"fastmath_kit/kaggle/submission.py"}
MAY_KNOW_TINY = {"fastmath_kit/tiny.py", "fastmath_kit/demo.py"}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def nodes(path: Path, *kinds: type[ast.AST]) -> list[ast.AST]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]


def names_in(node: ast.AST | None) -> set[str]:
    """Returns every identifier in an expression, attributes included."""
    parts = ast.walk(node) if node else ()
    return {getattr(part, "id", getattr(part, "attr", None)) for part in parts}


@pytest.mark.parametrize("path", OURS, ids=relative)
def test_sizes(path):
    assert len(path.read_text().splitlines()) <= 250
    for function in nodes(path, ast.FunctionDef, ast.AsyncFunctionDef):
        num_lines = function.end_lineno - function.lineno + 1
        assert num_lines <= 60, f"{function.name} has {num_lines} lines"


@pytest.mark.parametrize("path", PACKAGE, ids=relative)
def test_every_module_says_why_it_exists(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", PACKAGE, ids=relative)
def test_nothing_runs_code_from_a_file(path):
    assert "trust_remote_code=True" not in path.read_text()
    for node in nodes(path, ast.Import, ast.ImportFrom):
        names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
        assert not names & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve"}
    for call in nodes(path, ast.Call):
        if ast.unparse(call.func) == "torch.load":
            assert "weights_only=True" in ast.unparse(call)
        assert ast.unparse(call.func) not in {"eval", "exec", "yaml.load", "yaml.unsafe_load"}


@pytest.mark.parametrize("path", PACKAGE, ids=relative)
def test_only_the_command_line_prints(path):
    calls = [call for call in nodes(path, ast.Call) if ast.unparse(call.func) == "print"]
    assert not calls or relative(path) in MAY_PRINT


@pytest.mark.parametrize("path", PACKAGE, ids=relative)
def test_only_the_kernel_catches_everything(path):
    for handler in nodes(path, ast.ExceptHandler):
        everything = handler.type is None or names_in(handler.type) & {"Exception", "BaseException"}
        assert not everything or relative(path) in MAY_CATCH_ALL, f"line {handler.lineno}"


@pytest.mark.parametrize("path", PACKAGE, ids=relative)
def test_the_miniature_runs_the_code_of_the_real_model(path):
    if relative(path) not in MAY_KNOW_TINY:
        for branch in nodes(path, ast.If, ast.IfExp):
            assert not any(name and "tiny" in name for name in names_in(branch.test))
            assert "tiny" not in ast.unparse(branch.test)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=relative)
def test_notebooks_are_committed_without_outputs(path):
    for cell in json.loads(path.read_text())["cells"]:
        assert not cell.get("outputs"), cell.get("id")
        assert cell.get("execution_count") is None, cell.get("id")
    assert path.stat().st_size <= 100_000
