"""Mathematical answers, compared by `math-verify` in a process of its own.

A reply may ask for more arithmetic than there is memory or time (`9^{9^{9^9}}`). math-verify's own time-outs are
signals, which only a main thread may use; so a worker checks, and is ended when it takes too long.
"""

import atexit
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from threading import Lock, Timer

from games.tasks.base import Task

TIMEOUT_S = 5.0
"""Seconds that a check may take; an answer that needs more is wrong."""
START_TIMEOUT_S = 120.0
"""Seconds that the worker may take to be ready: it imports sympy."""


class Worker:
    """A process that compares answers, one at a time; started when first asked, and anew after each time-out."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = Lock()

    def compare(self, gold: str, answer: str, timeout_s: float = TIMEOUT_S) -> bool:
        """Whether the answer equals the gold one; False if that takes too long. Any thread may ask.

        Raises:
            RuntimeError: the worker does not start.
        """
        with self._lock:
            if self._process is None:
                self._start()
            equal = self._ask(json.dumps([gold, answer]), timeout_s)
            if equal == "":
                self._end()
            return equal == "1\n"

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._end()

    def _start(self) -> None:
        # -P: the modules beside the worker's file are not to be found under their bare names (`base`, `answers`).
        command = [sys.executable, "-P", str(Path(__file__).with_name("math_worker.py"))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self._ask(json.dumps(["1", "1"]), START_TIMEOUT_S) != "1\n":
            self._end()
            raise RuntimeError("the worker that checks mathematical answers does not start; see what it says above")

    def _ask(self, line: str, timeout_s: float) -> str:
        """The worker's answer; empty if it was ended before it had one."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        timer = Timer(timeout_s, process.kill)
        timer.start()
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            return process.stdout.readline()
        except BrokenPipeError:
            return ""
        finally:
            timer.cancel()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


_WORKER = Worker()
atexit.register(_WORKER.close)


def check(task: Task, answer: str) -> float:
    """1.0 if the answer equals the gold one as mathematics (`0.5` and `\\frac12`, `x+1` and `1+x`); else 0.0.

    Raises:
        ValueError: math-verify is not installed.
    """
    validate(task)
    return float(_WORKER.compare(task.answer, answer))


def validate(task: Task) -> None:
    """Refuse a task that cannot be checked here.

    Raises:
        ValueError: math-verify is not installed.
    """
    if find_spec("math_verify") is None:
        raise ValueError(f"{task.id}: check 'math' needs the package math-verify: pip install 'marl-llm[tasks]'")
