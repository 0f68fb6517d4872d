"""Rows to one matplotlib figure; reports and notebooks share them.

A stage is a row of `evaluation.sweep.summarize`; shares are fractions in 0..1 and are drawn in
percent. Figures use matplotlib's object interface, so nothing stays open and no backend is chosen:

    figure = stage_figure(report["stages"])  # a notebook shows it
    to_png_data_uri(figure)  # a web page embeds it

Colours are those of Okabe and Ito, safe for colour-blind readers; each stage also has its own
marker and a label beside it. Stages of one family, such as `sft-1` and `sft-10`, share a hue.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "osD^vPX<>h"
_NUM_BINS = 40


class _Scheme(NamedTuple):
    ink: str
    muted: str
    grid: str
    paper: str
    base: str
    hues: tuple[str, ...]


_LIGHT = _Scheme(
    ink="#1b1f24",
    muted="#59636e",
    grid="#e3e6ea",
    paper="#ffffff",
    base="#7a828c",
    hues=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9"),
)
_DARK = _Scheme(
    ink="#e8eaed",
    muted="#a3abb5",
    grid="#32383f",
    paper="#181c20",
    base="#9aa3ad",
    hues=("#56b4e9", "#e69f00", "#2fc79a", "#e59cc6", "#f0e442"),
)


def stage_figure(stages: Sequence[Mapping[str, Any]], *, dark: bool = False) -> "Figure":
    """Returns accuracy with standard errors above mean tokens, one column a stage.

    Args:
        stages: Rows with `name`, `avg_at_k`, `k`, `standard_error`, `mean_tokens`.
        dark: Draw for a dark page.
    """
    scheme = _DARK if dark else _LIGHT
    figure, (top, bottom) = _figure(scheme, height=5.2, num_panels=2)
    colors = _colors(stages, scheme)
    for x, (stage, color) in enumerate(zip(stages, colors, strict=True)):
        accuracy, error = _percent(stage["avg_at_k"]), _percent(stage["standard_error"])
        top.errorbar(
            x, accuracy, error or None, fmt="o", color=color, capsize=6, markersize=5, lw=1.6
        )
        bar = "" if stage["standard_error"] is None else f"\n±{error:.1f}"
        _label(top, x, accuracy + error, f"{accuracy:.1f}{bar}", scheme)
        bottom.bar(x, stage["mean_tokens"], color=color, width=0.62)
        _label(bottom, x, stage["mean_tokens"], f"{stage['mean_tokens']:,.0f}", scheme)
    top.set_ylabel(f"avg@{_k(stages)} (%)")
    top.set_ylim(-6, 128)
    top.set_yticks(range(0, 101, 25))
    top.set_title("Accuracy, ± one standard error", loc="left", fontsize=11, color=scheme.ink)
    bottom.set_ylabel("mean completion (tokens)")
    bottom.margins(y=0.16)
    bottom.set_xticks(range(len(stages)), [_literal(stage["name"]) for stage in stages])
    return figure


def budget_figure(stages: Sequence[Mapping[str, Any]], *, dark: bool = False) -> "Figure":
    """Returns accuracy against the token budget of one completion, one line a stage.

    Args:
        stages: Rows with `name`, `k` and `budgets`; those without budgets are left out.
        dark: Draw for a dark page.
    """
    scheme = _DARK if dark else _LIGHT
    stages = [stage for stage in stages if stage.get("budgets")]
    figure, (axes,) = _figure(scheme, height=4.2)
    ends: list[tuple[float, float, str, tuple]] = []  # x, y, name and colour of each line's end
    for row, (stage, color) in enumerate(zip(stages, _colors(stages, scheme), strict=True)):
        budgets = stage["budgets"]
        x = [budget["budget_tokens"] for budget in budgets]
        y = [_percent(budget["avg_at_k"]) for budget in budgets]
        errors = [_percent(budget["standard_error"]) for budget in budgets]
        marker = _MARKERS[row % len(_MARKERS)]
        axes.errorbar(x, y, errors, marker=marker, color=color, capsize=3, markersize=5, lw=1.6)
        ends.append((x[-1], y[-1], _literal(stage["name"]), color))
    ticks = sorted({budget["budget_tokens"] for stage in stages for budget in stage["budgets"]})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(-4, 104)
    axes.set_xlabel("token budget of one completion (tokens, log scale)")
    axes.set_ylabel(f"avg@{_k(stages)} (%), ± one standard error")
    _label_ends(axes, ends)
    return figure


def token_histogram_figure(
    tokens_by_name: Mapping[str, Sequence[int]], *, dark: bool = False
) -> "Figure":
    """Returns how long completions are under each name, with their means.

    Args:
        tokens_by_name: Completion tokens of every trace, such as `{"sft-10": …, "grpo": …}`.
        dark: Draw for a dark page.
    """
    scheme = _DARK if dark else _LIGHT
    figure, (axes,) = _figure(scheme, height=3.7)
    everything = np.concatenate([np.asarray(tokens) for tokens in tokens_by_name.values()])
    low, high = everything.min(), everything.max() + 1
    width = max(1, -(-(high - low) // _NUM_BINS))  # whole tokens, so that no bin is favoured
    bins = np.arange(low, high + width, width)
    for row, tokens in enumerate(tokens_by_name.values()):
        color = scheme.hues[row % len(scheme.hues)]
        weights = np.full(len(tokens), 100 / len(tokens))
        axes.hist(tokens, bins, weights=weights, color=color, alpha=0.3)
        axes.hist(tokens, bins, weights=weights, color=color, histtype="step", lw=1.6)
    _mark_means(axes, tokens_by_name, low, high, scheme)
    axes.set_xlabel("completion length (tokens)")
    axes.set_ylabel("share of completions (%)")
    axes.set_xlim(0, high + width)
    axes.margins(y=0.3)
    return figure


def _mark_means(axes: "Axes", tokens_by_name, low: int, high: int, scheme: _Scheme) -> None:
    """Draws a dashed line at each mean, the larger the mean the shorter: names then never cross."""
    means = {name: float(np.mean(tokens)) for name, tokens in tokens_by_name.items()}
    for row, (name, mean) in enumerate(means.items()):
        color = scheme.hues[row % len(scheme.hues)]
        top = 0.94 - 0.09 * sorted(means.values()).index(mean)
        axes.axvline(mean, ymax=top, color=color, lw=1.6, ls="--")
        is_right = mean > low + 0.65 * (high - low)  # keep the words inside the axes
        axes.annotate(
            f"{_literal(name)}: mean {mean:,.0f}",
            (mean, top),
            xycoords=("data", "axes fraction"),
            xytext=(-6 if is_right else 6, 0),
            textcoords="offset points",
            ha="right" if is_right else "left",
            va="center",
            color=color,
            weight="bold",
        )


def to_png_data_uri(figure: "Figure", *, dpi: int = 150) -> str:
    """Returns the figure as a `data:` address for an `<img>`: nothing else has to be loaded."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor=figure.get_facecolor())
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _figure(scheme: _Scheme, *, height: float, num_panels: int = 1) -> "tuple[Figure, list[Axes]]":
    """Returns an empty figure, 5.6 inches wide: its text stays readable on a phone."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, height), dpi=100, layout="constrained", facecolor=scheme.paper)
    panels = list(figure.subplots(num_panels, 1, sharex=True, squeeze=False)[:, 0])
    for axes in panels:
        axes.set_facecolor(scheme.paper)
        axes.grid(axis="y", color=scheme.grid, lw=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(scheme.muted)
        axes.tick_params(colors=scheme.muted, labelsize=10, length=0, pad=5)
        axes.xaxis.label.set_color(scheme.muted)
        axes.yaxis.label.set_color(scheme.muted)
    return figure, panels


def _colors(stages: Sequence[Mapping[str, Any]], scheme: _Scheme) -> list[tuple[float, ...]]:
    """Returns a hue a family, the name before its first dash; later members are stronger."""
    from matplotlib.colors import to_rgb

    families = [stage["name"].split("-")[0] for stage in stages]
    hues = {"base": scheme.base}
    for family in families:
        hues.setdefault(family, scheme.hues[(len(hues) - 1) % len(scheme.hues)])
    colors, paper = [], np.array(to_rgb(scheme.paper))
    for row, family in enumerate(families):
        strength = (families[: row + 1].count(family) / families.count(family)) * 0.6 + 0.4
        colors.append(tuple(strength * np.array(to_rgb(hues[family])) + (1 - strength) * paper))
    return colors


def _label(axes: "Axes", x: float, y: float, text: str, scheme: _Scheme) -> None:
    above = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center", "va": "bottom"}
    axes.annotate(text, (x, y), color=scheme.ink, **above)


def _label_ends(axes: "Axes", ends: list[tuple[float, float, str, tuple]]) -> None:
    """Writes each line's name right of its end, in the order of the ends and never overlapping."""
    ends = sorted(ends, key=lambda end: end[1])
    heights = _spread([y for _, y, _, _ in ends], gap=6.0, ceiling=102.0)
    for (x, y, name, color), height in zip(ends, heights, strict=True):
        axes.annotate(
            name,
            (x, y),
            xytext=(1.06, height),
            textcoords=("axes fraction", "data"),
            va="center",
            color=color,
            weight="bold",
            arrowprops={"arrowstyle": "-", "color": color, "lw": 0.8, "shrinkA": 1, "shrinkB": 4},
        )


def _spread(values: Sequence[float], *, gap: float, ceiling: float) -> list[float]:
    """Returns ascending `values` moved to be at least `gap` apart, none above `ceiling`.

    >>> _spread([10, 50, 51, 52], gap=6, ceiling=60)
    [10, 48, 54, 60]
    """
    moved: list[float] = []
    for value in values:
        moved.append(max(value, moved[-1] + gap) if moved else value)
    for row in reversed(range(len(moved))):
        moved[row] = min(moved[row], ceiling - gap * (len(moved) - 1 - row))
    return moved


def _percent(fraction: float | None) -> float:
    return 100 * (fraction or 0.0)  # an unknown error is drawn as no bar


def _literal(text: str) -> str:
    """Returns the text so that matplotlib draws it as it is: `$` would start a formula."""
    return text.replace("$", r"\$")


def _k(stages: Sequence[Mapping[str, Any]]) -> str:
    """Returns the k that all stages share, or all there are, as in `8 or 64`."""
    return " or ".join(str(k) for k in sorted({stage["k"] for stage in stages}))
