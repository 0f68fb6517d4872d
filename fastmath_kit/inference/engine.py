"""Serves a model folder with vLLM: completions that can be watched and aborted while they grow.

    with VLLMEngine("runs/demo/sft-10", in_process=False) as engine:
        solve(problem, engine, rule)

vLLM's own `LLMEngine` runs in one owner thread. Callers talk to that thread by a queue, so `poll`
returns on time even when vLLM hangs, and its death is an `EngineError` at the next call; so is a
step or a start that never ends, if vLLM has processes of its own.
"""

import atexit
import contextlib
import gc
import itertools
import multiprocessing
import queue
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from fastmath_kit.errors import DataError
from fastmath_kit.inference import vllm_core
from fastmath_kit.inference.model_folder import load_tokenizer, read_config
from fastmath_kit.inference.outbox import Outbox
from fastmath_kit.inference.protocol import Engine, Sampling, Update
from fastmath_kit.inference.stops import Until
from fastmath_kit.problems.prompts import STOP, stop_token_id

_LIVENESS_S = 0.25  # how often poll looks whether vLLM's process still lives
_STEP_S = 60.0  # a step of vLLM's own processes that was waited for so long will not end
_START_S = 1_800.0  # nor will such a start


class VLLMEngine(Engine):
    """vLLM on one model folder. A dead engine raises `EngineError` from `launch` and `poll`.

    Completions that ran when it died get no last update: what earlier polls returned is all.

    Attributes:
        kv_capacity_tokens: Tokens that the key-value cache holds, as vLLM measured it.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        in_process: bool,
        max_model_len: int | None = None,
        dtype: str = "auto",
        kv_cache_dtype: str = "auto",
        gpu_memory_utilization: float = 0.9,
        max_num_seqs: int | None = None,
        tensor_parallel_size: int = 1,
        seed: int = 0,
    ) -> None:
        """Returns when the engine can serve.

        Args:
            model: Folder with config.json, safetensors weights and a tokenizer.
            in_process: True runs the model in this process, one such engine at a time: it starts in
                seconds. False gives it processes of its own, as on Kaggle: scripts then need the
                `if __name__ == "__main__":` guard.
            max_model_len: Most tokens of prompt and completion; None takes the model's limit.
            dtype: vLLM's; `auto` also picks bfloat16 for 4-bit weights on a CPU, which need it.
            kv_cache_dtype: vLLM's; `fp8` holds twice the tokens of `auto`, the model's own.
            gpu_memory_utilization: Fraction of each GPU that vLLM may fill.
            max_num_seqs: Most completions in one batch; None leaves it to vLLM.
            tensor_parallel_size: GPUs that share the model.
            seed: Of completions without one of their own, and of an in-process engine's process.

        Raises:
            CheckpointError: the folder holds no model this kit can serve.
            EngineError: vLLM refused to start.
        """
        read_config(model)
        self.name = Path(model).name
        self.tokenizer = load_tokenizer(model)
        self._stop_token_id = stop_token_id(self.tokenizer)
        self._in_process = in_process
        self._ids = itertools.count()
        self._commands: queue.SimpleQueue[Callable | None] = queue.SimpleQueue()
        self._until: dict[str, Until] = {}  # the owner thread's
        self._outbox = Outbox()
        self._core = None
        self._num_edges, self._seen_edges, self._still_s = 0, 0, 0.0  # see `_look_for_hang`
        ready = threading.Event()
        options = {
            "model": str(model),
            "max_model_len": max_model_len,
            "dtype": dtype,
            "kv_cache_dtype": kv_cache_dtype,
            "gpu_memory_utilization": gpu_memory_utilization,
            "max_num_seqs": max_num_seqs,
            "tensor_parallel_size": tensor_parallel_size,
            "seed": seed,
        }
        self._owner = threading.Thread(target=self._own, args=(options, ready), daemon=True)
        self._start(ready)
        atexit.register(self.close)

    def launch(self, prompt_ids: list[int], sampling: Sampling) -> str:
        """Starts a completion; see `Engine.launch`.

        Raises:
            DataError: the prompt is empty or leaves no room for a completion.
            EngineError: the engine is dead or closed.
        """
        self._outbox.check()
        if not 0 < len(prompt_ids) < self._max_model_len:
            raise DataError(
                f"a prompt of {len(prompt_ids)} tokens does not fit {self.name}, which takes 1 to "
                f"{self._max_model_len - 1}. Shorten it or raise max_model_len."
            )
        request_id = f"trace-{next(self._ids)}"
        self._commands.put(partial(self._add, request_id, list(prompt_ids), sampling))
        return request_id

    def poll(self, timeout_s: float) -> list[Update]:
        """Returns what changed; see `Engine.poll`. Updates of a dead engine are delivered first."""
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            if self._outbox.wait(min(left_s, _LIVENESS_S)):
                break
            self._wake_owner_of_dead_core()
            self._look_for_hang(min(left_s, _LIVENESS_S))
        return self._outbox.take()

    def abort(self, request_ids: Iterable[str]) -> None:
        """Ends completions early; each that still ran gets a last update with `abort`."""
        self._commands.put(partial(self._abort, list(request_ids)))

    def close(self) -> None:
        """Stops vLLM and frees its memory and processes; a hung vLLM is left behind."""
        atexit.unregister(self.close)
        self._commands.put(None)
        self._owner.join(vllm_core.CLOSE_S)
        if self._owner.is_alive() and self._core is not None:
            self._core.shutdown(timeout=1.0)  # kills the processes
            self._wake_owner_of_dead_core()
        multiprocessing.active_children()  # reaps those that ended
        gc.collect()  # vLLM's objects form cycles

    def _start(self, ready: threading.Event) -> None:
        """Starts the owner thread and returns when vLLM is up."""
        before = set(multiprocessing.active_children())
        self._owner.start()
        if not ready.wait(None if self._in_process else _START_S):
            self._outbox.close(f"{self.name}: vLLM did not start in {_START_S:.0f} s. Start again.")
            for child in set(multiprocessing.active_children()) - before:
                child.kill()  # vLLM's start then fails, and frees what it holds
            self._commands.put(None)  # one that gets up all the same ends at once
            ready.wait(vllm_core.CLOSE_S)
        self._outbox.check()

    def _wake_owner_of_dead_core(self) -> None:
        """Makes the owner thread, whether it waits for output or for a command, see the death."""
        if self._core is not None and vllm_core.end_wait_for_dead_core(self._core):
            self._commands.put(vllm_core.check_alive)

    def _look_for_hang(self, waited_s: float) -> None:
        """Gives up an engine whose step does not end; a pause of the machine is no waiting."""
        is_stepping = self._num_edges % 2 == 1  # begins and ends are counted
        if self._in_process or not is_stepping or self._num_edges != self._seen_edges:
            self._seen_edges, self._still_s = self._num_edges, 0.0
            return
        self._still_s += waited_s
        if self._still_s >= _STEP_S:
            self._outbox.close(
                f"{self.name}: vLLM hangs, a step has not ended in {_STEP_S:.0f} s. "
                "Close this engine and start another one."
            )

    # What follows runs in the owner thread only.

    def _own(self, options: dict, ready: threading.Event) -> None:
        with contextlib.ExitStack() as at_last, contextlib.ExitStack() as at_end:
            at_last.callback(ready.set)
            at_end.push(self._record_end)
            engine = vllm_core.start(options, in_process=self._in_process)
            at_last.callback(vllm_core.shut_down, engine)
            self._max_model_len = engine.model_config.max_model_len
            self.kv_capacity_tokens = vllm_core.kv_capacity_tokens(engine)
            self._core = None if self._in_process else engine.engine_core
            ready.set()
            while self._obey(engine):
                if engine.has_unfinished_requests():
                    self._num_edges += 1
                    outputs = engine.step()
                    self._num_edges += 1
                    for output in outputs:
                        self._grow(output, engine)

    def _record_end(self, kind, error: BaseException | None, traceback) -> bool:
        """Makes what ended the owner thread the message of every later call."""
        message = f"{self.name}: the engine is closed. Start another one."
        if error is not None:
            first_line = (str(error).strip() or kind.__name__).splitlines()[0]
            message = (
                f"{self.name}: vLLM died or did not start ({kind.__name__}: {first_line}). "
                "Set VLLM_LOGGING_LEVEL=INFO to see its log; start another engine."
            )
        self._outbox.close(message)
        return True

    def _obey(self, engine) -> bool:
        """Carries out the queued commands, waiting for one while idle; False to stop."""
        idle = not engine.has_unfinished_requests()
        with contextlib.suppress(queue.Empty):
            while True:
                command = self._commands.get(block=idle)
                if command is None:
                    return False
                command(engine)
                idle = False
        return True

    def _add(self, request_id: str, prompt_ids: list[int], sampling: Sampling, engine) -> None:
        vllm_core.add_request(engine, request_id, prompt_ids, sampling, self._stop_token_id)
        self._outbox.open(request_id)
        if sampling.until is not None:
            self._until[request_id] = sampling.until

    def _abort(self, request_ids: list[str], engine, finish_reason: str = "abort") -> None:
        running = self._outbox.running(request_ids)
        engine.abort_request(running)
        self._finish(running, finish_reason)

    def _finish(self, request_ids: list[str], finish_reason: str) -> None:
        for request_id in request_ids:
            self._until.pop(request_id, None)
        self._outbox.finish(request_ids, finish_reason)

    def _grow(self, output, engine) -> None:
        """Passes on what a completion wrote in a step, and ends it where it is complete."""
        request_id, completion = output.request_id, output.outputs[0]
        reason, piece = completion.finish_reason, completion.text
        if reason == "stop" and completion.stop_reason == self._stop_token_id:
            piece += STOP
        self._outbox.add(request_id, piece, len(completion.token_ids))
        if completion.logprobs:
            entropies = vllm_core.entropies(completion)
            self._outbox.weigh(request_id, completion.cumulative_logprob, entropies)
        if reason is not None:
            self._finish([request_id], reason if reason in ("stop", "length") else "abort")
            return
        until = self._until.get(request_id)
        if until is not None and until.ends(piece, partial(self._outbox.text, request_id)):
            self._abort([request_id], engine, finish_reason="stop")
