"""Figures of the budget scheduler: what each policy solves, and where one run's time went.

budget_policies_figure(rows)  # rows of `budget.scoring.compare`
run_timeline_figure(outcomes)  # `budget.replay.Outcome`s of one run
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastmath_kit.display.figures import _LIGHT, _MARKERS, _figure, _label_ends

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def budget_policies_figure(rows: Sequence[Mapping[str, Any]]) -> "Figure":
    """Returns problems solved against seconds a problem, one line a policy.

    Args:
        rows: One a setting, with `seconds_per_problem` and `policies`, rows with `name`,
            `is_public` and `mean_solved`. Public rules are drawn in grey, but for the best.
    """
    figure, (axes,) = _figure(_LIGHT, height=4.6)
    seconds = [row["seconds_per_problem"] for row in rows]
    best = {row["best_public"] for row in rows}
    ends, hue = [], 0
    for place, policy in enumerate(rows[0]["policies"]):
        name, solved = policy["name"], [row["policies"][place]["mean_solved"] for row in rows]
        if policy["is_public"] and name not in best:
            axes.plot(seconds, solved, color=_LIGHT.grid, lw=1.2, zorder=1)
            continue
        color = _LIGHT.muted if name == "oracle" else _LIGHT.hues[hue % len(_LIGHT.hues)]
        axes.plot(seconds, solved, color=color, marker=_MARKERS[hue % len(_MARKERS)], lw=1.8)
        ends.append((seconds[-1], solved[-1], name, color))
        hue += 1
    axes.set_xscale("log")
    axes.set_xticks(seconds, [f"{value:g}" for value in seconds])
    axes.minorticks_off()
    axes.set_xlabel("seconds a problem (log scale); grey: other public rules")
    axes.set_ylabel("mean solved")
    axes.set_ylim(bottom=0)
    _label_ends(axes, ends)
    return figure


def run_timeline_figure(outcomes: Sequence[Any]) -> "Figure":
    """Returns one run: a bar a problem, its time, the winner's votes and why it stopped.

    Args:
        outcomes: With `seconds`, `right`, `leader_votes` and `reason`, in the order they came.
    """
    figure, (axes,) = _figure(_LIGHT, height=3.8)
    reasons = sorted({outcome.reason for outcome in outcomes})
    colors = {name: _LIGHT.hues[i % len(_LIGHT.hues)] for i, name in enumerate(reasons)}
    for place, outcome in enumerate(outcomes, start=1):
        alpha = 1.0 if outcome.right else 0.35
        axes.bar(place, outcome.seconds, color=colors[outcome.reason], alpha=alpha, width=0.8)
        axes.annotate(
            str(outcome.leader_votes),
            (place, outcome.seconds),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=6,
            color=_LIGHT.ink,
        )
    for name, color in colors.items():
        axes.bar(0, 0, color=color, label=name)
    axes.legend(frameon=False, title="stopped by", fontsize=8)
    axes.set_xlabel("problem, in the order they came; pale: not solved; figure: votes")
    axes.set_ylabel("time (s)")
    return figure
