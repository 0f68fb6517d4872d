"""What one session may use, what one call gave, and what keeps the code in.

Limits(memory_bytes=2**29, output_chars=4_000)
"""

from dataclasses import dataclass

from fastmath_kit.errors import ConfigError

NAMESPACES, LANDLOCK, OWN_USER = "namespaces", "landlock", "own user"
READING = "reading Python's files"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one session, whose process holds the state of all its calls.

    Attributes:
        memory_bytes: What the process may allocate, besides the loaded libraries.
        cpu_s: CPU seconds of all calls and all threads together.
        num_threads: Threads, the main one included. There are never other processes.
        scratch_bytes: All files in the scratch folder together. They live in memory and go with
            the process.
        output_chars: Characters of a call's output that are kept; the rest is dropped.
    """

    memory_bytes: int = 2**30
    cpu_s: int = 120
    num_threads: int = 32
    scratch_bytes: int = 2**26
    output_chars: int = 10_000

    def __post_init__(self) -> None:
        values = (self.memory_bytes, self.cpu_s, self.num_threads, self.scratch_bytes)
        if min(values) < 1 or self.output_chars < 0:
            raise ConfigError(f"limits must be positive, got {self}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What one call gave.

    Attributes:
        stdout: What the code printed to stdout and stderr, in order, and the value of a last
            expression.
        error: The exception with its line, as `ValueError: no root (line 3)`, or what ended the
            process; None if the code ran to its end. Says so where the state of earlier calls is
            lost.
        timed_out: Whether the time limit ended it; `stdout` is what it had printed by then.
        seconds: Wall time of the call.
        truncated: Whether `stdout` is only the beginning.
    """

    stdout: str
    error: str | None
    timed_out: bool
    seconds: float
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """What keeps the code in, and what the system lacks.

    Attributes:
        used: The walls in use.
        missing: Wall -> why this system does not have it.
    """

    used: tuple[str, ...]
    missing: dict[str, str]

    @property
    def has_scratch(self) -> bool:
        """Whether code may write files, in its scratch folder; otherwise none at all."""
        return NAMESPACES in self.used

    @property
    def reads_python(self) -> bool:
        """Whether code may read Python's own files; otherwise it imports only what is loaded."""
        return (self.has_scratch or LANDLOCK in self.used) and READING not in self.missing

    @property
    def has_threads(self) -> bool:
        """Whether code may start threads; where they cannot be counted it may not."""
        return OWN_USER in self.used

    def __str__(self) -> str:
        """Returns one line for a log or a notebook."""
        lacks = "; ".join(f"{wall}: {why}" for wall, why in self.missing.items())
        closed = ["other processes", "network", "files outside"]
        closed += ["scratch folder"] * (not self.has_scratch)
        closed += ["files at all"] * (not self.reads_python)
        closed += ["threads"] * (not self.has_threads)
        return (
            f"in use: {', '.join(self.used)}. Missing: {lacks or 'nothing'}. "
            f"The code has no {', no '.join(closed)}."
        )
