"""Several servers of one model: who serves the next completion, and what happens where one fails.

async with Fleet(["http://a:8000", "http://b:8000"], silence_s=600.0) as fleet:
    model, max_model_len = await fleet.check_in(None)
    async for piece in fleet.pieces(request_body(model, ...)):
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self

from fastmath_kit.errors import ConfigError, EngineError
from fastmath_kit.inference.endpoint_server import Server
from fastmath_kit.inference.endpoint_stream import Busy, Dropped, Piece

_RETRY_WAITS_S = (1.0, 2.0, 4.0)


class Fleet:
    """Servers of the same model. A context manager that holds their connections."""

    def __init__(self, urls: Sequence[str], *, silence_s: float) -> None:
        """Takes the servers' URLs; see `Server`.

        Raises:
            ConfigError: there is no URL, or one cannot be one.
        """
        if not urls:
            raise ConfigError("there is no URL of a server. Give one like http://host:8000.")
        self._servers = [Server(url, silence_s=silence_s) for url in urls]

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            for server in self._servers:
                await stack.enter_async_context(server)
            self._open = stack.pop_all()
        return self

    async def __aexit__(self, *exception) -> None:
        await self._open.aclose()

    async def check_in(self, model: str | None) -> tuple[str, int | None]:
        """Asks the servers what they serve, again for a while if none answers.

        Args:
            model: Name that all must serve; None takes the only one that they all list.

        Returns:
            That name, and the most tokens of prompt and completion, None if nobody says.

        Raises:
            EngineError: no server answers, one refuses, or they do not serve the model.
        """
        waits_s = list(_RETRY_WAITS_S)
        while True:
            answers = await asyncio.gather(*map(_models, self._servers))
            failed = [answer for answer in answers if isinstance(answer, Dropped)]
            if len(failed) < len(answers):
                break
            if not waits_s:
                raise EngineError(
                    f"{self._servers[0].url}: {failed[0]}. Start the server and wait until it "
                    "serves."
                )
            await asyncio.sleep(waits_s.pop(0))
        known = {
            server.url: limits
            for server, limits in zip(self._servers, answers, strict=True)
            if isinstance(limits, dict)
        }
        model = model or _only_model(known)
        for url, limits in known.items():
            if model not in limits:
                raise EngineError(f"{url} serves {', '.join(limits) or 'nothing'}, not {model!r}.")
        told = [limits[model] for limits in known.values() if limits[model] is not None]
        return model, min(told, default=None)

    async def pieces(self, body: dict[str, Any]) -> AsyncIterator[tuple[int, Piece]]:
        """Yields a completion as it is streamed, each piece with its place; 0 starts it over.

        A failed stream is tried again at once at every other server that is awake, then after 1, 2
        and 4 s. While any stream grows, servers without room (429, 503) are asked without end.

        Raises:
            EngineError: nothing helped, or a server refuses the request for good.
        """
        waits_s, tried, finished = list(_RETRY_WAITS_S), set(), False
        while not finished:
            server, place = self._pick(tried), 0
            try:
                async with contextlib.aclosing(server.pieces(body)) as pieces:
                    async for piece in pieces:
                        finished = finished or piece.finish_reason is not None
                        yield place, piece
                        place += 1
                if not finished:
                    raise Dropped("the stream ended before the completion did")
            except Dropped as error:
                if finished:
                    return
                server.rest(error)
                tried.add(server)
                if self._pick(tried) is None:
                    await self._wait(server, error, waits_s)
                    tried.clear()

    def _pick(self, tried: set[Server]) -> Server | None:
        """Returns the least loaded server that is awake and not in `tried`, None if there is none.

        While nothing is tried, one that sleeps is better than none.
        """
        untried = [server for server in self._servers if server not in tried]
        if awake := [server for server in untried if server.is_awake]:
            return min(awake, key=lambda server: server.num_open)
        return None if tried else min(untried, key=lambda server: server.num_open)

    async def _wait(self, server: Server, error: Dropped, waits_s: list[float]) -> None:
        if not waits_s:
            waits = ", ".join(f"{wait_s:g}" for wait_s in _RETRY_WAITS_S)
            raise EngineError(
                f"{server.url}: {error}; also after waits of {waits} s. Look into the server's log."
            )
        await asyncio.sleep(waits_s[0])
        silent_s = time.monotonic() - max(server.last_piece_s for server in self._servers)
        if not isinstance(error, Busy) or silent_s >= waits_s[0]:
            del waits_s[0]


async def _models(server: Server) -> dict[str, int | None] | Dropped | None:
    """Returns what a server lists, or why it does not answer."""
    try:
        return await server.models()
    except Dropped as error:
        server.rest(error)
        return error


def _only_model(known: dict[str, dict[str, int | None]]) -> str:
    """Returns the one model that all servers list."""
    shared = set.intersection(*map(set, known.values())) if known else set()
    if len(shared) != 1:
        urls, names = ", ".join(known) or "the servers", ", ".join(sorted(shared)) or "none"
        raise EngineError(f"which model? {urls} list in common: {names}. Name one.")
    return shared.pop()
