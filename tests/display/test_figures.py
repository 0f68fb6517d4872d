import base64
import itertools
import sys

import pytest

from fastmath_kit.display.figures import (
    budget_figure,
    stage_figure,
    to_png_data_uri,
    token_histogram_figure,
)


def stage(name, accuracy, error=0.01, tokens=50.0):
    budgets = [
        {"budget_tokens": b, "avg_at_k": accuracy * b / 64, "standard_error": error}
        for b in (32, 64)
    ]
    return {
        "name": name,
        "avg_at_k": accuracy,
        "k": 8,
        "standard_error": error,
        "mean_tokens": tokens,
        "budgets": budgets,
    }


STAGES = [stage("base", 0.0), stage("sft-1", 0.5), stage("sft-10", 0.94), stage("grpo", 0.95)]


def words(axes):
    return [text.get_text() for text in axes.texts]


def test_stage_figure_labels_every_value_and_shares_the_axis():
    figure = stage_figure(STAGES)
    top, bottom = figure.axes
    assert words(top) == ["0.0\n±1.0", "50.0\n±1.0", "94.0\n±1.0", "95.0\n±1.0"]
    assert [bar.get_height() for bar in bottom.patches] == [50.0] * 4
    figure.draw_without_rendering()
    ticks = [label.get_text() for label in bottom.get_xticklabels()]
    assert ticks == ["base", "sft-1", "sft-10", "grpo"]
    assert top.get_ylabel() == "avg@8 (%)"
    assert top.get_shared_x_axes().joined(top, bottom)


def test_an_unknown_error_is_not_drawn_as_zero():
    top, _ = stage_figure([stage("base", 0.5, error=None)]).axes
    assert words(top) == ["50.0"]


def test_budget_figure_draws_one_labelled_line_a_stage_in_percent():
    (axes,) = budget_figure([*STAGES, stage("none", 0.1) | {"budgets": []}]).axes
    assert sorted(words(axes)) == ["base", "grpo", "sft-1", "sft-10"]
    ends = [container[0].get_ydata()[-1] for container in axes.containers]
    assert ends == pytest.approx([0.0, 50.0, 94.0, 95.0])


def test_budget_labels_never_overlap():
    (axes,) = budget_figure([stage(f"s{i}", 0.95 + i / 1_000) for i in range(6)]).axes
    heights = sorted(text.xyann[1] for text in axes.texts)
    gaps = [b - a for a, b in itertools.pairwise(heights)]
    assert min(gaps) >= 6 - 1e-9


def test_histogram_shares_sum_to_all_completions():
    (axes,) = token_histogram_figure({"sft": [10, 20, 90], "grpo": [5, 5]}).axes
    totals = [sum(bar.get_height() for bar in c) for c in axes.containers if len(c) > 1]
    assert totals == pytest.approx([100.0, 100.0])
    assert words(axes) == ["sft: mean 40", "grpo: mean 5"]


def test_histogram_of_one_length_still_draws():
    assert to_png_data_uri(token_histogram_figure({"grpo": [7, 7]}))


@pytest.mark.parametrize("dark", [False, True])
def test_names_are_drawn_as_they_are(dark):
    hostile = "a$\\frac{$<b>"  # not a formula, and not a broken one
    for figure in (
        stage_figure([stage(hostile, 0.5)], dark=dark),
        budget_figure([stage(hostile, 0.5)], dark=dark),
        token_histogram_figure({hostile: [1, 2]}, dark=dark),
    ):
        figure.draw_without_rendering()


def test_data_uri_holds_a_png():
    kind, _, data = to_png_data_uri(stage_figure(STAGES[:1]), dpi=40).partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data).startswith(b"\x89PNG")


def test_no_global_plotting_state_is_touched():
    stage_figure(STAGES[:1])
    assert (
        "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    )
