"""The README is true where a test can tell: its file map, its commands and its figures."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def map_entries() -> set[str]:
    """Returns the paths in the file map, folders with a trailing slash."""
    block = README.split("## Files", 1)[1].split("```")[1]
    folders: list[str] = []
    paths = set()
    for line in filter(str.strip, block.splitlines()):
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        folders[depth:] = [name]
        paths.add("".join(folders[: depth + 1]))
    return paths


def test_the_file_map_names_every_file_and_no_other():
    wanted = {
        path.relative_to(ROOT).as_posix()
        for pattern in (
            "fastmath_kit/**/*.py",
            "notebooks/*.ipynb",
            "kernels_submission/**/*.ipynb",
        )
        for path in ROOT.glob(pattern)
        if path.name != "__init__.py"
    }
    mapped = map_entries()
    assert {p for p in mapped if p.endswith((".py", ".ipynb"))} - wanted == set()
    assert wanted - mapped == set()
    assert all((ROOT / path).exists() for path in mapped)


def test_every_entry_of_the_map_says_what_it_is():
    block = README.split("## Files", 1)[1].split("```")[1]
    for line in filter(str.strip, block.splitlines()):
        assert len(line.split()) >= 3, line


def test_the_commands_exist():
    text = subprocess.run(
        [sys.executable, "-m", "fastmath_kit.cli", "--help"], capture_output=True, text=True
    ).stdout
    for command in set(re.findall(r"^    fastmath (\w+)", README, re.MULTILINE)):
        assert re.search(rf"^\W*{command}\b", text, re.MULTILINE), command
