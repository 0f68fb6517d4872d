"""Attempts to get out of the sandbox: each must fail, and the sandbox must work afterwards.

Every attempt runs in a session of its own. It prints ESCAPED where it got what it wanted, and what
it says must match the pattern beside it, so that an attempt which merely breaks does not count as
contained. After each one the canaries are looked at, the processes counted, and sympy is asked a
question. `test_contained_where_the_system_offers_less` runs all of them again without namespaces,
without an own user and without Landlock.
"""

import contextlib
import ctypes
import errno
import os
import re
import secrets
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fastmath_kit.inference.isolation.seccomp import why_impossible
from fastmath_kit.inference.isolation.syscalls import NUMBERS, call
from fastmath_kit.inference.sandbox import Limits, Sandbox

pytestmark = pytest.mark.skipif(why_impossible() is not None, reason=str(why_impossible()))

MIB = 2**20
LIMITS = Limits(memory_bytes=256 * MIB, cpu_s=10, num_threads=16, scratch_bytes=8 * MIB)
TIMEOUT_S = 10.0  # of attempts that end by themselves, on a busy machine
NO = "PermissionError|Operation not permitted"
NO_FILE = rf"{NO}|FileNotFoundError|NotADirectoryError"
GONE = "the process (was ended|has exited)"

# What every attempt may use: raw system calls, and the places it wants to reach.
PRELUDE = """
import ctypes, os, sys, time, signal, threading
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def raw(number, *arguments):
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in (number, *arguments)]
    result = libc.syscall(*words)
    number = ctypes.get_errno()
    print(f"ESCAPED {result}" if result >= 0 else f"refused: {os.strerror(number)}")
    return result
def works(function, *arguments, **options):
    print("ESCAPED", function(*arguments, **options))
"""
REFUSED = "refused: (Operation not permitted|Function not implemented)"

ATTEMPTS = {
    # Network
    "tcp": ("import socket; works(socket.socket().connect, ('127.0.0.1', TCP))", NO),
    "udp": (
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM)\n"
        "works(s.sendto, b'x', ('127.0.0.1', UDP))",
        NO,
    ),
    "ipv6": ("import socket; works(socket.socket, socket.AF_INET6)", NO),
    "listen": ("import socket; works(socket.create_server, ('0.0.0.0', 0))", NO),
    "unix socket": (
        "import socket; s = socket.socket(socket.AF_UNIX); works(s.connect, UNIX)",
        NO,
    ),
    "abstract socket": (
        "import socket; s = socket.socket(socket.AF_UNIX); works(s.connect, ABSTRACT)",
        NO,
    ),
    "raw socket": ("import socket; works(socket.socket, 2, socket.SOCK_RAW, 1)", NO),
    "packet socket": ("import socket; works(socket.socket, 17, socket.SOCK_RAW, 3)", NO),
    "netlink": ("import socket; works(socket.socket, 16, socket.SOCK_RAW, 0)", NO),
    "vsock": ("import socket; works(socket.socket, 40, socket.SOCK_STREAM)", NO),
    "socket pair": ("import socket; works(socket.socketpair)", NO),
    "name lookup": (
        "import socket; works(socket.getaddrinfo, 'localhost', 80)",
        "gaierror|OSErr|LookupError",
    ),
    "http": (
        "import http.client; works(http.client.HTTPConnection('127.0.0.1', TCP).connect)",
        rf"{NO}|ModuleNotFound",
    ),
    "asyncio": ("import asyncio; works(asyncio.run, asyncio.sleep(0))", NO),
    "socket by number": ("raw(41, 2, 1, 0)", REFUSED),
    "io_uring": ("raw(425, 8, ctypes.create_string_buffer(120))", REFUSED),
    "x32 numbers": ("raw(0x40000000 + 41, 2, 1, 0)", GONE),
    "32-bit system call": (
        "import mmap\n"
        "code = mmap.mmap(-1, 4096, prot=7)\n"
        "code.write(b'\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3')  # getpid by int 0x80\n"
        "address = ctypes.addressof(ctypes.c_char.from_buffer(code))\n"
        "works(ctypes.CFUNCTYPE(ctypes.c_int)(address))",
        GONE,
    ),
    # Processes
    "fork": ("works(os.fork)", NO),
    "fork bomb": ("for _ in range(10**5):\n    os.fork()", NO),
    "zombies": ("for _ in range(9):\n    os.fork() or os._exit(0)\nprint('ESCAPED')", NO),
    "daemon": ("if os.fork() == 0:\n    os.setsid(); os.fork(); time.sleep(60)", NO),
    "forkpty": ("import pty; works(pty.fork)", rf"{NO}|out of pty devices|OSError"),
    "vfork by number": ("raw(58)", REFUSED),
    "fork by number": ("raw(57)", REFUSED),
    "clone": ("raw(56, 17, 0, 0, 0, 0)", REFUSED),
    "clone with namespaces": ("raw(56, 0x10000000 | 17, 0, 0, 0, 0)", REFUSED),
    "clone3": ("raw(435, ctypes.create_string_buffer(88), 88)", REFUSED),
    "subprocess": ("import subprocess; works(subprocess.run, ['/bin/true'])", NO_FILE),
    "system": ("print(os.system('touch OUTSIDE/new'))", "^(-1|32512)$"),
    "exec": ("works(os.execv, sys.executable, ['python'])", NO_FILE),
    "spawn": ("works(os.posix_spawn, '/bin/true', ['true'], {})", NO_FILE),
    "exec of memory": ("fd = raw(319, b'x', 0)\nraw(322, fd, b'', 0, 0, 0x1000)", REFUSED),
    "multiprocessing": (
        "import multiprocessing.pool; works(multiprocessing.Pool, 2)",
        rf"{NO_FILE}|not implemented|ModuleNotFoundError",
    ),
    "process pool": (
        "from concurrent.futures import ProcessPoolExecutor as P; works(P(1).submit(int).result)",
        rf"{NO_FILE}|not implemented|NotImplementedError|ModuleNotFoundError",
    ),
    "threads without end": (
        "n = 0\n"
        "try:\n"
        "    while n < 5_000:\n"
        "        threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); n += 1\n"
        "except RuntimeError as error:\n"
        "    print('stopped' if n < 40 else 'ESCAPED', n, error)",
        "stopped .*can't start new thread",
    ),
    # Signals
    "kill the parent": ("works(os.kill, PARENT, 9)", NO),
    "kill the keeper": ("works(os.kill, KEEPER, 9)", NO),
    "kill everyone": ("works(os.kill, -1, 9)", NO),
    "kill the group": ("works(os.killpg, 0, 9)", NO),
    "stop the first process": ("works(os.kill, 1, 19)", NO),
    "tgkill": ("raw(234, PARENT, PARENT, 9)", REFUSED),
    "tkill": ("raw(200, PARENT, 9)", REFUSED),
    "queued signal": ("raw(129, PARENT, 9, ctypes.create_string_buffer(128))", REFUSED),
    "process descriptor": ("raw(434, PARENT, 0)", REFUSED),
    "signal by a pipe's owner": ("import fcntl; works(fcntl.fcntl, 1, 8, PARENT)", NO),
    "signal by a timer": ("raw(222, 0, ctypes.create_string_buffer(64), 0)", REFUSED),
    "own group": ("works(os.setpgid, 0, 0)", NO),
    "own session": ("works(os.setsid)", NO),
    "outlives the keeper": ("raw(157, 1, 0, 0, 0, 0)", REFUSED),
    "ignores all signals": (
        "for n in range(1, 65):\n"
        "    try: signal.signal(n, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
        "while True: pass",
        "timed out",
    ),
    "catches everything": (
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "timed out",
    ),
    "stops itself": ("signal.raise_signal(signal.SIGSTOP)", "timed out"),
    "sleeps in C": ("libc.sleep(60)", "timed out"),
    # Other processes' memory
    "ptrace": ("raw(101, 16, PARENT, 0, 0)", REFUSED),
    "be traced": ("raw(101, 0, 0, 0, 0)", REFUSED),
    "read the parent's memory": (
        "b = ctypes.create_string_buffer(64)\n"
        "v = (ctypes.c_ulong * 2)(ctypes.addressof(b), 64); w = (ctypes.c_ulong * 2)(ADDRESS, 64)\n"
        "raw(310, PARENT, v, 1, w, 1, 0); print(b.raw)",
        REFUSED,
    ),
    "write the parent's memory": (
        "b = ctypes.create_string_buffer(b'overwritten' * 3)\n"
        "v = (ctypes.c_ulong * 2)(ctypes.addressof(b), 32); w = (ctypes.c_ulong * 2)(ADDRESS, 32)\n"
        "raw(311, PARENT, v, 1, w, 1, 0)",
        REFUSED,
    ),
    "proc mem of the parent": (
        "f = open('/proc/PARENT/mem', 'rb'); f.seek(ADDRESS); works(f.read, 64)",
        NO_FILE,
    ),
    "proc mem of the keeper": ("works(open, '/proc/KEEPER/mem', 'rb+')", NO_FILE),
    "environment of the parent": ("works(open('/proc/PARENT/environ').read)", NO_FILE),
    "environment of the keeper": ("works(open('/proc/KEEPER/environ').read)", NO_FILE),
    "own environment": ("print(dict(os.environ), ctypes.c_char_p(libc.getenv(b'CANARY')))", "{}"),
    "command lines": ("works(os.listdir, '/proc')", NO_FILE),
    "files of the parent": ("works(os.listdir, '/proc/PARENT/fd')", NO_FILE),
    "root of the parent": ("works(os.readlink, '/proc/PARENT/root')", NO_FILE),
    "descriptor of the parent": ("raw(438, 3, 0, 0)", REFUSED),
    "shared memory": ("raw(29, 0, 4096, 0o1666)", REFUSED),
    "message queue": ("raw(68, 0, 0o1666)", REFUSED),
    "kernel keys": ("raw(250, 0, -4, 0)", REFUSED),
    "kcmp": ("raw(312, PARENT, os.getpid(), 0, 0, 0)", REFUSED),
    "performance events": ("raw(298, ctypes.create_string_buffer(128), 0, -1, -1, 0)", REFUSED),
    "bpf": ("raw(321, 5, ctypes.create_string_buffer(128), 128)", REFUSED),
    "userfaultfd": ("raw(323, 0)", REFUSED),
    "kernel log": ("raw(103, 3, ctypes.create_string_buffer(999), 999)", REFUSED),
    "physical memory": ("works(open, '/dev/mem', 'rb')", NO_FILE),
    "inherited descriptors": (
        "fds = []\n"
        "for fd in range(1024):\n"
        "    try: os.get_inheritable(fd); fds.append(fd)\n"
        "    except OSError: pass\n"
        "print('few' if len(fds) <= 4 else 'ESCAPED', fds)",
        "few",
    ),
    # Files
    "read outside": ("works(open('CANARY').read)", NO_FILE),
    "read by a relative path": ("works(open('../' * 20 + 'CANARY').read)", NO_FILE),
    "write outside": ("works(open, 'OUTSIDE/new', 'w')", NO_FILE),
    "overwrite": ("works(open, 'CANARY', 'r+')", NO_FILE),
    "append": ("works(open, 'CANARY', 'a')", NO_FILE),
    "truncate": ("works(os.truncate, 'CANARY', 0)", NO_FILE),
    "delete": ("works(os.unlink, 'CANARY')", NO_FILE),
    "rename": ("works(os.rename, 'CANARY', 'CANARY.old')", NO_FILE),
    "make a folder": ("works(os.mkdir, 'OUTSIDE/folder')", rf"{NO_FILE}"),
    "change the mode": ("works(os.chmod, 'CANARY', 0o777)", NO_FILE),
    "change the owner": ("works(os.chown, 'CANARY', os.getuid(), -1)", NO_FILE),
    "change the time": ("works(os.utime, 'CANARY', (1, 1))", NO_FILE),
    "attributes": ("works(os.setxattr, 'CANARY', 'user.x', b'x')", NO_FILE),
    "list outside": ("works(os.listdir, 'OUTSIDE')", NO_FILE),
    "list the root": (
        "print(['ESCAPED'] * ('proc' in os.listdir('/')) or 'hidden')",
        f"hidden|{NO}",
    ),
    "symlink": ("os.symlink('CANARY', 'link'); works(open('link').read)", NO_FILE),
    "symlink by number": ("raw(88, b'CANARY', b'link')\nworks(open('link').read)", NO_FILE),
    "hard link": ("os.link('CANARY', 'link'); works(open('link').read)", NO_FILE),
    "own root by proc": ("works(open('/proc/self/root/CANARY').read)", NO_FILE),
    "descriptor by proc": ("works(os.listdir, '/proc/self/fd')", NO_FILE),
    "file handle": ("raw(304, 3, ctypes.create_string_buffer(64), 0)", REFUSED),
    "device file": ("works(os.mknod, 'disk', 0o60666, os.makedev(254, 0))", NO),
    "disk": ("works(open, '/dev/vda', 'rb')", NO_FILE),
    "passwords": ("works(open('/etc/passwd').read)", NO_FILE),
    "container socket": ("works(os.stat('/var/run/docker.sock').st_size)", NO_FILE),
    "chroot": ("works(os.chroot, '.')", NO),
    "mount": ("raw(165, b'none', b'/tmp', b'tmpfs', 0, None)", REFUSED),
    "bind mount": ("raw(428, -100, b'/', 1)", REFUSED),
    "unmount": ("raw(166, b'/', 2)", REFUSED),
    "new namespaces": ("raw(272, 0x10000000)", REFUSED),
    "enter namespaces": ("raw(308, 1, 0)", REFUSED),
    "become root": ("works(os.setuid, 0)", NO),
    "take capabilities": (
        "raw(126, ctypes.create_string_buffer(8), ctypes.create_string_buffer(24))",
        REFUSED,
    ),
    "raise limits": (
        "import resource; works(resource.setrlimit, resource.RLIMIT_AS, (-1, -1))",
        "ValueError|PermissionError",
    ),
    "limits of the parent": ("import resource; works(resource.prlimit, PARENT, 7)", NO),
    "priority": ("works(os.nice, -5)", NO),
    "other cores": ("works(os.sched_setaffinity, 0, {0})", NO),
    "another filter": ("raw(317, 1, 0, ctypes.create_string_buffer(16))", REFUSED),
    "host name": ("works(__import__('socket').sethostname, 'x')", NO),
    "clock": ("works(time.clock_settime, time.CLOCK_REALTIME, 0)", NO),
    "reboot": ("raw(169, 0xfee1dead, 672274793, 0x1234567, 0)", REFUSED),
    "keystrokes": ("import fcntl; works(fcntl.ioctl, 0, 0x5412, b'x')", NO),
    "change Python": ("works(open, os.__file__, 'a')", rf"{NO_FILE}|Read-only file system"),
    "plant a module": (
        "works(open, os.path.dirname(os.__file__) + '/sitecustomize.py', 'w')",
        rf"{NO_FILE}|Read-only file system",
    ),
    # Memory, files and output without end
    "memory bomb": ("x = []\nwhile True: x.append(bytearray(10**7))", "MemoryError"),
    "one huge allocation": ("works(bytearray, 10**12)", "MemoryError"),
    "mapping bomb": (
        "import mmap; x = []\nwhile True: x.append(mmap.mmap(-1, 10**7))",
        "Cannot allocate memory",
    ),
    "array bomb": ("import numpy; works(numpy.ones, 10**9)", "MemoryError"),
    "huge number": ("works(pow, 10, 10**10)", "MemoryError|timed out"),
    "string bomb": ("x = 'x'\nwhile True: x += x", "MemoryError"),
    "deep recursion": (
        "sys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
        f"MemoryError|RecursionError|SystemError|timed out|{GONE}",
    ),
    "deep data": (
        "sys.setrecursionlimit(10**9); x = []\nfor _ in range(3 * 10**5): x = [x]\nworks(repr, x)",
        f"MemoryError|RecursionError|{GONE}",
    ),
    "big file": (
        "f = open('big', 'wb')\nfor _ in range(100): f.write(bytes(10**6))",
        f"No space left|File too large|{NO_FILE}",
    ),
    "many big files": (
        "for n in range(100): open(f'big{n}', 'wb').write(bytes(10**6))",
        f"No space left|{NO_FILE}",
    ),
    "many small files": (
        "for n in range(10**5): open(f'small{n}', 'wb').close()",
        f"No space left|Disk quota|{NO_FILE}",
    ),
    "sparse file": (
        "f = open('big', 'wb'); f.seek(10**12); f.write(b'x'); f.flush()",
        f"File too large|{NO_FILE}",
    ),
    "file in memory": ("raw(319, b'x', 0)", REFUSED),
    "large pipe": ("import fcntl; works(fcntl.fcntl, 1, 1031, 10**6)", NO),
    "many pipes": ("while True: os.pipe()", "Too many open files"),
    "endless output": ("while True: print('x' * 1000)", "timed out"),
    "endless line": ("while True: print('x', end='')", "timed out"),
    "endless raw output": ("while True: os.write(1, b'x' * 1000)", "timed out"),
    "endless errors": ("while True: os.write(2, b'x' * 1000)", "timed out"),
    "endless output of C": ("while True: libc.puts(b'x' * 1000)", "timed out"),
    "a slow pattern": ("import re; re.match('(a+)+$', 'a' * 50 + 'b')", "timed out"),
    # The interpreter and its channel
    "exit": ("os._exit(0)", GONE),
    "abort": ("os.abort()", GONE),
    "crash": ("ctypes.string_at(0)", GONE),
    "kills itself": ("signal.raise_signal(signal.SIGKILL)", GONE),
    "closes its channel": ("os.closerange(0, 99)\nwhile True: pass", GONE),
    "closes its output": ("os.close(1); print('x')", "Bad file descriptor"),
    "forged answer": ("channel(b'[\"forged\", false]\\n')\ntime.sleep(9)", "forged"),
    "forged answer of another kind": ("channel(b'[1, 2]\\n')\ntime.sleep(9)", GONE),
    "not even text": ("channel(b'\\xff\\n')\ntime.sleep(9)", GONE),
    "nested answer": ("channel(b'[' * 10**4 + b'\\n')\ntime.sleep(9)", GONE),
    "numeric answer": ("channel(b'9' * 10**4 + b'\\n')\ntime.sleep(9)", GONE),
    "endless answer": ("while True: channel(b'x' * 10**4)", GONE),
    "half an answer": ("channel(b'[null')\nwhile True: pass", "timed out"),
    "pickle": (
        "import pickle; print(pickle.loads(b'cos\\nsystem\\n(VOUTSIDE/x\\ntR.'))",
        "^(-1|32512)$",
    ),
    "import hook": (
        "class Hook:\n    def find_spec(self, *a): os._exit(1)\n"
        "sys.meta_path.insert(0, Hook()); import sympy.nothing",
        GONE,
    ),
    "patched builtins": (
        "import builtins, json\n"
        "for name in ('compile', 'len', 'isinstance', 'str', 'exec', 'bytes', 'type'):\n"
        "    setattr(builtins, name, None)\n"
        "json.dumps = json.loads = os.write = None",
        GONE,
    ),
    "patched sympy": (
        "import sympy\nfor n in dir(sympy): setattr(sympy, n, None)\nprint('done')",
        "done",
    ),
    "trace hook": ("sys.settrace(lambda *a: os._exit(1))\n(lambda: 1)()", GONE),
    "at exit": ("import atexit; atexit.register(os.fork); print('done')", "done"),
    "frames of the worker": (
        "f, seen = sys._getframe(), []\n"
        "while f: seen.append((f.f_code.co_name, f.f_locals)); f = f.f_back\n"
        "print(str(seen)[-2000:], sys.orig_argv)",
        "serve",
    ),
    "error that exits": (
        "class E(Exception):\n    def __str__(self): os._exit(1)\nraise E",
        GONE,
    ),
    "error without end": (
        "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E",
        "timed out",
    ),
    "huge error": ("raise ValueError('x' * 10**7)", "ValueError: xxx"),
    "broken characters": ("print('\\ud800'); raise ValueError('\\ud800')", "ValueError"),
    "huge code": ("#" * 10**7, "code was not run"),
    "deep code": ("(" * 9_000, "SyntaxError|MemoryError|RecursionError"),
    "deeper code": ("-" * 90_000 + "1", f"SyntaxError|MemoryError|RecursionError|{GONE}"),
    "null characters": ("1\0", "SyntaxError|ValueError"),
}
MAX_IDLE_PROCESSES = 5  # four that wait for a session, and the first of the process namespace
SHORT_S = 0.25  # of attempts that only end by the time limit
CHANNEL = """
def channel(data):
    for fd in range(3, 64):
        try: os.get_inheritable(fd)
        except OSError: continue
        while data: data = data[os.write(fd, data):]
        return
"""


class World:
    """What the attempts want to reach, and whether they did."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.token = secrets.token_hex(16)
        self.memory = ctypes.create_string_buffer(self.token.encode())
        self.folder, self.canary = folder, folder / "canary"
        self.canary.write_text(self.token)
        self.abstract = f"\0fastmath-{os.getpid()}"
        self.listeners = [
            stack.enter_context(listener)
            for listener in (
                socket.create_server(("127.0.0.1", 0)),
                socket.socket(type=socket.SOCK_DGRAM),
                socket.socket(socket.AF_UNIX),
                socket.socket(socket.AF_UNIX),
            )
        ]
        _tcp, udp, unix, abstract = self.listeners
        udp.bind(("127.0.0.1", 0))
        unix.bind(str(folder / "socket"))
        abstract.bind(self.abstract)
        unix.listen(), abstract.listen()
        for listener in self.listeners:
            listener.setblocking(False)
        self.before = self.state()

    def names(self, keeper: int) -> dict[str, str]:
        """Returns what the capitals in the attempts stand for."""
        return {
            "ADDRESS": str(ctypes.addressof(self.memory)),
            "ABSTRACT": repr(self.abstract),
            "CANARY": str(self.canary),
            "KEEPER": str(keeper),
            "OUTSIDE": str(self.folder),
            "PARENT": str(os.getpid()),
            "TCP": str(self.listeners[0].getsockname()[1]),
            "UDP": str(self.listeners[1].getsockname()[1]),
            "UNIX": repr(str(self.folder / "socket")),
        }

    def state(self) -> object:
        """Returns what no attempt may change."""
        status = self.canary.stat()
        return (
            self.canary.read_text(),
            self.memory.value,
            (status.st_mode, status.st_uid, status.st_mtime, status.st_nlink),
            sorted(path.name for path in self.folder.iterdir()),
            sorted(path.name for path in Path(tempfile.gettempdir()).glob("fastmath*")),
            (socket.gethostname(), os.getpriority(os.PRIO_PROCESS, 0)),
        )

    def was_called(self) -> bool:
        """Whether a connection or a packet has come in."""
        for listener in self.listeners:
            with contextlib.suppress(BlockingIOError):
                if listener.type == socket.SOCK_DGRAM:
                    listener.recv(1)
                else:
                    listener.accept()
                return True
        return False


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with contextlib.ExitStack() as stack:
        world = World(tmp_path_factory.mktemp("outside"), stack)
        os.environ["CANARY"] = world.token  # before the sandbox starts
        stack.callback(os.environ.pop, "CANARY")
        yield world


@pytest.fixture(scope="module")
def sandbox(world):
    with Sandbox(LIMITS) as sandbox:
        print(sandbox.isolation)
        yield sandbox


def keeper_of(sandbox: Sandbox) -> int:
    return sandbox._pool._shared.keeper._process.pid


def num_descendants(process: int) -> int:
    """Counts the processes below one, without the dead."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = entry.read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                parents[int(entry.parent.name)] = int(parent)
    below = {process}
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    return len(below) - 1


@pytest.mark.parametrize(("code", "shows"), ATTEMPTS.values(), ids=ATTEMPTS)
def test_attempt_is_contained(sandbox, world, code, shows, comes_true):
    names = world.names(keeper_of(sandbox))
    code = re.sub(rf"\b({'|'.join(names)})\b", lambda match: names[match[0]], code)
    with sandbox.session() as session:
        output = session.run(PRELUDE + CHANNEL, TIMEOUT_S)
        assert output.error is None
        output = session.run(code, SHORT_S if "timed out" in shows else TIMEOUT_S)
    said = f"{output.stdout}\n{output.error}"
    assert output.timed_out == ("timed out" in said)
    assert "ESCAPED" not in said
    assert re.search(shows, said, re.MULTILINE), said[:2_000]
    assert world.token not in said
    assert len(output.stdout) <= LIMITS.output_chars and len(output.error or "") < 2_200
    said.encode()  # whole characters only
    assert world.state() == world.before
    assert not world.was_called()
    with sandbox.session() as session:
        solved = session.run("import sympy; sympy.solve(sympy.Symbol('x')**2 - 9)", 5)
        assert (solved.stdout, solved.error) == ("[-3, 3]\n", None)
    assert comes_true(lambda: num_descendants(keeper_of(sandbox)) <= MAX_IDLE_PROCESSES)


DOCKER_CAPABILITIES = {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31}
NAMESPACE_CALLS = ("unshare", "mount", "pivot_root")
LANDLOCK_CALLS = ("landlock_create_ruleset", "landlock_restrict_self")
LESSER_SYSTEMS = {
    # name: capabilities kept, calls the system refuses, walls that must be missing
    "user namespaces only": ({31}, (), set()),  # 31: to map the id 0, which others need not
    "no landlock": (set(range(41)), LANDLOCK_CALLS, {"landlock"}),
    "container": (DOCKER_CAPABILITIES, NAMESPACE_CALLS, {"namespaces"}),
    "bare container": (set(), NAMESPACE_CALLS, {"namespaces", "own user"}),
    "old bare container": (
        set(),
        NAMESPACE_CALLS + LANDLOCK_CALLS,
        {"namespaces", "own user", "landlock"},
    ),
}


def lessen(kept: set[int], refused: tuple[str, ...]) -> None:
    """Takes rights from this process and its children, as a container does."""
    drop_from_bounding_set, no_new_rights, set_filter = 24, 38, 1
    for capability in set(range(41)) - kept:
        with contextlib.suppress(OSError):  # unknown to this kernel, or nothing to drop
            call("prctl", drop_from_bounding_set, capability, 0, 0, 0)
    load, equal, give, allow, refuse = 0x20, 0x15, 0x06, 0x7FFF_0000, 0x0005_0000
    steps = [(load, 0, 0, 0)]
    for name in refused:
        number = errno.ENOSYS if name in LANDLOCK_CALLS else errno.EPERM
        steps += [(equal, 0, 1, NUMBERS[name]), (give, 0, 0, refuse | number)]
    steps += [(give, 0, 0, allow)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *s) for s in steps))
    call("prctl", no_new_rights, 1, 0, 0, 0)
    call("seccomp", set_filter, 0, struct.pack("=H6xQ", len(steps), ctypes.addressof(program)))


@pytest.mark.slow
@pytest.mark.parametrize("system", LESSER_SYSTEMS)
def test_contained_where_the_system_offers_less(system, tmp_path):
    kept, refused, missing = LESSER_SYSTEMS[system]
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", __file__]
    command += ["-m", "not slow", "--import-mode=importlib", "--basetemp", str(tmp_path / "below")]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        preexec_fn=lambda: lessen(kept, refused),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-5_000:]
    assert f"{len(ATTEMPTS)} passed" in done.stdout
    (report,) = re.findall("in use: (.*?)\\. Missing: (.*?)\\. The code", done.stdout)
    assert not missing & set(report[0].split(", "))
    assert missing == {wall for wall in ("namespaces", "own user", "landlock") if wall in report[1]}


@pytest.mark.slow
def test_nothing_runs_where_calls_cannot_be_filtered():
    done = subprocess.run(
        [sys.executable, "-c", "from fastmath_kit.inference.sandbox import Sandbox; Sandbox()"],
        cwd=Path(__file__).parents[2],
        preexec_fn=lambda: lessen(set(range(41)), ("seccomp",)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "EngineError: the sandbox cannot start: code cannot be confined" in done.stderr
    assert "seccomp: Operation not permitted" in done.stderr
