import itertools
from types import SimpleNamespace

import pytest

from fastmath_kit.display.budget_figures import budget_policies_figure, run_timeline_figure


def setting(seconds, *solved):
    names = ("equal", "clip", "fitted", "oracle")
    policies = [
        {
            "name": name,
            "is_public": name in ("equal", "clip"),
            "is_reference": name == "oracle",
            "mean_solved": value,
        }
        for name, value in zip(names, solved, strict=True)
    ]
    return {"seconds_per_problem": seconds, "best_public": "clip", "policies": policies}


@pytest.mark.parametrize("solved", [(24, 50, 50, 50), (0, 0, 0, 0), (0.1, 0.2, 0.2, 0.3)])
def test_policies_figure_names_all_but_the_lesser_public_rules(solved):
    figure = budget_policies_figure([setting(60, *solved), setting(150, *solved)])
    figure.canvas.draw()
    (axes,) = figure.axes
    assert {text.get_text() for text in axes.texts} == {"clip", "fitted", "oracle"}
    assert len(axes.lines) == 4
    line_px = 1.4 * axes.texts[0].get_fontsize() * figure.dpi / 72
    heights = sorted(text.xyann[1] * axes.bbox.height for text in axes.texts)
    for low, high in itertools.pairwise(heights):  # no name on another
        assert high - low >= line_px
    assert 0 <= heights[0] <= heights[-1] <= axes.bbox.height


def outcomes(*seconds):
    reasons = ["patience", "timeout", "votes"]
    return [
        SimpleNamespace(
            seconds=each, right=i % 2 == 0, leader_votes=i, reason=reasons[i] if each else "none"
        )
        for i, each in enumerate(seconds)
    ]


def test_run_figure_has_a_bar_a_problem():
    figure = run_timeline_figure(outcomes(30.0, 31.0, 32.0))
    figure.canvas.draw()
    labels = {text.get_text() for text in figure.axes[0].get_legend().get_texts()}
    assert labels == {"patience", "timeout", "votes"}


def test_seven_reasons_have_seven_looks():
    reasons = ["finished", "gave up", "lead", "patience", "timeout", "votes", "died"]
    figure = run_timeline_figure(
        [SimpleNamespace(seconds=9.0, right=True, leader_votes=1, reason=name) for name in reasons]
    )
    figure.canvas.draw()
    handles = figure.axes[0].get_legend().legend_handles
    looks = {(handle.get_facecolor(), handle.get_hatch()) for handle in handles}
    assert len(looks) == len(handles) == len(reasons)


@pytest.mark.parametrize(("seconds", "says"), [((0.0, 0.0), 1), ((5.0, 0.0), 0)])
def test_a_run_without_time_has_no_negative_seconds(seconds, says):
    figure = run_timeline_figure(outcomes(*seconds))
    figure.canvas.draw()
    (axes,) = figure.axes
    assert axes.get_ylim()[0] == 0
    assert sum("no problem was given" in text.get_text() for text in axes.texts) == says
    assert len(axes.lines) == seconds.count(0.0)
