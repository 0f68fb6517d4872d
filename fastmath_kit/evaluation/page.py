"""Builds the page of a report: one HTML file that needs no script and loads nothing.

`render_page` fills `page.html`, the template beside this file; figures are inlined. All text is
escaped, because statements and completions are hostile input. Sections whose data the report lacks
are left out, and an unknown value is a dash.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from fastmath_kit.display.figures import (
    budget_figure,
    stage_figure,
    to_png_data_uri,
    token_histogram_figure,
)
from fastmath_kit.problems.records import Trace

_TITLE = "From a base model to a submission: what this run measured"
_MAX_CHARS = 2_000  # of a completion shown on the page


def render_page(report: Mapping[str, Any], traces_by_stage: Mapping[str, Sequence[Trace]]) -> str:
    """Returns the page; the arguments are those of `report.write_report`."""
    sections = [
        _results(report),
        _stages_over_time(report["stages"]),
        _budget_sweep(report["stages"]),
        _before_and_after(report["stages"], traces_by_stage),
        _rehearsal(report.get("rehearsal")),
    ]
    template = Template(files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(_TITLE),
        measured=escape(_measured(report)),
        sections="\n".join(section for section in sections if section),
        provenance=escape(_provenance(report)),
    )


def result_rows(stages: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Returns the results as text, the header first; what the table on the page shows too."""
    rows = [["stage", "avg@k ± SE (%)", "mean tokens", "maj@k (%)", "pass@k (%)", "truncated (%)"]]
    for stage in stages:
        error = _percent(stage["standard_error"])
        rows.append(
            [
                stage["name"],
                f"{_percent(stage['avg_at_k'])} ± {error}",
                f"{stage['mean_tokens']:,.1f}",
                _percent(stage.get("maj_at_k")),
                _percent(stage.get("pass_at_k")),
                _percent(stage.get("truncated")),
            ]
        )
    return rows


def finding(change: Mapping[str, Any] | None) -> str:
    """Returns what GRPO changed, in one sentence.

    >>> finding({"token_change": -0.4, "accuracy_change": 0.01, "accuracy_change_ci95": [0, 0.02]})
    'GRPO against SFT: tokens −40.0 %, accuracy +1.0 points (95 % interval +0.0 to +2.0).'
    """
    if not change:
        return ""
    low, high = map(_signed, change["accuracy_change_ci95"])
    return (
        f"GRPO against SFT: tokens {_signed(change['token_change'])} %, accuracy "
        f"{_signed(change['accuracy_change'])} points (95 % interval {low} to {high})."
    )


def _measured(report: Mapping[str, Any]) -> str:
    stages = report["stages"]
    problems = " or ".join(sorted({f"{stage['num_problems']:,}" for stage in stages}))
    k = " or ".join(sorted({str(stage["k"]) for stage in stages}))
    took = f" The run took {report['elapsed_s'] / 60:.1f} minutes." if "elapsed_s" in report else ""
    return f"Measured on {problems} held-out problems, k = {k} samples each.{took}"


def _provenance(report: Mapping[str, Any]) -> str:
    parts = [f"Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."]
    if report.get("commit"):
        parts.append(f"Commit {report['commit']}.")
    versions = report.get("versions") or {}
    if versions:
        parts.append(", ".join(f"{name} {version}" for name, version in versions.items()) + ".")
    return " ".join(parts)


def _results(report: Mapping[str, Any]) -> str:
    change = finding(report.get("grpo_vs_sft"))
    lead = f'<p class="finding">{escape(change)}</p>' if change else ""
    note = (
        "avg@k: mean accuracy of one sample, ± the standard error over problems; maj@k: the "
        "majority answer is right; pass@k: any sample is right; truncated: cut by the token limit."
    )
    table = _table(result_rows(report["stages"]))
    return _section("Results", f'{lead}{table}<p class="muted">{note}</p>')


def _stages_over_time(stages: Sequence[Mapping[str, Any]]) -> str:
    alt = "Accuracy and mean tokens by stage: " + "; ".join(
        f"{stage['name']} {_percent(stage['avg_at_k'])} %, {stage['mean_tokens']:.0f} tokens"
        for stage in stages
    )
    return _section("Accuracy and tokens by stage", _picture(stage_figure, stages, alt))


def _budget_sweep(stages: Sequence[Mapping[str, Any]]) -> str:
    stages = [stage for stage in stages if stage.get("budgets")]
    if not stages:
        return ""
    alt = "Accuracy against the token budget: " + "; ".join(
        f"{stage['name']} "
        + ", ".join(
            f"{_percent(b['avg_at_k'])} % at {b['budget_tokens']}" for b in stage["budgets"]
        )
        for stage in stages
    )
    note = (
        "From one run a stage: a completion longer than the budget counts as wrong. A model that "
        "needs fewer tokens reaches its accuracy at a smaller budget."
    )
    figure = _picture(budget_figure, stages, alt)
    return _section("Accuracy under a token budget", f'<p class="muted">{note}</p>{figure}')


def _before_and_after(
    stages: Sequence[Mapping[str, Any]], traces_by_stage: Mapping[str, Sequence[Trace]]
) -> str:
    """Returns the histograms of GRPO and the last SFT stage before it, and one problem of both."""
    names = [stage["name"] for stage in stages if traces_by_stage.get(stage["name"])]
    if "grpo" not in names:
        return ""
    sft_names = [name for name in names[: names.index("grpo")] if name.startswith("sft")]
    if not sft_names:
        return ""
    pair = {name: traces_by_stage[name] for name in (sft_names[-1], "grpo")}
    tokens = {name: [t.completion_tokens for t in traces] for name, traces in pair.items()}
    alt = "Histogram of completion tokens before and after GRPO: " + "; ".join(
        f"{name} mean {sum(counts) / len(counts):.0f}" for name, counts in tokens.items()
    )
    figure = _picture(token_histogram_figure, tokens, alt)
    return _section("Tokens before and after GRPO", figure + _example(*pair.items()))


def _example(before: tuple[str, Sequence[Trace]], after: tuple[str, Sequence[Trace]]) -> str:
    """Returns the first problem that sample 0 of both got right with a text, side by side."""
    first = [
        {t.problem_id: t for t in traces if t.sample == 0 and t.correct and t.completion}
        for _, traces in (before, after)
    ]
    shared = sorted(first[0].keys() & first[1].keys())
    if not shared:
        return ""
    parts = [f"<h3>The first problem both got right: {escape(shared[0])}</h3>"]
    for (name, _), traces in zip((before, after), first, strict=True):
        trace = traces[shared[0]]
        text = trace.completion[:_MAX_CHARS] + ("…" if len(trace.completion) > _MAX_CHARS else "")
        parts.append(f'<p class="muted">{escape(name)}, {trace.completion_tokens:,} tokens</p>')
        parts.append(f"<pre>{escape(text)}</pre>")
    return "".join(parts)


def _rehearsal(rehearsal: Mapping[str, Any] | None) -> str:
    if not rehearsal:
        return ""
    right, asked = rehearsal["num_correct"], rehearsal["num_problems"]
    text = (
        f"The submission notebook answered {right} of {asked} problems correctly through the local "
        f"gateway and wrote {rehearsal['submission']}."
    )
    rows = [["toy problem", "answer"]]
    rows += [[statement, str(answer)] for statement, answer in rehearsal["toy_answers"].items()]
    return _section("Rehearsal", f"<p>{escape(text)}</p>{_table(rows, kind='text')}")


def _section(heading: str, body: str) -> str:
    return f"<section>\n<h2>{escape(heading)}</h2>\n{body}\n</section>"


def _table(rows: Sequence[Sequence[str]], kind: str = "numbers") -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(line(row, "td") for row in rows[1:])
    head = f"<thead>{line(rows[0], 'th')}</thead>"
    return f'<div class="scroll"><table class="{kind}">{head}<tbody>{body}</tbody></table></div>'


def _picture(draw: Callable, data: Any, alt: str) -> str:
    """Returns the figure twice, for light and for dark pages; the browser shows one."""
    light, dark = (to_png_data_uri(draw(data, dark=is_dark)) for is_dark in (False, True))
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{escape(alt)}"></picture></figure>'
    )


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.1f}"


def _signed(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:+.1f}".replace("-", "−")
