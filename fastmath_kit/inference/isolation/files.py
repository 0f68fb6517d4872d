"""Which files the code of a model can see: Python and the libraries, and a scratch folder.

Two walls, each enough alone. In a mount namespace the root folder itself is another one, in which
nothing else exists; Landlock refuses to open anything else, whatever exists. The scratch folder is
a file system in memory, limited in size, that the kernel frees with the process: nothing is ever
left behind on a disk.

    roots = python_roots()
    build_root(roots)  # in a new mount namespace
    add_scratch(2**26)
    restrict_files(roots, scratch=True)
"""

import os
import stat
import struct
import sys

from fastmath_kit.inference.isolation.syscalls import call

SCRATCH = "/scratch"  # also found as /tmp
_MOUNT_POINT = "/tmp"  # any folder that exists
_NEW_MOUNTS = 0x0002_0000
_NO_SETUID, _NO_DEVICES, _NO_PROGRAMS = 0x2, 0x4, 0x8  # mount flags
_BIND, _ALL_BELOW, _PRIVATE = 0x1000, 0x4000, 0x4_0000
_DETACH = 2
_HERE, _RECURSIVE = -100, 0x8000  # AT_FDCWD, AT_RECURSIVE
_READ_ONLY_ATTRIBUTES = 0x1 | 0x2  # MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID
_MAX_SCRATCH_FILES = 1_024

_LIBRARY_ROOTS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")

# Landlock: rights in the order of their bits, and how many of them each version knows.
_WRITE, _READ, _LIST, _REMOVE_DIR, _REMOVE = 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5
_MAKE_DIR, _MAKE_FILE, _RENAME, _TRUNCATE = 1 << 7, 1 << 8, 1 << 13, 1 << 14
_NUM_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # 16 from version 5 on
_TCP_RIGHTS, _SCOPES = 0b11, 0b11  # bind and connect; abstract sockets and signals
_ASK_VERSION, _BELOW_PATH = 1, 1


def python_roots() -> list[str]:
    """Returns the files and folders that Python's imports and the loader may read."""
    packages = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    places = [f"{sys.prefix}/lib", f"{sys.base_prefix}/lib", *packages, *_LIBRARY_ROOTS, *_DEVICES]
    return [place for place in dict.fromkeys(places) if os.path.exists(place)]


def build_root(roots: list[str]) -> None:
    """Makes a read-only root folder that holds `roots` and nothing else; forgets the old one.

    The process must be in a new mount namespace.

    Raises:
        OSError: the kernel refused a step.
    """
    sources = {root: os.open(os.path.realpath(root), os.O_PATH) for root in roots}
    call("mount", b"none", b"/", None, _ALL_BELOW | _PRIVATE, None)
    call("mount", b"none", _MOUNT_POINT.encode(), b"tmpfs", _NO_SETUID, b"size=1m,mode=755")
    os.chdir(_MOUNT_POINT)
    os.umask(0o022)
    os.mkdir(SCRATCH[1:])
    for root in sorted(roots, key=os.path.realpath):  # what holds others before what it holds
        real = os.path.realpath(root)
        _bind(sources[root], real[1:])
        if real != root and not os.path.lexists(root[1:]):
            os.makedirs(os.path.dirname(root[1:]) or ".", exist_ok=True)
            os.symlink(real, root[1:])
    for source in sources.values():
        os.close(source)
    if not os.path.exists("tmp"):  # Python itself may live there
        os.symlink(SCRATCH, "tmp")
    call("pivot_root", b".", b".")  # the old root now lies on top of the new one
    call("umount2", b".", _DETACH)
    os.chdir("/")
    _make_read_only(b"/", recursive=False)


def add_scratch(size_bytes: int) -> None:
    """Gives this process a scratch folder of its own, in memory, and goes there.

    Raises:
        OSError: the kernel refused a step.
    """
    call("unshare", _NEW_MOUNTS)
    flags = _NO_SETUID | _NO_DEVICES | _NO_PROGRAMS
    options = f"size={size_bytes},nr_inodes={_MAX_SCRATCH_FILES},mode=1777"
    call("mount", b"none", SCRATCH.encode(), b"tmpfs", flags, options.encode())
    os.chdir(SCRATCH)


def landlock_version() -> int:
    """Returns the version of Landlock, at least 1.

    Raises:
        OSError: the kernel has none, or it was not switched on.
    """
    return call("landlock_create_ruleset", None, 0, _ASK_VERSION)


def restrict_files(roots: list[str], *, scratch: bool) -> None:
    """Lets this process open only what is below `roots`, to read, and its scratch folder.

    From version 4 on Landlock also refuses TCP, and from version 6 signals and abstract sockets
    to processes outside. `PR_SET_NO_NEW_PRIVS` must be set.

    Raises:
        OSError: the kernel refused a step.
    """
    version = landlock_version()
    handled = [(1 << _NUM_FILE_RIGHTS.get(version, 16)) - 1]
    handled += [_TCP_RIGHTS] if version >= 4 else []
    handled += [_SCOPES] if version >= 6 else []
    attributes = struct.pack(f"={len(handled)}Q", *handled)
    rules = call("landlock_create_ruleset", attributes, len(attributes), 0)
    for root in roots:
        _allow_below(rules, root, _WRITE if root in _DEVICES else 0)
    if scratch:
        changes = _WRITE | _REMOVE_DIR | _REMOVE | _MAKE_DIR | _MAKE_FILE | _RENAME | _TRUNCATE
        _allow_below(rules, SCRATCH, changes & handled[0])
    call("landlock_restrict_self", rules, 0)
    os.close(rules)


def _bind(source: int, target: str) -> None:
    """Shows an open file or folder at `target`, read-only."""
    if os.path.exists(target):
        return  # inside another one
    if stat.S_ISDIR(os.fstat(source).st_mode):
        os.makedirs(target)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT))
    where = target.encode()
    call("mount", f"/proc/self/fd/{source}".encode(), where, None, _BIND | _ALL_BELOW, None)
    _make_read_only(where, recursive=True)


def _make_read_only(path: bytes, *, recursive: bool) -> None:
    attributes = struct.pack("=4Q", _READ_ONLY_ATTRIBUTES, 0, 0, 0)
    flags = _RECURSIVE if recursive else 0
    call("mount_setattr", _HERE, path, flags, attributes, len(attributes))


def _allow_below(rules: int, path: str, changes: int) -> None:
    place = os.open(path, os.O_PATH)
    is_folder = stat.S_ISDIR(os.fstat(place).st_mode)
    rights = _READ | changes | (_LIST if is_folder else 0)
    call("landlock_add_rule", rules, _BELOW_PATH, struct.pack("=Qi", rights, place), 0)
    os.close(place)
