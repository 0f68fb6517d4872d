"""Real vLLM under the clock: 50 short deadlines, and its process killed in the middle of a problem.

The model was taught one problem by heart, so that it answers at all.
"""

import os
import random
import signal
import time
from functools import partial

import polars as pl
import psutil
import pytest

from fastmath_kit.budget.policy import Decision, Rule
from fastmath_kit.inference.protocol import Sampling
from fastmath_kit.inference.solve import solve
from fastmath_kit.problems.competition import load_competition
from fastmath_kit.problems.prompts import STOP, completion_ids, prompt_ids
from fastmath_kit.problems.records import Problem, read_traces

PROBLEM = Problem(id="p", statement="What is $9-2$?", solution="7")
COMPLETION = rf"$9-2=7${chr(10)}\boxed{{7}}{STOP}"
LATE_S = 0.25

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tiny_model, tmp_path_factory):
    """The miniature after 40 steps on one completion."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("taught") / "model"
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    network = AutoModelForCausalLM.from_pretrained(tiny_model)
    prompt = prompt_ids(tokenizer, PROBLEM.statement)
    ids = torch.tensor([prompt + completion_ids(tokenizer, COMPLETION)])
    labels = ids.clone()
    labels[:, : len(prompt)] = -100
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(40):
        network(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def engine_processes():
    """Returns vLLM's own living processes, the children that compute."""
    living = [c for c in psutil.Process().children() if c.status() != psutil.STATUS_ZOMBIE]
    return [c for c in living if "resource_tracker" not in " ".join(c.cmdline())]


@pytest.mark.parametrize("in_process", [True, False])
def test_none_of_fifty_solves_is_late(tiny_model, in_process, calm):
    """A random model writes to the end of its tokens, so every solve runs into its deadline."""
    from fastmath_kit.inference.engine import VLLMEngine
    from fastmath_kit.inference.warmup import start_warm

    rng, late_s = random.Random(0), []
    with start_warm(partial(VLLMEngine, tiny_model, in_process=in_process), tiny_model) as engine:
        for _ in range(25):
            rule = Rule(
                num_traces=rng.randint(1, 16),
                stop_votes=99,
                max_tokens=400,
                timeout_s=rng.uniform(0.02, 0.4),
            )
            late_s.append(calm(partial(solve_on_time, engine, rule)))
    print(f"latest of 25: {1000 * max(late_s):.0f} ms")


def solve_on_time(engine, rule):
    """Returns how much later than its deadline a solve came back."""
    start_s = time.monotonic()
    solution = solve(PROBLEM, engine, rule, sampling=Sampling(max_tokens=1, seed=0))
    late_s = time.monotonic() - start_s - rule.timeout_s
    assert late_s <= LATE_S
    assert solution.stop_reason in ("timeout", "finished")
    assert len(solution.traces) == rule.num_traces
    return late_s


def test_killed_in_the_middle_the_votes_so_far_decide(model):
    from fastmath_kit.inference.engine import VLLMEngine

    killed = []

    def kill_at_the_first_vote(event):
        if event["event"] == "trace" and event["answer"] == 7 and not killed:
            killed.append(engine_processes()[0])
            os.kill(killed[0].pid, signal.SIGKILL)

    rule = Rule(num_traces=128, stop_votes=99, max_tokens=60, timeout_s=60.0)  # seconds of writing
    with VLLMEngine(model, in_process=False, max_num_seqs=1) as engine:
        start_s = time.monotonic()
        solution = solve(PROBLEM, engine, rule, on_event=kill_at_the_first_vote)
        assert time.monotonic() - start_s < 30.0
    assert killed
    assert solution.stop_reason == "engine"
    assert solution.vote.answer == 7 and 1 <= solution.vote.num_voters < 128
    assert len(solution.traces) == 128


def test_a_submission_answers_and_solves_the_next_problem_after_a_restart(
    model, tmp_path, monkeypatch
):
    """Killed with votes, then frozen before anybody voted: both problems get their answer."""
    from fastmath_kit.inference import engine as engine_module
    from fastmath_kit.inference.engine import VLLMEngine
    from fastmath_kit.inference.warmup import measure_probes, start_warm
    from fastmath_kit.kaggle.submission import make_predict

    monkeypatch.setattr(engine_module, "_STEP_S", 10.0)
    kills = {"p0": (signal.SIGKILL, 1), "p1": (signal.SIGSTOP, 0)}  # how, and after so many votes

    def policy(state):
        name = f"p{state.num_done}"

        def kill(problem):
            if name in kills and problem.leader_votes >= kills[name][1]:
                os.kill(engine_processes()[0].pid, kills.pop(name)[0])
            return Decision(review_s=problem.elapsed_s + 1.0)

        votes = (64, 99) if name == "p0" else (16, 4)  # p0 is not done before it is killed
        return Rule(
            num_traces=votes[0], stop_votes=votes[1], max_tokens=60, timeout_s=100.0, stop=kill
        )

    build = partial(VLLMEngine, model, in_process=False, max_num_seqs=1)
    predict, close = make_predict(
        partial(start_warm, build, model),
        competition=load_competition("aimo3"),
        policy=policy,
        clock_start_s=time.monotonic(),
        deadline_s=900.0,
        num_problems=3,
        fallback_answer=99_999,
        measure=measure_probes,
        log_path=tmp_path / "log.jsonl",
    )
    answers = []
    for name in ("p0", "p1", "p2"):
        row = predict(pl.Series("id", [name]), pl.Series("problem", [PROBLEM.statement]))
        answers.append(row["answer"][0])
    close()
    assert not kills
    assert answers == [7] * 3
    log = pl.read_ndjson(tmp_path / "log.jsonl")
    assert log["stop_reason"].to_list() == ["engine", "votes", "votes"]
    assert not log["fallback"].any()
    traces = read_traces(tmp_path / "traces.parquet")
    assert {trace.problem_id for trace in traces} == {"p0", "p1", "p2"}
    assert not engine_processes()
