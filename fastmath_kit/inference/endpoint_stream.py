"""The completions protocol of OpenAI's servers: what asks for a completion, what its stream says.

    body = request_body("sft-10", prompt_ids, sampling, stop_token_id)
    async for event in read_events(chunks):  # bytes as they arrive
        piece = read_piece(event)

Only `EXTRA_FIELDS` go beyond OpenAI's own protocol. vLLM and SGLang know them; a server that
refuses one by its name is asked without it.
"""

import json
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastmath_kit.inference.protocol import Sampling
from fastmath_kit.problems.prompts import STOP

EXTRA_FIELDS = (
    "continuous_usage_stats",
    "min_p",
    "repetition_penalty",
    "return_tokens_as_token_ids",
    "skip_special_tokens",
    "stop_token_ids",
    "top_k",
)
_MAX_LINE_BYTES = 2**20  # of an event; a longer one is no completion's
_MAX_MESSAGE_CHARS = 300
_STOP_REASONS = ("stop_reason", "matched_stop")
_NUM_LIKELIEST = 5  # tokens a place whose probabilities are asked for, as many as `vllm_core` asks


class Dropped(Exception):
    """A stream that ended too early or made no sense, or a server that was not there."""


class Busy(Dropped):
    """A server that had no room for the request: 429 or 503."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What one event of a stream adds to a completion.

    Attributes:
        text: New text.
        num_tokens: New tokens as far as the event tells: those with log-probabilities, else 1.
        total_tokens: All tokens of the completion so far, None if the event does not say.
        finish_reason: The server's, None while the completion grows.
        stop_reasons: What vLLM (`stop_reason`) or SGLang (`matched_stop`) say that `stop` stands
            for, a stop string, a token id or None for the model's end; empty if nobody says.
        logprob: Sum over the new tokens, None if unknown.
        entropies: At each new place.
    """

    text: str
    num_tokens: int
    total_tokens: int | None
    finish_reason: str | None
    stop_reasons: tuple[str | int | None, ...]
    logprob: float | None
    entropies: tuple[float, ...]


def request_body(
    model: str, prompt_ids: list[int], sampling: Sampling, stop_token_id: int
) -> dict[str, Any]:
    """Returns the JSON that asks for one streamed completion.

    Fields for which a model's `generation_config.json` would otherwise decide at the server, such
    as `top_k`, are sent switched off: completions are drawn as by `VLLMEngine`.
    """
    body = {
        "model": model,
        "prompt": prompt_ids,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "top_k": -1,
        "repetition_penalty": 1.0,
        "skip_special_tokens": False,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.ends_at_stop:
        body |= {"stop": [STOP], "stop_token_ids": [stop_token_id]}
    if sampling.weigh:
        body |= {"logprobs": _NUM_LIKELIEST, "return_tokens_as_token_ids": True}
    return body


def without(body: dict[str, Any], fields: set[str]) -> dict[str, Any]:
    """Returns the request without some of the extra fields."""
    kept = {name: value for name, value in body.items() if name not in fields}
    options = body["stream_options"].items()
    return kept | {"stream_options": {name: on for name, on in options if name not in fields}}


def refused_fields(message: str, body: dict[str, Any]) -> set[str]:
    """Returns the extra fields that a server's error names and that the request can do without."""
    needed = {"min_p"} if body.get("min_p") else set()
    sent = {*body, *body["stream_options"]}
    return {name for name in EXTRA_FIELDS if name in message and name in sent} - needed


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """Yields the JSON of every server-sent event until `[DONE]` or the end of the stream.

    Lines may be cut anywhere between two chunks. What stands after the last line end is no event.

    Raises:
        Dropped: an event is no JSON object or is larger than 1 MiB.
    """
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if max(map(len, (*lines, rest))) > _MAX_LINE_BYTES:
            raise Dropped(f"an event of the stream is larger than {_MAX_LINE_BYTES:,} bytes")
        for line in lines:
            if line.startswith(b"data:"):  # else a comment, an empty line or another field
                data = line.removeprefix(b"data:").strip()
                if data == b"[DONE]":
                    return
                yield _json_object(data)


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        raise Dropped(f"an event of the stream is no JSON object: {one_line(data)!r}")
    return event


def read_piece(event: dict[str, Any]) -> Piece:
    """Returns what an event says.

    Raises:
        Dropped: the event has not the shape of a completion's.
    """
    try:
        usage = event.get("usage") or {}
        total_tokens = usage.get("completion_tokens")
        choice = next(iter(event["choices"]), {})
        text = choice.get("text") or ""
        logprobs = choice.get("logprobs") or {}
        by_token = logprobs.get("token_logprobs") or ()
        likeliest = logprobs.get("top_logprobs") or ()
        return Piece(
            text=text + "",  # a string, or a TypeError
            num_tokens=len(by_token) if by_token else int(bool(text)),
            total_tokens=None if total_tokens is None else int(total_tokens),
            finish_reason=choice.get("finish_reason"),
            stop_reasons=tuple(choice[name] for name in _STOP_REASONS if name in choice),
            logprob=math.fsum(by_token) if by_token else None,
            entropies=tuple(_entropy(place) for place in likeliest),
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        line = one_line(json.dumps(event))
        raise Dropped(f"an event of the stream is no completion's: {line}") from None


def ended_at_stop(piece: Piece, stop_token_id: int) -> bool:
    """Whether `STOP`, and not the model's own end, ended a completion that was to end there.

    Of a server that does not say it is taken to be so: where a reasoning model ends before it
    closes its reasoning, which is rare, that is a `STOP` too many.
    """
    said = piece.stop_reasons
    met = STOP in said or stop_token_id in said if said else True
    return piece.finish_reason == "stop" and met


def _entropy(likeliest: dict[str, float]) -> float:
    return -sum(math.exp(logprob) * logprob for logprob in likeliest.values())


def error_message(body: bytes | dict[str, Any]) -> str:
    """Returns in one line what a server said was wrong.

    >>> error_message(b'{"error": {"message": "no such model"}}')
    'no such model'
    """
    found = body
    if isinstance(body, bytes):
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            return one_line(body)
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and name in found:
            found = found[name]
    return one_line(found if isinstance(found, str) else json.dumps(found))


def one_line(text: bytes | str) -> str:
    """Returns the beginning of a text without line ends."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return " ".join(text[: 4 * _MAX_MESSAGE_CHARS].split())[:_MAX_MESSAGE_CHARS]
