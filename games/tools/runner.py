"""Starts one program in the jail, reads what it prints, and stops it when it goes too far."""

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from games.time_limit import uninterrupted
from games.tools.base import ToolFault
from games.tools.syscalls import filter_for, machine

Isolation = Literal["landlock", "bubblewrap", "none"]
"""`landlock`: files by Landlock, everything else by seccomp and limits. `bubblewrap`: files by namespaces instead.
`none`: a process with limits, which can do all that its user can."""
Kill = Literal["time", "output", "files"]
"""Why a program was stopped: it ran too long, printed too much, or filled its folder."""

_JAIL = str(Path(__file__).with_name("jail.py"))
_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_PAUSE = 0.05
"""Seconds between looks at the folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How far a program may go."""

    cpu_seconds: int
    """Computing time."""
    wall_seconds: float
    """Time from start to end."""
    memory: int
    """Bytes of address space."""
    file_size: int
    """Bytes of one file; all files together may have four times as many."""
    files: int
    """Files in its folder."""
    output: int
    """Bytes of stdout, and of stderr."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """What became of a program."""

    stdout: str
    """What it printed, up to the limit."""
    stderr: str
    """What it printed there, a traceback for instance, up to the limit."""
    status: int
    """Exit status: 0 if all went well; minus the signal if one ended it."""
    killed: Kill | None
    """Why it was stopped, if it was."""
    seconds: float
    """Wall clock that it took."""


def run(code: str, *, isolation: Isolation, limits: Limits, packages: Mapping[str, str]) -> Ran:
    """Run a program in a new process and a new folder. `packages`: name to folder.

    Raises:
        ToolFault: it could not be started.
    """
    folder = Path(tempfile.mkdtemp(prefix="marl-llm-python-"))
    try:
        (folder / "main.py").write_bytes(code.encode("utf-8", "backslashreplace"))
        return _run(folder, isolation, limits, packages)
    except OSError as error:
        raise ToolFault(f"sandbox: cannot run a program: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(folder: Path, isolation: Isolation, limits: Limits, packages: Mapping[str, str]) -> Ran:
    begun = time.monotonic()
    process = None
    with _pipe() as (ready, tell):
        try:
            try:
                with uninterrupted():  # a process that nobody knows would never be ended
                    process = _start(folder, tell, isolation, limits, packages)
            finally:
                os.close(tell)
            killed, stdout, stderr = _watch(process, folder, limits, begun + limits.wall_seconds)
        finally:
            if process is not None:
                with uninterrupted(), process:
                    _end(process, isolation)
        shut = os.read(ready, 1)
    if not shut:
        raise ToolFault(f"sandbox: the jail was not shut after {time.monotonic() - begun:.1f} s: {stderr[-500:]}")
    status = process.returncode
    if isolation == "bubblewrap" and status > 128:  # as shells tell of signals
        status = 128 - status
    return Ran(
        stdout=stdout,
        stderr=stderr,
        status=status,
        killed="time" if status == -signal.SIGXCPU else killed,
        seconds=time.monotonic() - begun,
    )


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """A pipe whose reading end is closed afterwards."""
    ready, tell = os.pipe()
    try:
        yield ready, tell
    finally:
        os.close(ready)


def _start(
    folder: Path, tell: int, isolation: Isolation, limits: Limits, packages: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    command = [
        *(_bubblewrap(folder, tuple(packages.values())) if isolation == "bubblewrap" else ()),
        *(sys.executable, "-P", "-s", "-S", "-B", _JAIL),
        *map(str, (limits.cpu_seconds, limits.memory, limits.file_size, tell)),
        "" if isolation == "none" else filter_for(machine() or "").hex(),
        "landlock" if isolation == "landlock" else "",
        *(f"{name}={path}" for name, path in packages.items()),
    ]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=_environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=(tell,),
        start_new_session=True,
    )


def _watch(
    process: subprocess.Popen[bytes], folder: Path, limits: Limits, deadline: float
) -> tuple[Kill | None, str, str]:
    """Read what it prints until it ends, or is to be stopped."""
    assert process.stdout is not None
    assert process.stderr is not None
    printed = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    killed: Kill | None = None
    look = time.monotonic() + _PAUSE
    with selectors.DefaultSelector() as selector:
        for pipe in printed:
            selector.register(pipe, selectors.EVENT_READ)
        while killed is None and (selector.get_map() or not _ended(process)):
            for key, _ in selector.select(_PAUSE) if selector.get_map() else ():
                data = os.read(key.fd, 65536)
                printed[key.fd] += data
                if not data:
                    selector.unregister(key.fd)
            if any(len(data) > limits.output for data in printed.values()):
                killed = "output"
            elif (now := time.monotonic()) > deadline:
                killed = "time"
            elif now > look:
                killed = None if _fits(folder, limits) else "files"
                look = now + _PAUSE
    stdout, stderr = (bytes(data[: limits.output]).decode("utf-8", "replace") for data in printed.values())
    return killed, stdout, stderr


def _fits(folder: Path, limits: Limits) -> bool:
    number = size = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            number += 1
            with contextlib.suppress(FileNotFoundError):
                size += entry.stat(follow_symlinks=False).st_blocks * 512
            if number > limits.files + 1 or size > 4 * limits.file_size:  # main.py is one of them, and does not count
                return False
    return True


def _ended(process: subprocess.Popen[bytes]) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_PAUSE)
    return process.returncode is not None


def _end(process: subprocess.Popen[bytes], isolation: Isolation) -> None:
    """Kill what still runs. The group may outlive its leader only where nothing forbids it to have children."""
    if isolation == "bubblewrap" and process.poll() is None:
        _end_namespace(process)
    if process.poll() is None or isolation == "none":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _end_namespace(process: subprocess.Popen[bytes]) -> None:
    """Kill the namespace's first process: bwrap itself ends when all in it are dead, not before."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        process.wait(1.0)


def _environment(folder: Path) -> dict[str, str]:
    """All of it: nothing is handed on, and what could vary is fixed."""
    return {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "PATH": "",
        "TZ": "UTC",
        "PYTHONUTF8": "1",
        "PYTHONHASHSEED": "0",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }


def _bubblewrap(folder: Path, packages: Sequence[str]) -> list[str]:
    """Namespaces of its own for everything, and of the file system what Python needs, to be read alone."""
    library = sysconfig.get_path("stdlib")
    shared = sorted(str(path) for path in Path(sys.base_prefix, "lib").glob("*.so*"))
    readable = (library, sys.executable, os.path.realpath(sys.executable), *shared, *_SYSTEM, *packages)
    libraries = (f"{package}.libs" for package in packages)
    binds = [part for path in (*readable, _JAIL, *libraries) for part in ("--ro-bind-try", path, path)]
    hidden = [part for name in ("site-packages", "dist-packages") for part in _hide(f"{library}/{name}")]
    devices = [part for path in _DEVICES for part in ("--dev-bind", path, path)]
    return [
        *(shutil.which("bwrap") or "bwrap", "--unshare-all", "--die-with-parent", "--cap-drop", "ALL"),
        *(*binds, *hidden, *devices, "--bind", str(folder), str(folder), "--remount-ro", "/"),
        *("--chdir", str(folder), "--"),
    ]


def _hide(path: str) -> tuple[str, ...]:
    return ("--tmpfs", path, "--remount-ro", path) if os.path.isdir(path) else ()
