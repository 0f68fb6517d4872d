"""One completion of an `EndpointEngine`: from its request to its last update in the outbox.

completion = Completion("trace-7", prompt_ids, sampling, tokenizer, outbox)
task = asyncio.create_task(completion.run(fleet, "sft-10"))
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastmath_kit.inference.endpoint_fleet import Fleet
from fastmath_kit.inference.endpoint_stream import Piece, ended_at_stop, request_body
from fastmath_kit.inference.outbox import Outbox
from fastmath_kit.inference.protocol import Sampling
from fastmath_kit.problems.prompts import STOP, completion_ids, stop_token_id

_LAST_WORDS_S = 5.0  # after a completion's end, for what else its stream says


class Completion:
    """One completion, asked for and told to the outbox as it grows."""

    def __init__(
        self, request_id: str, prompt_ids: list[int], sampling: Sampling, tokenizer, outbox: Outbox
    ) -> None:
        """Takes what is asked for; the request must be open in the outbox."""
        self._request_id = request_id
        self._prompt_ids, self._sampling = prompt_ids, sampling
        self._tokenizer, self._stop_token_id = tokenizer, stop_token_id(tokenizer)
        self._outbox = outbox
        self._num_tokens = 0  # told to the outbox
        self._is_counted = False  # by the server; otherwise they are a lower bound
        self._logprob = 0.0

    async def run(self, fleet: Fleet, model: str) -> None:
        """Streams the completion to its end.

        Raises:
            EngineError: the servers are gone or refuse it.
        """
        until = self._sampling.until
        body = request_body(model, self._prompt_ids, self._sampling, self._stop_token_id)
        async with contextlib.aclosing(fleet.pieces(body)) as pieces:
            async for place, piece in pieces:
                if place == 0:  # until here, what an earlier stream wrote stands
                    self._outbox.open(self._request_id)
                    self._num_tokens, self._logprob = 0, 0.0
                self._grow(piece)
                if piece.finish_reason is not None:
                    await self._hear_out(pieces)
                    return self._end(piece)
                if until is not None and until.ends(piece.text, self._text):
                    return self.finish("stop")

    def finish(self, finish_reason: str, *, num_hidden: int = 0) -> None:
        """Tells that the completion ended, with `num_hidden` tokens that its text does not show."""
        if not self._is_counted:
            num_tokens = len(completion_ids(self._tokenizer, self._text())) + num_hidden
            self._outbox.add(self._request_id, "", num_tokens - self._num_tokens)
        self._outbox.finish([self._request_id], finish_reason)

    def _text(self) -> str:
        return self._outbox.text(self._request_id)

    def _grow(self, piece: Piece) -> None:
        self._is_counted = piece.total_tokens is not None
        num_new = piece.num_tokens
        if piece.total_tokens is not None:
            num_new = piece.total_tokens - self._num_tokens
        self._num_tokens += num_new
        self._outbox.add(self._request_id, piece.text, num_new)
        if piece.logprob is not None:
            self._logprob += piece.logprob
            self._outbox.weigh(self._request_id, self._logprob, piece.entropies)

    async def _hear_out(self, pieces: AsyncIterator[tuple[int, Piece]]) -> None:
        """Takes what follows the end: many servers count the tokens only there."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                async for _, piece in pieces:
                    self._grow(piece)

    def _end(self, piece: Piece) -> None:
        """Ends the completion as its server did."""
        reason = piece.finish_reason
        num_hidden = int(reason == "stop")  # the model's own end
        if self._sampling.ends_at_stop and ended_at_stop(piece, self._stop_token_id):
            num_hidden = 0
            if not self._text().endswith(STOP):
                self._outbox.add(self._request_id, STOP, 0)
        reason = reason if reason in ("stop", "length") else "abort"
        self.finish(reason, num_hidden=num_hidden)
