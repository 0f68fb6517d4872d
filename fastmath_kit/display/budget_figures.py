"""Figures of the budget scheduler: what each policy solves, and where one run's time went.

budget_policies_figure(rows)  # rows of `budget.scoring.compare`
run_timeline_figure(outcomes)  # `budget.replay.Outcome`s of one run
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastmath_kit.display.figures import _LIGHT, _MARKERS, _figure, _literal, _spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABEL_GAP = 0.06  # between names beside the lines, of the height of the axes


def budget_policies_figure(rows: Sequence[Mapping[str, Any]]) -> "Figure":
    """Returns problems solved against seconds a problem, one line a policy.

    Args:
        rows: One a setting, with `seconds_per_problem` and `policies`, rows with `name`,
            `is_public`, `is_reference` and `mean_solved`. Public rules are drawn in grey, but for
            the best; references are dashed.
    """
    figure, (axes,) = _figure(_LIGHT, height=4.6)
    seconds = [row["seconds_per_problem"] for row in rows]
    best = {row["best_public"] for row in rows}
    # Ours come first, so that their colours do not depend on which public rule is best.
    ours_first = sorted(range(len(rows[0]["policies"])), key=lambda i: _is_public(rows, i))
    ends, hue = [], 0
    for place in ours_first:
        name = rows[0]["policies"][place]["name"]
        solved = [row["policies"][place]["mean_solved"] for row in rows]
        if _is_public(rows, place) and name not in best:
            axes.plot(seconds, solved, color=_LIGHT.grid, lw=1.2, zorder=1)
            continue
        color, marker, style = _LIGHT.muted, None, "--"
        if not rows[0]["policies"][place]["is_reference"]:
            color, marker, style = (
                _LIGHT.hues[hue % len(_LIGHT.hues)],
                _MARKERS[hue % len(_MARKERS)],
                "-",
            )
            hue += 1
        axes.plot(seconds, solved, color=color, marker=marker, ls=style, lw=1.8)
        ends.append((seconds[-1], solved[-1], name, color))
    axes.set_xscale("log")
    axes.set_xticks(seconds, [f"{value:g}" for value in seconds])
    axes.minorticks_off()
    axes.set_xlabel("seconds a problem (log scale); grey: other public rules")
    axes.set_ylabel("mean solved")
    axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
    _name_lines(axes, ends)
    return figure


def _is_public(rows: Sequence[Mapping[str, Any]], place: int) -> bool:
    return rows[0]["policies"][place]["is_public"]


def _name_lines(axes: "Axes", ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Writes each line's name right of its end, inside the height of the axes."""
    ends = sorted(ends, key=lambda end: end[1])
    height = axes.get_ylim()[1]
    places = _spread([y / height for _, y, _, _ in ends], gap=_LABEL_GAP, ceiling=0.98)
    for (x, y, name, color), place in zip(ends, places, strict=True):
        axes.annotate(
            _literal(name),
            (x, y),
            xytext=(1.06, place),
            textcoords="axes fraction",
            va="center",
            color=color,
            weight="bold",
            arrowprops={"arrowstyle": "-", "color": color, "lw": 0.8, "relpos": (0, 0.5)},
        )


def run_timeline_figure(outcomes: Sequence[Any]) -> "Figure":
    """Returns one run: a bar a problem, its time, the winner's votes and why it stopped.

    Args:
        outcomes: With `seconds`, `right`, `leader_votes` and `reason`, in the order they came. A
            problem that was given no time is a cross on the axis.
    """
    figure, (axes,) = _figure(_LIGHT, height=3.8)
    reasons = sorted({outcome.reason for outcome in outcomes})
    looks = {
        name: {"color": _LIGHT.hues[i % len(_LIGHT.hues)], "edgecolor": _LIGHT.paper}
        | ({"hatch": "////"} if i >= len(_LIGHT.hues) else {})  # more reasons than hues
        for i, name in enumerate(reasons)
    }
    for place, outcome in enumerate(outcomes, start=1):
        look = looks[outcome.reason]
        if outcome.seconds == 0:
            axes.plot(place, 0.0, marker="x", ms=4, color=look["color"], clip_on=False, zorder=3)
            continue
        alpha = 1.0 if outcome.right else 0.35
        axes.bar(place, outcome.seconds, alpha=alpha, width=0.8, **look)
        axes.annotate(
            str(outcome.leader_votes),
            (place, outcome.seconds),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=6,
            color=_LIGHT.ink,
        )
    for name, look in looks.items():
        axes.bar(1, 0, label=name.replace("_", " "), **look)
    _set_run_axes(axes, outcomes, len(looks))
    return figure


def _set_run_axes(axes: "Axes", outcomes: Sequence[Any], num_reasons: int) -> None:
    most_s = max((outcome.seconds for outcome in outcomes), default=0.0)
    axes.set_ylim(0, 1.08 * most_s or 1.0)
    axes.set_xlim(0, len(outcomes) + 1)
    if most_s == 0:
        axes.text(0.5, 0.5, "no problem was given any time", transform=axes.transAxes, ha="center")
    above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.0}
    axes.legend(frameon=False, ncols=min(num_reasons, 5), fontsize=8, **above)
    axes.set_xlabel("problem, in the order they came; pale: not solved; figure: votes")
    axes.set_ylabel("time (s)")
