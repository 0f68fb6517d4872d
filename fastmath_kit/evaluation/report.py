"""Writes what a run measured: `report.json` for programs, a page and a table for people.

    write_report(report, {"sft-10": traces, "grpo": traces}, "runs/demo")

The page is one file without scripts that loads nothing; `evaluation.page` builds it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmath_kit.evaluation.page import finding, render_page, result_rows
from fastmath_kit.problems.files import atomic_path
from fastmath_kit.problems.records import Trace

if TYPE_CHECKING:
    from rich.table import Table


def write_json(value: Mapping[str, Any], path: str | Path) -> None:
    """Writes `value` as JSON, atomically; paths become text, NaN and infinity become null."""
    text = json.dumps(_json_safe(value), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def write_report(
    report: Mapping[str, Any], traces_by_stage: Mapping[str, Sequence[Trace]], out: str | Path
) -> Path:
    """Writes `report.json` and the self-contained `report.html` into `out`.

    Args:
        report: `stages`, rows of `sweep.summarize` over the same held-out problems, in the order
            they ran; and, where the run has them, `grpo_vs_sft` (`sweep.compare`), `rehearsal`,
            `elapsed_s`, `versions`, `commit`.
        traces_by_stage: Traces by stage name, for the histograms and the example.
        out: Folder.

    Returns:
        The path of the page.
    """
    write_json(report, Path(out) / "report.json")
    path = Path(out) / "report.html"
    with atomic_path(path) as temporary:
        temporary.write_text(render_page(report, traces_by_stage), encoding="utf-8")
    return path


def terminal_table(report: Mapping[str, Any]) -> "Table":
    """Returns the results as a table for `rich`, the comparison of GRPO with SFT below it."""
    from rich.markup import escape as escape_markup
    from rich.table import Table

    header, *rows = [row[:5] for row in result_rows(report["stages"])]  # 80 columns hold five
    caption = escape_markup(finding(report.get("grpo_vs_sft")))
    table = Table(caption=caption, caption_justify="left")
    for column in header:
        table.add_column(column, justify="left" if column == "stage" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(escape_markup, row))
    return table


def _json_safe(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_safe(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):  # a numpy scalar
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
