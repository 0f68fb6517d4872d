"""Asks OpenAI-compatible servers for completions, as if they were one engine.

    with EndpointEngine("http://localhost:8000", tokenizer="runs/demo/sft-10") as engine:
        traces = sample_traces(problems, engine, k=64, sampling=Sampling(max_tokens=16_384))

For evaluation and sampling beyond one machine: vLLM with data parallelism, Ray Serve, SGLang, or
several such servers. The prompt is sent as token ids, so it is the same as everywhere. Streams live
in one background thread; a server that hangs holds up nobody.
"""

import asyncio
import contextlib
import itertools
import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from fastmath_kit.errors import ConfigError, DataError, EngineError
from fastmath_kit.inference.endpoint_completion import Completion
from fastmath_kit.inference.endpoint_fleet import Fleet
from fastmath_kit.inference.model_folder import load_tokenizer
from fastmath_kit.inference.outbox import Outbox
from fastmath_kit.inference.protocol import Engine, Sampling, Update
from fastmath_kit.problems.prompts import stop_token_id

_CLOSE_S = 5.0  # how long open streams may take to close
_log = logging.getLogger(__name__)


class EndpointEngine(Engine):
    """One or more servers of one model behind the protocol of a local engine.

    A stream that breaks off, a server that is not there and the statuses 429 and 5xx are tried
    again: at once at another server, then after 1, 2 and 4 s. The completion starts over and counts
    once. A server without room is waited for as long as others of our streams grow. What fails
    beyond that, or is refused for good (other 4xx), is an `EngineError` from `launch` and `poll`;
    completions that ran then get no last update.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        tokenizer: str | Path,
        model: str | None = None,
        max_concurrent: int = 64,
        max_model_len: int | None = None,
        silence_s: float = 600.0,
    ) -> None:
        """Asks the servers what they serve and returns when one has answered.

        Args:
            urls: One server or several, such as `http://host:8000`. A user and password in a URL
                are sent; otherwise the environment's OPENAI_API_KEY, if there is one.
            tokenizer: Folder with the model's tokenizer and chat template.
            model: Name by which the servers know the model; None takes the only one they list.
            max_concurrent: Most completions open at once, over all servers. Others wait here.
            max_model_len: Most tokens of prompt and completion; None takes the servers' word.
            silence_s: How long a server may send nothing on any stream before all that are open
                there count as broken off. One stream alone may wait in the server's queue.

        Raises:
            CheckpointError: the folder has no tokenizer of a reasoning model.
            ConfigError: a value is impossible.
            EngineError: no server answers, one refuses, or they do not serve the model.
        """
        if max_concurrent < 1 or not silence_s > 0:
            raise ConfigError(
                "max_concurrent must be at least 1 and silence_s above 0, got "
                f"{max_concurrent} and {silence_s}."
            )
        self._fleet = Fleet([urls] if isinstance(urls, str) else urls, silence_s=silence_s)
        self.tokenizer = load_tokenizer(tokenizer)
        stop_token_id(self.tokenizer)  # raises if there is none
        self._max_concurrent, self._max_model_len = max_concurrent, max_model_len
        self._ids = itertools.count()
        self._outbox = Outbox()
        self._waiting: dict[str, Completion] = {}  # the owner thread's, as is the next
        self._served: dict[str, tuple[Completion, asyncio.Task]] = {}
        ready = threading.Event()
        owner = self._own(model, ready)
        self._owner = threading.Thread(target=asyncio.run, args=(owner,), daemon=True)
        self._owner.start()
        ready.wait()
        self._outbox.check()

    def launch(self, prompt_ids: list[int], sampling: Sampling) -> str:
        """Starts a completion, or queues it while `max_concurrent` run; see `Engine.launch`.

        Raises:
            DataError: the prompt is empty or leaves no room for a completion.
            EngineError: the servers are gone or the engine is closed.
        """
        self._outbox.check()
        limit = self._max_model_len
        if not prompt_ids or (limit is not None and len(prompt_ids) >= limit):
            raise DataError(
                f"a prompt of {len(prompt_ids)} tokens does not fit {self.name}, which takes 1 to "
                f"{limit - 1 if limit else 'any'}. Shorten it or serve it with more room."
            )
        if limit is not None and sampling.max_tokens > limit - len(prompt_ids):
            sampling = replace(sampling, max_tokens=limit - len(prompt_ids))  # as vLLM's engine
        request_id = f"trace-{next(self._ids)}"
        self._outbox.open(request_id)
        prompt_ids = list(prompt_ids)
        completion = Completion(request_id, prompt_ids, sampling, self.tokenizer, self._outbox)
        self._tell(self._add, request_id, completion)
        return request_id

    def poll(self, timeout_s: float) -> list[Update]:
        """Returns what changed; see `Engine.poll`. Updates from before an end come first."""
        self._outbox.wait(timeout_s)
        return self._outbox.take()

    def abort(self, request_ids: Iterable[str]) -> None:
        """Ends completions early; each that still ran gets a last update with `abort`."""
        self._tell(self._abort, list(request_ids))

    def close(self) -> None:
        """Closes all streams, so that the servers abort them."""
        self._tell(self._end)
        self._owner.join(_CLOSE_S)

    def _tell(self, command, *arguments) -> None:
        """Has the owner thread carry out a command, if it still runs."""
        with contextlib.suppress(RuntimeError):  # its loop is closed
            self._loop.call_soon_threadsafe(command, *arguments)

    # What follows runs in the owner thread only.

    async def _own(self, model: str | None, ready: threading.Event) -> None:
        with contextlib.ExitStack() as at_end:
            at_end.callback(ready.set)
            at_end.push(self._record_end)
            async with self._fleet:
                self.name, limit = await self._fleet.check_in(model)
                limits = [tokens for tokens in (self._max_model_len, limit) if tokens is not None]
                self._max_model_len = min(limits, default=None)
                self._loop = asyncio.get_running_loop()
                self._ended = self._loop.create_future()
                ready.set()
                try:
                    await self._ended
                finally:
                    tasks = [task for _, task in self._served.values()]
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)

    def _record_end(self, kind, error: BaseException | None, traceback) -> bool:
        """Makes what ended the engine the message of every later call."""
        if error is None:
            message = f"{self.name}: the engine is closed. Start another one."
        elif isinstance(error, EngineError):
            message = str(error)
        else:
            _log.error("the thread that talks to the servers died", exc_info=error)
            message = f"the thread that talks to the servers died ({kind.__name__}: {error})."
        self._outbox.close(message)
        return True

    def _end(self, error: BaseException | None = None) -> None:
        if not self._ended.done():
            self._ended.set_result(None) if error is None else self._ended.set_exception(error)

    def _add(self, request_id: str, completion: Completion) -> None:
        self._waiting[request_id] = completion
        self._fill()

    def _fill(self) -> None:
        """Serves those that wait, in their order, as far as there is room."""
        while self._waiting and len(self._served) < self._max_concurrent and not self._ended.done():
            request_id = next(iter(self._waiting))
            completion = self._waiting.pop(request_id)
            task = asyncio.create_task(completion.run(self._fleet, self.name))
            self._served[request_id] = completion, task
            task.add_done_callback(partial(self._retire, request_id))

    def _retire(self, request_id: str, task: asyncio.Task) -> None:
        del self._served[request_id]
        if not task.cancelled() and task.exception() is not None:
            self._end(task.exception())
        self._fill()

    def _abort(self, request_ids: list[str]) -> None:
        for request_id in self._outbox.running(request_ids):
            self._waiting.pop(request_id, None)
            if request_id in self._served:
                completion, task = self._served[request_id]
                task.cancel()
                completion.finish("abort")
        self._outbox.finish(request_ids, "abort")
