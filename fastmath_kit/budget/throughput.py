"""How fast an engine writes: the time of one decoding step, fitted, calibrated and corrected.

    model = HARDWARE["l4x4"]
    model.step_s(num_running=8, context_tokens=40_000)  # 0.0230
    model.seconds(1_000, num_running=8, context_tokens=40_000)  # the context grows meanwhile

A step writes one token of every running completion. `calibrate` fits the model of this machine
from a short probe, `Drift` corrects it while the run goes on. Times are in seconds.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fastmath_kit.errors import ConfigError, DataError, unknown_name
from fastmath_kit.problems.files import read_text


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Step time as base + per_sequence x running + per_token x context.

    Attributes:
        base_s: What a step costs however little runs: reading the weights.
        per_sequence_s: For each running completion.
        per_context_token_s: For each token in the key-value cache of the running completions.
        kv_capacity_tokens: Tokens the cache holds; what does not fit waits and is computed again.
        prefill_tokens_per_s: Speed at which a prompt, or a completion that waited, is read.
        prompt_tokens: Context of a completion before its first token.
        overhead_s: Of one problem: gateway, prompt, abort.
    """

    base_s: float
    per_sequence_s: float
    per_context_token_s: float = 0.0
    kv_capacity_tokens: int = 1_000_000
    prefill_tokens_per_s: float = 10_000.0
    prompt_tokens: int = 300
    overhead_s: float = 1.0

    def __post_init__(self) -> None:
        for name in ("base_s", "kv_capacity_tokens", "prefill_tokens_per_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}.")
        for name in ("per_sequence_s", "per_context_token_s", "prompt_tokens", "overhead_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be at least 0, got {getattr(self, name)}.")

    def step_s(self, num_running: int, context_tokens: float) -> float:
        """Returns the seconds of one step."""
        return (
            self.base_s
            + self.per_sequence_s * num_running
            + self.per_context_token_s * context_tokens
        )

    def seconds(self, steps: float, num_running: int, context_tokens: float) -> float:
        """Returns the seconds of many steps, in each of which every completion grows a token."""
        growth_s = 0.5 * self.per_context_token_s * num_running
        return steps * (self.step_s(num_running, context_tokens) + growth_s * steps)

    def steps(self, seconds: float, num_running: int, context_tokens: float) -> float:
        """Returns how many steps fit, the inverse of `seconds`.

        >>> HARDWARE["h100"].steps(8.6, num_running=8, context_tokens=0)
        1000.0
        """
        first_s = self.step_s(num_running, context_tokens)
        growth_s = 0.5 * self.per_context_token_s * num_running
        if growth_s * seconds < 1e-9 * first_s**2:
            return seconds / first_s
        return (math.sqrt(first_s**2 + 4 * growth_s * seconds) - first_s) / (2 * growth_s)


# Fits to published figures. l4x4: a 14B model, W4 and 8-bit cache on four L4 (40 tokens/s a
# completion at 2k context, 20 at 15k, 15 running). h100: gpt-oss-120b on one H100 80 GB.
HARDWARE = {
    "l4x4": StepTime(
        base_s=0.014,
        per_sequence_s=0.00048,
        per_context_token_s=1.28e-7,
        kv_capacity_tokens=600_000,
        prefill_tokens_per_s=3_000.0,
    ),
    "h100": StepTime(
        base_s=0.005,
        per_sequence_s=0.00045,
        kv_capacity_tokens=250_000,
        prefill_tokens_per_s=10_000.0,
    ),
}


def read_hardware(name: str) -> StepTime:
    """Returns a model of `HARDWARE` by name, or one from a JSON file of `StepTime`'s fields."""
    if name in HARDWARE:
        return HARDWARE[name]
    if not name.endswith(".json"):
        raise ConfigError(unknown_name("hardware", name, HARDWARE) + " Or give a .json file.")
    try:
        return StepTime(**json.loads(read_text(Path(name))))
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: not a hardware file ({error}).") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One measurement: what ran and how long a step took."""

    num_running: int
    context_tokens: float
    step_s: float


def calibrate(probes: Sequence[Probe], prior: StepTime) -> StepTime:
    """Returns the prior with its three step times fitted to the probes, none of them negative.

    A short probe cannot tell the three apart: the prior is scaled to the probes' median, and what
    deviates from that costs .3 of a probe's relative error. Fitted by least squares.

    Args:
        probes: Measured steps, best at two concurrencies; none returns the prior.
        prior: The nearest hardware, and what the probes do not measure.

    Raises:
        ConfigError: a probe has no positive step time.
    """
    if not probes:
        return prior
    if min(probe.step_s for probe in probes) <= 0:
        raise ConfigError("every probe needs a positive step_s. Measure at least one step.")
    names = ("base_s", "per_sequence_s", "per_context_token_s")
    start = np.array([getattr(prior, name) for name in names])
    counts = np.array([[1.0, probe.num_running, probe.context_tokens] for probe in probes])
    observed = np.array([probe.step_s for probe in probes])
    scale = float(np.median(observed / (counts @ start)))  # the machine as a whole is faster or not
    start = start * scale
    rows = np.vstack([counts * start / observed[:, None], 0.3 * np.eye(3)])
    goals = np.concatenate([np.ones(len(probes)), np.full(3, 0.3)])
    factors = np.linalg.lstsq(rows, goals, rcond=None)[0]
    fitted = dict(zip(names, (start * np.clip(factors, 0.05, 20.0)).tolist(), strict=True))
    return replace(prior, **fitted)


_MEMORY = 0.9  # share of the sums that `Drift` keeps at every update


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """How much slower the engine is than predicted: observed over predicted seconds, shrunk to 1.

    >>> drift = Drift().update(predicted_s=100.0, observed_s=200.0)
    >>> round(drift.kappa, 2)
    1.53

    Attributes:
        predicted_s: Decayed sum of predictions, started with a prior of 100 s at the right speed.
        observed_s: Decayed sum of what was observed.
    """

    predicted_s: float = 100.0
    observed_s: float = 100.0

    @property
    def kappa(self) -> float:
        """The correction, 1 for a machine as fast as predicted, between 0.1 and 10."""
        return min(max(self.observed_s / self.predicted_s, 0.1), 10.0)

    def update(self, *, predicted_s: float, observed_s: float) -> "Drift":
        """Returns the drift after one more problem; one that ran no time changes nothing."""
        if predicted_s <= 0 or observed_s <= 0:
            return self
        return Drift(
            predicted_s=_MEMORY * self.predicted_s + predicted_s,
            observed_s=_MEMORY * self.observed_s + observed_s,
        )
