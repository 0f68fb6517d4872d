import pytest

from fastmath_kit.budget.throughput import HARDWARE, Probe, StepTime
from fastmath_kit.kaggle.pace import Pace, Span, work_s

MODEL = StepTime(base_s=0.01, per_sequence_s=0.001, prompt_tokens=0, prefill_tokens_per_s=1e9)


def span(start_s, end_s, completion_tokens):
    return Span(start_s=start_s, end_s=end_s, completion_tokens=completion_tokens)


@pytest.mark.parametrize(
    ("spans", "expected_s"),
    [
        ([], 0.0),
        ([span(0, 0, 0)], 0.0),  # aborted at once
        ([span(0, 5, 100)], 100 * 0.011),
        ([span(0, 5, 100)] * 4, 100 * 0.014),  # together: 100 steps of four
        ([span(0, 5, 100), span(0, 10, 200)], 100 * 0.012 + 100 * 0.011),  # the longer one alone
        ([span(0, 5, 100), span(7, 9, 40)], 140 * 0.011),  # one after the other
        ([span(0, 10, 200), span(5, 10, 100)], 100 * 0.011 + 100 * 0.012),  # launched later
    ],
)
def test_work_is_what_the_model_says_of_the_concurrency_that_was(spans, expected_s):
    assert work_s(MODEL, spans) == pytest.approx(expected_s)


def test_context_costs_what_it_costs_in_one_piece():
    model = StepTime(base_s=0.01, per_sequence_s=0.0, per_context_token_s=1e-6, prompt_tokens=50)
    whole = work_s(model, [span(0, 10, 1_000)] * 2)
    assert whole == pytest.approx(model.seconds(1_000, 2, 100) + 50 / 10_000)
    cut = work_s(model, [span(0, 10, 1_000), span(0, 10, 1_000), span(3, 3.001, 0)])
    assert cut == pytest.approx(whole, rel=0.01)


def probes(factor, model=MODEL):
    return tuple(
        Probe(num_running=n, context_tokens=100.0 * n, step_s=factor * model.step_s(n, 100 * n))
        for n in (1, 8)
    )


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_kappa_starts_at_the_probe_and_ends_at_what_is_observed(factor):
    pace = Pace(MODEL, share_s=100.0)
    assert pace.kappa == 1.0
    pace.calibrate(probes(factor))
    assert pace.kappa == pytest.approx(factor, rel=0.02)
    for _ in range(60):  # the engine is twice as slow as the probe said
        predicted_s = pace.update([span(0, 20, 1_000)] * 8, seconds=2 * factor * 18.0)
        assert predicted_s == pytest.approx(18.0)
    assert pace.kappa == pytest.approx(2 * factor, rel=0.02)


def test_the_same_probes_do_not_undo_what_was_learned_and_new_ones_do():
    pace, first = Pace(MODEL, share_s=100.0), probes(1.0)
    pace.calibrate(first)
    pace.update([span(0, 100, 10_000)], seconds=1_000.0)
    learned = pace.kappa
    assert learned > 3
    pace.calibrate(first)
    pace.calibrate(())
    assert pace.kappa == learned
    pace.calibrate(probes(1.0))  # another engine
    assert pace.kappa == pytest.approx(1.0, rel=0.02)


def test_without_a_plan_the_probe_is_the_plan():
    pace = Pace(None, share_s=100.0)
    pace.calibrate(probes(2.0, HARDWARE["h100"]))
    assert pace.kappa == 1.0
    assert pace.model.step_s(8, 0) == pytest.approx(2 * HARDWARE["h100"].step_s(8, 0), rel=0.05)
