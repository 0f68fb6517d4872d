"""Completions launched together and what was heard of them."""

import zlib
from collections import Counter
from collections.abc import Callable, Container
from dataclasses import asdict, dataclass, replace
from typing import Self

from fastmath_kit.errors import DataError
from fastmath_kit.inference.protocol import Engine, Sampling, Update
from fastmath_kit.inference.stops import either
from fastmath_kit.inference.tools import Conversation, PythonTool
from fastmath_kit.problems.answers import extract_answer, same_answer
from fastmath_kit.problems.prompts import completion_ids, prompt_ids
from fastmath_kit.problems.records import Problem, Trace

_TOOL_POLL_S = 0.02  # how often a running call is looked at


@dataclass(slots=True, kw_only=True)
class _Launched:
    """One trace on its way; with a tool it is sampled in segments."""

    problem: Problem
    sample: int
    start_s: float
    prompt_ids: list[int]
    sampling: Sampling
    update: Update  # of the segment
    earlier_tokens: int = 0  # sampled in the segments before it
    talk: Conversation | None = None
    trace: Trace | None = None  # once it has ended

    @property
    def num_tokens(self) -> int:
        return self.earlier_tokens + self.update.completion_tokens

    @property
    def text(self) -> str:
        if self.talk is None:
            return self.update.text
        return self.talk.text + ("" if self.talk.is_calling else self.update.text)


class Batch:
    """Launched completions and what was heard of them; leaving it aborts what still runs."""

    def __init__(
        self,
        engine: Engine,
        clock: Callable[[], float],
        model: str,
        *,
        tool: PythonTool | None = None,
        on_event: Callable[[dict], None] | None = None,
    ) -> None:
        """Launches nothing yet.

        Args:
            engine: Serves the completions.
            clock: Seconds on a monotonic clock.
            model: Name recorded in the traces.
            tool: What the model may call, None for nothing.
            on_event: Told of every launch, call and end.
        """
        self._engine, self._clock, self._model = engine, clock, model
        self._tool, self._tell = tool, on_event or (lambda event: None)
        self._launched: list[_Launched] = []
        self._num_samples: Counter[str] = Counter()  # by problem
        self._sampled: dict[str, _Launched] = {}  # by request id, what the engine runs
        self._calling: list[_Launched] = []  # what the sandbox runs

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception) -> None:
        if self._sampled:
            self._engine.abort(list(self._sampled))
        for launched in self._launched:
            if launched.talk is not None:
                launched.talk.close()

    @property
    def num_running(self) -> int:
        """Completions that have not ended."""
        return len(self._sampled) + len(self._calling)

    @property
    def live_tokens(self) -> tuple[int, ...]:
        """Tokens so far of every running completion."""
        return tuple(live.num_tokens for live in self._launched if live.trace is None)

    def launch(
        self,
        problem: Problem,
        num_traces: int,
        sampling: Sampling,
        *,
        known: Container[tuple[str, int]] = (),
    ) -> None:
        """Starts that many further samples of a problem but those known by its id and number."""
        if not num_traces:
            return
        python = None if self._tool is None else self._tool.style
        ids = prompt_ids(self._engine.tokenizer, problem.statement, python)
        first = self._num_samples[problem.id]
        for sample in range(first, first + num_traces):
            self._num_samples[problem.id] += 1
            if (problem.id, sample) in known:
                continue
            seed = sampling.seed
            if seed is not None:
                seed = zlib.crc32(f"{seed}/{problem.id}/{sample}".encode())
            launched = _Launched(
                problem=problem,
                sample=sample,
                start_s=self._clock(),
                prompt_ids=ids,
                sampling=replace(sampling, seed=seed),
                update=Update(request_id=""),
                talk=None if self._tool is None else Conversation(tool=self._tool),
            )
            try:
                self._sample(launched)
            except DataError as error:
                raise DataError(f"problem {problem.id}: {error}") from error
            self._launched.append(launched)
        self._tell({"event": "launch", "problem_id": problem.id, "num_traces": num_traces})

    def poll(self, timeout_s: float) -> list[Trace]:
        """Returns the traces that finished, waiting at most `timeout_s` for any news."""
        if self._calling:
            timeout_s = min(timeout_s, _TOOL_POLL_S)
        finished = []
        for update in self._engine.poll(timeout_s):
            launched = self._sampled.get(update.request_id)
            if launched is None:
                continue  # of an earlier batch
            launched.update = update
            if update.finish_reason is not None:
                del self._sampled[update.request_id]
                if not self._begin_call(launched):
                    finished.append(self._end(launched, update.finish_reason))
        for launched in list(self._calling):
            if self._end_call(launched) and launched.trace is not None:
                finished.append(launched.trace)
        return finished

    def traces(self) -> list[Trace]:
        """Returns all traces as launched, those still running as aborted."""
        return [live.trace or self._trace(live, "abort") for live in self._launched]

    def _sample(self, launched: _Launched) -> None:
        """Starts a trace's first or next segment."""
        ids, sampling, talk = launched.prompt_ids, launched.sampling, launched.talk
        if talk is not None:
            ids = ids + completion_ids(self._engine.tokenizer, talk.text)
            sampling = replace(
                sampling,
                until=either(sampling.until, talk.until),
                max_tokens=sampling.max_tokens - launched.earlier_tokens,
            )
        request_id = self._engine.launch(ids, sampling)
        launched.update = Update(request_id=request_id)
        self._sampled[request_id] = launched

    def _begin_call(self, launched: _Launched) -> bool:
        update, talk = launched.update, launched.talk
        if talk is None or update.finish_reason != "stop" or not talk.begin_call(update.text):
            return False
        self._calling.append(launched)
        return True

    def _end_call(self, launched: _Launched) -> bool:
        """Whether a call has ended; then its trace goes on, or ends for want of tokens."""
        output = launched.talk.end_call(self._engine.tokenizer)
        if output is None:
            return False
        self._calling.remove(launched)
        told = {"event": "call", "sample": launched.sample, **asdict(output)}
        self._tell(told | {"problem_id": launched.problem.id})
        launched.earlier_tokens = launched.num_tokens
        launched.update = Update(request_id="")
        try:
            if launched.earlier_tokens >= launched.sampling.max_tokens:
                raise DataError("no tokens are left.")
            self._sample(launched)
        except DataError:  # as a completion that reaches its limit
            self._end(launched, "length")
        return True

    def _end(self, launched: _Launched, finish_reason: str) -> Trace:
        launched.trace = trace = self._trace(launched, finish_reason)
        if launched.talk is not None:
            launched.talk.close()
        told = ("problem_id", "sample", "completion_tokens", "answer", "finish_reason", "seconds")
        self._tell({"event": "trace"} | {name: getattr(trace, name) for name in told})
        return trace

    def _trace(self, launched: _Launched, finish_reason: str) -> Trace:
        problem, update, text = launched.problem, launched.update, launched.text
        answer = extract_answer(text) if finish_reason == "stop" else None
        graded = problem.solution is not None
        return Trace(
            problem_id=problem.id,
            sample=launched.sample,
            completion_tokens=launched.num_tokens,
            answer=answer,
            completion=text,
            finish_reason=finish_reason,
            solution=problem.solution,
            correct=same_answer(answer, problem.solution) if graded else None,
            seconds=self._clock() - launched.start_s,
            model=self._model,
            mean_logprob=update.mean_logprob,
            tail_entropy=update.tail_entropy,
        )
