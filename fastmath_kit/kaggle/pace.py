"""How fast the engine turned out to be, against the speed the policy counts on.

    pace = Pace(policy.model, share_s=348.0)
    pace.calibrate(keeper.probes)
    pace.update(spans, seconds=40.0)
    pace.kappa  # 1.2: work takes a fifth longer than the policy was fitted for

`kappa` starts at what a short probe of this engine says and is corrected by every problem. Times
are in seconds.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from fastmath_kit.budget.throughput import HARDWARE, Drift, Probe, StepTime, calibrate

_PRIOR_SHARE = 0.3  # of one problem's share of the time: what the probe counts for
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """When one trace ran and what it wrote.

    Attributes:
        start_s: Its launch, since that of the problem.
        end_s: Its last token.
        completion_tokens: Sampled tokens.
    """

    start_s: float
    end_s: float
    completion_tokens: int


def work_s(model: StepTime, spans: Sequence[Span]) -> float:
    """Returns how long the model says the same work takes, at the concurrency that was seen.

    Between two starts or ends every running trace writes at its own mean speed.
    """
    spans = [span for span in spans if span.end_s > span.start_s]
    edges_s = sorted({edge_s for span in spans for edge_s in (span.start_s, span.end_s)})
    seconds = model.prompt_tokens / model.prefill_tokens_per_s if spans else 0.0
    for begin_s, end_s in pairwise(edges_s):
        running = [span for span in spans if span.start_s <= begin_s and span.end_s >= end_s]
        if not running:
            continue
        speeds = [span.completion_tokens / (span.end_s - span.start_s) for span in running]
        context_tokens = sum(
            model.prompt_tokens + speed * (begin_s - span.start_s)
            for speed, span in zip(speeds, running, strict=True)
        )
        steps = (end_s - begin_s) * sum(speeds) / len(speeds)
        seconds += model.seconds(steps, len(running), context_tokens)
    return seconds


class Pace:
    """What a run's policy is told about its engine's speed.

    Attributes:
        model: The step time the policy counts on; calibrated, if it counts on none.
    """

    def __init__(self, planned: StepTime | None, *, share_s: float) -> None:
        """Takes the engine to be as fast as planned.

        Args:
            planned: The engine that the policy was fitted for, None if it does not ask for one.
            share_s: Seconds a problem, of all the time.
        """
        self.model = planned or HARDWARE["h100"]
        self._has_plan = planned is not None
        self._prior_s = _PRIOR_SHARE * share_s
        self._drift = Drift(predicted_s=self._prior_s, observed_s=self._prior_s)
        self._probes: tuple[Probe, ...] = ()

    @property
    def kappa(self) -> float:
        """Seconds of work over what the model says."""
        return self._drift.kappa

    def calibrate(self, probes: tuple[Probe, ...]) -> None:
        """Takes what was measured of a newly started engine; the same probes again do nothing."""
        if not probes or probes is self._probes:
            return
        self._probes = probes
        measured = calibrate(probes, self.model)
        most = max(probes, key=lambda probe: probe.num_running)
        counts = (most.num_running, most.context_tokens)
        ratio = measured.step_s(*counts) / self.model.step_s(*counts)
        _log.info(
            "pace: a step of %d traces takes %.2f ms, %.2f of what the policy counts on",
            most.num_running,
            1_000 * measured.step_s(*counts),
            ratio if self._has_plan else 1.0,
        )
        if self._has_plan:
            self._drift = Drift(predicted_s=self._prior_s, observed_s=ratio * self._prior_s)
        else:
            self.model = measured

    def update(self, spans: Sequence[Span], *, seconds: float) -> float:
        """Corrects the pace by one problem and returns how long the model says it takes.

        Args:
            spans: Its traces.
            seconds: How long it took.
        """
        predicted_s = work_s(self.model, spans)
        self._drift = self._drift.update(predicted_s=predicted_s, observed_s=seconds)
        return predicted_s
