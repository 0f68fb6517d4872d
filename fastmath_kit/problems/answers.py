r"""Extracts, normalises and compares answers: the only module that parses one.

An answer is what the last real `\boxed{}` of a completion holds. Where its text is a whole number
it becomes an `int`, otherwise it stays as stripped LaTeX:

    extract_answer(r"so \boxed{1{,}024}</think>")  # 1024

Nothing here raises on model output, and everything is linear in the length of the text: it is
hostile input.
"""

import re

Answer = int | str

_MAX_DIGITS = 40  # longer integers are noise: competitions ask for at most five digits
_TOKEN = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_ECHOES = frozenset(
    {"answer", "your answer", "final answer", "ans", "...", r"\ldots", r"\dots", "?"}
)
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|boxed|fbox)\s*\{([^{}]*)\}")
_INTEGER = re.compile(r"[+-]?[0-9]+(?:\.0*)?")
_GROUPED = re.compile(r"[+-]?[0-9]{1,3}(?:(?:,|\{,\}|\\,|\\!|,\\!)[0-9]{3})+")
_NOT_DIGIT = re.compile(r"[^0-9+-]")


def extract_boxed(text: str) -> str | None:
    r"""Returns the content of the last real `\boxed{...}` with balanced braces, or None.

    A box that never closes, an empty box and an echoed instruction such as `\boxed{answer}` are no
    answer; an earlier real box then counts.

    >>> extract_boxed(r"\boxed{\frac{1}{2}} and then \boxed{}")
    '\\frac{1}{2}'
    """
    boxes = []  # (start, end) of each closed box's content, in the order they close
    opened: list[int | None] = []  # where each open box's content starts, None for a plain brace
    for token in _TOKEN.finditer(text):
        mark = token.group()
        if mark == "{":
            opened.append(None)
        elif mark == "}":
            start = opened.pop() if opened else None
            if start is not None:
                boxes.append((start, token.start()))
        elif mark.endswith("{") and len(mark) > 2:
            opened.append(token.end())
    # Only the boxes behind the answer are copied out of the text: nested boxes stay linear.
    contents = (text[start:end] for start, end in reversed(boxes))
    return next((content.strip() for content in contents if is_real_answer(content)), None)


def is_real_answer(content: str) -> bool:
    r"""Whether the content of a box is an answer, not empty and not an echo of the instruction.

    >>> is_real_answer(r"\text{answer}"), is_real_answer("7")
    (False, True)
    """
    if len(content) > 64:  # no echo is this long
        return not content.isspace()
    bare = _WRAPPED.sub(r"\1", content).strip(" \t\n$.~").casefold()
    return bool(bare) and bare not in _ECHOES


def parse_answer(text: str) -> Answer:
    r"""Returns the whole number that `text` writes, or else the text without its dressing.

    >>> parse_answer("0204"), parse_answer(r"$1{,}000$"), parse_answer(r"\frac12")
    (204, 1000, '\\frac12')
    """
    bare = text.strip().strip("$").strip().rstrip(".").strip()
    if wrapped := _WRAPPED.fullmatch(bare):
        bare = wrapped.group(1).strip()
    if len(bare) <= 2 * _MAX_DIGITS:
        if _INTEGER.fullmatch(bare):
            return int(bare.partition(".")[0])
        if _GROUPED.fullmatch(bare):
            return int(_NOT_DIGIT.sub("", bare))
    return bare


def extract_answer(completion: str) -> Answer | None:
    """Returns the answer a completion boxed, or None if it boxed none.

    >>> extract_answer("no box") is None
    True
    """
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
