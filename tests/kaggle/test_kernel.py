import ast
import json
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


def test_the_notebook_is_small(notebook):  # the rules of all notebooks: tests/test_notebooks.py
    assert len(notebook.cells) <= 12


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
