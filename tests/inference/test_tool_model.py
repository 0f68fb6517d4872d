"""A miniature that learned to multiply by asking Python, under real vLLM and the real sandbox."""

import random

import pytest

from fastmath_kit.budget.policy import Rule
from fastmath_kit.inference.engine import VLLMEngine
from fastmath_kit.inference.protocol import Sampling
from fastmath_kit.inference.sandbox import Sandbox
from fastmath_kit.inference.solve import solve
from fastmath_kit.inference.tools import PythonTool
from fastmath_kit.problems.prompts import STOP, completion_ids, prompt_ids
from fastmath_kit.problems.records import Problem
from fastmath_kit.tiny import make_tokenizer

PAIRS = [(a, b) for a in range(32, 100) for b in range(32, 100)]  # products of four digits
random.Random(0).shuffle(PAIRS)
HELD_OUT, TAUGHT = PAIRS[:20], PAIRS[20:]


def make_problem(a, b):
    return Problem(id=f"{a}x{b}", statement=rf"What is ${a}\times {b}$?", solution=str(a * b))


def lesson(tokenizer, a, b):
    """Returns the tokens of one lesson and its labels; the tool's output is not learned."""
    parts = [
        (prompt_ids(tokenizer, make_problem(a, b).statement, "fenced"), False),
        (completion_ids(tokenizer, f"```python\n{a}*{b}\n```"), True),
        (completion_ids(tokenizer, f"\n```output\n{a * b}\n```\n"), False),
        (completion_ids(tokenizer, rf"\boxed{{{a * b}}}{STOP}"), True),
    ]
    ids = [token for tokens, _ in parts for token in tokens]
    return ids, [token if learned else -100 for tokens, learned in parts for token in tokens]


@pytest.fixture(scope="module")
def taught_model(tiny_model, tmp_path_factory):
    """The miniature, taught to copy the factors into Python and the output into the box."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = make_tokenizer()
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / 20))
    rng = random.Random(0)
    for _ in range(600):
        rows = [lesson(tokenizer, *pair) for pair in rng.sample(TAUGHT, 32)]
        ids, labels = (torch.tensor(column) for column in zip(*rows, strict=True))
        loss = model(input_ids=ids, labels=labels).loss
        if loss.item() < 3e-3:
            break
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    out = tmp_path_factory.mktemp("taught") / "model"
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


@pytest.mark.slow
def test_a_taught_miniature_solves_held_out_problems_through_the_tool(taught_model):
    rule = Rule(num_traces=4, stop_votes=3, max_tokens=64, timeout_s=60.0)
    sampling, solutions, events = Sampling(max_tokens=64, seed=0), [], []
    with Sandbox() as sandbox, VLLMEngine(taught_model, in_process=True) as engine:
        tool = PythonTool(sandbox=sandbox)
        for pair in HELD_OUT:
            problem = make_problem(*pair)
            solutions.append(
                solve(problem, engine, rule, sampling=sampling, tool=tool, on_event=events.append)
            )
    answers = [solution.vote.answer for solution in solutions]
    right = sum(answer == a * b for answer, (a, b) in zip(answers, HELD_OUT, strict=True))
    assert right >= 18, answers
    calls = [event for event in events if event["event"] == "call"]
    assert len(calls) >= 3 * right and not any(call["timed_out"] for call in calls)
    best = next(trace for trace in solutions[0].traces if trace.finish_reason == "stop")
    a, b = HELD_OUT[0]
    assert f"```python\n{a}*{b}\n```\n```output\n{a * b}\n```" in best.completion
