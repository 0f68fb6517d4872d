"""Completions launched together and what was heard of them."""

import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Self

from fastmath_kit.errors import DataError
from fastmath_kit.inference.protocol import Engine, Sampling, Update
from fastmath_kit.problems.answers import extract_answer, same_answer
from fastmath_kit.problems.prompts import prompt_ids
from fastmath_kit.problems.records import Problem, Trace


class Batch:
    """Launched completions and what was heard of them; leaving it aborts what still runs."""

    def __init__(self, engine: Engine, clock: Callable[[], float], model: str) -> None:
        """Launches nothing yet; `model` is the name recorded in the traces."""
        self._engine, self._clock, self._model = engine, clock, model
        self._launched: dict[str, tuple[Problem, int, float]] = {}  # with sample and start
        self._num_samples: Counter[str] = Counter()  # by problem
        self._running: dict[str, Update] = {}
        self._finished: dict[str, Trace] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception) -> None:
        if self._running:
            self._engine.abort(list(self._running))

    @property
    def num_running(self) -> int:
        """Completions that have not ended."""
        return len(self._running)

    @property
    def live_tokens(self) -> tuple[int, ...]:
        """Tokens so far of every running completion."""
        return tuple(update.completion_tokens for update in self._running.values())

    def launch(self, problem: Problem, num_traces: int, sampling: Sampling) -> None:
        """Starts that many further samples of a problem."""
        ids = prompt_ids(self._engine.tokenizer, problem.statement)
        first = self._num_samples[problem.id]
        for sample in range(first, first + num_traces):
            seed = sampling.seed
            if seed is not None:
                seed = zlib.crc32(f"{seed}/{problem.id}/{sample}".encode())
            try:
                request_id = self._engine.launch(ids, replace(sampling, seed=seed))
            except DataError as error:
                raise DataError(f"problem {problem.id}: {error}") from error
            self._launched[request_id] = (problem, sample, self._clock())
            self._running[request_id] = Update(request_id=request_id)
            self._num_samples[problem.id] += 1

    def poll(self, timeout_s: float) -> list[Trace]:
        """Returns the traces that finished, waiting at most `timeout_s` for any news."""
        finished = []
        for update in self._engine.poll(timeout_s):
            if update.request_id not in self._running:
                continue  # of an earlier batch
            self._running[update.request_id] = update
            if update.finish_reason is not None:
                del self._running[update.request_id]
                self._finished[update.request_id] = self._trace(update, update.finish_reason)
                finished.append(self._finished[update.request_id])
        return finished

    def traces(self) -> list[Trace]:
        """Returns all traces as launched, those still running as aborted."""
        running = {name: self._trace(update, "abort") for name, update in self._running.items()}
        return [(self._finished | running)[name] for name in self._launched]

    def _trace(self, update: Update, finish_reason: str) -> Trace:
        problem, sample, start_s = self._launched[update.request_id]
        answer = extract_answer(update.text) if finish_reason == "stop" else None
        graded = problem.solution is not None
        return Trace(
            problem_id=problem.id,
            sample=sample,
            completion_tokens=update.completion_tokens,
            answer=answer,
            completion=update.text,
            finish_reason=finish_reason,
            solution=problem.solution,
            correct=same_answer(answer, problem.solution) if graded else None,
            seconds=self._clock() - start_s,
            model=self._model,
        )
