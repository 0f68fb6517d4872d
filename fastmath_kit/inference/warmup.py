"""Gets an engine ready: weights in memory before vLLM asks, one real generation, its speed.

    start_engine = partial(start_warm, partial(VLLMEngine, model, in_process=False), model)
    engine = start_engine()
    probes = measure_probes(engine)  # for budget.throughput.calibrate

An engine that started can still be broken: weights that were quantized or copied badly load and
write garbage. So a start ends with one real generation.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from fastmath_kit.budget.throughput import Probe
from fastmath_kit.errors import EngineError
from fastmath_kit.inference.page_cache import read_ahead
from fastmath_kit.inference.protocol import Engine, Sampling
from fastmath_kit.problems.prompts import STOP, prompt_ids

_STATEMENT = "What is $1+1$?"
_TEST_TOKENS = 16
_TEST_LIMIT_S = 120.0  # a first generation may compile
_PROBE_TOKENS = 256
_ENOUGH_STEPS = 200
_LEAST_STEPS = 4  # fewer measure nothing
_LOOK_S = 0.01  # between two looks at what a probe has written
_log = logging.getLogger(__name__)


def start_warm(build: Callable[[], Engine], model: str | Path) -> Engine:
    """Returns a tested engine, built while its weight files are read into memory.

    Reading ends with the start, whether it was complete or not.

    Args:
        build: Starts the engine.
        model: Folder of its weights.

    Raises:
        EngineError: the engine did not start, or writes nothing or garbage.
    """
    started = threading.Event()
    threading.Thread(
        target=read_ahead, args=(model,), kwargs={"stop": started}, daemon=True
    ).start()
    with ExitStack() as on_error:
        with ExitStack() as at_end:
            at_end.callback(started.set)
            engine = build()
        on_error.callback(engine.close)
        text = self_test(engine)
        on_error.pop_all()
    _log.info("%s: works, its first words: %r", engine.name, text[:60])
    return engine


def self_test(engine: Engine, *, limit_s: float = _TEST_LIMIT_S) -> str:
    """Returns the first words of a real completion.

    Raises:
        CheckpointError: the model has no chat template.
        EngineError: nothing came in time, or what came is no text: no token at all, ids outside
            the vocabulary, or one character over and over, as broken weights write it.
    """
    ids = prompt_ids(engine.tokenizer, _STATEMENT)
    request_id = engine.launch(ids, Sampling(max_tokens=_TEST_TOKENS))
    end_s, hint = time.monotonic() + limit_s, "Check the weights and their quantization."
    while (left_s := end_s - time.monotonic()) > 0:
        for update in engine.poll(left_s):
            if update.request_id == request_id and update.finish_reason is not None:
                text = update.text.removesuffix(STOP).strip()
                if not text or (len(set(text)) == 1 and update.completion_tokens == _TEST_TOKENS):
                    raise EngineError(
                        f"{engine.name}: the self-test wrote {update.completion_tokens} tokens "
                        f"that are no text: {update.text!r}. {hint}"
                    )
                return text
    engine.abort([request_id])
    raise EngineError(f"{engine.name}: the self-test wrote nothing in {limit_s:.0f} s. {hint}")


def measure_probes(
    engine: Engine, *, concurrencies: Sequence[int] = (1, 8), limit_s: float = 1.0
) -> list[Probe]:
    """Returns the time of a decoding step, measured with that many completions at once.

    Args:
        engine: Idle, and tested before: a first generation may compile.
        concurrencies: Completions that run together, one probe for each number.
        limit_s: Most seconds of a probe. One that saw too few steps is left out.
    """
    ids = prompt_ids(engine.tokenizer, _STATEMENT)
    found = [_measure(engine, ids, num_running, limit_s) for num_running in concurrencies]
    return [probe for probe in found if probe is not None]


def _measure(engine: Engine, ids: list[int], num_running: int, limit_s: float) -> Probe | None:
    end_s = time.monotonic() + limit_s
    steps, seconds, context_tokens = 0.0, 0.0, 0.0
    while time.monotonic() < end_s and steps < _ENOUGH_STEPS:
        first, last = _burst(engine, ids, num_running, end_s)
        new_steps = (last[1] - first[1]) / num_running
        steps, seconds = steps + new_steps, seconds + last[0] - first[0]
        context_tokens += new_steps * (num_running * len(ids) + (first[1] + last[1]) / 2)
    if steps < _LEAST_STEPS:
        return None
    return Probe(
        num_running=num_running, context_tokens=context_tokens / steps, step_s=seconds / steps
    )


def _burst(
    engine: Engine, ids: list[int], num_running: int, end_s: float
) -> tuple[tuple[float, int], tuple[float, int]]:
    """Returns time and tokens when all ran, and when the first ended or time was up."""
    sampling = Sampling(max_tokens=_PROBE_TOKENS, ends_at_stop=False)
    tokens = {engine.launch(ids, sampling): 0 for _ in range(num_running)}
    seen: list[tuple[float, int]] = []
    ended = False
    while not ended and (left_s := end_s - time.monotonic()) > 0:
        for update in engine.poll(min(_LOOK_S, left_s)):
            if update.request_id in tokens:
                tokens[update.request_id] = update.completion_tokens
                ended = ended or update.finish_reason is not None
        if min(tokens.values()) > 0:
            seen.append((time.monotonic(), sum(tokens.values())))
    engine.abort(tokens)
    return (seen[0], seen[-1]) if seen else ((0.0, 0), (0.0, 0))
