import io
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fastmath_kit.errors import DataError
from fastmath_kit.evaluation.report import terminal_table, write_json, write_report
from fastmath_kit.evaluation.sweep import compare, summarize
from fastmath_kit.problems.records import Trace

HOSTILE = "<script>alert('x')</script>\"&$title"


def sample(tokens, wrong_every):
    return [
        Trace(
            problem_id=f"p{problem}<script>",
            sample=k,
            completion_tokens=tokens + problem,
            answer=0,
            completion=HOSTILE,
            finish_reason="stop",
            correct=bool((problem + k) % wrong_every),
        )
        for problem in range(6)
        for k in range(2)
    ]


@pytest.fixture(scope="module")
def report():
    traces = {"base": sample(90, 2), "sft-10<script>": sample(60, 4), "grpo": sample(30, 4)}
    return traces, {
        "elapsed_s": 90.0,
        "stages": [summarize(name, rows, (40, 120)) for name, rows in traces.items()],
        "grpo_vs_sft": compare(traces["sft-10<script>"], traces["grpo"]),
        "rehearsal": {
            "num_problems": 53,
            "num_correct": 50,
            "toy_answers": {"What is $1-1$?": 0, HOSTILE: None},
            "submission": Path("runs/demo/submission.parquet"),
        },
        "versions": {"vllm": "0.31.0", HOSTILE: HOSTILE},
        "commit": HOSTILE,
    }


@pytest.fixture(scope="module")
def out(report, tmp_path_factory):
    traces, values = report
    folder = tmp_path_factory.mktemp("report")
    assert write_report(values, traces, folder) == folder / "report.html"
    return folder


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def page(out):
    return Page((out / "report.html").read_text(encoding="utf-8"))


def test_json_has_the_keys_readers_rely_on(out):
    written = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert {"elapsed_s", "stages", "grpo_vs_sft", "rehearsal", "versions", "commit"} == set(written)
    keys = {"name", "avg_at_k", "k", "standard_error", "mean_tokens", "num_problems"}
    assert all(keys <= set(stage) for stage in written["stages"])
    change = {"token_change", "accuracy_change", "accuracy_change_ci95"}
    assert set(written["grpo_vs_sft"]) == change
    assert written["rehearsal"]["submission"] == "runs/demo/submission.parquet"


def test_nothing_else_is_left_in_the_folder(out):
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "report.json"]


def test_page_escapes_all_text(out, page):
    assert "<script" not in (out / "report.html").read_text(encoding="utf-8")
    assert "script" not in {tag for tag, _ in page.tags}
    words = "".join(page.words)
    assert words.count(HOSTILE) >= 5  # versions twice, commit, the toy and both examples
    assert "The first problem both got right: p1<script>" in words


def test_page_loads_nothing(out, page):
    text = (out / "report.html").read_text(encoding="utf-8")
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    loaded = [value for _, attrs in page.tags for key, value in attrs.items() if "src" in key]
    assert loaded
    assert all(value.startswith("data:image/png;base64,") for value in loaded)
    assert not {"link", "iframe", "object"} & {tag for tag, _ in page.tags}


def test_page_shows_each_figure_in_both_schemes_with_words_for_it(page):
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    sources = [attrs for tag, attrs in page.tags if tag == "source"]
    assert len(images) == len(sources) == 3  # stages, budgets, histograms
    assert all("dark" in source["media"] for source in sources)
    assert "base 50.0 %, 92 tokens" in images[0]["alt"]
    assert all("grpo" in image["alt"] for image in images)


def test_page_states_the_finding_and_the_rehearsal(page):
    words = "".join(page.words)
    assert "tokens −48.0 %, accuracy +0.0 points (95 % interval +0.0 to +0.0)" in words  # 62.5→32.5
    assert "50 of 53 problems" in words
    assert "Measured on 6 held-out problems, k = 2 samples each. The run took 1.5 minutes." in words


def test_sections_without_data_are_left_out(tmp_path):
    stage = summarize("base", sample(90, 2)[:2])  # one problem: no standard error, no budgets
    write_report({"stages": [stage]}, {}, tmp_path)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert [tag for tag, _ in page.tags].count("img") == 1
    words = "".join(page.words)
    assert "50.0 ± –" in words
    assert "GRPO against" not in words
    assert "Rehearsal" not in words


def test_terminal_table_shows_every_stage_and_the_finding(report):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(terminal_table(report[1]))
    text = console.export_text()
    for words in ("base", "sft-10<script>", "grpo", "66.7", "tokens −48.0 %"):
        assert words in text


def test_terminal_table_prints_markup_as_it_is(report):
    stage = report[1]["stages"][0] | {"name": "[red]x[/red]"}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(terminal_table({"stages": [stage]}))
    assert "[red]x[/red]" in console.export_text()


def test_write_json_keeps_unknown_as_null(tmp_path):
    values = {
        "nan": float("nan"),
        "numpy": np.float64(0.5),
        "count": np.int64(3),
        "pair": (1, Path("a")),
    }
    write_json(values, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text()) == {
        "nan": None,
        "numpy": 0.5,
        "count": 3,
        "pair": [1, "a"],
    }


def test_write_json_into_a_place_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_json({}, tmp_path / "file" / "report.json")
