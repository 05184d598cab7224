"""Programs that try to get out of the sandbox, or to bring the machine down."""

import platform
from dataclasses import dataclass
from typing import Literal

PRELUDE = '''
import ctypes, errno, os, socket, sys

def attempt(call, *arguments, **named):
    """Try to do something that must be refused."""
    try:
        result = call(*arguments, **named)
    except (OSError, ImportError, MemoryError, KeyError) as error:
        print("refused:", error)
    except RuntimeError as error:
        assert "start new thread" in str(error)
        print("refused:", error)
    else:
        print("ESCAPED:", result)

def system_call(numbers, *arguments):
    """Try a system call, which must be refused for what it is, and not for its arguments."""
    number = numbers if isinstance(numbers, int) else numbers[os.uname().machine == "aarch64"]
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(argument) for argument in arguments))
    code = ctypes.get_errno()
    print("refused" if result == -1 and code == errno.EPERM else f"ESCAPED: {result}, {os.strerror(code)}")

def read(path):
    with open(path, "rb") as file:
        return file.read(100)

def listed(folder, name):
    """Bubblewrap has folders on the way to what may be read, with nothing else in them."""
    if name not in os.listdir(folder):
        raise FileNotFoundError(name)

def write(path, data=b"gone"):
    with open(path, "wb") as file:
        return file.write(data)
'''
"""Comes before each program, with the names of what the host has: `CANARY` and so on."""

Outcome = Literal["refused", "stopped", "nothing"]


@dataclass(frozen=True, kw_only=True)
class Escape:
    """A program, and how it is to end."""

    name: str
    """What it tries."""
    code: str
    """The program, after `PRELUDE`."""
    outcome: Outcome = "refused"
    """All attempts refused; or the program stopped by a limit or a signal; or it just finds nothing."""
    real: bool = True
    """Tried without isolation too, to show that it would be an escape: there it does no harm, and needs no rights of
    root and no unusual kernel."""


def refused(name: str, *attempts: str, real: bool = True) -> Escape:
    return Escape(name=name, code="\n".join(attempts), real=real)


def stopped(name: str, code: str) -> Escape:
    return Escape(name=name, code=code, outcome="stopped", real=False)


NETWORK = (
    refused("tcp connect", "attempt(lambda: socket.create_connection(('127.0.0.1', PORT), 5).sendall(b'x'))"),
    refused("tcp listen", "attempt(socket.create_server, ('127.0.0.1', 0))"),
    refused("udp send", "attempt(lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', UDP)))"),
    refused("tcp over ipv6", "attempt(socket.socket, socket.AF_INET6)", real=False),
    refused("unix connect", "attempt(lambda: socket.socket(socket.AF_UNIX).connect(UNIX))"),
    refused("abstract unix connect", "attempt(lambda: socket.socket(socket.AF_UNIX).connect(ABSTRACT))"),
    refused("raw socket", "attempt(socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)", real=False),
    refused("packet socket", "attempt(socket.socket, socket.AF_PACKET, socket.SOCK_RAW)", real=False),
    refused("netlink", "attempt(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW)"),
    refused("name look-up", "attempt(socket.getaddrinfo, 'localhost.localdomain.invalid', 80)", real=False),
    refused("http", "import urllib.request", "attempt(urllib.request.urlopen, f'http://127.0.0.1:{PORT}/', timeout=1)",
            real=False),
    refused("datagrams by way of a pair", "attempt(socket.socketpair, socket.AF_UNIX, socket.SOCK_DGRAM)"),
    refused("a pair sends to an address", "pair = socket.socketpair()", "attempt(pair[0].sendto, b'x', UNIX)",
            real=False),
    refused("passing descriptors", "import array", "pair = socket.socketpair()",
            "attempt(pair[0].sendmsg, [b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [1]))])"),
)  # fmt: skip

READING = (
    refused("read by absolute path", "attempt(read, CANARY)"),
    refused("read by relative path", "attempt(read, os.path.relpath(CANARY))"),
    refused("read after chdir", "import contextlib", "with contextlib.suppress(OSError): os.chdir(HOST)",
            "attempt(read, 'canary')"),
    refused("read by descriptor of a folder",
            "attempt(lambda: read(os.open('canary', os.O_RDONLY, dir_fd=os.open(HOST, os.O_PATH))))"),
    refused("symlink", "attempt(os.symlink, CANARY, 'link')"),
    refused("hard link", "attempt(os.link, CANARY, 'link')", real=False),
    refused("list a folder", "attempt(listed, HOST, 'canary')"),
    refused("list the root", "attempt(lambda: os.listdir('/etc') + os.listdir('/home'))"),
    refused("home", "attempt(listed, '/root', '.bashrc')", "attempt(read, '/root/.bashrc')", real=False),
    refused("accounts", "attempt(read, '/etc/passwd')", "attempt(read, '/etc/shadow')", real=False),
    refused("openat2", "path = ctypes.create_string_buffer(CANARY.encode())",
            "how = (ctypes.c_uint64 * 3)()",
            "system_call(437, -100, ctypes.addressof(path), ctypes.addressof(how), 24)"),
    refused("open by handle", "system_call((303, 264), -100, 0, 0, 0, 0)", "system_call((304, 265), 0, 0, 0)"),
    refused("sqlite attach", "import sqlite3", "def attach():",
            "    try: return sqlite3.connect(f'file:{HOST}/base.db?mode=ro', uri=True).execute('SELECT 1 FROM t')",
            "    except sqlite3.OperationalError as error: raise OSError(*error.args)", "attempt(attach)"),
    refused("own environment in /proc", "attempt(read, '/proc/self/environ')"),
    refused("init in /proc", "attempt(read, '/proc/1/environ')", "attempt(read, '/proc/1/cmdline')"),
    refused("descriptors in /proc", "attempt(os.listdir, '/proc/self/fd')", "attempt(os.listdir, f'/proc/{PARENT}/fd')",
            "attempt(read, f'/proc/{PARENT}/fd/{CANARY_FD}')", "attempt(open, f'/proc/{PARENT}/fd/{PIPE}', 'wb')"),
    refused("root in /proc", "attempt(read, f'/proc/self/root{CANARY}')", "attempt(read, f'/proc/1/root{CANARY}')"),
    refused("memory of the parent", "attempt(open, f'/proc/{PARENT}/mem', 'r+b')", real=False),
    refused("own memory in /proc", "attempt(open, '/proc/self/mem', 'r+b')"),
    refused("environment of the parent", "attempt(read, f'/proc/{PARENT}/environ')"),
    refused("processes in /proc", "attempt(os.listdir, '/proc')"),
    refused("kernel messages", "attempt(open, '/dev/kmsg', 'rb')", "system_call((103, 116), 3, 0, 0)", real=False),
    refused("devices", *(f"attempt(open, '/dev/{name}', 'rb')" for name in ("mem", "vda", "sda", "tty", "fuse", "kvm")),
            real=False),
    refused("files of the project", "attempt(read, PROJECT)"),
    refused("import the project", "sys.path += [ROOT]", "attempt(__import__, 'games.tools.base')",
            "attempt(__import__, 'marl_llm')", real=False),
    refused("import what is installed", "attempt(__import__, 'numpy')", "sys.path.append(INSTALLED)",
            "attempt(__import__, 'numpy')", real=False),
    refused("secrets of the environment", "attempt(lambda: os.environ['SANDBOX_SECRET'])", real=False),
    Escape(name="secrets in memory", outcome="nothing", real=False, code=(
        "getenv = ctypes.CDLL(None).getenv\ngetenv.restype = ctypes.c_char_p\n"
        "print('ESCAPED' if getenv(b'SANDBOX_SECRET') else sorted(os.environ))")),
)  # fmt: skip

WRITING = (
    refused("write a file", "attempt(write, CANARY)"),
    refused("append to a file", "attempt(open, CANARY, 'ab')"),
    refused("write by descriptor of a folder",
            "attempt(lambda: os.open('canary', os.O_WRONLY, dir_fd=os.open(HOST, os.O_PATH)))"),
    refused("new file", "attempt(write, f'{HOST}/new')"),
    refused("new file without a name", "attempt(os.open, HOST, os.O_TMPFILE | os.O_RDWR)", real=False),
    refused("new file in /dev/shm and /tmp", "attempt(write, '/dev/shm/escaped')", "attempt(write, '/tmp/escaped')",
            real=False),
    refused("truncate", "attempt(os.truncate, CANARY, 0)"),
    refused("chmod", "attempt(os.chmod, CANARY, 0o777)"),
    refused("fchmodat2", "path = ctypes.create_string_buffer(CANARY.encode())",
            "system_call(452, -100, ctypes.addressof(path), 0o777, 0)"),
    refused("chown", "attempt(os.chown, CANARY, os.getuid(), os.getgid())"),
    refused("utime", "attempt(os.utime, CANARY, (0, 0))"),
    refused("extended attributes", "attempt(os.setxattr, CANARY, 'user.a', b'b')", real=False),
    refused("delete", "attempt(os.unlink, CANARY)"),
    refused("rename", "attempt(os.rename, CANARY, CANARY + '2')"),
    refused("move in", "attempt(os.rename, CANARY, 'mine')", real=False),
    refused("move out", "attempt(os.rename, 'main.py', f'{HOST}/new')", real=False),
    refused("new folder", "attempt(os.mkdir, f'{HOST}/new')", "attempt(os.mkdir, 'new')"),
    refused("pipe and device files", "attempt(os.mkfifo, 'fifo')",
            "attempt(os.mknod, 'vda', 0o60600, os.makedev(254, 0))"),
    refused("delete its own folder", "attempt(os.rmdir, os.getcwd())", "attempt(os.rename, os.getcwd(), HOST + '/new')",
            real=False),
    refused("change what may be read", "import bystander", "path = bystander.__file__", "attempt(open, path, 'r+')",
            "attempt(os.open, path, os.O_RDONLY | os.O_TRUNC)", "attempt(os.chmod, path, 0)",
            "attempt(os.utime, path, (0, 0))", "attempt(os.unlink, path)"),
    refused("attributes of what may be read", "import bystander, fcntl", "file = open(bystander.__file__)",
            "attempt(fcntl.ioctl, file, 0x40086602, (0x80).to_bytes(8, 'little'))", real=False),
    refused("change the standard library", "attempt(open, os.__file__, 'r+')",
            "attempt(write, os.path.dirname(os.__file__) + '/escaped.py')", real=False),
    refused("settings of the kernel", "attempt(open, '/proc/sys/kernel/core_pattern', 'r+')",
            "attempt(open, '/sys/power/state', 'w')", "attempt(open, '/sys/fs/cgroup/cgroup.procs', 'w')", real=False),
    Escape(name="inherited descriptors", outcome="nothing", real=False, code=(
        "for number in range(3, 1024):\n"
        "    try: os.write(number, b'gone')\n"
        "    except OSError: continue\n"
        "    print('ESCAPED by', number)")),
)  # fmt: skip

PROCESSES = (
    refused("fork", "attempt(os.fork)"),
    refused("fork by libc", "system_call((57, 220), 17, 0, 0, 0, 0)", "system_call((58, 220), 17, 0, 0, 0, 0)",
            real=False),
    refused("clone with namespaces", "system_call((56, 220), 0x10000000 | 17, 0, 0, 0, 0)",
            "system_call(435, 0, 0)", real=False),
    refused("double fork", "def daemon():", "    if not os.fork():", "        os.setsid()", "        os.fork()",
            "        import time; time.sleep(60)", "attempt(daemon)", real=False),
    refused("new session", "attempt(os.setsid)", "attempt(os.setpgid, 0, 0)", real=False),
    refused("shell", "import subprocess", "attempt(subprocess.run, ['/bin/sh', '-c', 'id'])"),
    Escape(name="shell by system", outcome="nothing", code="print('ESCAPED' if os.system('exit 0') == 0 else 'ok')"),
    refused("exec", "attempt(os.execv, '/bin/echo', ['echo', 'ESCAPED'])"),
    refused("exec itself anew", "attempt(os.execv, sys.executable, ['python', '-c', 'print(\"ESCAPED\")'])",
            real=False),
    refused("exec its own file", "write('a.sh', b'#!/bin/sh\\necho ESCAPED\\n')", "attempt(os.execv, 'a.sh', ['a.sh'])",
            real=False),
    refused("spawn", "attempt(os.posix_spawn, '/bin/true', ['true'], {})"),
    refused("program in memory", "attempt(os.memfd_create, 'program')"),
    refused("multiprocessing", "import multiprocessing", "attempt(multiprocessing.Process(target=print).start)"),
    refused("thread", "import threading", "attempt(threading.Thread(target=print).start)"),
    refused("thread bomb", "import threading, time", "for _ in range(20): "
            "attempt(threading.Thread(target=time.sleep, args=(60,), daemon=True).start)", real=False),
    Escape(name="fork bomb", outcome="nothing", real=False, code=(
        "while True:\n    try: os.fork()\n    except OSError: break")),
)  # fmt: skip

SIGNALS = (
    refused("kill the parent", "attempt(os.kill, os.getppid(), 9)", "attempt(os.kill, PARENT, 9)", real=False),
    refused("stop the parent", "attempt(os.kill, PARENT, 19)", real=False),
    refused("a harmless signal to the parent", "attempt(os.kill, PARENT, 0)"),
    refused("kill all", "attempt(os.kill, -1, 9)", real=False),
    refused("kill the group", "attempt(os.killpg, 0, 9)", "attempt(os.kill, 0, 9)", real=False),
    refused("kill the parent's group", "attempt(lambda: os.killpg(os.getpgid(PARENT), 9))", real=False),
    refused("kill a thread", "system_call((200, 130), PARENT, 9)", "system_call((234, 131), PARENT, PARENT, 9)",
            real=False),
    refused("kill by descriptor", "system_call(434, PARENT, 0)", "system_call(424, 3, 0, 0, 0)"),
    refused("queue a signal", "system_call((129, 138), PARENT, 0, 0)", "system_call((297, 240), PARENT, PARENT, 0, 0)"),
    refused("signals by file owner", "import fcntl", "ends = os.pipe()",
            "attempt(fcntl.fcntl, ends[0], fcntl.F_SETOWN, PARENT)", "attempt(fcntl.fcntl, ends[0], 10, 9)"),
    refused("descriptors of the parent", "system_call(438, 3, 0, 0)", real=False),
    refused("priorities of the parent", "attempt(os.setpriority, os.PRIO_PROCESS, PARENT, 19)",
            "attempt(os.sched_setaffinity, PARENT, {0})", real=False),
)  # fmt: skip

PRIVILEGES = (
    refused("trace the parent", "system_call((101, 117), 16, PARENT, 0, 0)", real=False),
    refused("read the parent's memory", "system_call((310, 270), PARENT, 0, 0, 0, 0, 0)",
            "system_call((311, 271), PARENT, 0, 0, 0, 0, 0)"),
    refused("become another user", "attempt(os.setuid, 0)", "attempt(os.setresuid, 0, 0, 0)", "attempt(os.setgid, 0)",
            "attempt(os.setgroups, [])", real=False),
    refused("take capabilities", "header = (ctypes.c_uint32 * 2)(0x20080522, 0)",
            "wanted = (ctypes.c_uint32 * 6)(*[2**32 - 1] * 6)",
            "system_call((126, 91), ctypes.addressof(header), ctypes.addressof(wanted))", real=False),
    refused("prctl", "system_call((157, 167), 38, 0, 0, 0, 0)", "system_call((157, 167), 22, 0, 0, 0, 0)",
            "system_call((157, 167), 4, 1, 0, 0, 0)"),
    refused("another filter", "system_call((317, 277), 1, 0, 0)", "system_call(444, 0, 0, 1)",
            "system_call(446, 3, 0)"),
    Escape(name="raise its limits", real=False, code=(
        "import resource\ndef more(limit):\n"
        "    try: resource.setrlimit(limit, (-1, -1))\n    except ValueError as error: raise OSError(*error.args)\n"
        "for limit in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):\n"
        "    attempt(more, limit)")),
    refused("limits of the parent", "import resource", "attempt(resource.prlimit, PARENT, resource.RLIMIT_NOFILE)"),
    refused("namespaces", "system_call((272, 97), 0x10000000)", "system_call((272, 97), 0x20000)",
            "system_call((272, 97), 0x40000000)", "system_call((308, 268), 0, 0)", real=False),
    refused("mount", "path = ctypes.create_string_buffer(b'/tmp')", "at = ctypes.addressof(path)",
            "system_call((165, 40), at, at, 0, 4096, 0)", "system_call((166, 39), at, 0)",
            "system_call(428, -100, at, 0)",
            "system_call(430, at, 0)", "system_call(442, -100, at, 0, 0, 0)", real=False),
    refused("chroot", "attempt(os.chroot, '/')", "system_call((155, 41), 0, 0)", real=False),
    refused("io_uring", "system_call(425, 8, 0)", "system_call(426, 3, 1, 0, 0, 0)", "system_call(427, 3, 0, 0, 0)",
            real=False),
    refused("bpf", "system_call((321, 280), 0, 0, 0)", real=False),
    refused("keys", "system_call((250, 219), 0, 0, 0, 0, 0)", "system_call((248, 217), 0, 0, 0, 0, 0)",
            "system_call((249, 218), 0, 0, 0, 0)", real=False),
    refused("performance counters and page faults", "system_call((298, 241), 0, 0, 0, 0, 0)",
            "system_call((323, 282), 1)",
            real=False),
    refused("kernel modules and kernels", "system_call((175, 105), 0, 0, 0)", "system_call((313, 273), -1, 0, 0)",
            "system_call((246, 104), 0, 0, 0, 0)", real=False),
    refused("the machine's name, clock and swap", "system_call((170, 161), 0, 0)", "system_call((227, 112), 0, 0)",
            "system_call((167, 224), 0, 0)", real=False),
    refused("personality", "system_call((135, 92), 0x0400000)", real=False),
    refused("watching files", "system_call((294, 26), 0)", "system_call((300, 262), 0, 0)"),
    *((refused("calls of the x32 kind", "system_call(0x40000000 + 41, 2, 1, 0)", real=False),
       stopped("calls of the 32-bit kind",  # mov eax, 20 (getpid); int 0x80; ret
               "import mmap\npage = mmap.mmap(-1, 4096, prot=7)\npage.write(bytes.fromhex('b814000000cd80c3'))\n"
               "at = ctypes.addressof(ctypes.c_char.from_buffer(page))\n"
               "print('ESCAPED', ctypes.CFUNCTYPE(ctypes.c_int)(at)())"))
      if platform.machine() == "x86_64" else ()),
)  # fmt: skip

RESOURCES = (
    refused("memory at once", "attempt(bytearray, 2 << 30)", real=False),
    refused("memory bit by bit", "kept = []", "def grow():", "    while True: kept.append(bytearray(1 << 20))",
            "attempt(grow)", real=False),
    refused("mapped memory", "import mmap", "attempt(mmap.mmap, -1, 4 << 30)", real=False),
    refused("shared memory", "import _posixshmem", "attempt(_posixshmem.shm_open, '/escaped', os.O_CREAT | os.O_RDWR)",
            "system_call((29, 194), 0, 4096, 0o1600)", real=False),
    refused("semaphores and queues", "import _multiprocessing",
            "attempt(_multiprocessing.SemLock, 0, 1, 1, '/escaped', False)", "system_call((64, 190), 0, 1, 0o1600)",
            "system_call((68, 186), 0, 0o1600)", "system_call((240, 180), 0, 0, 0, 0)", real=False),
    refused("locked memory", "system_call((149, 228), 0, 0)", "system_call((151, 230), 3)"),
    refused("many descriptors", "kept = []", "def grow():", "    while True: kept.append(os.dup(1))", "attempt(grow)",
            real=False),
    refused("big file", "attempt(write, 'big', bytes(64 << 20))", real=False),
    refused("big sparse file", "attempt(os.truncate, 'main.py', 1 << 40)",
            "attempt(lambda: os.ftruncate(os.open('big', os.O_CREAT | os.O_RDWR), 1 << 40))", real=False),
    refused("decompression bomb", "import zlib", "packer = zlib.compressobj(1, zlib.DEFLATED, -15)",
            "bomb = 2000 * (packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH))",
            "attempt(zlib.decompress, bomb, -15)", real=False),
    stopped("many files", "n = 0\nwhile True:\n    n += 1\n    write(str(n))"),
    stopped("many big files",
            "files = [open(str(n), 'wb') for n in range(50)]\nwhile True:\n"
            "    for file in files:\n        file.seek(0, 2) < 4 << 20 and file.write(bytes(1 << 20))"),
    stopped("endless output", "while True: print('x' * 1000)"),
    stopped("endless errors", "while True: print('x' * 1000, file=sys.stderr)"),
    stopped("one endless line", "while True: os.write(1, b'x' * 65536)"),
    stopped("endless loop", "while True: pass"),
    stopped("deaf to signals",
            "import signal\nfor number in set(signal.Signals) - {9, 19}: signal.signal(number, signal.SIG_IGN)\n"
            "while True: pass"),
    stopped("huge integer", "9 ** 9 ** 9"),
    stopped("endless regular expression", "import re\nre.match('(a*)*b', 'a' * 60)"),
    stopped("deep recursion", "sys.setrecursionlimit(10**9)\ndef deeper(): return deeper() + deeper()\ndeeper()"),
    stopped("deep recursion in C", "sys.setrecursionlimit(10**9)\nx = []\nfor _ in range(10**6): x = [x]\nrepr(x)"),
)  # fmt: skip

WAITING = (
    stopped("sleep", "import time\ntime.sleep(600)"),
    stopped("wait for nothing", "ends = os.pipe()\nos.read(ends[0], 1)"),
    stopped("silence", "import time\nos.closerange(0, 64)\ntime.sleep(600)"),
    stopped("wait for a signal", "import signal\nsignal.pause()"),
)

ESCAPES = (*NETWORK, *READING, *WRITING, *PROCESSES, *SIGNALS, *PRIVILEGES, *RESOURCES, *WAITING)
