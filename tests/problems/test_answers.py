import time

import pytest

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
    "text",
    [
        r"\boxed{" * 150_000,  # never closes
        r"\boxed{" * 130_000 + "}" * 130_000,  # nested: copying every box would be quadratic
        r"\boxed{}" * 130_000,  # all empty
        "{" * 1_000_000,  # plain braces
        "\\" * 1_000_000,  # escapes
        r"\boxed" + " " * 1_000_000,  # blanks before a brace that never comes
        r"\boxed{" + "9" * 1_000_000 + "}",  # a long number
        r"\boxed{" + r"\text{" * 150_000 + "}" * 150_001,  # wrappers
        r"\boxed{" + "1" + ",000" * 250_000 + "}",  # groups
    ],
    ids=["open", "nested", "empty", "braces", "escapes", "blanks", "digits", "wrappers", "groups"],
)
def test_a_megabyte_takes_linear_time(text):
    start = time.process_time()
    extract_answer(text)
    assert time.process_time() - start < 2.0  # 0.1 to 0.5 s; quadratic would be minutes
