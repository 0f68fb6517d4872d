"""972 solves under injected faults on a simulated clock: none is late, no vote is lost.

28 more, of engines whose calls never return, run in real time in tests/kaggle/test_deadlines.py.
"""

import random
from concurrent.futures import Future
from dataclasses import replace

import pytest

from fastmath_kit.budget.policy import Decision, Rule
from fastmath_kit.errors import EngineError
from fastmath_kit.inference.protocol import Update
from fastmath_kit.inference.replay_engine import ReplayEngine, SimulatedClock, StatementTokenizer
from fastmath_kit.inference.sandbox import Output
from fastmath_kit.inference.solve import solve
from fastmath_kit.inference.tools import PythonTool
from fastmath_kit.inference.voting import majority_vote
from fastmath_kit.problems.records import Problem, Trace

PROBLEM = Problem(id="p", statement="What is $1-1$?")
LATE_S = 0.25
FAULTS = (
    "none",
    "hung streams",
    "death in launch",
    "death in poll",
    "three times slower",
    "tool time-outs",
    "no answers",
    "late garbage",
    "all at once",
)


class Tokenizer(StatementTokenizer):
    """Also encodes what a trace said before a call of the tool."""

    def __call__(self, text, **kwargs):
        return {"input_ids": [ord(character) for character in text]}


class FaultyEngine(ReplayEngine):
    """Plays traces, but streams hang, it dies, and it tells of what nobody asked for."""

    def __init__(self, traces, rng, fault, clock):
        slow = 3.0 if fault in ("three times slower", "all at once") else 1.0
        super().__init__(traces, [PROBLEM], tokens_per_s=40.0 / slow, clock=clock)
        self.tokenizer = Tokenizer()
        self._rng, self._fault = rng, fault
        self._past = []
        dies = fault in ("death in launch", "all at once")
        self._dies_at_launch = rng.randint(2, 24) if dies else 10**9
        dies = fault in ("death in poll", "all at once")
        self._dies_at_poll = rng.randint(1, 30) if dies else 10**9

    def launch(self, prompt_ids, sampling):
        self._dies_at_launch -= 1
        if self._dies_at_launch <= 0:
            raise EngineError("died at a launch.")
        request_id = super().launch(prompt_ids[: len(PROBLEM.statement)], sampling)
        if self._fault in ("hung streams", "all at once") and self._rng.random() < 0.5:
            hung = replace(self._running[request_id], end_s=1e9)
            self._running[request_id] = hung  # writes on, and never ends
        return request_id

    def poll(self, timeout_s):
        self._dies_at_poll -= 1
        if self._dies_at_poll <= 0 or self._dies_at_launch <= 0:
            raise EngineError("died at a poll.")
        updates = super().poll(timeout_s)
        if self._fault in ("late garbage", "all at once"):
            again = self._rng.sample(self._past, min(3, len(self._past)))
            self._past += updates
            garbage = Update(request_id="unknown", text=r"\boxed{666}", finish_reason="stop")
            return [*again, garbage, *updates]
        return updates


class ClockCall(Future):
    """A call of the sandbox that times out at some time, fails, or never ends."""

    def __init__(self, clock, seconds, error=None):
        super().__init__()
        self.clock, self.end_s, self.error = clock, clock.monotonic() + seconds, error

    def done(self):
        if not super().done() and self.clock.monotonic() >= self.end_s:
            if self.error is not None:
                self.set_exception(self.error)
            else:
                self.set_result(
                    Output(stdout="", error="Timeout", timed_out=True, seconds=5.0, truncated=False)
                )
        return super().done()


class TimingOutSandbox:
    """Every call times out or fails; some do not even come back."""

    def __init__(self, clock, rng):
        self.clock, self.rng = clock, rng

    def session(self):
        return self

    def submit(self, code, timeout_s):
        broken = self.rng.choice([None, None, EngineError("the sandbox is gone.")])
        return ClockCall(self.clock, self.rng.choice([timeout_s, 1.0, float("inf")]), broken)

    def close(self):
        pass


def make_traces(rng, fault):
    texts = [r"so \boxed{%d}</think>", r"\boxed{%d}</think>"]
    if fault in ("tool time-outs", "all at once"):
        texts += ["first\n```python\nprint(%d)\n```"] * 2
    if fault == "no answers":
        texts = ["I give up at %d</think>"]
    return [
        Trace(
            problem_id=PROBLEM.id,
            sample=sample,
            completion_tokens=rng.randint(1, 4_000),
            answer=None,
            completion=rng.choice(texts) % rng.randint(0, 2),
            finish_reason=rng.choice(["stop", "stop", "length"]),
        )
        for sample in range(rng.randint(1, 24))
    ]


def make_rule(rng):
    patience_s = rng.uniform(0.0, 60.0)

    def stop(state):
        if state.elapsed_s >= patience_s and state.leader_votes:
            return Decision(stop="patience")
        launch = 1 if state.answers and len(state.live_tokens) < 16 else 0
        return Decision(launch=launch, review_s=max(patience_s, state.elapsed_s + 1.0))

    num_traces = rng.randint(1, 16)
    return Rule(
        num_traces=num_traces,
        stop_votes=rng.randint(1, num_traces + 1),
        max_tokens=rng.choice([50, 1_000, 10_000]),
        timeout_s=rng.choice([0.0, 0.01, 1.0, rng.uniform(1.0, 60.0)]),
        stop=rng.choice([None, stop]),
    )


def solve_once(rng, fault):
    """Returns the rule, the solution (None if the engine was dead), the votes heard and seconds."""
    clock, rule, told = SimulatedClock(), make_rule(rng), []
    engine = FaultyEngine(make_traces(rng, fault), rng, fault, clock)
    tool = None
    if fault in ("tool time-outs", "all at once"):
        tool = PythonTool(sandbox=TimingOutSandbox(clock, rng), max_calls=2, timeout_s=5.0)
    try:
        solution = solve(
            PROBLEM, engine, rule, tool=tool, on_event=told.append, clock=clock.monotonic
        )
    except EngineError:
        assert "died" not in fault or "launch" in fault
        solution = None
    votes = [event["answer"] for event in told if event["event"] == "trace"]
    return rule, solution, votes, clock.monotonic()


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("fault", FAULTS)
def test_no_solve_returns_late_and_no_vote_is_lost(fault, part):
    num_solved = 0
    for number in range(27):
        rng = random.Random(f"{fault}/{part}/{number}")
        rule, solution, votes, seconds = solve_once(rng, fault)
        assert seconds <= rule.timeout_s + LATE_S
        if solution is None:
            assert fault in ("death in launch", "all at once") and not votes
            continue
        num_solved += 1
        assert solution.seconds <= rule.timeout_s + LATE_S
        assert solution.vote == majority_vote(votes)
        assert 666 not in votes
        assert len(solution.traces) >= rule.num_traces * (rule.timeout_s > 0)
        if fault == "no answers":
            assert solution.vote.answer is None
    assert num_solved >= (10 if "launch" in fault or "all" in fault else 27)
