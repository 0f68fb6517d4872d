r"""Extracts, normalises and compares answers: the only module that parses one.

An answer is what the last real `\boxed{}` of a completion holds. Where its text is a whole number
it becomes an `int`, otherwise it stays as stripped LaTeX:

    extract_answer(r"so \boxed{1{,}024}</think>")  # 1024

Nothing here raises on model output, and everything is linear in the length of the text: it is
hostile input.
"""

import re
from collections.abc import Iterator
from typing import Literal

from fastmath_kit.problems.exact import WRAPPED, exact_value
from fastmath_kit.problems.prompts import STOP

Answer = int | str

_MAX_DIGITS = 80  # longer integers are noise: competitions ask for at most five digits
_MAX_BRACES = 100_000  # looked at from the end: several times what a long trace has
_CHUNK_CHARS = 16_384
_BRACE = re.compile(r"[{}]")
_BOX_CHARS = 80  # of text before a brace in which its command must stand
_ECHOES = frozenset(
    {"answer", "your answer", "final answer", "ans", "...", r"\ldots", r"\dots", "?"}
)


def extract_boxed(text: str) -> str | None:
    r"""Returns the content of the last real `\boxed{...}` with balanced braces, or None.

    A box that never closes, an empty box and an echoed instruction such as `\boxed{answer}` are no
    answer; an earlier real box then counts. Of two nested boxes the outer one is the last.

    >>> extract_boxed(r"\boxed{\frac{1}{2}} and then \boxed{}")
    '\\frac{1}{2}'
    """
    first = min((at for at in (text.find(r"\boxed"), text.find(r"\fbox")) if at >= 0), default=-1)
    if first < 0:
        return None
    boxes = []  # (end, start) of each box's content inside the outermost braces read so far
    closed: list[int] = []  # closing braces whose opening brace is still to come, further left
    for position in _braces_from_the_end(text, first):
        if text[position] == "}":
            closed.append(position)
        elif closed:
            end = closed.pop()
            if _is_box(text, position):
                boxes.append((end, position + 1))
        if boxes and not closed:  # no brace further left can close later than these
            if (content := _last_real(text, boxes)) is not None:
                return content
            boxes.clear()
    return _last_real(text, boxes)


def _braces_from_the_end(text: str, first: int) -> Iterator[int]:
    """Yields where the unescaped braces of `text[first:]` stand, at most `_MAX_BRACES`."""
    num_braces, end = 0, len(text)
    while end > first and num_braces < _MAX_BRACES:
        start = max(first, end - _CHUNK_CHARS)
        found = [brace.start() for brace in _BRACE.finditer(text, start, end)]
        num_braces += len(found)
        for position in reversed(found):
            if text[position - 1 : position] != "\\" or not _is_escaped(text, position):
                yield position
        end = start


def _is_escaped(text: str, position: int) -> bool:
    """Whether an odd number of backslashes stands before `position`; at most 1,000 are counted."""
    before = text[max(0, position - 1_000) : position]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


def _is_box(text: str, position: int) -> bool:
    """Whether the opening brace at `position` is that of a box."""
    before = text[max(0, position - _BOX_CHARS) : position].rstrip()
    if not before.endswith((r"\boxed", r"\fbox")):
        return False
    return not _is_escaped(text, text.rindex("\\", 0, position))


def _last_real(text: str, boxes: list[tuple[int, int]]) -> str | None:
    # Only the boxes behind the answer are copied out of the text: nested boxes stay linear.
    contents = (text[start:end] for end, start in sorted(boxes, reverse=True))
    return next((content.strip() for content in contents if is_real_answer(content)), None)


def is_real_answer(content: str) -> bool:
    r"""Whether the content of a box is an answer, not empty and not an echo of the instruction.

    >>> is_real_answer(r"\text{answer}"), is_real_answer("7")
    (False, True)
    """
    if not content or content.isspace():
        return False
    if len(content) > 64:  # no echo is this long
        return True
    if "\\" in content:
        content = WRAPPED.sub(r"\1", content)
    bare = content.strip(" \t\n$.~").casefold()
    return bool(bare) and bare not in _ECHOES


def parse_answer(text: str) -> Answer:
    r"""Returns the whole number that `text` writes, or else the text without its dressing.

    >>> parse_answer("0204"), parse_answer(r"\frac{50}{2}"), parse_answer(r"\frac12")
    (204, 25, '\\frac12')
    """
    bare = text.strip().strip("$").strip().rstrip(".").strip()
    if wrapped := WRAPPED.fullmatch(bare):
        bare = wrapped.group(1).strip()
    if "%" not in bare:  # 100\% is 1, but hardly what the model means by it
        value = exact_value(bare)
        if isinstance(value, int) and abs(value) < 10**_MAX_DIGITS:
            return value
    return bare


def extract_answer(
    completion: str, inside: Literal["reasoning", "after"] | None = None
) -> Answer | None:
    r"""Returns the answer a completion boxed, or None if it boxed none.

    Args:
        completion: What the model wrote.
        inside: `reasoning` looks before the first `STOP` only, `after` behind it only; None if
            reasoning never ended. None looks everywhere.

    >>> extract_answer(r"\boxed{3}</think> So \boxed{4}", inside="reasoning")
    3
    """
    if inside is not None:
        reasoning, stop, after = completion.partition(STOP)
        if not stop:
            return None
        completion = reasoning if inside == "reasoning" else after
    boxed = extract_boxed(completion)
    return None if boxed is None else parse_answer(boxed)


def same_answer(answer: Answer | str | None, gold: Answer | str | None) -> bool:
    """Whether two answers are the same after normalisation; unknown equals nothing.

    Exact for whole numbers. For other answers it compares text; `problems.grading` understands
    more.
    """
    if answer is None or gold is None:
        return False
    return parse_answer(str(answer)) == parse_answer(str(gold))
