import json

import pytest

from fastmath_kit.budget.throughput import (
    HARDWARE,
    Drift,
    Probe,
    StepTime,
    calibrate,
    read_hardware,
)
from fastmath_kit.errors import ConfigError, DataError

TRUE = StepTime(base_s=0.02, per_sequence_s=0.0007, per_context_token_s=2e-7)


@pytest.mark.parametrize(
    ("hardware", "num_running", "context_tokens", "tokens_per_s"),
    [
        ("l4x4", 15, 15 * 2_000, 40),  # the published figures of facts
        ("l4x4", 15, 15 * 15_000, 20),
        ("h100", 8, 80_000, 116),  # 5 + 0.45 x 8 ms
    ],
)
def test_the_fits_give_the_published_speeds(hardware, num_running, context_tokens, tokens_per_s):
    step_s = HARDWARE[hardware].step_s(num_running, context_tokens)
    assert 1 / step_s == pytest.approx(tokens_per_s, rel=0.1)


@pytest.mark.parametrize("hardware", HARDWARE)
@pytest.mark.parametrize("seconds", [0.0, 1.0, 1_000.0])
def test_steps_invert_seconds(hardware, seconds):
    model = HARDWARE[hardware]
    steps = model.steps(seconds, 8, 10_000)
    assert model.seconds(steps, 8, 10_000) == pytest.approx(seconds)


def test_calibration_finds_a_machine_half_as_fast():
    loads = [(1, 500), (8, 4_000), (16, 8_000), (16, 100_000)]
    probes = [Probe(num_running=b, context_tokens=c, step_s=TRUE.step_s(b, c)) for b, c in loads]
    fitted = calibrate(probes, HARDWARE["l4x4"])
    for num_running, context_tokens in [(4, 20_000), (12, 60_000)]:
        expected_s = TRUE.step_s(num_running, context_tokens)
        assert fitted.step_s(num_running, context_tokens) == pytest.approx(expected_s, rel=0.1)
    assert calibrate([], HARDWARE["l4x4"]) == HARDWARE["l4x4"]
    with pytest.raises(ConfigError, match="positive step_s"):
        calibrate([Probe(num_running=1, context_tokens=0, step_s=0.0)], HARDWARE["l4x4"])


def test_drift_is_shrunk_and_then_learned():
    drift = Drift().update(predicted_s=10, observed_s=30)
    assert 1 < drift.kappa < 1.5
    for _ in range(40):
        drift = drift.update(predicted_s=100, observed_s=300)
    assert drift.kappa == pytest.approx(3, rel=0.05)
    assert drift.update(predicted_s=0, observed_s=5) == drift


def test_hardware_from_a_file(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"base_s": 0.01, "per_sequence_s": 0.001}))
    assert read_hardware(str(path)).base_s == 0.01
    path.write_text(json.dumps({"speed": 3}))
    with pytest.raises(DataError, match="not a hardware file"):
        read_hardware(str(path))
    with pytest.raises(ConfigError, match="Did you mean 'h100'"):
        read_hardware("h10")
