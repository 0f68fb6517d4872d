r"""Is this answer right? math-verify in processes that can be killed, behind exact rules.

A reward that is wrong or hangs ruins a run of ten hours. Here a pair of gold and answer meets, in
this order: the exact numbers and the rules (`grading_rules`, no process), the guards
(`grading_guards`), and math-verify in a worker (`grading_worker`) with CPU and memory limits.

    with Grader() as grader:
        grader.grade(r"\frac12", "0.5")  # Verdict(correct=True, reason='equal numbers')
        grader.grade_many([("x+1", "1+x"), ("7", "5=6=7")])

A `Grader` may be used from any thread, is rebuilt after a fork and can be pickled: both get
workers of their own. Workers start at the first pair that needs one.
"""

import functools
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from fastmath_kit.errors import ConfigError, DataError
from fastmath_kit.problems.answers import Answer, extract_answer, is_real_answer
from fastmath_kit.problems.grading_guards import bare_text, refuse
from fastmath_kit.problems.grading_pool import Pair, WorkerPool
from fastmath_kit.problems.grading_rules import Verdict, decide_by_rules
from fastmath_kit.problems.records import Problem

_CACHED_PAIRS = 8_192
_NO_ANSWER = Verdict(False, "no answer")


class BadGold(NamedTuple):
    """A gold answer that does not grade itself as correct.

    Attributes:
        row: Its index among the golds that were given, from 0.
        gold: What was given.
        reason: Why it cannot be graded.
    """

    row: int
    gold: object
    reason: str


class Grader:
    """Grades answers; the verdict is None where the gold itself cannot be graded."""

    def __init__(
        self,
        *,
        num_workers: int = 2,
        time_limit_s: float = 2.0,
        memory_limit_bytes: int = 160 * 2**20,
        max_tasks: int = 1_000,
    ) -> None:
        """Starts no process yet.

        Args:
            num_workers: Processes that run math-verify.
            time_limit_s: CPU seconds one pair may take.
            memory_limit_bytes: Memory one pair may add to the 65 MB of the imported libraries.
            max_tasks: Pairs after which a worker starts afresh.
        """
        self._settings = {
            "num_workers": num_workers,
            "time_limit_s": time_limit_s,
            "memory_limit_bytes": memory_limit_bytes,
            "max_tasks": max_tasks,
        }
        for name, value in self._settings.items():
            if not value > 0:
                raise ConfigError(f"{name} must be positive, got {value}.")
        self._start()
        _GRADERS.add(self)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._cache: OrderedDict[Pair, Verdict] = OrderedDict()
        self._pool = WorkerPool(**self._settings)
        self._finalizer = weakref.finalize(self, WorkerPool.close, self._pool)

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __reduce__(self) -> tuple:
        return functools.partial(Grader, **self._settings), ()

    def close(self) -> None:
        """Ends the workers; a later pair starts new ones."""
        with self._lock:
            self._pool.close()

    def grade(self, gold: Answer, answer: Answer) -> Verdict:
        """Returns the verdict on one answer.

        Raises:
            DataError: gold or answer is neither text nor a whole number.
        """
        return self.grade_many([(gold, answer)])[0]

    def grade_many(self, pairs: Iterable[tuple[Answer, Answer]]) -> list[Verdict]:
        """Returns the verdicts on `(gold, answer)` pairs, in their order, graded in parallel.

        Raises:
            DataError: a gold or an answer is neither text nor a whole number; names the row.
            EngineError: the workers do not start.
        """
        texts = [
            (_text(gold, row, "gold"), _text(answer, row, "answer"))
            for row, (gold, answer) in enumerate(pairs)
        ]
        with self._lock:
            verdicts = self._decide(dict.fromkeys(texts))
            for pair, verdict in verdicts.items():
                self._cache[pair] = verdict
                self._cache.move_to_end(pair)
            while len(self._cache) > _CACHED_PAIRS:
                self._cache.popitem(last=False)
        return [verdicts[pair] for pair in texts]

    def grade_completions(
        self,
        golds: Sequence[Answer],
        completions: Sequence[str],
        inside: Literal["reasoning", "after"] | None = None,
    ) -> list[Verdict]:
        """Returns the verdict on the answer that each completion boxed.

        Args:
            golds: Right answers, one per completion.
            completions: What the model wrote. One without a box is wrong.
            inside: Where the box counts, see `extract_answer`.

        Raises:
            DataError: the lengths differ, or a row is not text.
        """
        if len(golds) != len(completions):
            raise DataError(f"{len(golds)} golds for {len(completions)} completions. Give as many.")
        answers = []
        for row, completion in enumerate(completions):
            if not isinstance(completion, str):
                raise DataError(_wrong_type(row, "completion", completion, "text"))
            answers.append(extract_answer(completion, inside))
        # An ungradable gold is None for every answer, also for a missing one.
        pairs = [(g, "" if a is None else a) for g, a in zip(golds, answers, strict=True)]
        return self.grade_many(pairs)

    def check_golds(self, golds: Iterable[Answer | Problem]) -> list[BadGold]:
        """Returns the golds that do not grade themselves as correct, with their rows.

        Args:
            golds: Gold answers, or problems with a `solution`.
        """
        golds = [gold.solution if isinstance(gold, Problem) else gold for gold in golds]
        texts = {row: str(gold) for row, gold in enumerate(golds) if _is_answer(gold)}
        verdicts = self.grade_many((text, text) for text in texts.values())
        bad = [
            BadGold(row, golds[row], verdict.reason)
            for row, verdict in zip(texts, verdicts, strict=True)
            if not verdict.correct
        ]
        bad += [
            BadGold(row, gold, f"not text but {type(gold).__name__}")
            for row, gold in enumerate(golds)
            if row not in texts
        ]
        return sorted(bad, key=lambda gold: gold.row)

    def _decide(self, pairs: Iterable[Pair]) -> dict[Pair, Verdict]:
        verdicts: dict[Pair, Verdict] = {}
        undecided: dict[Pair, list[Pair]] = {}  # bare pair: the pairs that look like it when bare
        for pair in pairs:
            if (known := self._cache.get(pair)) is not None:
                verdicts[pair] = known
                continue
            bare = bare_text(pair[0]), bare_text(pair[1])
            if (known := _decide_without_worker(*bare)) is not None:
                verdicts[pair] = known
            else:
                undecided.setdefault(bare, []).append(pair)
        if undecided:
            for bare, verdict in self._pool.run(list(undecided)).items():
                verdicts.update(dict.fromkeys(undecided[bare], verdict))
        return verdicts

    def _forget(self) -> None:
        """Leaves workers and lock, which may be held, to the process this one was forked from."""
        self._finalizer.detach()
        self._pool.forget()
        self._start()


@functools.cache
def shared_grader() -> Grader:
    """Returns one grader for the whole process: its workers take seconds to start."""
    return Grader()


def _decide_without_worker(gold: str, answer: str) -> Verdict | None:
    if not is_real_answer(gold):
        return Verdict(None, "gold: empty")
    if (reason := refuse(gold)) is not None:
        return Verdict(None, f"gold: {reason}")
    if not is_real_answer(answer):
        return _NO_ANSWER
    if (reason := refuse(answer)) is not None:
        return Verdict(False, reason)
    return decide_by_rules(gold, answer)


def _is_answer(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _text(value: object, row: int, name: str) -> str:
    if not _is_answer(value):
        raise DataError(_wrong_type(row, name, value, "text or a whole number"))
    return str(value)


def _wrong_type(row: int, name: str, value: object, wanted: str) -> str:
    return f"row {row}: the {name} must be {wanted}, got {type(value).__name__} {value!r:.60}."


_GRADERS: weakref.WeakSet[Grader] = weakref.WeakSet()


def _forget_workers_after_fork() -> None:
    for grader in list(_GRADERS):
        grader._forget()


os.register_at_fork(after_in_child=_forget_workers_after_fork)
