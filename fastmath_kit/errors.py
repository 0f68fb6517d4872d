"""What can go wrong, by what the user can do about it.

Every error a user can cause is a `FastMathError` whose one-line message says what is wrong, what
was given and what to do. The command line prints that line and exits with status 2; notebooks show
it as any exception. Children also inherit the standard class a caller would expect, so
`except ValueError` keeps working. None defines `__init__`, so all pickle across processes.
"""

import difflib
from collections.abc import Iterable

_MAX_LISTED = 20  # names in one message


class FastMathError(Exception):
    """Base of every error raised on purpose by this package."""


class ConfigError(FastMathError, ValueError):
    """A preset, an option or a competition file is wrong."""


class DataError(FastMathError, ValueError):
    """A problem file, a trace file or a row of one is wrong."""


class CheckpointError(FastMathError, RuntimeError):
    """A model folder or a checkpoint is missing, damaged or of the wrong kind."""


class EngineError(FastMathError, RuntimeError):
    """An engine or a gateway did not start, died, or refused a request."""


class WheelhouseError(FastMathError, RuntimeError):
    """An offline install would fail on the target image."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Returns the message for a name that is not among the known ones, with the nearest of them.

    >>> unknown_name("preset", "sft_tin", ["sft_tiny", "grpo_tiny"])
    "unknown preset 'sft_tin'. Did you mean 'sft_tiny'?"
    """
    known = sorted(known)
    if close := difflib.get_close_matches(name, known, n=1):
        hint = f"Did you mean {close[0]!r}?"
    elif len(known) > _MAX_LISTED:
        hint = f"Nearest: {', '.join(difflib.get_close_matches(name, known, n=5, cutoff=0.0))}."
    else:
        hint = f"Known: {', '.join(known)}."
    return f"unknown {kind} {name!r}. {hint}"
