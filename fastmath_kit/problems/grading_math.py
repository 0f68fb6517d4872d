r"""Asks math-verify 0.9.0 whether two LaTeX texts say the same. Runs in a grading worker only.

math-verify's own time-outs are off (they need the main thread and cannot stop a long power): the
worker is killed instead. Only its LaTeX parser is used, never its reader of plain expressions,
which calls `eval` and takes any number it finds in a text for the answer.
"""

import re
from collections.abc import Callable
from functools import lru_cache

_DELIMITER = re.compile(r"(?<!\\)\\[\[\]()]")  # of math mode, but not the row break \\\\[4pt]
# Read once before the first answer: they fill the parser's tables, which all workers then share.
WARM_UP = (
    (r"\frac{3}{4}+\sqrt{2}", r"0.75+2^{1/2}"),
    (r"x^2-2x+1", r"(x-1)^2"),
    (r"\left(-\infty, 1\right] \cup [2, 3)", r"x \le 1 \text{ or } 2 \le x < 3"),
    (r"\{1, 2\}", r"x = 1, x = 2"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    (r"\sin x + \log_2 n! - \binom{n}{k}\pi", r"a_1 + |x| + 12\% \text{ m}"),
)


class Judge:
    """Compares parsed texts; remembers the last ones, for the answers of a group share a gold."""

    def __init__(self) -> None:
        """Imports math-verify, a second's work, and warms its parser up."""
        import logging

        from math_verify import LatexExtractionConfig, parse, verify

        logging.disable(logging.CRITICAL)  # it warns of every disabled time-out
        _parse_in_two_stages()
        config = [LatexExtractionConfig()]
        modes = {"fallback_mode": "no_fallback", "extraction_mode": "first_match"}

        def read(text: str):
            display = rf"\[ {_DELIMITER.sub(' ', text)} \]"
            found = parse(display, config, parsing_timeout=None, **modes)
            return _plain_percent(found[0]) if found else None

        self._read = lru_cache(maxsize=256)(read)
        self._verify = verify
        for gold, answer in WARM_UP:
            self(gold, answer)

    def __call__(
        self, gold: str, answer: str, *, on_gold_read: Callable[[], None] = lambda: None
    ) -> tuple[bool | None, str]:
        """Returns whether `answer` is right, None if the gold cannot be read, and the reason."""
        wanted = self._read(gold)
        if wanted is None:
            return None, "gold: unreadable"
        if self._contradicts(wanted):
            return None, "gold: a false equation"
        on_gold_read()
        value = self._read(answer)
        if value is None:
            return False, "unreadable"
        if self._contradicts(value):
            return False, "a false equation"
        same = self._same(wanted, value)
        return same, "equal" if same else "different"

    def _same(self, wanted, value) -> bool:
        # Not symmetric: the gold comes first.
        return self._verify([wanted], [value], timeout_seconds=None)

    def _contradicts(self, value) -> bool:
        """Whether a chain of equations holds two numbers that differ, as `x = 5 = 7` does.

        math-verify compares the last member only. Decimals are spared: 1/3 = 0.33 is rounded.
        """
        from latex2sympy2_extended.logic import And
        from sympy import Eq, Float
        from sympy.core.function import AppliedUndef

        links = value._unsorted_args if isinstance(value, And) else (value,)
        if not all(isinstance(link, Eq) for link in links):
            return False
        sides = [side for link in links for side in (link.lhs, link.rhs)]
        numbers = [side for side in sides if side.is_number and not side.has(Float, AppliedUndef)]
        return any(not self._same(numbers[0], number) for number in numbers[1:])


def _parse_in_two_stages() -> None:
    """Makes the LaTeX parser try its fast prediction mode first, and the full one if that fails.

    ANTLR's SLL mode returns the tree that LL returns or a syntax error, and takes a quarter of the
    time. Source: ANTLR 4's documentation of `PredictionMode`.
    """
    from antlr4.atn.PredictionMode import PredictionMode
    from antlr4.error.Errors import ParseCancellationException
    from antlr4.error.ErrorStrategy import BailErrorStrategy
    from latex2sympy2_extended import latex2sympy2

    class TwoStageParser(latex2sympy2.PSParser):
        def math(self):
            listeners, strategy = self._listeners, self._errHandler
            self._listeners, self._errHandler = [], BailErrorStrategy()
            self._interp.predictionMode = PredictionMode.SLL
            try:
                return super().math()
            except ParseCancellationException:
                self.reset()
            finally:
                self._listeners, self._errHandler = listeners, strategy
                self._interp.predictionMode = PredictionMode.LL
            return super().math()

    latex2sympy2.PSParser = TwoStageParser


def _plain_percent(value):
    """Returns `value` with 12 % as 3/25: math-verify takes 12 % and 12 for equal."""
    from sympy import Basic, Rational, UnevaluatedExpr

    percent = UnevaluatedExpr(Rational(1, 100))
    if isinstance(value, Basic) and value.has(percent):
        return value.xreplace({percent: Rational(1, 100)})
    return value
