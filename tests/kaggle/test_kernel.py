import ast
import json
import re
from pathlib import Path

import nbformat
import pytest

from fastmath_kit.problems.competition import load_competition

KERNELS = Path(__file__).parents[2] / "kernels_submission"
FOLDERS = sorted(path.parent for path in KERNELS.glob("*/kernel-metadata.json"))


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def folder(request):
    return request.param


@pytest.fixture(scope="module")
def notebook(folder):
    return nbformat.read(folder / "submission.ipynb", as_version=4)  # validates too


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_is_a_kernel():
    assert [folder.name for folder in FOLDERS] == ["aimo3"]


def test_the_notebook_is_small_and_clean(folder, notebook):
    assert (folder / "submission.ipynb").stat().st_size < 100_000
    assert len(notebook.cells) <= 12
    for cell in code_cells(notebook):
        assert len(cell.source.splitlines()) <= 20, cell.id
        assert cell.outputs == [] and cell.execution_count is None, cell.id
    assert notebook.metadata.kernelspec.name == "python3"  # Kaggle runs papermill


def test_every_code_cell_follows_text_and_ids_are_words(notebook):
    assert notebook.cells[0].cell_type == "markdown"
    for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        assert cell.cell_type == "markdown" or before.cell_type == "markdown"
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", id_) for id_ in ids)


def test_logic_lives_in_the_package(notebook):
    for cell in code_cells(notebook):
        named = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
        assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, named)]


def test_parameters_are_literals_with_a_comment(notebook):
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    for node, line in zip(ast.parse(cell.source).body, cell.source.splitlines(), strict=True):
        assert isinstance(node, ast.Assign)
        ast.literal_eval(node.value)
        assert "  # " in line
    assert "SMOKE = False" in cell.source
    names = {node.targets[0].id for node in ast.parse(cell.source).body}
    rest = " ".join(other.source for other in code_cells(notebook) if other is not cell)
    assert not [name for name in names if not re.search(rf"\b{name}\b", rest)]  # all are used


def test_the_clock_starts_first_and_the_server_before_the_engine_is_waited_for(notebook):
    cells = code_cells(notebook)
    assert "CLOCK_START_S = time.monotonic()" in cells[0].source
    assert "from fastmath_kit" not in cells[0].source  # not installed yet on Kaggle
    order = [cell.id for cell in cells]
    assert order == ["setup", "params", "engine", "predict", "serve", "result"]


def test_the_metadata_asks_for_what_the_competition_allots(folder):
    metadata = json.loads((folder / "kernel-metadata.json").read_text())
    competition = load_competition(folder.name)
    assert metadata["competition_sources"] == [competition.slug]
    assert metadata["machine_shape"] == competition.gpu
    assert metadata["code_file"] == "submission.ipynb"
    assert (metadata["enable_gpu"], metadata["enable_internet"]) == (True, False)
    slug = metadata["id"].split("/")[1]
    assert slug == metadata["title"].replace(" ", "-")  # Kaggle makes the slug from the title
    assert all(len(source.split("/")) == 5 for source in metadata["model_sources"])
    assert all(len(source.split("/")) == 2 for source in metadata["dataset_sources"])


def test_the_notebooks_model_is_the_metadatas(folder, notebook):
    (source,) = json.loads((folder / "kernel-metadata.json").read_text())["model_sources"]
    (cell,) = [cell for cell in notebook.cells if cell.id == "params"]
    assert f'MODEL = "{source.rpartition("/")[0]}"' in cell.source


def test_the_deadline_fits_the_competition(folder, notebook):
    (cell,) = [cell for cell in notebook.cells if cell.id == "params"]
    values = {
        node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body
    }
    competition = load_competition(values["COMPETITION"])
    assert competition.name == folder.name
    assert values["DEADLINE_S"] <= competition.notebook_limit_s - 300  # time to end the notebook
    assert values["NUM_PROBLEMS"] == competition.num_problems
    assert competition.legal_answer(values["FALLBACK_ANSWER"]) == values["FALLBACK_ANSWER"]
