import random

import pytest

from fastmath_kit.budget.recorded import Recorded, draw_run, halves, recorded_problems
from fastmath_kit.errors import DataError
from fastmath_kit.problems.records import Trace


def recorded(problem_id):
    return Recorded(
        problem_id=problem_id, tokens=(1, 2, 3), answers=(1, 2, 3), right=frozenset({1})
    )


def test_draws_are_fair_repeatable_and_without_replacement():
    pool = [recorded(str(i)) for i in range(7)]
    draws = draw_run(pool, 17, random.Random(3))
    assert draws == draw_run(pool, 17, random.Random(3))
    counts = [sum(d.problem_id == p.problem_id for d in draws) for p in pool]
    assert set(counts) == {2, 3}
    assert all(sorted(draw.tokens) == [1, 2, 3] for draw in draws)
    assert all(draw.tokens == draw.answers for draw in draws)  # shuffled together


def test_halves_never_share_a_problem():
    pool = [recorded(name) for name in "abcdeabcde"]  # of two models
    first, second = halves(pool, random.Random(0))
    names = [{row.problem_id for row in half} for half in (first, second)]
    assert [len(ids) for ids in names] == [2, 3] and not names[0] & names[1]
    assert len(first) + len(second) == len(pool)
    assert halves(pool, random.Random(1)) != (first, second)


def test_recorded_problems_of_two_models_and_truncated_traces():
    def trace(**fields):
        return Trace(problem_id="p", sample=0, completion_tokens=10, answer=3, **fields)

    traces = [
        trace(solution="3", model="a"),
        trace(solution="3", model="a", finish_reason="length"),
        trace(solution="4", model="b"),
        trace(correct=True, model="c"),
    ]
    a, b, c = recorded_problems(traces, length_scale=2.0)
    assert (a.tokens, a.answers, a.right) == ((20, 20), (3, None), {3})
    assert (b.right, c.right) == (frozenset(), {3})
    with pytest.raises(DataError, match="neither solution nor correct"):
        recorded_problems([trace()])
    with pytest.raises(DataError, match="no traces"):
        recorded_problems([])
    with pytest.raises(DataError, match=r"p was aborted after 10 tokens.*`fastmath evaluate`"):
        recorded_problems([trace(correct=True, finish_reason="abort")])
