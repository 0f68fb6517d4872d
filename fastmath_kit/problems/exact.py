r"""Reads the exact number that a short LaTeX text writes, with nothing that can blow up.

    exact_value(r"\frac{50}{2}")  # 25
    exact_value("9^{9^9}")  # None: too large; is_too_large says so

A recursive-descent parser over a strict grammar: numbers (also grouped and decimal), mixed
numbers, `+ - * \times \cdot / \div \frac ^ !`, brackets, then a percent sign, a degree sign or a
unit in words. Whatever it does not understand is None, never a guess: `2(3)`, `2^3!`, `1 000` and
`7=7` are left to math-verify. Every size is bounded before anything is computed.
"""

import math
import re
from fractions import Fraction
from functools import lru_cache

from fastmath_kit.problems.units import unit_scale

MAX_CHARS = 1_024  # longer answers are noise
MAX_BITS = 65_536  # of any value on the way, about 20,000 digits
_MAX_DEPTH = 24  # open brackets
_MAX_FACTORIAL = 5_000  # 5,000! has 54,000 bits

Exact = int | Fraction

WRAPPED = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|boxed|fbox)\s*\{([^{}]*)\}"
)
_PLAIN = re.compile(r"[+-]?[0-9]+")
_SPACE = re.compile(r"(?:\s|~|\\[ ,;:!]|\\(?:quad|displaystyle|left|right)(?![a-zA-Z]))*")
_BLANK_STARTS = frozenset(" \t\n\r\f\v~\\")
_GROUPED = r"[1-9][0-9]{0,2}(?:(?:,|\{,\}|\\,|\\!|,\\!|\{\\,\})[0-9]{3})+(?![0-9])"
_NUMBER = re.compile(rf"{_GROUPED}(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+")
_BARE_COMMA = re.compile(r"[0-9],[0-9]")
_NOT_NUMERAL = re.compile(r"[^0-9.]")
_DOLLAR = re.compile(r"\\\$")
_TIMES = re.compile(r"\*|\\times(?![a-zA-Z])|\\cdot(?![a-zA-Z])")
_OVER = re.compile(r"/|\\div(?![a-zA-Z])")
_FRAC = re.compile(r"\\[dtc]?frac(?![a-zA-Z])")
_PROPER = re.compile(
    r"\\[dtc]?frac\s*(?:\{\s*([0-9]+)\s*\}|([0-9]))\s*(?:\{\s*([0-9]+)\s*\}|([0-9]))"
)
_DEGREE = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\degree(?![a-zA-Z])|°")
_PERCENT = re.compile(r"\\?%|\\(?:text|mathrm)\s*\{\s*percent\s*\}")
_UNIT = re.compile(
    r"\\(?:text|textrm|mathrm|mbox)\s*\{(?P<words>[^{}]*)\}\s*(?:\^\s*(?:[23]|\{[23]\}))?"
)


class _UnclearError(Exception):
    """The text is not in the grammar."""


class _TooLargeError(Exception):
    """A value would pass `MAX_BITS`."""


def exact_value(text: str) -> Exact | None:
    r"""Returns the number that `text` writes, or None if that is unclear or too large.

    >>> exact_value(r"3\frac12"), exact_value(r"12\%"), exact_value(r"12\text{ apples}")
    (Fraction(7, 2), Fraction(3, 25), 12)
    """
    value = _read(text)
    return None if isinstance(value, type) else value


def is_too_large(text: str) -> bool:
    """Whether `text` writes a number of more than `MAX_BITS` bits, or one on the way to it.

    >>> is_too_large("9^{9^9}")
    True
    """
    return _read(text) is _TooLargeError


@lru_cache(maxsize=4_096)
def _read(text: str) -> Exact | type[Exception]:
    if len(text) > MAX_CHARS:
        return _UnclearError
    bare = text.strip()
    if wrapped := WRAPPED.fullmatch(bare):
        bare = wrapped.group(1).strip()
    if _PLAIN.fullmatch(bare):
        return int(bare)
    try:
        value = _Parser(bare).whole()
    except (_UnclearError, _TooLargeError) as error:
        return type(error)
    return int(value) if value.denominator == 1 else value


class _Parser:
    """One pass over one text; each method reads a rule of the grammar at `position`."""

    def __init__(self, text: str) -> None:
        self.text, self.position, self.depth, self.num_terms = text, 0, 0, 0

    def next_start(self) -> int:
        """Returns where the next token starts, after blanks."""
        if self.text[self.position : self.position + 1] in _BLANK_STARTS:
            return _SPACE.match(self.text, self.position).end()
        return self.position

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Returns the match of `pattern` after blanks and passes it, or stays and returns None."""
        found = pattern.match(self.text, self.next_start())
        if found:
            self.position = found.end()
        return found

    def take_char(self, chars: str) -> str:
        if not self.next_is(chars):
            return ""
        self.position = self.next_start() + 1
        return self.text[self.position - 1]

    def whole(self) -> Exact:
        self.take(_DOLLAR)
        value = self.sum()
        if self.take(_PERCENT):
            if self.num_terms > 1:  # 1+2\% is 1.02 or 0.03
                raise _UnclearError
            value = Fraction(value) / 100
        else:
            self.take(_DEGREE)  # degrees are a unit here, as they are for math-verify
            if unit := self.take(_UNIT):
                if (scale := unit_scale(unit["words"])) is None:
                    raise _UnclearError
                value *= scale
        if self.next_start() != len(self.text):
            raise _UnclearError
        return value

    def sum(self) -> Exact:
        sign, total = self.take_char("+-"), 0
        while True:
            term = self.product()
            total = _bounded(total, term) and total + (-term if sign == "-" else term)
            self.num_terms += self.depth == 0
            if not (sign := self.take_char("+-")):
                return total

    def product(self) -> Exact:
        value = self.factor()
        while True:
            if self.take(_TIMES):
                factor = self.factor()
                value = _bounded(value, factor) and value * factor
            elif self.take(_OVER):
                value = _divide(value, self.factor())
            else:
                return value

    def factor(self) -> Exact:
        value, is_mixed = self.base()
        if self.take_char("!"):
            value = _factorial(value)
            if is_mixed or self.take_char("!"):  # 5!! is not (5!)!
                raise _UnclearError
        degree = _DEGREE.match(self.text, self.next_start())
        if not degree and self.take_char("^"):
            exponent = self.group() if self.next_is("({") else self.literal()
            if is_mixed or self.next_is("^!"):  # 2^3^2 and 2^3! are read in two ways
                raise _UnclearError
            value = _power(value, exponent)
        return value

    def base(self) -> tuple[Exact, bool]:
        """Returns a number, a group or a fraction, and whether it is a mixed number."""
        if self.next_is("({"):
            return self.group(), False
        if self.take(_FRAC):
            return _divide(self.argument(), self.argument()), False
        start = self.position
        value = self.literal()
        if self.text[start : self.position].strip().isdigit() and (proper := self.take(_PROPER)):
            top, bottom = (int(part) for part in proper.groups() if part)
            if not 0 < top < bottom:
                raise _UnclearError  # 2\frac{50}{2} may be a product
            return value + Fraction(top, bottom), True
        return value, False

    def group(self) -> Exact:
        closing = {"(": ")", "{": "}"}[self.take_char("({")]
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise _UnclearError
        value = self.sum()
        self.depth -= 1
        if not self.take_char(closing):
            raise _UnclearError
        return value

    def argument(self) -> Exact:
        if self.next_is("{"):
            return self.group()
        if not (char := self.take_char("0123456789")):
            raise _UnclearError
        return int(char)

    def literal(self) -> Exact:
        if not (found := self.take(_NUMBER)):
            raise _UnclearError
        if self.depth and _BARE_COMMA.search(found.group()):  # (12,345) is a pair
            raise _UnclearError
        numeral = _NOT_NUMERAL.sub("", found.group())
        return Fraction(numeral) if "." in numeral else int(numeral)

    def next_is(self, chars: str) -> bool:
        return self.text.startswith(tuple(chars), self.next_start())


def _bits(value: Exact) -> float:
    """Returns about how many bits numerator and denominator take together."""
    return math.log2(abs(value.numerator) or 1) + math.log2(value.denominator)


def _bounded(left: Exact, right: Exact) -> bool:
    if _bits(left) + _bits(right) > MAX_BITS:
        raise _TooLargeError
    return True


def _divide(top: Exact, bottom: Exact) -> Fraction:
    if bottom == 0:
        raise _UnclearError
    _bounded(top, bottom)
    return Fraction(top) / bottom


def _factorial(value: Exact) -> int:
    if value.denominator != 1 or value < 0:
        raise _UnclearError
    if value > _MAX_FACTORIAL:
        raise _TooLargeError
    return math.factorial(int(value))


def _power(base: Exact, exponent: Exact) -> Exact:
    if exponent.denominator != 1 or (base == 0 and exponent <= 0):
        raise _UnclearError
    is_long = abs(exponent) > MAX_BITS or _bits(base) * abs(exponent) > MAX_BITS
    if is_long and abs(base) != 1:
        raise _TooLargeError
    power = int(exponent)
    if abs(base) == 1:
        power %= 2  # 1^{10^{100}} has no size
    return Fraction(base) ** power if power < 0 else base**power
