"""What an engine is: launched into, polled and aborted; `solve` and `sample_traces` need no more.

    request_id = engine.launch(prompt_ids(engine.tokenizer, statement), Sampling(max_tokens=512))
    updates = engine.poll(timeout_s=1.0)  # as soon as one ended: the newest state of all

`inference.engine` serves a model with vLLM, `inference.replay_engine` plays recorded traces.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, Self

from fastmath_kit.errors import ConfigError
from fastmath_kit.inference.stops import Until


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How one completion is drawn; the fields mean what vLLM's `SamplingParams` means by them.

    Attributes:
        max_tokens: Most completion tokens.
        temperature: 0 takes the likeliest token.
        top_p: Probability mass of the likeliest tokens that are kept, in (0, 1].
        min_p: Least probability, relative to the likeliest token, that is kept, in [0, 1].
        seed: Seed of this completion, None for an unrepeatable one.
        ends_at_stop: Whether `STOP` ends the completion.
        until: What else ends it, such as a complete box; None is nothing.
        weigh: Asks for the token probabilities behind `Update.mean_logprob` and `tail_entropy`.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    ends_at_stop: bool = True
    until: Until | None = None
    weigh: bool = False

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens must be at least 1, got {self.max_tokens}.")
        if self.temperature < 0:
            raise ConfigError(f"temperature must be at least 0, got {self.temperature}.")
        if not (0 < self.top_p <= 1 and 0 <= self.min_p <= 1):
            raise ConfigError(
                f"top_p must be in (0, 1] and min_p in [0, 1], got top_p={self.top_p}, "
                f"min_p={self.min_p}."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """The state of one completion.

    Attributes:
        request_id: What `launch` returned.
        text: The whole completion so far, with `STOP` if that ended it and without the eos token.
        completion_tokens: Sampled tokens so far, the ending one included.
        finish_reason: `stop`, `length` or `abort`; None while it grows.
        mean_logprob: Mean natural log-probability of the sampled tokens, None if not asked for.
        tail_entropy: Mean entropy in nats of the likeliest tokens at each of the last 2,048 places,
            None if not asked for.
    """

    request_id: str
    text: str = ""
    completion_tokens: int = 0
    finish_reason: str | None = None
    mean_logprob: float | None = None
    tail_entropy: float | None = None


class Engine(Protocol):
    """What serves completions. A context manager that closes itself.

    Attributes:
        name: Short name, recorded in `Trace.model`.
        tokenizer: The model's tokenizer, with its chat template.
    """

    name: str
    tokenizer: object

    def launch(self, prompt_ids: list[int], sampling: Sampling) -> str:
        """Starts a completion without waiting and returns its request id."""

    def poll(self, timeout_s: float) -> list[Update]:
        """Waits until a completion ends, at most `timeout_s`, and returns what changed.

        That is the newest update of each completion that grew or ended since the last poll, the
        ended ones last, in the order they ended. Growth alone does not end the wait.
        """

    def abort(self, request_ids: Iterable[str]) -> None:
        """Ends completions early; unknown and finished ones are ignored."""

    def close(self) -> None:
        """Frees everything the engine holds. May be called again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception) -> None:
        self.close()
