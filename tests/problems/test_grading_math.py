import csv
import logging
from pathlib import Path

import pytest

from fastmath_kit.problems.grading_guards import bare_text, refuse
from fastmath_kit.problems.grading_math import Judge, _parse_in_two_stages

TABLE = Path(__file__).with_name("graded_pairs.csv")


@pytest.fixture(scope="module")
def judge():
    """A judge in this process; afterwards the LaTeX parser and logging are as they were."""
    from latex2sympy2_extended import latex2sympy2

    parser = latex2sympy2.PSParser
    yield Judge()
    latex2sympy2.PSParser = parser
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        ("x+1", "1+x", (True, "equal")),  # algebra
        ("x+1", "x", (False, "different")),  # another term
        (r"\frac{1}", "7", (None, "gold: unreadable")),  # the gold is no LaTeX
        ("7", r"\frac{1}", (False, "unreadable")),  # the answer is none
        ("7", r"\sqrt{25}=7", (False, "a false equation")),  # found by computing
        (r"\sqrt{25}=7", "7", (None, "gold: a false equation")),  # in the gold
        (r"\frac{1}{3}", r"x=\frac{1}{3}=0.33", (False, "different")),  # rounded, so not false
        ("7", "f(2)=7", (True, "equal")),  # f(2) is not a number
        ("12", r"x=12\%", (False, "different")),  # 12 % is 3/25
        (r"\frac{3}{25}", r"x=12\%", (True, "equal")),  # likewise
        ("x>1", r"(1,\infty)", (True, "equal")),  # gold first
        (r"(1,\infty)", "x>1", (False, "different")),  # and not the other way round
        ("2", "√2", (False, "unreadable")),  # never the next best number in the text
        ("x", "__import__('os').getpid()", (False, "unreadable")),  # never evaluated
    ],
)
def test_judge(judge, gold, answer, expected):
    assert judge(gold, answer) == expected


def test_the_gold_is_read_before_the_answer(judge):
    seen = []
    judge("x+71", "71+x", on_gold_read=lambda: seen.append("gold"))
    assert seen == ["gold"]
    judge(r"\frac{1}", "7", on_gold_read=lambda: seen.append("never"))
    assert seen == ["gold"]


def test_two_stage_parsing_reads_what_plain_parsing_reads(monkeypatch):
    from latex2sympy2_extended import latex2sympy2
    from latex2sympy2_extended.math_normalization import normalize_latex
    from math_verify import LatexExtractionConfig
    from math_verify.parser import parse_latex_cached

    config = LatexExtractionConfig().normalization_config
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        texts = {bare_text(row[name]) for row in rows for name in ("gold", "answer")}
    texts = sorted(text for text in texts if not refuse(text))[::2]  # half of them, to be quick

    def read_all() -> list[str]:
        parse_latex_cached.cache_clear()
        found = []
        for text in texts:
            try:
                found.append(repr(parse_latex_cached(normalize_latex(text, config))))
            except Exception as error:
                found.append(type(error).__name__)
        return found

    monkeypatch.setattr(latex2sympy2, "PSParser", latex2sympy2.PSParser)  # restored afterwards
    plain = read_all()
    _parse_in_two_stages()
    assert read_all() == plain
