from types import SimpleNamespace

from fastmath_kit.display.budget_figures import budget_policies_figure, run_timeline_figure


def setting(seconds, *solved):
    names = ("equal", "clip", "fitted", "oracle")
    policies = [
        {"name": name, "is_public": name in ("equal", "clip"), "mean_solved": value}
        for name, value in zip(names, solved, strict=True)
    ]
    return {"seconds_per_problem": seconds, "best_public": "clip", "policies": policies}


def test_policies_figure_names_all_but_the_lesser_public_rules():
    figure = budget_policies_figure([setting(60, 20, 22, 25, 38), setting(150, 24, 30, 34, 43)])
    figure.canvas.draw()
    (axes,) = figure.axes
    assert {text.get_text() for text in axes.texts} == {"clip", "fitted", "oracle"}
    assert len(axes.lines) == 4


def test_run_figure_has_a_bar_a_problem():
    run = [
        SimpleNamespace(seconds=30.0 + i, right=i % 2 == 0, leader_votes=i, reason=reason)
        for i, reason in enumerate(["patience", "timeout", "votes"])
    ]
    figure = run_timeline_figure(run)
    figure.canvas.draw()
    labels = {text.get_text() for text in figure.axes[0].get_legend().get_texts()}
    assert labels == {"patience", "timeout", "votes"}
