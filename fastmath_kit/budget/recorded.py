"""Recorded traces as problems to draw runs from.

pool = recorded_problems(read_traces("traces.parquet"))
for_fit, for_test = halves(pool, random.Random(0))
draws = draw_run(for_test, 50, random.Random(0))
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fastmath_kit.errors import DataError
from fastmath_kit.problems.answers import Answer, same_answer
from fastmath_kit.problems.records import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One problem's traces in launch order, some problem's draw, or all that were recorded.

    Attributes:
        problem_id: Where they come from.
        tokens: Length of each trace.
        answers: Its answer, None for none.
        right: The answers that are right.
    """

    problem_id: str
    tokens: tuple[float, ...]
    answers: tuple[Answer | None, ...]
    right: frozenset[Answer]


def recorded_problems(traces: Sequence[Trace], *, length_scale: float = 1.0) -> list[Recorded]:
    """Returns the traces by model and problem; each model's problem is a problem of its own.

    A truncated trace did not answer.

    Raises:
        DataError: there are no traces, or a trace has neither a solution nor a grade, or it was
            aborted, so that its length is not known.
    """
    groups = defaultdict(list)
    for trace in traces:
        if trace.solution is None and trace.correct is None:
            raise DataError(
                f"a trace of problem {trace.problem_id} has neither solution nor correct. "
                "Sample traces of problems with answers."
            )
        if trace.finish_reason == "abort":
            raise DataError(
                f"a trace of problem {trace.problem_id} was aborted after "
                f"{trace.completion_tokens} tokens: how long it would have been is not known. "
                "Sample traces with `fastmath evaluate`, which lets each end."
            )
        groups[trace.model or "", trace.problem_id].append(trace)
    if not groups:
        raise DataError("no traces to replay. Sample some with `fastmath evaluate`.")
    return [_recorded(key[1], group, length_scale) for key, group in groups.items()]


def _recorded(problem_id: str, traces: list[Trace], length_scale: float) -> Recorded:
    answers = [t.answer if t.finish_reason in (None, "stop") else None for t in traces]
    graded = zip(answers, traces, strict=True)
    right = {
        answer
        for answer, trace in graded
        if answer is not None
        and (same_answer(answer, trace.solution) if trace.correct is None else trace.correct)
    }
    tokens = tuple(max(trace.completion_tokens * length_scale, 1.0) for trace in traces)
    return Recorded(
        problem_id=problem_id, tokens=tokens, answers=tuple(answers), right=frozenset(right)
    )


def halves(pool: Sequence[Recorded], rng: random.Random) -> tuple[list[Recorded], list[Recorded]]:
    """Returns the pool in two halves, to fit and to judge: no problem is in both, of any model."""
    ids = sorted({recorded.problem_id for recorded in pool})
    first = set(rng.sample(ids, len(ids) // 2))
    return (
        [recorded for recorded in pool if recorded.problem_id in first],
        [recorded for recorded in pool if recorded.problem_id not in first],
    )


def draw_run(pool: Sequence[Recorded], num_problems: int, rng: random.Random) -> list[Recorded]:
    """Returns problems in random order, their traces shuffled.

    No problem comes a third time before all came twice, and the traces of one draw are all
    different.
    """
    rounds = -(-num_problems // len(pool))
    chosen = [row for _ in range(rounds) for row in rng.sample(pool, len(pool))][:num_problems]
    rng.shuffle(chosen)
    return [shuffled(recorded, rng) for recorded in chosen]


def shuffled(recorded: Recorded, rng: random.Random) -> Recorded:
    """Returns the traces in another order."""
    order = rng.sample(range(len(recorded.tokens)), len(recorded.tokens))
    return replace(
        recorded,
        tokens=tuple(recorded.tokens[i] for i in order),
        answers=tuple(recorded.answers[i] for i in order),
    )
