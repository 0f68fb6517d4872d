import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmath_kit.problems.exact import MAX_BITS, exact_value, is_too_large
from fastmath_kit.problems.units import unit_scale


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1{,}000", 1000),  # grouped
        ("0204", 204),  # leading zeros
        (r"\$12", 12),  # currency
        (r"12\text{ apples}", 12),  # a unit in words
        (r"12\mathrm{~km}", 12),  # in roman, with a tie
        (r"12\text{ cm}^{2}", 12),  # squared
        ("2^{10}", 1024),  # power
        (r"\frac{50}{2}", 25),  # whole fraction
        ("10!", 3628800),  # factorial
        (r"\dfrac{10!}{8!}", 90),  # nested
        (r"\left(1+2\right)\times 3", 9),  # sized parentheses
        ("-2^2", -4),  # the power binds first
        ("2^{-1}", Fraction(1, 2)),  # negative exponent
        (r"3\frac12", Fraction(7, 2)),  # mixed
        (r"-3\frac{1}{2}", Fraction(-7, 2)),  # mixed, negative
        (r"12\%", Fraction(3, 25)),  # percent
        (r"12\text{ percent}", Fraction(3, 25)),  # percent as a word
        (r"30^\circ", 30),  # degrees
        (r"12\text{ thousand}", 12_000),  # a word that multiplies
        ("1{,}000.5", Fraction(2001, 2)),  # grouped decimal
        ("1^{10^{10^{100}}}", None),  # the exponent itself is too large
        ("(12,345)", None),  # a pair
        ("(12{,}345)", 12_345),  # a number in parentheses
        ("7=7", None),  # an equation
        ("2(3)", None),  # a product without a sign
        ("1 000", None),  # blanks do not join
        ("1,00", None),  # not grouped in threes
        ("2^3^2", None),  # read in two ways
        ("2^3!", None),  # likewise
        ("5!!", None),  # a double factorial is another function
        (r"2\frac{50}{2}", None),  # a product or a mistake
        (r"1+2\%", None),  # 1.02 or 0.03
        (r"2\text{i}", None),  # a constant
        (r"12\text{ or }13", None),  # a second number follows
        ("0^0", None),  # undefined
        (r"\frac{1}{0}", None),  # undefined
        ("(1/2)!", None),  # undefined here
        ("٣", None),  # not an ASCII digit
        ("1_000", None),  # Python, not LaTeX
        ("", None),  # nothing
        ("(" * 500 + "7" + ")" * 500, None),  # nested
    ],
)
def test_exact_value(text, expected):
    value = exact_value(text)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("9^{9^{9^9}}", True),  # a tower
        ("5^(5^(5^5))", True),  # Math-Verify #65
        ("((9!)!)!", True),  # iterated
        ("999999999!", True),  # one step
        (f"2^{{{MAX_BITS - 1}}}", False),  # just fits
        (f"2^{{{MAX_BITS + 1}}}", True),  # just not
        (r"10^{20000}\times 10^{20000}", True),  # a product of two that are near the limit
        ("x", False),  # not a number at all
    ],
)
def test_is_too_large(text, expected):
    assert is_too_large(text) is expected


@pytest.mark.parametrize(
    "text",
    ["9^{9999}*" * 100 + "1", "+".join(["5000!"] * 150), "1/" * 500 + "7", "2^{65000}/" * 90 + "3"],
    ids=["products", "factorials", "quotients", "powers"],
)
def test_no_text_takes_long(text):
    start = time.process_time()
    exact_value(text)
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("apples", 1),  # a noun
        ("square feet", 1),  # two
        ("p.m.", None),  # a time
        ("million dollars", 10**6),  # multiplies
        ("percent", None),  # changes the value
        ("or", None),  # joins
        ("m", 1),  # a known letter
        ("i", None),  # a constant
    ],
)
def test_unit_scale(words, expected):
    assert unit_scale(words) == expected


def grouped(number: int, comma: str) -> str:
    return f"{number:,}".replace(",", comma)


FORMS = st.sampled_from(
    [
        lambda n: str(n),
        lambda n: f"0{n}" if n >= 0 else str(n),
        lambda n: grouped(n, ","),
        lambda n: grouped(n, "{,}"),
        lambda n: rf"\frac{{{2 * n}}}{{2}}",
        lambda n: rf"{n}\times 1",
        lambda n: f"({n})+0",
        lambda n: f"{n - 3}+3",
        lambda n: f"{n}.0",
        lambda n: rf"{n}\text{{ apples}}",
        lambda n: f"2^{{{abs(n) % 40}}}+({n})",
        lambda n: f"{abs(n) % 12}!",
    ]
)


@pytest.fixture(scope="module")
def math_verify_says_equal():
    """Plain math-verify, gold first, without its time-outs."""
    import logging

    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)

    def says_equal(gold: str, answer: str) -> bool:
        parsed = [parse(rf"\boxed{{{text}}}", parsing_timeout=None) for text in (gold, answer)]
        return verify(*parsed, timeout_seconds=None)

    return says_equal


@settings(max_examples=60, deadline=None)
@given(number=st.integers(-(10**7), 10**7), form=FORMS, shift=st.sampled_from([0, 1, -1, 10]))
def test_the_exact_path_agrees_with_math_verify(math_verify_says_equal, number, form, shift):
    text = form(number)
    value = exact_value(text)
    assert isinstance(value, int)
    assert math_verify_says_equal(str(value + shift), text) is (shift == 0)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=r"0123456789+-*/^!(){}.,\%$ fractimesdotx:=", max_size=40))
def test_never_raises(text):
    assert exact_value(text) is None or not is_too_large(text)
