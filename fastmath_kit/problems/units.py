"""Words that may stand behind a number without changing it, and those that do change it."""

import re

_WORDS = re.compile(r"[a-zA-Z]+(?:[ .-]+[a-zA-Z]+)*\.?")
_NAME = re.compile("[a-zA-Z]+")
_LETTER_UNITS = frozenset("mgshL")  # other single letters are variables or constants
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "dozen": 12}
_NOT_UNITS = (  # `12 or 13`, `12 percent`, `12 if n is odd`, `12 i`
    "about and at base by choose cubed divided e else except factorial fifth fifths for fourth "
    "fourths from half halves i if infinity is least less mod modulo more most nd no not only or "
    "otherwise over pct per percent percentage pi plus minus quarter quarters rd remainder score "
    "sixth squared st tenth tenths th than third thirds times to trillion when where with"
)
_CHANGING = frozenset(re.split(" ", _NOT_UNITS))


def unit_scale(words: str) -> int | None:
    """Returns what a unit multiplies its number by, or None if `words` is no unit.

    >>> unit_scale(" apples"), unit_scale("thousand dollars"), unit_scale("percent")
    (1, 1000, None)
    """
    words = words.replace("~", " ").replace("\\,", " ").strip()
    names = _NAME.findall(words)
    if not _WORDS.fullmatch(words) or not all(len(n) > 1 or n in _LETTER_UNITS for n in names):
        return None
    names = [name.casefold() for name in names]
    return _SCALES.get(names[0], 1) if _CHANGING.isdisjoint(names) else None
