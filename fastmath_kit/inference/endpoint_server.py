"""One OpenAI-compatible server: its URL, its HTTP, and what its failures mean.

    async with Server("http://localhost:8000", silence_s=600.0) as server:
        async for piece in server.pieces(request_body("sft-10", ...)):

The only module that imports httpx.
"""

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import AsyncIterator
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from fastmath_kit.errors import ConfigError, EngineError
from fastmath_kit.inference.endpoint_stream import (
    Busy,
    Dropped,
    Piece,
    error_message,
    one_line,
    read_events,
    read_piece,
    refused_fields,
    without,
)

_CONNECT_S = 10.0  # for a connection, and for the list of models
_FIRST_REST_S, _MAX_REST_S = 1.0, 60.0
_MAX_ANSWER_BYTES = 2**20  # read of what is no stream
_KEY = "OPENAI_API_KEY"
_log = logging.getLogger(__name__)


def parse_url(url: str) -> tuple[str, tuple[str, str] | None]:
    """Returns a server's URL, with OpenAI's path `/v1` if it has none, and the user and password.

    >>> parse_url("http://me:secret@localhost:8000")
    ('http://localhost:8000/v1', ('me', 'secret'))

    Raises:
        ConfigError: it is no http or https URL.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        parts = port = None
    if not parts or parts.scheme not in ("http", "https") or not parts.hostname:
        shown = url.rpartition("@")[2]
        raise ConfigError(f"{shown!r} is no URL of a server. Give one like http://host:8000.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = host if port is None else f"{host}:{port}"
    auth = None if parts.username is None else (parts.username, parts.password or "")
    return urlunsplit((parts.scheme, place, parts.path.rstrip("/") or "/v1", "", "")), auth


class Server:
    """One server. A context manager that holds its connections.

    Attributes:
        url: Of its API, without user and password.
        num_open: Streams it serves.
        last_piece_s: When it last sent a piece, on the monotonic clock.
    """

    def __init__(self, url: str, *, silence_s: float) -> None:
        """Takes its URL, and how long it may be silent on all streams before they are dropped.

        Raises:
            ConfigError: the URL or the environment's API key cannot be one.
        """
        self.url, self._auth = parse_url(url)
        self.num_open = 0
        self.last_piece_s = -float("inf")
        self._silence_s = silence_s
        self._rest_s = 0.0  # the last rest, 0 if it has sent a piece since
        self._rests_until_s = 0.0
        self._refused_fields: set[str] = set()
        self._key = os.environ.get(_KEY, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise ConfigError(f"{_KEY} holds characters that no key has. Set it again.")

    async def __aenter__(self) -> Self:
        import httpx

        headers = {"Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._client = httpx.AsyncClient(
            auth=self._auth,
            headers=headers,
            timeout=httpx.Timeout(None, connect=_CONNECT_S),
            limits=httpx.Limits(max_connections=None),
        )
        return self

    async def __aexit__(self, *exception) -> None:
        await self._client.aclose()

    @property
    def is_awake(self) -> bool:
        """Whether it may be asked; one that failed gets one stream at a time until it delivers."""
        is_trusted = not self._rest_s or not self.num_open
        return is_trusted and time.monotonic() >= self._rests_until_s

    def rest(self, failure: Dropped) -> None:
        """Leaves the work to others for 1 s, 2 s, 4 s ... as failures follow each other."""
        now_s = time.monotonic()
        if now_s >= self._rests_until_s:
            self._rest_s = min(2 * self._rest_s or _FIRST_REST_S, _MAX_REST_S)
            self._rests_until_s = now_s + self._rest_s
            _log.warning("%s: %s; what it was to write starts over", self.url, failure)

    async def models(self) -> dict[str, int | None] | None:
        """Returns the most tokens of each model that it lists, None if it has no such list.

        Raises:
            Dropped: it does not answer.
            EngineError: it refuses.
        """
        try:
            async with asyncio.timeout(_CONNECT_S), self._answer("GET", "/models") as answer:
                content = await _beginning(answer)
        except TimeoutError:
            raise Dropped(f"no answer within {_CONNECT_S:g} s") from None
        if answer.status_code not in (200, 404):
            raise self._failure(answer.status_code, content)
        try:
            return {card["id"]: card.get("max_model_len") for card in json.loads(content)["data"]}
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
            return None

    async def pieces(self, body: dict[str, Any]) -> AsyncIterator[Piece]:
        """Yields a completion as it is streamed; leaving early makes the server abort it.

        Raises:
            Dropped: the server did not answer, or its stream broke off or made no sense.
            EngineError: the server refuses the request for good.
        """
        num_left = 4 * body["max_tokens"] + 64  # servers may send several pieces a token
        self.num_open += 1
        try:
            async with self._unless_silent(), self._stream(body) as answer:
                async for event in read_events(answer.aiter_bytes()):
                    yield self._piece(event)
                    num_left -= 1
                    if not num_left:
                        raise Dropped("the stream goes on past max_tokens")
        finally:
            self.num_open -= 1

    @contextlib.asynccontextmanager
    async def _unless_silent(self) -> AsyncIterator[None]:
        """Ends a stream when the server is silent on all: one alone may wait in its queue."""
        loop = asyncio.get_running_loop()
        opened_s = loop.time()

        def look() -> None:
            nonlocal timer
            due_s = max(opened_s, self.last_piece_s) + self._silence_s
            if loop.time() < due_s:
                timer = loop.call_at(due_s, look)
            else:
                limit.reschedule(loop.time())

        timer = loop.call_at(opened_s + self._silence_s, look)
        try:
            async with asyncio.timeout(None) as limit:
                yield
        except TimeoutError:
            raise Dropped(f"silent for {self._silence_s:g} s") from None
        finally:
            timer.cancel()

    @contextlib.asynccontextmanager
    async def _stream(self, body: dict[str, Any]) -> AsyncIterator:
        """Yields the answer to a request, after it left out what the server does not take."""
        while True:
            sent = without(body, self._refused_fields)
            async with self._answer("POST", "/completions", json=sent) as answer:
                if answer.status_code == 200:
                    yield answer
                    return
                content = await _beginning(answer)
            refused = refused_fields(error_message(content), sent)
            if answer.status_code not in (400, 422) or not refused:
                raise self._failure(answer.status_code, content)
            self._refused_fields |= refused

    @contextlib.asynccontextmanager
    async def _answer(self, method: str, path: str, **content) -> AsyncIterator:
        """Yields an answer; what breaks it off is `Dropped`."""
        import httpx

        try:
            async with self._client.stream(method, self.url + path, **content) as answer:
                yield answer
        except httpx.RequestError as error:
            raise Dropped(one_line(str(error)) or type(error).__name__) from error

    def _piece(self, event: dict[str, Any]) -> Piece:
        if "error" in event:  # vLLM's way to fail once a stream has begun
            error = event["error"]
            status = error.get("code") if isinstance(error, dict) else None
            raise self._failure(status, json.dumps(event).encode())
        piece = read_piece(event)
        if piece.finish_reason in ("abort", "error"):
            raise Dropped("the server aborted the completion")
        self._rest_s, self.last_piece_s = 0.0, time.monotonic()
        return piece

    def _failure(self, status: Any, content: bytes) -> Dropped | EngineError:
        message = f"{status}, {error_message(content)}"
        if self._key:
            message = message.replace(self._key, "***")
        if status in (429, 503):
            return Busy(message)
        if not isinstance(status, int) or not 400 <= status < 500:
            return Dropped(message)
        advice = f" Set {_KEY}." if status in (401, 403) else ""
        return EngineError(f"{self.url} refuses a request: {message}.{advice}")


async def _beginning(answer) -> bytes:
    """Returns the content of an answer, cut off where no sensible one goes on."""
    content = b""
    async for chunk in answer.aiter_bytes():
        content += chunk
        if len(content) > _MAX_ANSWER_BYTES:
            break
    return content
