"""What an engine is: launched into, polled and aborted; `solve` and `sample_traces` need no more.

    request_id = engine.launch(prompt_ids(engine.tokenizer, statement), Sampling(max_tokens=512))
    updates = engine.poll(timeout_s=1.0)  # the newest state of every completion that grew

`inference.engine` serves a model with vLLM, `inference.replay_engine` plays recorded traces.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, Self

from fastmath_kit.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How one completion is drawn; the fields mean what vLLM's `SamplingParams` means by them.

    Attributes:
        max_tokens: Most completion tokens.
        temperature: 0 takes the likeliest token.
        top_p: Probability mass of the likeliest tokens that are kept, in (0, 1].
        min_p: Least probability, relative to the likeliest token, that is kept, in [0, 1].
        seed: Seed of this completion, None for an unrepeatable one.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None

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
    """

    request_id: str
    text: str = ""
    completion_tokens: int = 0
    finish_reason: str | None = None


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
        """Returns the newest update of each completion that changed since the last poll.

        Finished ones come in the order they finished. Waits at most `timeout_s` for a change and
        then returns an empty list.
        """

    def abort(self, request_ids: Iterable[str]) -> None:
        """Ends completions early; unknown and finished ones are ignored."""

    def close(self) -> None:
        """Frees everything the engine holds. May be called again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception) -> None:
        self.close()
