r"""What is too hostile to hand to computer algebra, found by reading the text only.

    refuse("x+9^{9^9}")  # "too large"

Time and memory limits of the workers catch what passes here; a refusal costs microseconds, a
killed worker seconds. `bare_text` takes off what surrounds an answer before anything reads it.
"""

import re

from fastmath_kit.problems.exact import MAX_CHARS, exact_value, is_too_large

_MAX_DEPTH = 16  # open brackets; the parser takes twice the time for each few more
_MAX_EXPONENT = 65_536
_MAX_CELLS = 40  # of a matrix

_INNER = r"((?:\\[^()\[\]]|[^$\\])*)"
_DRESSED = re.compile(
    rf"\$\$?{_INNER}\$\$?|\\\({_INNER}\\\)|\\\[{_INNER}\\\]|\\(?:boxed|fbox)\s*\{{([^{{}}]*)\}}",
    re.DOTALL,
)
_LEADING = re.compile(r"(?:=|\\approx(?![a-zA-Z])|\\displaystyle(?![a-zA-Z]))\s*")
_UNICODE = str.maketrans(
    {"−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": r"\div ", "π": r"\pi "}
    | {"∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≡": r"\equiv "}
    | {"∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "°": r"^\circ "}
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_BRACKET = re.compile(r"\\.|[{}()\[\]]", re.DOTALL)
_TOWER = re.compile(r"[0-9]+(?:\s*\^\s*[0-9]+){2,}")
_EXPONENT = re.compile(r"\^\s*(?=[{(0-9])")
_DIGITS = re.compile("[0-9]*")
_FACTORIAL = re.compile(r"([0-9]+|[)}])\s*(!+)")


def bare_text(text: str) -> str:
    r"""Returns an answer without math mode, full stop, leading `=` and Unicode operators.

    >>> bare_text("$= 3 − 4.$")
    '3 - 4'
    """
    text = text.strip()
    if dressed := _DRESSED.fullmatch(text):
        text = next(part for part in dressed.groups() if part is not None).strip()
    if text.endswith(".") and not text.endswith(".."):
        text = text[:-1].rstrip()
    if leading := _LEADING.match(text):
        text = text[leading.end() :]
    return text.translate(_UNICODE)


def refuse(text: str) -> str | None:
    """Returns why `text` must not reach the computer algebra, or None if it may.

    >>> refuse("x+9^{9^9}"), refuse("x+9^9")
    ('too large', None)
    """
    if not text:
        return "empty"
    if len(text) > MAX_CHARS:
        return "too long"
    if _CONTROL.search(text):
        return "control characters"
    if reason := _refuse_brackets(text):
        return reason
    if text.count("&") + text.count(r"\\") > _MAX_CELLS:
        return "too large a matrix"
    return "too large" if is_too_large(text) or _has_huge_part(text) else None


def _refuse_brackets(text: str) -> str | None:
    depth = braces = 0
    for bracket in _BRACKET.finditer(text):
        mark = bracket.group()
        depth += (mark in "{([") - (mark in "})]")
        braces += (mark == "{") - (mark == "}")
        if depth > _MAX_DEPTH:
            return "nested too deeply"
        if braces < 0:
            return "unbalanced braces"
    return "unbalanced braces" if braces else None


def _has_huge_part(text: str) -> bool:
    """Whether a power or a factorial inside `text` cannot be computed in a moment."""
    for tower in _TOWER.finditer(text):  # 9^9^9^9, which LaTeX forbids and models write
        *bases, top = tower.group().split("^")
        for base in reversed(bases):
            top = f"{base}^{{{top}}}"
        if is_too_large(top):
            return True
    for exponent in _EXPONENT.finditer(text):
        operand = _operand_after(text, exponent.end())
        value = exact_value(operand)
        if is_too_large(operand) or (value is not None and abs(value) > _MAX_EXPONENT):
            return True
    for factorial in _FACTORIAL.finditer(text):
        operand, marks = factorial.groups()
        if not operand.isdigit():
            operand = _operand_before(text, factorial.start())
        if is_too_large(f"{operand}!") or (len(marks) > 1 and len(operand) > 1):
            return True
    return False


def _operand_after(text: str, start: int) -> str:
    """Returns the digits or the bracketed group that starts at `start`."""
    if digits := _DIGITS.match(text, start).group():
        return digits
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] in "{(") - (text[position] in "})")
        if depth == 0:
            return text[start : position + 1]
    return ""


def _operand_before(text: str, closing: int) -> str:
    """Returns the bracketed group that closes at `closing`."""
    depth = 0
    for position in range(closing, -1, -1):
        depth += (text[position] in "})") - (text[position] in "{(")
        if depth == 0:
            return text[position : closing + 1]
    return ""
