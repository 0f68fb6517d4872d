from dataclasses import replace

import pytest

from fastmath_kit.budget.fitted import FittedPolicy, MenuRule
from fastmath_kit.budget.policy import Decision, Rule
from fastmath_kit.budget.recorded import Recorded
from fastmath_kit.budget.replay import play, play_run
from fastmath_kit.budget.throughput import StepTime
from fastmath_kit.budget.weather import Weather

# A step takes 1 s however much runs; prompts and problems cost nothing.
UNIT = StepTime(
    base_s=1.0, per_sequence_s=0.0, prompt_tokens=0, prefill_tokens_per_s=1e12, overhead_s=0.0
)
RULE = Rule(num_traces=4, stop_votes=9, max_tokens=1_000, timeout_s=1_000)
DRAW = Recorded(problem_id="p", tokens=(30, 10, 20, 40), answers=(7, 5, 7, 5), right=frozenset({7}))


def rule(**fields):
    return replace(RULE, **fields)


@pytest.mark.parametrize(
    ("fields", "seconds", "right", "reason"),
    [
        ({}, 40, True, "finished"),  # 5 7 7 5: the tie goes to 7, which got there first
        ({"stop_votes": 2}, 30, True, "votes"),
        ({"stop_votes": 1}, 10, False, "votes"),  # 5 is first
        ({"timeout_s": 25}, 25, False, "timeout"),  # 5 7: the tie goes to 5
        ({"timeout_s": 5}, 5, False, "timeout"),  # nobody voted
        ({"draw": "7775"}, 30, True, "lead"),  # three ahead, one running
        ({"timeout_s": 0.1}, 0, False, "no_traces"),  # no time to solve anything
        ({"num_traces": 3}, 30, True, "finished"),
        ({"num_traces": 1}, 30, True, "finished"),
        ({"max_tokens": 20}, 20, False, "finished"),  # long traces are cut and do not vote
        ({"num_traces": 9}, 40, True, "finished"),  # no more than were recorded: none votes twice
        ({"stop": lambda s: Decision(stop="at once")}, 0, False, "at once"),
        ({"stop": lambda s: Decision(launch=1)}, 40, True, "finished"),  # there are no more
        ({"stop": lambda s: Decision(stop="enough" if s.answers else None)}, 10, False, "enough"),
        # Asked again at 15 s, long before the next end at 20 s.
        (
            {"stop": lambda s: Decision(stop="late" if s.elapsed_s >= 15 else None, review_s=15)},
            15,
            False,
            "late",
        ),
    ],
)
def test_a_problem_by_hand(fields, seconds, right, reason):
    draw = replace(DRAW, answers=tuple(map(int, fields.pop("draw", "7575"))))
    outcome = play(draw, rule(**fields), model=UNIT)
    assert outcome.seconds == pytest.approx(seconds)
    assert (outcome.right, outcome.reason) == (right, reason)


def test_more_traces_can_be_launched_later():
    def stop(state):
        return Decision(launch=int(len(state.answers) == 1 and len(state.live_tokens) == 0))

    outcome = play(DRAW, rule(num_traces=1, stop=stop), model=UNIT)
    assert outcome.num_traces == 2  # the first ended at 30 and a second of 10 was launched
    assert outcome.seconds == pytest.approx(40)


def test_concurrency_and_context_slow_it_down():
    slow = StepTime(base_s=0.5, per_sequence_s=0.1, per_context_token_s=0.001, overhead_s=0.0)
    alone = play(DRAW, rule(num_traces=1), model=slow).seconds
    four = play(DRAW, rule(timeout_s=1e6), model=slow)
    assert alone == pytest.approx(0.03 + 30 * (0.6 + 0.3) + 0.001 * 30**2 / 2, rel=1e-6)
    assert four.seconds > 40 * 0.6


def test_what_does_not_fit_the_cache_waits_and_is_read_again():
    small = StepTime(
        base_s=1.0,
        per_sequence_s=0.0,
        prompt_tokens=0,
        prefill_tokens_per_s=10.0,
        overhead_s=0.0,
        kv_capacity_tokens=50,
    )
    draw = Recorded(problem_id="p", tokens=(40, 40), answers=(1, 1), right=frozenset({1}))
    outcome = play(draw, rule(num_traces=2), model=small)
    # Both run to 25, the second waits to 40, is read in 2.5 s and needs 15 more.
    assert outcome.seconds == pytest.approx(57.5)


@pytest.mark.parametrize(
    ("weather", "seconds"),
    [
        (Weather(slowdown=3.0), 120),
        (Weather(stalls=((5.0, 100.0),)), 140),
        (Weather(stalls=((5.0, 100.0), (500.0, 9.0))), 140),  # the second comes later
        (Weather(hangs_at_s=15.0), 1_000),  # to the time-out
        (Weather(late_s=2.0), 42),
    ],
)
def test_weather(weather, seconds):
    assert play(DRAW, rule(), model=UNIT, weather=weather).seconds == pytest.approx(seconds)


@pytest.mark.parametrize("work_s", [0.0, 3.0, 10.0, 70.0])
def test_work_and_seconds_are_inverse(work_s):
    weather = Weather(slowdown=2.0, stalls=((4.0, 10.0), (30.0, 5.0)))
    seconds = weather.seconds(2.0, work_s)
    assert weather.work_s(2.0, seconds) == pytest.approx(work_s)


def test_a_run_keeps_the_clock():
    outcomes = play_run(
        [DRAW] * 3, lambda state: rule(stop_votes=2), model=UNIT, deadline_s=1e4, num_problems=3
    )
    assert [outcome.start_s for outcome in outcomes] == pytest.approx([0, 30, 60])


def test_a_problem_without_time_says_nothing_about_the_plan():
    """The second gets none; what the third is told was spent and expected is the first's."""
    states = []

    def policy(state):
        states.append(state)
        return rule(timeout_s=1_000 * (state.num_done != 1), expected_s=50.0)

    play_run([DRAW] * 3, policy, model=UNIT, deadline_s=1e4, num_problems=3)
    assert [(state.spent_s, state.expected_s) for state in states] == [(0, 0), (40, 50), (40, 50)]


def test_an_engine_slower_than_planned_is_known_from_the_first_problem_on():
    slow = replace(UNIT, base_s=3.0)
    kappas = []

    class Told(FittedPolicy):
        def __call__(self, state):
            kappas.append(state.kappa)
            return rule()

    entry = MenuRule(seconds=40.0, solved=1.0, num_traces=4, patience_s=(0.0,))
    options = {"model": slow, "deadline_s": 1e4, "num_problems": 3}
    policy = Told(menu=(entry,), max_tokens=1_000, model=UNIT)
    work_s = [outcome.work_s for outcome in play_run([DRAW] * 3, policy, **options)]
    assert work_s == pytest.approx([40, 40, 40])  # as planned; it takes 120 s
    assert kappas == pytest.approx([3, 3, 3])
    kappas.clear()
    play_run([DRAW] * 3, Told(menu=(entry,), max_tokens=1_000, model=slow), **options)
    assert kappas == pytest.approx([1, 1, 1])  # as planned


def test_a_look_in_the_past_is_none():
    """A stop that asks to be asked again at a moment that is over would be asked for ever."""
    asked = []

    def stop(state):
        asked.append(state.elapsed_s)
        return Decision(review_s=5.0)

    assert play(DRAW, rule(stop=stop), model=UNIT).reason == "finished"
    assert asked == pytest.approx([0, 5, 10, 20, 30, 40])  # once when due, and at every end
