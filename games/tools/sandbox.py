"""Runs Python programs of agents where they can do nothing but compute."""

import ctypes
import importlib.util
import re
import shutil
import signal
import sys
import textwrap
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

from games.tools.base import ToolError, ToolFault
from games.tools.runner import Isolation, Kill, Limits, Ran, run
from games.tools.syscalls import MACHINES, machine


class NoIsolation(ValueError):
    """This machine has not what the isolation needs."""


class Sandbox:
    """Runs Python code, each time in a new process, in a new, empty folder that is removed afterwards.

    `isolation`: `auto` takes `landlock` or else `bubblewrap`, whichever works here; what it is now is in
    `self.isolation`. `cpu_seconds` and `wall_seconds`: computing and waiting. `memory_mb`: address space, about 30 MiB
    of it Python's own. `file_mb`: size of a file; all together may have four times as much. `files`: how many there may
    be. `output`: bytes kept of stdout and of stderr. `packages`: installed top-level packages that programs may import
    besides the standard library, with those that they need: `("numpy",)`, `("sympy", "mpmath")`.

    Raises:
        NoIsolation: the isolation does not work here; says why, and how to do without.
        ValueError: a setting is out of range, or a package is not installed.
    """

    def __init__(
        self,
        *,
        isolation: Isolation | Literal["auto"] = "auto",
        cpu_seconds: int = 5,
        wall_seconds: float = 30.0,
        memory_mb: int = 512,
        file_mb: int = 16,
        files: int = 100,
        output: int = 20_000,
        packages: Sequence[str] = (),
    ) -> None:
        sizes = {"cpu_seconds": cpu_seconds, "memory_mb": memory_mb, "file_mb": file_mb, "files": files}
        for name, size in {**sizes, "output": output}.items():
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise _refused(name, size, "a whole number, 1 or more")
        if not 0 < wall_seconds < float("inf"):
            raise _refused("wall_seconds", wall_seconds, "a number above 0")
        self._limits = Limits(
            cpu_seconds=cpu_seconds,
            wall_seconds=wall_seconds,
            memory=memory_mb << 20,
            file_size=file_mb << 20,
            files=files,
            output=output,
        )
        self._packages = {package: _folder(package) for package in packages}
        self.isolation = _chosen(isolation)

    def run(self, code: str) -> Ran:
        """Run a program. It sees Python's standard library, `packages`, its folder, and nothing of its caller.

        Raises:
            ToolFault: it could not be started.
        """
        return run(code, isolation=self.isolation, limits=self._limits, packages=self._packages)


class PythonTool:
    """`python: CODE`: what a program prints, run in the sandbox. Code in a Markdown fence is taken out of it."""

    name = "python"
    usage = "python: CODE of a program, on as many lines as needed; you are told what it prints"

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def __call__(self, argument: str) -> str:
        """What the program printed.

        Raises:
            ToolError: it ended with an error, or was stopped; with what it printed before.
            ToolFault: it could not be started.
        """
        ran = self._sandbox.run(_code(argument))
        if ran.killed:
            raise ToolError(f"{ran.stdout}{_STOPPED[ran.killed]}")
        if ran.status < 0:
            raise ToolError(f"{ran.stdout}{ran.stderr}the program was ended by {_signal(-ran.status)}")
        if ran.status:
            raise ToolError(f"{ran.stdout}{ran.stderr or f'exit status {ran.status}'}".rstrip())
        return ran.stdout.rstrip() or "(nothing printed)"


_STOPPED: Mapping[Kill, str] = {
    "time": "the program was stopped: it took too long",
    "output": "... the program was stopped: it printed too much",
    "files": "the program was stopped: its files are too many or too large",
}
_FENCE = re.compile(r"\A\s*```\w*\n(.*?)\n?```\s*\Z", re.DOTALL)


def _code(argument: str) -> str:
    fenced = _FENCE.match(argument)
    return textwrap.dedent(fenced[1] if fenced else argument)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _folder(package: str) -> str:
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise _refused("packages", package, "top-level packages that are installed")
    return str(Path(found.submodule_search_locations[0]).resolve())


def _refused(setting: str, value: object, allowed: str) -> ValueError:
    return ValueError(f"sandbox: {setting}={value!r} is not allowed; it must be {allowed}")


def _chosen(isolation: str) -> Isolation:
    """The isolation to use, which has been tried."""
    if isolation not in (*get_args(Isolation), "auto"):
        raise _refused("isolation", isolation, ", ".join(("auto", *get_args(Isolation))))
    if isolation == "none":
        return "none"
    missing: dict[Isolation, str] = {}
    for kind in _ISOLATING:
        if isolation in (kind, "auto"):
            reason = _missing(kind)
            if reason is None:
                return kind
            missing[kind] = reason
    raise NoIsolation(
        f"sandbox: isolation={isolation!r} is not possible here "
        f"({'; '.join(f'{kind}: {reason}' for kind, reason in missing.items())}); "
        "isolation='none' runs programs of agents without protection"
    )


_ISOLATING: tuple[Isolation, ...] = ("landlock", "bubblewrap")


def _missing(isolation: Isolation) -> str | None:
    """Why this isolation is not to be had; None: it is."""
    if not sys.platform.startswith("linux") or machine() is None:
        return f"it needs Linux on {' or '.join(MACHINES)}"
    if isolation == "bubblewrap" and shutil.which("bwrap") is None:
        return "bwrap is not installed"
    if isolation == "landlock" and ctypes.CDLL(None).syscall(444, None, 0, 1) < 1:
        return "this kernel has no Landlock, which came with Linux 5.13 and may be turned off"
    return _trial(isolation)


_TRIAL = """
import os, socket
def refused(attempt, *arguments):
    try:
        attempt(*arguments)
    except OSError:
        return True
print(refused(open, "/etc/hostname"), refused(os.listdir, "/proc"), refused(socket.socket), refused(os.fork))
"""
"""A program that tries to get out."""


@lru_cache
def _trial(isolation: Isolation) -> str | None:
    """What goes wrong when a program tries to get out; None: it does not get out."""
    limits = Limits(cpu_seconds=5, wall_seconds=60.0, memory=512 << 20, file_size=1 << 20, files=10, output=10_000)
    try:
        ran = run(_TRIAL, isolation=isolation, limits=limits, packages={})
    except ToolFault as fault:
        return str(fault)
    return None if ran.stdout.split() == ["True"] * 4 else f"it does not hold: {ran.stdout}{ran.stderr}"
