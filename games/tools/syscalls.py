"""Which system calls a program in the sandbox may make, as a seccomp filter.

The list is one of what is allowed; all else is refused with EPERM, new system calls of later kernels included. What is
left suffices for Python without threads, processes, sockets and signals to anybody, itself included.
"""

import platform
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Machine to its column in the tables below, and to what the kernel calls it (AUDIT_ARCH)."""

Numbers = tuple[int | None, int | None]
"""Numbers of a system call on x86_64 and aarch64; None: it has no such call."""

# Not among them, for what Landlock does not cover: chmod, chown, utime, xattr, mkdir, rmdir, link, symlink, truncate.
ALLOWED: Mapping[str, Numbers] = {
    "access": (21, None),
    "alarm": (37, None),
    "brk": (12, 214),
    "capget": (125, 90),
    "chdir": (80, 49),
    "clock_getres": (229, 114),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "close": (3, 57),
    "close_range": (436, 436),
    "copy_file_range": (326, 285),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_pwait": (281, 22),
    "epoll_wait": (232, None),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "fadvise64": (221, 223),
    "fchdir": (81, 50),
    "fdatasync": (75, 83),
    "fstat": (5, 80),
    "fstatfs": (138, 44),
    "fsync": (74, 82),
    "ftruncate": (77, 46),
    "futex": (202, 98),
    "getcpu": (309, 168),
    "getcwd": (79, 17),
    "getdents64": (217, 61),
    "getegid": (108, 177),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getgroups": (115, 158),
    "getitimer": (36, 102),
    "getpgid": (121, 155),
    "getpgrp": (111, None),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "getrandom": (318, 278),
    "getresgid": (120, 150),
    "getresuid": (118, 148),
    "getrlimit": (97, 163),
    "getrusage": (98, 165),
    "getsid": (124, 156),
    "getsockname": (51, 204),
    "gettid": (186, 178),
    "gettimeofday": (96, 169),
    "getuid": (102, 174),
    "lseek": (8, 62),
    "lstat": (6, None),
    "madvise": (28, 233),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "munmap": (11, 215),
    "nanosleep": (35, 101),
    "newfstatat": (262, 79),
    "pause": (34, None),
    "pipe": (22, None),
    "pipe2": (293, 59),
    "poll": (7, None),
    "ppoll": (271, 73),
    "pread64": (17, 67),
    "preadv": (295, 69),
    "pselect6": (270, 72),
    "pwrite64": (18, 68),
    "pwritev": (296, 70),
    "read": (0, 63),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "readv": (19, 65),
    "recvfrom": (45, 207),
    "rename": (82, None),
    "renameat": (264, 38),
    "restart_syscall": (219, 128),
    "rseq": (334, 293),
    "rt_sigaction": (13, 134),
    "rt_sigpending": (127, 136),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "rt_sigsuspend": (130, 133),
    "rt_sigtimedwait": (128, 137),
    "sched_getaffinity": (204, 123),
    "sched_yield": (24, 124),
    "select": (23, None),
    "sendfile": (40, 71),
    "set_robust_list": (273, 99),
    "set_tid_address": (218, 96),
    "setitimer": (38, 103),
    "shutdown": (48, 210),
    "sigaltstack": (131, 132),
    "stat": (4, None),
    "statfs": (137, 43),
    "statx": (332, 291),
    "sysinfo": (99, 179),
    "time": (201, None),
    "times": (100, 153),
    "umask": (95, 166),
    "uname": (63, 160),
    "unlink": (87, None),
    "wait4": (61, 260),
    "waitid": (247, 95),
    "write": (1, 64),
    "writev": (20, 66),
}
"""Allowed whatever its arguments."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Of one argument: its low 32 bits (or its high ones), masked, must be one of some values."""

    argument: int
    """Its number, from 0."""
    values: tuple[int, ...]
    """What is allowed."""
    mask: int = 0xFFFFFFFF
    """Bits that are looked at."""
    high: bool = False
    """Look at the upper half of the argument."""


# O_ACCMODE | O_TRUNC: reading with O_TRUNC empties a file, for which Landlock before ABI 3 asks no right to write.
_OPEN, _OPEN_MASK = (0x0, 0x1, 0x2, 0x201, 0x202), 0x203
CONDITIONS: Mapping[str, tuple[Numbers, tuple[Condition, ...]]] = {
    # F_DUPFD to F_SETLKW, F_DUPFD_CLOEXEC, F_GETPIPE_SZ: not F_SETOWN and F_SETSIG, which send signals, nor leases.
    "fcntl": ((72, 25), (Condition(argument=1, values=(*range(8), 1030, 1032)),)),
    # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX, TCGETS2.
    "ioctl": ((16, 29), (Condition(argument=1, values=(0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451, 0x802C542A)),)),
    "open": ((2, None), (Condition(argument=1, values=_OPEN, mask=_OPEN_MASK),)),
    "openat": ((257, 56), (Condition(argument=2, values=_OPEN, mask=_OPEN_MASK),)),
    "prlimit64": ((302, 261), (Condition(argument=0, values=(0,)),)),  # of nobody else
    "renameat2": ((316, 276), (Condition(argument=4, values=(0,)),)),
    # To the other end of a pair alone, never to an address.
    "sendto": ((44, 206), (Condition(argument=4, values=(0,)), Condition(argument=4, values=(0,), high=True))),
    # AF_UNIX and SOCK_STREAM with any flags: asyncio wakes itself up through one.
    "socketpair": (
        (53, 199),
        (Condition(argument=0, values=(1,)), Condition(argument=1, values=(1,), mask=0xFFFFFFFF ^ 0o2004000)),
    ),
    "unlinkat": ((263, 35), (Condition(argument=2, values=(0,)),)),  # not AT_REMOVEDIR
}
"""Allowed if all conditions hold."""

_LOAD, _EQUAL, _AND, _RETURN = 0x20, 0x15, 0x54, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000
"""What a filter returns: go on, EPERM, kill the process."""

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, operand."""


def machine() -> str | None:
    """This machine, if it is among `MACHINES`."""
    return platform.machine() if platform.machine() in MACHINES else None


def filter_for(machine: str) -> bytes:
    """The filter as an array of `struct sock_filter`. A call by another architecture's numbers kills the process."""
    column, architecture = MACHINES[machine]
    program: list[Instruction] = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
    ]
    for numbers in ALLOWED.values():
        if (number := numbers[column]) is not None:
            program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for numbers, conditions in CONDITIONS.values():
        if (number := numbers[column]) is not None:
            checks = [step for condition in conditions for step in _check(condition)]
            program += [(_EQUAL, 0, len(checks) + 1, number), *checks, (_RETURN, 0, 0, _ALLOW)]
    program.append((_RETURN, 0, 0, _REFUSE))
    return b"".join(struct.pack("=HBBI", *step) for step in program)


def _check(condition: Condition) -> Iterator[Instruction]:
    """Falls through if the condition holds, and refuses otherwise."""
    yield _LOAD, 0, 0, 16 + 8 * condition.argument + 4 * condition.high
    yield _AND, 0, 0, condition.mask
    for left, value in zip(range(len(condition.values), 0, -1), condition.values):
        yield _EQUAL, left, 0, value
    yield _RETURN, 0, 0, _REFUSE
