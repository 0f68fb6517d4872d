"""What holds for every notebook (size and outputs: test_style.py), and the guides, executed."""

import ast
import random
import re
from pathlib import Path

import nbformat
import pytest

from fastmath_kit import tiny
from fastmath_kit.budget.fitted import read_policy
from fastmath_kit.problems.records import Trace, write_problems, write_traces

ROOT = Path(__file__).parents[1]
GUIDES = sorted((ROOT / "notebooks").glob("*.ipynb"))
KERNELS = sorted((ROOT / "kernels_submission").glob("*/*.ipynb"))
NAMED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@pytest.fixture(
    scope="module", params=GUIDES + KERNELS, ids=lambda path: path.relative_to(ROOT).as_posix()
)
def notebook(request):
    return nbformat.read(request.param, as_version=4)  # validates too


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tree(cell):
    lines = cell.source.splitlines()
    return ast.parse("\n".join("" if line.startswith("%") else line for line in lines))


def test_notebooks_are_short(notebook):
    assert len(notebook.cells) <= 24
    assert [cell.id for cell in code_cells(notebook) if cell.source.count("\n") >= 20] == []
    assert notebook.metadata.kernelspec.name == "python3"  # Kaggle runs papermill


def test_the_title_says_what_it_needs_and_gives(notebook):
    title = notebook.cells[0].source
    assert title.startswith("# ")
    for word in ("Hardware:", "Time:", "Expected"):
        assert word in title


def test_every_code_cell_follows_text_and_ids_are_words(notebook):
    assert notebook.cells[0].cell_type == "markdown"
    for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        assert "markdown" in (before.cell_type, cell.cell_type), cell.id
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert [id_ for id_ in ids if not re.fullmatch(r"[a-z]+(-[a-z]+)*", id_)] == []


def test_logic_lives_in_the_package(notebook):
    for cell in code_cells(notebook):
        found = [node for node in ast.walk(tree(cell)) if isinstance(node, NAMED)]
        assert [node for node in found if getattr(node, "name", None) != "predict"] == [], cell.id


def test_parameters_are_literals_with_a_comment_and_all_are_used(notebook):
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    for node, line in zip(tree(cell).body, cell.source.splitlines(), strict=True):
        assert isinstance(node, ast.Assign)
        ast.literal_eval(node.value)
        assert "  # " in line
    assert "\nSMOKE = False" in cell.source
    names = {node.targets[0].id for node in tree(cell).body}
    rest = " ".join(other.source for other in code_cells(notebook) if other is not cell)
    assert [name for name in names if not re.search(rf"\b{name}\b", rest)] == []


def test_the_table_of_notebooks_names_those_there_are():
    table = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[([^]]+)\]\(\1\)", table, re.M) == [path.name for path in GUIDES]


def execute(name: str, folder: Path, **parameters):
    """Runs a guide as Kaggle runs notebooks, with `folder` as working directory."""
    import papermill

    return papermill.execute_notebook(
        ROOT / "notebooks" / name,
        folder / "executed.ipynb",
        parameters={"SMOKE": True} | parameters,
        cwd=folder,
        kernel_name="python3",
        progress_bar=False,
        execution_timeout=600,
    )


def kinds(notebook) -> dict[str, set[str]]:
    """Returns what kinds of output each code cell has, by its id."""
    cells = code_cells(notebook)
    return {cell.id: {kind for o in cell.outputs for kind in o.get("data", {})} for cell in cells}


def printed(notebook) -> str:
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream")


@pytest.mark.slow
def test_the_quickstart_runs_and_runs_again(tmp_path):
    import polars as pl

    first = execute("00_quickstart.ipynb", tmp_path)
    seen = kinds(first)
    for id_ in ("evaluate", "compare", "result"):
        assert "image/png" in seen[id_], id_  # a figure
    for id_ in ("solve", "grpo", "rehearse", "result"):
        assert "text/html" in seen[id_], id_  # a table
    assert "Traceback" not in printed(first)
    (submission,) = tmp_path.glob("runs/quickstart/*/rehearsal/submission.parquet")
    assert pl.read_parquet_schema(submission) == {"id": pl.String, "answer": pl.Int64}
    assert pl.read_parquet(submission).height == 6  # the toys and three held-out problems
    run = submission.parents[1]
    assert (run / "report.html").exists()

    results = [*run.glob("evaluation/*/traces.parquet"), *run.glob("*/checkpoint-*"), run / "w4a16"]
    written_ns = {path: path.stat().st_mtime_ns for path in results}
    assert len(written_ns) == 6 + 3 + 1  # stages: base, two epochs, GRPO, two quantized
    execute("00_quickstart.ipynb", tmp_path)  # as after a restart: what is finished stays as it is
    assert {path: path.stat().st_mtime_ns for path in results} == written_ns
    assert len([*run.glob("*/checkpoint-*")]) == 3
    assert [path.name for path in run.parent.iterdir()] == [run.name]


@pytest.fixture
def demo_folder(tmp_path):
    """What the budget notebook takes from a demo; longer problems have longer traces."""
    rng = random.Random(0)
    _, problems = tiny.make_split(num_train=200, num_held_out=48, seed=0)
    traces = [
        Trace(
            problem_id=problem.id,
            sample=sample,
            completion_tokens=round(len(problem.statement) * rng.uniform(0.6, 1.8)),
            answer=int(problem.solution) + rng.choice((0, 0, 0, 1)),
            finish_reason="stop",
            solution=problem.solution,
        )
        for problem in problems
        for sample in range(8)
    ]
    folder = tmp_path / "demo"
    tiny.write_model(folder / "base", seed=0)
    write_problems(problems, folder / "held_out.csv")
    for stage in ("sft-4", "grpo"):
        (folder / "evaluation" / stage).mkdir(parents=True)
        write_traces(traces, folder / "evaluation" / stage / "traces.parquet")
    return folder


@pytest.mark.slow
def test_the_budget_notebook_fits_replays_and_writes_a_policy(demo_folder, tmp_path):
    done = execute("06_budget.ipynb", tmp_path, DEMO=str(demo_folder))
    seen = kinds(done)
    assert [id_ for id_, found in seen.items() if "image/png" in found] == [
        "traces",
        "replay",
        "run",
        "length-scatter",
    ]
    assert "text/html" in seen["fit"] and "text/markdown" in seen["replay"]
    assert "Traceback" not in printed(done)
    assert read_policy(tmp_path / "runs" / "budget" / "policy.json").menu
    assert re.search(r"^encoder r2", printed(done), re.M)
