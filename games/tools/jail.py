"""Puts itself into a jail and runs `main.py` of the folder it is in. Started by `sandbox.py` as a script, by itself.

Arguments: cpu seconds, bytes of memory, bytes per file, a file descriptor that is told when the jail is shut, the
seccomp filter in hex (empty: none), `landlock` or nothing, and packages as NAME=FOLDER. It imports little, and nothing
of the project, since what it imports is loaded anew for every program.
"""

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_SIGKILL = 9

# Landlock's rights to files, and how many of the bits each version of it knows.
_WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE, _MAKE_REG, _TRUNCATE = (1 << bit for bit in (1, 2, 3, 5, 8, 14))
_FS_BITS = {1: 13, 2: 14, 3: 15, 4: 15}
_READ = _READ_FILE | _READ_DIR
_OWN = _READ | _WRITE_FILE | _REMOVE_FILE | _MAKE_REG | _TRUNCATE
"""Of the program's own folder: no folders in it, links, pipes, sockets or devices, and nothing is ever executed."""

_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
_DATA = ("/usr/share/zoneinfo", "/dev/urandom", "/dev/random", "/dev/zero")
_INSTALLED = ("site-packages", "dist-packages")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


class _Rule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("rights", ctypes.c_uint64), ("parent", ctypes.c_int32))


def main() -> None:
    cpu_seconds, memory, file_size, ready = map(int, sys.argv[1:5])
    seccomp, landlock = sys.argv[5:7]
    packages = dict(pair.split("=", 1) for pair in sys.argv[7:])
    sys.meta_path.append(_Packages(packages))
    sys.argv[:] = ["main.py"]
    _limit(cpu_seconds, memory, file_size)
    if seccomp:
        _give_up_privileges()
        if landlock:
            _lock_files(packages.values())
        _lock_calls(bytes.fromhex(seccomp))
    os.write(ready, b"!")
    os.close(ready)
    _run()


def _run() -> None:
    with open("main.py", encoding="utf-8") as file:
        source = file.read()
    sys.excepthook = _tell
    module = ModuleType("__main__")
    module.__dict__.update(__builtins__=__builtins__, __file__="main.py")
    sys.modules["__main__"] = module
    exec(compile(source, "main.py", "exec"), module.__dict__)


def _tell(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """The traceback without this file's own lines."""
    import traceback

    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    traceback.print_exception(kind, error, trace)


class _Packages:
    """Finds these top-level packages, and no others."""

    def __init__(self, folders: dict[str, str]) -> None:
        self._folders = folders

    def find_spec(self, name: str, path: object, target: object = None) -> Any:
        if path is not None or name not in self._folders:
            return None
        from importlib.util import spec_from_file_location

        folder = self._folders[name]
        return spec_from_file_location(name, f"{folder}/__init__.py", submodule_search_locations=[folder])


def _limit(cpu_seconds: int, memory: int, file_size: int) -> None:
    for limit, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(limit, (value, value))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))  # SIGXCPU, then SIGKILL


def _give_up_privileges() -> None:
    """Even as root: no capabilities, no other groups, none to be had again; and the parent's death is its own."""
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # of use to those who are not root; seccomp is for all
    if os.geteuid() == 0:
        with contextlib.suppress(PermissionError):  # root without the right to: of a container, or of a namespace
            os.setgroups([])
        capability = 0
        while _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
            capability += 1
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")
    _check(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable")
    _check(_libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0), "pdeathsig")
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def _lock_files(packages: Any) -> None:
    """Landlock: reading where Python and its libraries are, and a folder of its own."""
    version = _check(_libc.syscall(_LANDLOCK_CREATE, None, 0, 1), "landlock")
    handled = (1 << _FS_BITS.get(version, 16)) - 1
    rights = (ctypes.c_uint64 * 3)(handled, 3, 3)  # files, TCP, signals and abstract sockets
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _check(_libc.syscall(_LANDLOCK_CREATE, rights, size, 0), "landlock_create_ruleset")
    for path, allowed in (*_readable(packages), ("/dev/null", _READ_FILE | _WRITE_FILE), (".", _OWN)):
        _allow(ruleset, path, allowed & handled)
    _check(_libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)


def _readable(packages: Any) -> Iterator[tuple[str, int]]:
    library = os.path.dirname(os.__file__)
    yield library, _READ_DIR  # names in it; the contents of all but what else is installed
    yield from ((f"{library}/{name}", _READ) for name in os.listdir(library) if name not in _INSTALLED)
    shared = f"{sys.base_prefix}/lib"
    yield from ((f"{shared}/{name}", _READ) for name in os.listdir(shared) if ".so" in name)
    yield from ((path, _READ) for path in (*_LIBRARIES, *_DATA))
    for folder in packages:
        yield folder, _READ
        yield f"{folder}.libs", _READ  # where wheels keep shared libraries


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        found = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not os.path.isdir(path):
        rights &= _READ_FILE | _WRITE_FILE | _TRUNCATE
    rule = _Rule(rights, found)
    _check(_libc.syscall(_LANDLOCK_ADD, ruleset, 1, ctypes.byref(rule), 0), f"landlock_add_rule {path}")
    os.close(found)


def _lock_calls(instructions: bytes) -> None:
    program = _Program(len(instructions) // 8, instructions)
    _check(_libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(program), 0, 0), "seccomp")


def _check(result: int, call: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{call}: {os.strerror(ctypes.get_errno())}")
    return result


if __name__ == "__main__":
    main()
