import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmath_kit.problems.answers import (
    extract_answer,
    extract_boxed,
    is_real_answer,
    parse_answer,
    same_answer,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \boxed{7}", "7"),  # plain
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),  # nested braces
        (r"\boxed {7}", "7"),  # space before the brace
        (r"\fbox{7}", "7"),  # the other box
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),  # escaped braces do not count
        (r"\boxed{1} wait \boxed{2}", "2"),  # the last one
        (r"\boxed{1} then \boxed{}", "1"),  # an empty box is no answer
        (r"\boxed{1} then \boxed{ }", "1"),  # nor is a blank one
        (r"\boxed{3} as asked, \boxed{answer}", "3"),  # nor an echo of the instruction
        (r"\boxed{\text{Your answer}}", None),  # echo in a wrapper, other case
        (r"\boxed{...}", None),  # echo
        (r"\boxed{$\ldots$}", None),  # echo in math mode
        (r"\boxed{4} then \boxed{5", "4"),  # truncated: a box that never closes
        (r"\boxed{4 \boxed{5}", "5"),  # the inner one does close
        (r"\boxed{\boxed{6}}", r"\boxed{6}"),  # both close: the outer one is last
        (r"} } \boxed{7} } {", "7"),  # stray braces around it
        (r"\boxed{7</think>}", "7</think>"),  # text is taken as it stands
        (r"\\boxed{7}", None),  # a line break followed by the word boxed
        ("no box, the final answer is 7", None),  # boxed only: no loose pattern
        ("", None),  # nothing
    ],
)
def test_extract_boxed(text, expected):
    assert extract_boxed(text) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("7", True),  # a number
        (" ", False),  # blank
        ("?", False),  # echo
        ("x" * 1000, True),  # long texts are no echo
        (" " * 1000, False),  # and long blanks no answer
    ],
)
def test_is_real_answer(content, expected):
    assert is_real_answer(content) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", 7),  # plain
        ("0204", 204),  # leading zeros
        (" 12 . ", 12),  # blanks and a full stop
        ("12.", 12),  # sentence ends in the box
        ("12.000", 12),  # a whole number written as decimal
        ("12.5", "12.5"),  # not whole
        ("-3", -3),  # sign
        ("+3", 3),  # sign
        ("$42$", 42),  # math mode
        (r"\text{42}", 42),  # wrapper
        (r"\boxed{42}", 42),  # box in a box
        ("1,000", 1000),  # grouped
        ("1{,}000", 1000),  # grouped in LaTeX
        (r"1\,000\,000", 1_000_000),  # thin spaces
        (r"1,\!000", 1000),  # negative space after the comma
        ("1,00", "1,00"),  # not a group of three: two numbers
        ("12,34,567", "12,34,567"),  # not our grouping
        ("٣", "٣"),  # Arabic-Indic digits stay text: int() would take them
        ("\uff11\uff12", "\uff11\uff12"),  # so do full-width digits
        ("²", "²"),  # and superscripts, which int() refuses
        ("1_000", "1_000"),  # Python's own notation is not LaTeX
        ("1e3", "1e3"),  # nor is this
        (r"\frac{1}{2}", r"\frac{1}{2}"),  # not whole
        (r"\frac{50}{2}", 25),  # whole
        (r"\$12", 12),  # currency
        (r"12\text{ apples}", 12),  # a unit
        ("2^{10}", 1024),  # power
        ("10!", 3628800),  # factorial
        ("30^\\circ", 30),  # degrees
        (r"100\%", r"100\%"),  # 1, but hardly meant
        (r"12\%", r"12\%"),  # not 12
        ("9^{9^{9^9}}", "9^{9^{9^9}}"),  # never computed
        ("7=7", "7=7"),  # an equation
        ("9" * 81, "9" * 81),  # no competition asks for that: no integer is built
        ("", ""),  # empty
    ],
)
def test_parse_answer(text, expected):
    parsed = parse_answer(text)
    assert parsed == expected
    assert type(parsed) is type(expected)


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (r"<think>so \boxed{1{,}024}</think>", 1024),  # inside the reasoning
        (r"<think>\boxed{3}</think> It is \boxed{4}", 4),  # after it: the last one counts
        (r"\boxed{x+1}", "x+1"),  # text
        ("nothing", None),  # unknown is None, never 0
    ],
)
def test_extract_answer(completion, expected):
    assert extract_answer(completion) == expected


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        (204, "0204", True),  # int against text
        ("1{,}000", 1000, True),  # text against int
        ("x+1", " x+1 ", True),  # text, blanks aside
        ("x+1", "1+x", False),  # not algebra: that is grading's task
        (None, "0", False),  # no answer is not zero
        (0, None, False),  # no gold: unknown equals nothing
        (None, None, False),  # not even unknown
    ],
)
def test_same_answer(answer, gold, expected):
    assert same_answer(answer, gold) is expected


@pytest.mark.parametrize(
    ("completion", "inside", "expected"),
    [
        (r"\boxed{3}</think> It is \boxed{4}", "reasoning", 3),  # where decoding stops
        (r"\boxed{3}</think> It is \boxed{4}", "after", 4),  # the final text
        (r"\boxed{3}</think> It is clear.", "after", None),  # nothing there
        (r"Hmm.</think> \boxed{4}", "reasoning", None),  # boxed too late
        (r"\boxed{3}", "reasoning", None),  # truncated: reasoning never ended
        (r"\boxed{3}", "after", None),  # likewise
        (r"\boxed{3", None, None),  # truncated inside the box
        (r"\boxed{3}</think> \boxed{}", "after", None),  # an echo of the instruction
    ],
)
def test_extract_answer_inside(completion, inside, expected):
    assert extract_answer(completion, inside) == expected


def first_to_last(text: str) -> str | None:
    """The rule of `extract_boxed`, written from left to right."""
    boxes, opened = [], []
    for token in re.finditer(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", text, re.DOTALL):
        mark = token.group()
        if mark == "}":
            start = opened.pop() if opened else None
            if start is not None:
                boxes.append(text[start : token.start()])
        elif mark.endswith("{") and mark != r"\{":
            opened.append(None if mark == "{" else token.end())
    return next((box.strip() for box in reversed(boxes) if is_real_answer(box)), None)


BRACES = st.sampled_from([r"\boxed{", r"\boxed {", r"\fbox{", "{", "}", "}", r"\{", r"\}", "\\"])
OTHERS = st.sampled_from(["7", "answer", "</think>", r"\frac", "x", " ", "\n", "\0", "\ud800"])
PIECES = BRACES | OTHERS


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=30).map("".join))
def test_extraction_from_the_end_is_extraction_from_the_start(text):
    assert extract_boxed(text) == first_to_last(text)


@settings(max_examples=200, deadline=None)
@given(st.text(), st.sampled_from([None, "reasoning", "after"]))
def test_extraction_never_raises(text, inside):
    extract_answer(text, inside)
    extract_answer(rf"\boxed{{{text}}}</think>", inside)


TEN_MEGABYTES = 10_000_000
LATEX = r"We have $\frac{1}{2}$, so $x_{1}=\sqrt{3}$. "
HOSTILE = {
    "trace": LATEX * (TEN_MEGABYTES // len(LATEX)) + r"\boxed{7}",
    "no box": LATEX * (TEN_MEGABYTES // len(LATEX)),
    "early box": r"\boxed{7}" + LATEX * (TEN_MEGABYTES // len(LATEX)),
    "open": r"\boxed{" * (TEN_MEGABYTES // 7),
    "nested": r"\boxed{" * (TEN_MEGABYTES // 8) + "}" * (TEN_MEGABYTES // 8),
    "empty": r"\boxed{}" * (TEN_MEGABYTES // 8),
    "echoes": r"\boxed{?}" * (TEN_MEGABYTES // 9),
    "braces": r"\boxed{" + "{" * TEN_MEGABYTES,
    "closers": r"\boxed{7}" + "}" * TEN_MEGABYTES,
    "escapes": r"\boxed{" + "\\" * TEN_MEGABYTES + "}",
    "blanks": r"\boxed" + " " * TEN_MEGABYTES + "{}",
    "digits": r"\boxed{" + "9" * TEN_MEGABYTES + "}",
    "wrappers": r"\boxed{" + r"\text{" * (TEN_MEGABYTES // 8) + "}" * (TEN_MEGABYTES // 8),
    "groups": r"\boxed{" + "1" + ",000" * (TEN_MEGABYTES // 4) + "}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_ten_megabytes_take_no_time(name):
    start = time.process_time()
    extract_answer(HOSTILE[name])
    assert time.process_time() - start < 10.0  # 0.01 to 0.3 s; quadratic would be hours
