"""The server's side of the process that loads models and acts (`marl_llm.watch.worker`). No models here."""

import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread
from typing import IO, Any

from marl_llm.errors import MarlError

GRACE_S = 5.0
"""Seconds that the process has to end by itself."""
REMEMBERED = 20
"""Last lines of its standard error that are kept."""

Json = dict[str, Any]
Tell = Callable[[Json], None]
"""Told `doing`, `done` and `of` while something is done."""


class ActError(MarlError):
    """What was asked for could not be done; the message says why."""


class Acts:
    """Asks the process that acts, which is started when it is first needed, and again when it has died."""

    def __init__(self, run: Path, *, device: str | None = None) -> None:
        """`device`: of all models; None: where the run has them."""
        self._run = run
        self._device = device
        self._asking = Lock()
        self._starting = Lock()
        self._child: _Child | None = None
        self._requests = 0
        self._tables = 0
        self._closed = False

    def ask(self, request: Mapping[str, Any], tell: Tell = lambda _: None) -> Json:
        """The result of a request, as `marl_llm.watch.worker` says; several threads may ask, and wait for each other.

        Raises:
            ActError: it could not be done, or the process died over it; whoever asks next starts another one, in which
                the tables of the first are gone.
        """
        with self._asking:
            self._requests += 1
            line = json.dumps({**request, "id": self._requests})
            child = self._running(tell)
            if not child.send(line):  # it had died since, and knows nothing of this request
                child = self._running(tell)
                child.send(line)
            result = child.answer(self._requests, tell)
            self._tables += request.get("do") == "play"
            return result

    def close(self) -> None:
        """End the process, whatever it is doing; who still waits for it gets an error."""
        with self._starting:
            self._closed = True
            child = self._child
        if child is not None:
            child.end()
            with self._asking:
                child.release()

    def _running(self, tell: Tell) -> "_Child":
        with self._starting:  # so that none is started that nobody ends
            if self._closed:
                raise ActError("the watcher is closing")
            if self._child is None or self._child.died:
                tell({"doing": "starting the process that plays", "done": 0, "of": 1})
                if self._child is not None:
                    self._child.end()
                    self._child.release()
                self._child = _Child(self._run, self._device, self._tables + 1)
            return self._child


class _Child:
    """One such process."""

    def __init__(self, run: Path, device: str | None, first_table: int) -> None:
        chosen = [] if device is None else ["--device", device]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "marl_llm.watch.worker", str(run), "--first-table", str(first_table), *chosen],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            # It finds the modules that this process finds, a user's own games among them.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            start_new_session=True,  # Ctrl-C is for the server, which then ends it
        )
        self._said: deque[str] = deque(maxlen=REMEMBERED)
        self._listener = Thread(target=self._listen, name="stderr of the worker", daemon=True)
        self._listener.start()

    @property
    def died(self) -> bool:
        """Whether it is there no more."""
        return self._process.poll() is not None

    def send(self, line: str) -> bool:
        """Ask; returns whether there was anybody to ask."""
        stdin = _open(self._process.stdin)
        try:
            stdin.write(f"{line}\n")
            stdin.flush()
        except (OSError, ValueError):  # it has died, or is being ended
            self._reap()
            return False
        return True

    def answer(self, number: int, tell: Tell) -> Json:
        """Wait for the result of a request.

        Raises:
            ActError: it could not be done, or the process has died.
        """
        for line in _open(self._process.stdout):
            try:
                said = json.loads(line)
            except ValueError:
                break  # the half of a line that it has died over
            if said["id"] != number:
                continue
            if "error" in said:
                raise ActError(said["error"])
            if "result" in said:
                result: Json = said["result"]
                return result
            tell({"doing": said["doing"], "done": said["done"], "of": said["of"]})
        self._reap()
        raise ActError(
            f"the process that plays has died ({self._end()}), and the games at its tables are lost: ask again, and "
            "another one is started"
        )

    def end(self) -> None:
        """Let it end, or kill it."""
        with suppress(OSError):  # nobody reads there any more
            _open(self._process.stdin).close()
        self._reap()

    def release(self) -> None:
        """Close what it said, when it has ended and nobody reads there any more."""
        self._listener.join()
        _open(self._process.stdout).close()

    def _reap(self) -> None:
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _end(self) -> str:
        """How it has ended, in words."""
        self._listener.join(GRACE_S)
        code = self._process.returncode
        if code < 0:
            memory = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
            return f"signal {-code}{memory}"
        last = next((line for line in reversed(self._said) if line), "")
        return f"exit code {code}{f', {last}' if last else ''}"

    def _listen(self) -> None:
        with _open(self._process.stderr) as lines:
            for line in lines:
                self._said.append(line.strip())


def _open(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None, "as it was started"
    return pipe
