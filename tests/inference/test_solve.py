from dataclasses import replace

import pytest

from fastmath_kit.budget.policy import Decision, Rule
from fastmath_kit.errors import ConfigError, DataError, EngineError
from fastmath_kit.inference.protocol import Engine, Sampling
from fastmath_kit.inference.replay_engine import ReplayEngine, SimulatedClock, StatementTokenizer
from fastmath_kit.inference.solve import sample_traces, solve
from fastmath_kit.problems.competition import load_competition
from fastmath_kit.problems.records import Problem, Trace

PROBLEM = Problem(id="p", statement="What is $1-1$?", solution="0")


def make_rule(**changes):
    return Rule(
        **{"num_traces": 8, "stop_votes": 4, "max_tokens": 10_000, "timeout_s": 60} | changes
    )


def replay(answers, clock, engine=ReplayEngine):
    """Trace i ends at second i + 1 with the i-th answer."""
    traces = [
        Trace(
            problem_id=PROBLEM.id,
            sample=i,
            completion_tokens=100 * (i + 1),
            answer=answer,
        )
        for i, answer in enumerate(answers)
    ]
    return engine(traces, [PROBLEM], tokens_per_s=100.0, clock=clock)


class SilentEngine(Engine):
    """Takes requests and never answers, as a hung vLLM."""

    name = "silent"
    tokenizer = StatementTokenizer()

    def __init__(self):
        self.launched, self.aborted, self.clock = [], [], SimulatedClock()

    def launch(self, prompt_ids, sampling):
        self.launched.append(sampling)
        return str(len(self.launched))

    def poll(self, timeout_s):
        self.clock.sleep(timeout_s)
        return []

    def abort(self, request_ids):
        self.aborted += request_ids


class DyingEngine(ReplayEngine):
    """Dies at the third poll."""

    polls = 0

    def poll(self, timeout_s):
        self.polls += 1
        if self.polls == 3:
            raise EngineError("it died.")
        return super().poll(timeout_s)


@pytest.mark.parametrize(
    ("answers", "changes", "answer", "reason", "seconds"),
    [
        ([0] * 8, {}, 0, "votes", 4),  # four equal answers
        ([0, 1, 0, 1, 0, 1, 0, 1], {}, 0, "votes", 7),  # 0 has its fourth vote first
        ([0, 1, 0, 1, 0, 1, 0, 1], {"stop_votes": 9}, 0, "finished", 8),  # tie: 0 was first
        ([5, 5, 5, 5, 5, 1, 1, 1], {"stop_votes": 9}, 5, "lead", 5),  # lead 5 over 3 running
        ([5, 5, 5, 5, 1, 1, 1, 1], {"stop_votes": 9}, 5, "finished", 8),  # lead never exceeds rest
        ([5, 5, None, None, None, None, None, None], {}, 5, "lead", 7),  # 2 votes over 1 running
        ([None] * 8, {}, None, "finished", 8),  # nobody voted
        ([7, 7, 7, 7], {"num_traces": 4, "timeout_s": 2.5}, 7, "timeout", 2.5),  # votes so far
        ([7, 7], {"num_traces": 2, "timeout_s": 0.5}, None, "timeout", 0.5),  # before any vote
        ([7, 7], {"timeout_s": 0}, None, "no_traces", 0),  # the rule allows no time
        ([3], {"num_traces": 1, "stop_votes": 1}, 3, "votes", 1),
        ([3], {"num_traces": 1, "max_tokens": 50}, None, "finished", 0.5),  # truncated: no vote
    ],
)
def test_when_it_stops_and_what_it_answers(answers, changes, answer, reason, seconds):
    clock = SimulatedClock()
    solution = solve(PROBLEM, replay(answers, clock), make_rule(**changes), clock=clock.monotonic)
    assert (solution.vote.answer, solution.stop_reason) == (answer, reason)
    assert solution.seconds == pytest.approx(seconds)


def test_the_rest_is_aborted_and_kept_with_its_tokens():
    clock = SimulatedClock()
    engine = replay([0] * 8, clock)
    solution = solve(PROBLEM, engine, make_rule(stop_votes=3), clock=clock.monotonic)
    assert [trace.sample for trace in solution.traces] == list(range(8))
    assert [trace.finish_reason for trace in solution.traces] == ["stop"] * 3 + ["abort"] * 5
    assert [trace.completion_tokens for trace in solution.traces] == [100, 200] + [300] * 6
    assert [trace.answer for trace in solution.traces] == [0] * 3 + [None] * 5
    assert [trace.correct for trace in solution.traces] == [True] * 3 + [False] * 5
    assert [trace.seconds for trace in solution.traces] == pytest.approx([1, 2] + [3] * 6)
    again = solve(PROBLEM, engine, make_rule(), clock=clock.monotonic)  # old updates are ignored
    assert len(again.traces) == 8 and again.vote.answer == 0


@pytest.mark.parametrize(
    ("competition", "answers", "winner", "num_voters"),
    [
        ("aimo3", [100_000, 100_000, -1, 7], 7, 1),  # out of range does not vote
        ("aimo2", [-900, 5, 1_100], 100, 3),  # taken modulo 1000 they agree
        ("aimo3", [r"\frac12", None, "x"], None, 0),  # text is no candidate
    ],
)
def test_only_legal_answers_vote(competition, answers, winner, num_voters):
    clock = SimulatedClock()
    solution = solve(
        PROBLEM,
        replay(answers, clock),
        make_rule(num_traces=len(answers)),
        legal=load_competition(competition).legal_answer,
        clock=clock.monotonic,
    )
    assert (solution.vote.answer, solution.vote.num_voters) == (winner, num_voters)
    assert [trace.answer for trace in solution.traces] == answers


@pytest.mark.parametrize("timeout_s", [0.05, 0.3])
def test_a_hung_engine_is_left_on_time(timeout_s):
    engine = SilentEngine()
    rule = make_rule(timeout_s=timeout_s)
    solution = solve(PROBLEM, engine, rule, clock=engine.clock.monotonic)
    assert engine.clock.monotonic() == pytest.approx(timeout_s)
    assert (solution.vote.answer, solution.stop_reason) == (None, "timeout")
    assert engine.aborted == [str(i) for i in range(1, 9)]


def test_a_dying_engine_ends_the_problem_with_the_votes_so_far():
    clock = SimulatedClock()
    engine = replay([4] * 8, clock, DyingEngine)
    solution = solve(PROBLEM, engine, make_rule(), clock=clock.monotonic)
    assert (solution.vote.answer, solution.vote.num_voters) == (4, 2)
    assert solution.stop_reason == "engine"


def test_sampling_reaches_the_engine_with_the_rules_tokens_and_a_seed_each():
    engine = SilentEngine()
    sampling = Sampling(max_tokens=9, temperature=0.5, seed=1)
    rule, clock = make_rule(timeout_s=0.01, max_tokens=77), engine.clock.monotonic
    solve(PROBLEM, engine, rule, sampling=sampling, clock=clock)
    assert {(s.max_tokens, s.temperature) for s in engine.launched} == {(77, 0.5)}
    assert len({s.seed for s in engine.launched}) == 8
    solve(PROBLEM, engine, rule, clock=clock)
    assert {s.seed for s in engine.launched[8:]} == {None}


def test_sample_traces_keeps_order_grades_and_reports():
    clock = SimulatedClock()
    other = Problem(id="q", statement="What is $2-1$?")
    traces = [
        Trace(problem_id=name, sample=i, completion_tokens=10 * (3 - i), answer=i)
        for name in ("p", "q")
        for i in range(3)
    ]
    engine = ReplayEngine(traces, [PROBLEM, other], tokens_per_s=10.0, clock=clock)
    calls = []
    sampled = sample_traces(
        [PROBLEM, other],
        engine,
        k=3,
        sampling=Sampling(max_tokens=100),
        model="m",
        on_progress=lambda done, total: calls.append((done, total)),
    )
    assert [(t.problem_id, t.sample, t.answer) for t in sampled] == [
        (name, i, i) for name in ("p", "q") for i in range(3)
    ]
    assert [t.correct for t in sampled] == [True, False, False, None, None, None]
    assert {t.model for t in sampled} == {"m"}
    assert calls == [(2, 6), (4, 6), (6, 6)]


def test_sampling_goes_on_from_what_is_done():
    """Only what is missing is launched, with the seeds it would have had."""

    class Recorder(ReplayEngine):
        def launch(self, prompt_ids, sampling):
            seeds.append(sampling.seed)
            return super().launch(prompt_ids, sampling)

    def sample(**options):
        engine = Recorder(traces, problems, tokens_per_s=10.0, clock=SimulatedClock())
        return sample_traces(problems, engine, k=3, sampling=Sampling(max_tokens=100), **options)

    problems, seeds = [PROBLEM, Problem(id="q", statement="What is $2-1$?")], []
    traces = [
        Trace(problem_id=problem.id, sample=i, completion_tokens=10, answer=i)
        for problem in problems
        for i in range(3)
    ]
    told, calls = [], []
    whole = sample(on_traces=told.extend)
    assert sorted(t.sample for t in told) == [0, 0, 1, 1, 2, 2]
    whole_seeds = seeds.copy()
    seeds.clear()
    done = [replace(whole[i], seconds=9.0) for i in (5, 1)]
    found = sample(done=done, on_progress=lambda *numbers: calls.append(numbers))
    assert [(t.problem_id, t.sample) for t in found] == [(t.problem_id, t.sample) for t in whole]
    assert [t.seconds == 9.0 for t in found] == [False, True, False, False, False, True]
    assert seeds == [whole_seeds[i] for i in (0, 2, 3, 4)]
    assert calls[-1] == (6, 6) and calls[0][0] > len(done)
    assert sample(done=found) == found


def test_a_rule_of_its_own_mind_is_asked_stops_and_launches_more():
    clock, asked = SimulatedClock(), []

    def stop(state):
        asked.append((state.elapsed_s, state.leader_votes, len(state.live_tokens)))
        if state.elapsed_s < 2.5:
            return Decision(review_s=2.5)  # ask again, though no trace ends then
        if len(asked) == 4:
            return Decision(launch=2)
        return Decision(stop="patience" if state.leader_votes == 2 else None)

    rule = make_rule(num_traces=4, stop_votes=99, stop=stop)
    solution = solve(PROBLEM, replay([0, 1, 2, 0, 0, 0], clock), rule, clock=clock.monotonic)
    times = [seconds for seconds, _, _ in asked]
    assert times == pytest.approx([0, 1, 2, 2.5, 3, 4])
    assert [live for _, _, live in asked] == [4, 3, 2, 2, 3, 2]  # two more since the fourth
    assert (solution.stop_reason, solution.vote.answer) == ("patience", 0)
    assert [trace.sample for trace in solution.traces] == list(range(6))


@pytest.mark.slow  # starts math-verify
def test_sampled_answers_are_graded_as_mathematics():
    half = Problem(id="h", statement="What is $1/2$?", solution=r"\frac{1}{2}")
    traces = [
        Trace(problem_id="h", sample=i, completion_tokens=10, answer=answer)
        for i, answer in enumerate(["0.5", r"\dfrac12", r"\frac{1}{3}", None])
    ]
    engine = ReplayEngine(traces, [half], tokens_per_s=100.0, clock=SimulatedClock())
    sampled = sample_traces([half], engine, k=4, sampling=Sampling(max_tokens=100))
    assert [trace.correct for trace in sampled] == [True, True, False, False]


def test_seeds_belong_to_problem_and_sample():
    class Recorder(SilentEngine):
        def poll(self, timeout_s):
            raise KeyboardInterrupt

    def seeds(problems):
        engine = Recorder()
        with pytest.raises(KeyboardInterrupt):
            sample_traces(problems, engine, k=2, sampling=Sampling(max_tokens=1))
        assert len(engine.aborted) == len(engine.launched)  # interrupted: nothing keeps running
        return [sampling.seed for sampling in engine.launched]

    other = Problem(id="q", statement="x")
    assert seeds([PROBLEM, other])[2:] == seeds([other])
    assert len(set(seeds([PROBLEM, other]))) == 4


def test_wrong_arguments_are_refused():
    engine = replay([1], SimulatedClock())
    with pytest.raises(ConfigError, match="k must be at least 1, got 0"):
        sample_traces([PROBLEM], engine, k=0, sampling=Sampling(max_tokens=1))
    with pytest.raises(DataError, match="problem z: no recorded trace"):
        solve(Problem(id="z", statement="?"), engine, make_rule())
