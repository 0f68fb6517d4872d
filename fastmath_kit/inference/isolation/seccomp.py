"""Which system calls the code of a model may make: a seccomp filter, the one wall that must stand.

A list of what is allowed, so a call that nobody thought of is refused. What is left computes,
prints, sleeps, starts threads and works with files, as far as each of these is allowed. There is no
call that makes a process, a program, a socket or a signal to others, none that reads another
process, none that changes the owner, mode or attributes of a file, and none that gives a right.

    install(reads_files=True, writes_files=False, starts_threads=True)  # for good

Refused calls fail with `PermissionError`; those of another architecture's numbering end the
process. The filter holds for every thread and cannot be taken off.
"""

import ctypes
import errno
import os
import platform
import struct

from fastmath_kit.inference.isolation.syscalls import NUMBERS, call

_COMPUTE = """
    read write close fstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask
    rt_sigreturn pread64 pwrite64 readv writev pipe select sched_yield mremap msync madvise dup dup2
    nanosleep getitimer alarm setitimer getpid exit uname fsync fdatasync ftruncate getcwd umask
    gettimeofday getrlimit getrusage sysinfo times getuid getgid geteuid getegid getppid sigaltstack
    gettid time futex sched_getaffinity getdents64 set_tid_address restart_syscall clock_gettime
    clock_getres clock_nanosleep exit_group pselect6 ppoll set_robust_list dup3 pipe2 getcpu
    getrandom membarrier rseq
"""
_READ_FILES = """
    open openat stat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat chdir
    fchdir
"""
_WRITE_FILES = "rename renameat renameat2 mkdir mkdirat rmdir unlink unlinkat"

_F_SETLK, _F_SETLKW, _F_OFD_LOCKS, _F_DUPFD_CLOEXEC = 6, 7, (36, 37, 38), 1030
_FCNTL = (0, 1, 2, 3, 4, 5, _F_SETLK, _F_SETLKW, *_F_OFD_LOCKS, _F_DUPFD_CLOEXEC)
_IOCTL = (0x5401, 0x5421, 0x5450, 0x5451, 0x541B)  # TCGETS FIONBIO FIONCLEX FIOCLEX FIONREAD
_PTHREAD_FLAGS = 0x3D0F00  # what glibc's pthread_create gives to clone, and fork does not

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF instructions
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16  # in struct seccomp_data
_X86_64, _X32_BIT = 0xC000_003E, 0x4000_0000
_ALLOW, _KILL, _ERROR = 0x7FFF_0000, 0x8000_0000, 0x0005_0000
_SET_FILTER = 1


def why_impossible() -> str | None:
    """Returns why this machine is of the wrong kind for the filter, or None."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return f"it needs Linux on x86-64, this is {platform.system()} on {platform.machine()}"
    return None


def install(*, reads_files: bool, writes_files: bool, starts_threads: bool) -> None:
    """Filters the calls of this process from now on; `PR_SET_NO_NEW_PRIVS` must be set.

    Args:
        reads_files: Whether files may be opened at all; which ones is not for a filter to say.
        writes_files: Whether files may be made, renamed and removed.
        starts_threads: Whether threads may be started.

    Raises:
        OSError: the kernel refused.
    """
    names = f"{_COMPUTE} {_READ_FILES * reads_files} {_WRITE_FILES * writes_files}".split()
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE_OFFSET),
        (_EQUAL, 1, 0, _X86_64),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_OFFSET),
        (_AT_LEAST, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _KILL),
    ]
    for name in names:
        steps += [(_EQUAL, 0, 1, NUMBERS[name]), (_RETURN, 0, 0, _ALLOW)]
    steps += _allow_if("fcntl", 1, _FCNTL)
    steps += _allow_if("ioctl", 1, _IOCTL)
    steps += _allow_if("prlimit64", 0, (0,))  # its own limits, which can only be lowered
    steps += _allow_if("tgkill", 0, (os.getpid(),))  # raise()
    if starts_threads:
        steps += _allow_if("clone", 0, (_PTHREAD_FLAGS,))
    # The flags of clone3 are out of a filter's sight; told that it is unknown, glibc calls clone.
    steps += [(_EQUAL, 0, 1, NUMBERS["clone3"]), (_RETURN, 0, 0, _ERROR | errno.ENOSYS)]
    steps += [(_RETURN, 0, 0, _ERROR | errno.EPERM)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    header = struct.pack("=H6xQ", len(steps), ctypes.addressof(program))
    call("seccomp", _SET_FILTER, 0, header)


def _allow_if(name: str, argument: int, values: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Returns the steps that allow a call only with one of these values of an `int` argument."""
    body = [(_LOAD, 0, 0, _ARGUMENTS_OFFSET + 8 * argument)]
    for value in values:
        body += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    body += [(_RETURN, 0, 0, _ERROR | errno.EPERM)]
    return [(_EQUAL, 0, len(body), NUMBERS[name]), *body]
