r"""Verdicts that need no computer algebra.

`decide_by_rules` stands in front of math-verify. Each rule is a function of two texts that knows
one kind of answer, corrects a false verdict of math-verify 0.9.0 on it, and is None elsewhere:

    decide_by_rules("12", r"12\%")  # False: 12 % is 12/100
"""

import re
from fractions import Fraction
from typing import NamedTuple

from fastmath_kit.problems.exact import Exact, exact_value


class Verdict(NamedTuple):
    """What grading one answer gave.

    Attributes:
        correct: Whether the answer is right; None if the gold cannot be graded.
        reason: Why, in a few words that repeat and so can be counted.
    """

    correct: bool | None
    reason: str


_DECIMALS_AGREE = Fraction(1, 10**5)  # closer than this math-verify decides: it rounds to 6 places
_RATIO_SIGN = re.compile(r"(?<![:<>=]):(?!=)|\\colon(?![a-zA-Z])")
_CLOCK = re.compile(r"[0-9]{1,2}:0[0-9]")
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mbox)\s*\{([^{}]*)\}")
_ROMAN = re.compile(r"\\(?:mathrm|mathbf|mathit|operatorname)\s*\{([^{}]*)\}")
_BLANK = re.compile(r"\\[ ,;:!]|\\quad(?![a-zA-Z])|[~\s]")
_SENTENCE = re.compile(r"[(]?[^\W\d_][\w' .,;:!?-]*[)]?")
_NAME = re.compile(r"[A-Za-z](?:_(?:[A-Za-z0-9]|\{[A-Za-z0-9]+\}))?\s*(?:=|\\in(?![a-zA-Z]))\s*")
_MATH_WORDS = frozenset(
    {"sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh"}
    | {"log", "ln", "exp", "sqrt", "frac", "max", "min", "gcd", "lcm", "mod", "inf", "infty", "pi"}
    | {"infinity", "theta", "alpha", "beta", "gamma", "lambda", "deg", "degrees", "and", "or"}
)
_SHORT_WORDS = frozenset({"no", "yes", "odd", "all", "any", "not", "one", "two", "six", "ten"})
_SIZING = re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])|\\displaystyle")
_MODULUS = re.compile(
    r"\\pmod\s*(?:\{([^{}]+)\}|([0-9]))|\(?\s*(?:\\b?mod|\\text\s*\{\s*mod\s*\}|"
    r"\\(?:mathrm|operatorname)\s*\{mod\}|(?<![a-z])mod)\s*(?:\{([0-9]+)\}|([0-9]+))\s*\)?"
)
_SEPARATOR = re.compile(r",|\\text\s*\{\s*(?:or|and)\s*\}|(?<![a-z])(?:or|and)(?![a-z])")


def decide_by_rules(gold: str, answer: str) -> Verdict | None:
    """Returns the verdict of the first rule that knows these two texts, or None.

    Args:
        gold: The right answer, as `bare_text` returns it.
        answer: The answer to grade, likewise.
    """
    return next((found for rule in RULES if (found := rule(gold, answer))), None)


def numbers(gold: str, answer: str) -> Verdict | None:
    r"""Compares exact numbers: `12\%` is 12/100, `3\frac12` is 7/2, `12\text{ apples}` is 12."""
    value, wanted = exact_value(answer), exact_value(gold)
    if value is None or wanted is None:
        return None
    return _compare_numbers(wanted, value, is_rounded="." in gold + answer)


def _compare_numbers(wanted: Exact, value: Exact, *, is_rounded: bool) -> Verdict | None:
    if value == wanted:
        return Verdict(True, "equal numbers")
    if is_rounded and abs(value - wanted) < _DECIMALS_AGREE:
        return None
    return Verdict(False, "different numbers")


def ratios(gold: str, answer: str) -> Verdict | None:
    """Compares `3:4` by proportion, also with a fraction, whatever the number of parts."""
    parts, wanted = _ratio(answer), _ratio(gold)
    if not (parts or wanted):
        return None
    if _CLOCK.fullmatch(gold) or _CLOCK.fullmatch(answer):
        return Verdict(gold == answer, "clock times")
    parts = parts or _as_ratio(answer)
    wanted = wanted or _as_ratio(gold)
    if not parts or not wanted:
        return None
    if len(parts) != len(wanted):
        return Verdict(False, "ratios of different length")
    is_equal = all(p * wanted[-1] == w * parts[-1] for p, w in zip(parts, wanted, strict=True))
    return Verdict(is_equal, "equal ratios" if is_equal else "different ratios")


def _ratio(text: str) -> list[Exact] | None:
    parts = [exact_value(part) for part in _RATIO_SIGN.split(text)]
    is_ratio = len(parts) > 1 and all(part is not None and part > 0 for part in parts)
    return parts if is_ratio and "%" not in text else None


def _as_ratio(text: str) -> list[Exact] | None:
    value = exact_value(text)
    return None if value is None else [value, 1]


def words(gold: str, answer: str) -> Verdict | None:
    """Compares words letter by letter in order: math-verify multiplies letters, any anagram wins.

    `abc` and `xy` stay products: see `_is_sentence`.
    """
    if not _is_sentence(gold):
        return None
    same = _letters(gold) == _letters(_NAME.sub("", answer, count=1))
    return Verdict(same, "equal words" if same else "different words")


def _letters(text: str) -> str:
    text = _ROMAN.sub(r" \1 ", _TEXT.sub(r" \1 ", text))
    return re.sub(r"[\s.,;:!?'()-]+", "", _BLANK.sub(" ", text)).casefold()


def _is_sentence(text: str) -> bool:
    """Whether a gold is words, not a product of variables nor the name of a function."""
    spoken = [word for part in _TEXT.findall(text) for word in re.findall(r"[^\W\d_]+", part)]
    plain = _BLANK.sub(" ", _ROMAN.sub(r" \1 ", _TEXT.sub(r" \1 ", text))).strip()
    if not _SENTENCE.fullmatch(plain):
        return False
    runs = [run.casefold() for run in re.findall(r"[^\W\d_]+", plain)]
    if _MATH_WORDS.intersection(runs):
        return False
    return any(len(word) > 1 for word in spoken) or any(map(_is_word, runs))


def _is_word(run: str) -> bool:
    if run in _SHORT_WORDS:
        return True
    steps = {ord(b) - ord(a) for a, b in zip(sorted(run), sorted(run)[1:], strict=False)}
    return len(run) > 3 and steps != {1}  # abcd and wxyz are products


def congruences(gold: str, answer: str) -> Verdict | None:
    r"""Compares residue classes; a class and a number are different things.

    math-verify takes the modulus of `p \equiv 1 \pmod 4` for the answer.
    """
    if not (_is_congruence(gold) or _is_congruence(answer)):
        return None
    if not _is_congruence(gold) or not _is_congruence(answer):
        return Verdict(False, "a congruence against something else")
    if (wanted := _congruence(gold)) is None:
        return Verdict(None, "gold: unclear congruence")
    same = wanted == _congruence(answer)
    return Verdict(same, "equal congruences" if same else "different congruences")


def _is_congruence(text: str) -> bool:
    return r"\equiv" in text or r"\pmod" in text


def _congruence(text: str) -> tuple[str, frozenset[int], int] | None:
    r"""Returns variable, residues and modulus of `x \equiv 1, 3 \pmod 8`."""
    moduli = list(_MODULUS.finditer(text))
    if not moduli or moduli[-1].end() != len(text):
        return None
    modulus = exact_value(next(group for group in moduli[-1].groups() if group))
    left, _, right = _MODULUS.sub(" ", text).rpartition(r"\equiv")
    residues = [exact_value(_BLANK.sub(" ", part).strip()) for part in _SEPARATOR.split(right)]
    if not isinstance(modulus, int) or modulus < 1:
        return None
    if not all(isinstance(residue, int) for residue in residues) or (r"\equiv" in left):
        return None
    return left.replace(" ", ""), frozenset(residue % modulus for residue in residues), modulus


def collections(gold: str, answer: str) -> Verdict | None:
    r"""Keeps `\{1,2\}` and `(1,2)` apart: the first has no order, the second is a pair."""
    kinds = {_collection(gold), _collection(answer)}
    return Verdict(False, "a set against a tuple") if kinds == {"set", "tuple"} else None


def _collection(text: str) -> str | None:
    text = _NAME.sub("", _SIZING.sub("", text).strip(), count=1).strip()
    text = text.replace(r"\lbrace", r"\{").replace(r"\rbrace", r"\}")
    if text.startswith(r"\{") and text.endswith(r"\}"):
        return "set" if text.count(r"\{") == text.count(r"\}") == 1 else None
    if text.startswith("(") and text.endswith(")") and "," in text:
        depth = [text[: at + 1].count("(") - text[: at + 1].count(")") for at in range(len(text))]
        return "tuple" if min(depth[:-1]) > 0 else None
    return None


def contradictions(gold: str, answer: str) -> Verdict | None:
    """Refuses `5=6=7`: math-verify takes the last member of a chain without reading the others."""
    if _contradicts(gold):
        return Verdict(None, "gold: a false equation")
    return Verdict(False, "a false equation") if _contradicts(answer) else None


def _contradicts(text: str) -> bool:
    if "=" not in text or any(mark in text for mark in (",", ";", "<", ">", r"\text")):
        return False
    members = [exact_value(part) for part in text.split("=") if "." not in part]
    return len({member for member in members if member is not None}) > 1


RULES = (numbers, ratios, congruences, words, collections, contradictions)
