"""The walls around the code of a model: what this system has of them, and how they are put up.

The seccomp filter (`inference.isolation.seccomp`) must stand; all others are used where the system
allows them and named as missing where it does not:

- namespaces: an empty network, no other processes in sight, a file system that holds only Python,
  the libraries and a private scratch folder in memory;
- Landlock: only Python and the libraries can be read, only the scratch folder written;
- an own user id, or user namespace: no rights of ours, and threads that can be counted.

What stays open without a wall is closed by the filter: without namespaces no file can be written,
without Landlock too none can be opened, without an own user no thread can be started. With Landlock
alone, whether a file exists can still be asked, and its size; with neither, not even that.

    jail = Jail()  # once, in the process whose children are to be confined
    jail.confine(limits, number)  # in each child, before anything else; for good
"""

import os
import resource
import signal
import struct
from collections.abc import Callable
from contextlib import suppress

from fastmath_kit.inference.isolation import seccomp
from fastmath_kit.inference.isolation.files import (
    add_scratch,
    build_root,
    landlock_version,
    python_roots,
    restrict_files,
)
from fastmath_kit.inference.isolation.limits import (
    LANDLOCK,
    NAMESPACES,
    OWN_USER,
    READING,
    Isolation,
    Limits,
)
from fastmath_kit.inference.isolation.syscalls import call

_NEW_USER = 0x1000_0000
_NEW_ALL = 0x6C02_0000  # mounts, host name, IPC, process ids, network
_DIE_WITH_PARENT, _SET_DUMPABLE, _NO_NEW_RIGHTS = 1, 4, 38  # prctl
_CAPABILITIES_V3 = 0x2008_0522
_FIRST_UID, _NUM_UIDS = 61_184, 4_336  # what systemd keeps for short-lived users
_NUM_OPEN_FILES = 64
_WORKS = b"works"
_FIRST_VICTIM = b"1000"  # when the machine runs out of memory


class Jail:
    """Walls for the children of this process."""

    def __init__(self) -> None:
        """Puts up what all children share and finds out what each can have besides.

        The process loses sight of other files. It must be single-threaded.

        Raises:
            OSError: a step is refused that had been granted a moment before.
        """
        used, missing = ["seccomp", "limits"], {}
        self._proc, self._first = os.open("/proc", os.O_PATH), None
        self._roots = python_roots()
        if (flags := self._possible_namespaces(missing)) is not None:
            self._enter_namespaces(flags)
            used.append(NAMESPACES)
        if (why := why_not(landlock_version)) is None:
            used.append(LANDLOCK)
        else:
            missing[LANDLOCK] = why
        self._is_root = os.geteuid() == 0 and why_not(lambda: _become(0)) is None
        if self._is_root or (why := why_not(lambda: call("unshare", _NEW_USER))) is None:
            used.append(OWN_USER)
        else:
            missing[OWN_USER] = why
        if self._is_root and (why := why_not(_read_as_nobody)):
            missing[READING] = why
        self.isolation = Isolation(used=tuple(used), missing=missing)

    def confine(self, limits: Limits, number: int) -> None:
        """Shuts this process in, for good.

        Args:
            limits: What it may use.
            number: Of the child; decides its user id.

        Raises:
            OSError: the kernel refused a step that it granted before; nothing must run then.
        """
        isolation = self.isolation
        memory_bytes = self._prepare_memory(limits)
        os.chdir("/")
        if isolation.has_scratch:
            add_scratch(limits.scratch_bytes)
        call("prctl", _NO_NEW_RIGHTS, 1, 0, 0, 0)
        if LANDLOCK in isolation.used:
            restrict_files(self._roots, scratch=isolation.has_scratch)
        os.close(self._proc)
        if self._is_root:
            _become(number)
        elif OWN_USER in isolation.used:
            call("unshare", _NEW_USER)
        call("capset", struct.pack("=Ii", _CAPABILITIES_V3, 0), struct.pack("=6I", *[0] * 6))
        _set_limits(limits, memory_bytes, isolation.has_threads)
        call("prctl", _SET_DUMPABLE, 0, 0, 0, 0)
        call("prctl", _DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        seccomp.install(
            reads_files=isolation.reads_python,
            writes_files=isolation.has_scratch,
            starts_threads=isolation.has_threads,
        )

    def close(self) -> None:
        """Ends what it has started."""
        if self._first is not None:
            os.kill(self._first, signal.SIGKILL)
            os.waitpid(self._first, 0)

    def _possible_namespaces(self, missing: dict[str, str]) -> int | None:
        """Returns what to ask of `unshare`, or None and the reason in `missing`."""
        for flags in (_NEW_ALL, _NEW_ALL | _NEW_USER):
            if (why := why_not(lambda flags=flags: self._enter_namespaces(flags))) is None:
                return flags
        missing[NAMESPACES] = why
        return None

    def _enter_namespaces(self, flags: int) -> None:
        user, group = os.geteuid(), os.getegid()
        call("unshare", flags)
        if flags & _NEW_USER:
            for name, text in (
                ("setgroups", "deny"),
                ("uid_map", f"{user} {user} 1"),
                ("gid_map", f"{group} {group} 1"),
            ):
                with open(f"/proc/self/{name}", "w") as file:
                    file.write(text)
        build_root(self._roots)
        ready, child_end = os.pipe()
        self._first = os.fork()  # of a process namespace: all others end with it
        if self._first == 0:
            call("prctl", _DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
            os.closerange(0, child_end)  # also what others wait to see closed
            os.close(child_end)
            while True:
                signal.pause()
        os.close(child_end)
        os.read(ready, 1)  # returns once the child has closed its end
        os.close(ready)

    def _prepare_memory(self, limits: Limits) -> int:
        """Returns the address space allowed, what the libraries take included."""
        with suppress(OSError):  # a wish
            victim = os.open("self/oom_score_adj", os.O_WRONLY, dir_fd=self._proc)
            os.write(victim, _FIRST_VICTIM)
            os.close(victim)
        sizes = os.open("self/statm", os.O_RDONLY, dir_fd=self._proc)
        num_pages = int(os.read(sizes, 100).split()[0])
        os.close(sizes)
        return num_pages * resource.getpagesize() + limits.memory_bytes


def why_not(step: Callable[[], object]) -> str | None:
    """Returns why a step fails, tried in a process that then ends, or None if it works.

    Args:
        step: What may raise an `OSError`.
    """
    answer, child_end = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            step()
            os.write(child_end, _WORKS)
        except OSError as error:
            os.write(child_end, str(error).encode()[:1_000])
        finally:
            os._exit(0)
    os.close(child_end)
    with os.fdopen(answer, "rb") as file:
        why = file.read()
    _, status = os.waitpid(process, 0)
    return None if why == _WORKS else why.decode() or f"it ended with wait status {status}"


def _become(number: int) -> None:
    """Takes on a user id that owns nothing, and loses all rights of root with it."""
    user = _FIRST_UID + number % _NUM_UIDS
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def _read_as_nobody() -> None:
    _become(0)
    os.listdir(os.path.dirname(os.__file__))


def _set_limits(limits: Limits, memory_bytes: int, has_threads: bool) -> None:
    for which, amount in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, limits.scratch_bytes),
        (resource.RLIMIT_NOFILE, _NUM_OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        resource.setrlimit(which, (amount, amount))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, limits.cpu_s + 1))
    if has_threads:
        resource.setrlimit(resource.RLIMIT_NPROC, (limits.num_threads, limits.num_threads))
