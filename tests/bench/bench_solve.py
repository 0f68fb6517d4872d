"""Measures what `solve` costs beside vLLM's own `LLM.generate`, and how fast it lets go.

    python tests/bench/bench_solve.py                     # the miniature with random weights
    python tests/bench/bench_solve.py --model FOLDER --max-tokens 400

Both engines stay loaded in a process each and take turns, so that a noisy machine is noisy for
both; vLLM runs in these processes, as its own would poll while they wait. The miniature's step
takes a few milliseconds: what `solve` adds to a step weighs more than with any larger model. Prints
a table and, last, one JSON line.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from fastmath_kit.budget.policy import Decision, Rule
from fastmath_kit.inference.engine import VLLMEngine
from fastmath_kit.inference.environment import starting_environment
from fastmath_kit.inference.protocol import Sampling
from fastmath_kit.inference.solve import solve
from fastmath_kit.inference.stops import Until
from fastmath_kit.problems.prompts import prompt_ids
from fastmath_kit.problems.records import Problem
from fastmath_kit.tiny import write_model

NUM_TRACES = 16
PROBLEM = Problem(id="bench", statement="What is $9-3$?")


def main() -> None:
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or write_model(Path(folder) / "model", seed=0)
        setting = (str(model), args.max_tokens)
        with Turn(generate, setting) as baseline, Turn(solve_whole, setting) as ours:
            rounds = [(baseline.take(), ours.take()) for _ in range(args.rounds + 1)][1:]
        with Turn(let_go, setting) as turn:
            ends = [turn.take() for _ in range(args.rounds + 1)][1:]
    speeds = [(tokens / seconds, own / own_s) for (tokens, seconds), (own, own_s) in rounds]
    ratios = [ours / baseline for baseline, ours in speeds]
    result = {
        "rounds": args.rounds,
        "generate_tokens_per_s": round(statistics.median(speed for speed, _ in speeds)),
        "solve_tokens_per_s": round(statistics.median(speed for _, speed in speeds)),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_least": round(min(ratios), 3),
        "ratio_most": round(max(ratios), 3),
        "freed_ms": round(1e3 * statistics.median(end["freed_s"] for end in ends), 1),
        "freed_ms_most": round(1e3 * max(end["freed_s"] for end in ends), 1),
        "next_token_ms": round(1e3 * statistics.median(end["next_token_s"] for end in ends), 1),
        "wasted": round(statistics.median(end["wasted"] for end in ends), 5),
        "wasted_most": round(max(end["wasted"] for end in ends), 5),
    }
    for name, value in result.items():
        print(f"{name:24} {value}")
    print(json.dumps(result))


class Turn:
    """A process with one loaded engine that measures when it is its turn."""

    def __init__(self, function, setting):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=function, args=(theirs, *setting))
        self._process.start()
        theirs.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._pipe.send(False)
        self._process.join()

    def take(self):
        """Returns what one round measured."""
        self._pipe.send(True)
        return self._pipe.recv()


def generate(pipe, model: str, max_tokens: int) -> None:
    """Sends tokens and seconds of `LLM.generate` for each round."""
    with starting_environment(in_process=True):
        from vllm import LLM, SamplingParams
        from vllm.inputs import tokens_input

        llm = LLM(model, enforce_eager=True, enable_chunked_prefill=False, disable_log_stats=True)
    params = SamplingParams(max_tokens=max_tokens, temperature=0.0, skip_special_tokens=False)
    prompt = tokens_input(prompt_ids(llm.get_tokenizer(), PROBLEM.statement))
    while pipe.recv():
        start_s = time.monotonic()
        outputs = llm.generate([prompt] * NUM_TRACES, params, use_tqdm=False)
        seconds = time.monotonic() - start_s
        pipe.send((sum(len(output.outputs[0].token_ids) for output in outputs), seconds))


def solve_whole(pipe, model: str, max_tokens: int) -> None:
    """Sends tokens and seconds of `solve` without an early stop for each round."""
    rule = Rule(
        num_traces=NUM_TRACES, stop_votes=NUM_TRACES + 1, max_tokens=max_tokens, timeout_s=600.0
    )
    sampling = Sampling(max_tokens=max_tokens, temperature=0.0, ends_at_stop=False)
    with VLLMEngine(model, in_process=True) as engine:
        while pipe.recv():
            solution = solve(PROBLEM, engine, rule, sampling=sampling, legal=lambda answer: None)
            assert solution.stop_reason == "finished", solution.stop_reason
            tokens = sum(trace.completion_tokens for trace in solution.traces)
            pipe.send((tokens, solution.seconds))


def let_go(pipe, model: str, max_tokens: int) -> None:
    """Sends how fast aborted traces free the engine and what they wrote after the decision."""
    sampling = Sampling(max_tokens=max_tokens, temperature=0.0, ends_at_stop=False)
    with VLLMEngine(model, in_process=True) as engine:
        while pipe.recv():
            pipe.send(free(engine, sampling) | {"wasted": waste(engine, max_tokens, sampling)})


def free(engine: VLLMEngine, sampling: Sampling) -> dict[str, float]:
    """Returns the seconds from the abort of 15 of 16 to their end, and to the next first token."""
    ids = prompt_ids(engine.tokenizer, PROBLEM.statement)
    running = [engine.launch(ids, sampling) for _ in range(NUM_TRACES)]
    while len(engine.poll(0.01)) < NUM_TRACES:
        pass
    start_s = time.monotonic()
    engine.abort(running[1:])
    following = engine.launch(ids, Sampling(max_tokens=1, temperature=0.0))
    ended: set[str] = set()
    while not ended.issuperset(running[1:]):
        ended |= {update.request_id for update in engine.poll(5.0) if update.finish_reason}
    freed_s = time.monotonic() - start_s
    while following not in ended:
        ended |= {update.request_id for update in engine.poll(5.0) if update.finish_reason}
    next_token_s = time.monotonic() - start_s
    engine.abort(running[:1])
    engine.poll(5.0)
    return {"freed_s": freed_s, "next_token_s": next_token_s}


def waste(engine: VLLMEngine, max_tokens: int, sampling: Sampling) -> float:
    """Returns the share of all tokens that were written after a decision halfway.

    With a condition on the text, here one that never holds, the engine tells every token, so that
    none written before the decision is counted.
    """
    sampling = replace(sampling, until=Until("0123456789\n", lambda text: False))

    def stop(state):
        half = sum(state.live_tokens) > NUM_TRACES * max_tokens / 2
        return Decision(stop="half" if half else None, review_s=state.elapsed_s + 0.01)

    rule = Rule(
        num_traces=NUM_TRACES, stop_votes=99, max_tokens=max_tokens, timeout_s=600.0, stop=stop
    )
    solution = solve(PROBLEM, engine, rule, sampling=sampling)
    known = sum(trace.completion_tokens for trace in solution.traces)
    last: dict[str, int] = {}
    while len(last) < NUM_TRACES:
        last |= {u.request_id: u.completion_tokens for u in engine.poll(5.0) if u.finish_reason}
    return (sum(last.values()) - known) / sum(last.values())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="model folder; the miniature with random weights if none")
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=21)
    return parser.parse_args()


if __name__ == "__main__":
    main()
