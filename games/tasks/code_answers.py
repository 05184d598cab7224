"""Programs, checked by running them with the task's tests in the sandbox."""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from games.tasks.answers import last_tagged
from games.tasks.base import Task, refused
from games.tools.sandbox import Sandbox

LIMITS: Mapping[str, Any] = {"cpu_seconds": 10, "wall_seconds": 30.0, "memory_mb": 512}
"""Settings of the sandbox, unless the task's metadata has others under `sandbox`."""

_FENCE = re.compile(r"(?ms)^[ \t]*+```[ \t]*+([\w+-]*+)[^\n`]*+\n(.*?)(?:^[ \t]*```[ \t]*$|\Z)")
"""A fence, which a reply that was cut off has not closed: its language, and what it holds."""
_PYTHON = ("", "py", "python", "python3")


def check(task: Task, reply: str) -> float:
    """1.0 if the reply's code passes the task's tests within the sandbox's limits; else 0.0. Run once per program.

    Raises:
        NoIsolation: nothing isolates programs here.
        ToolFault: the sandbox could not start the program, which says nothing about it.
    """
    return float(_passes(program(task, reply), _settings(task)))


def validate(task: Task) -> None:
    """Refuse a task without tests, or that cannot be run here.

    Raises:
        ValueError: see above, or a setting of the sandbox is unknown or out of range.
    """
    tests = task.metadata.get("tests")
    if not isinstance(tests, str) or not tests.strip():
        raise refused("with check 'code'", "metadata.tests", tests, "a text: the program that tests the code")
    if not isinstance(task.metadata.get("before", ""), str):
        raise refused("with check 'code'", "metadata.before", task.metadata["before"], "a text")
    if not isinstance(task.metadata.get("sandbox", {}), Mapping):
        raise refused("with check 'code'", "metadata.sandbox", task.metadata["sandbox"], "a mapping")
    _sandbox(_settings(task))


def read_code(reply: str) -> str:
    """The code of a reply: what its last Python fence holds, in the last `<answer>` if there is one; without, all."""
    tagged = last_tagged(reply)
    text = "\n".join((reply if tagged is None else tagged).splitlines())
    fenced = [held for language, held in _FENCE.findall(text) if language.casefold() in _PYTHON]
    return (fenced[-1] if fenced else text).strip("\n")


def program(task: Task, reply: str) -> str:
    """What is run: `before` of the metadata, the reply's code, `tests`."""
    return "\n".join((task.metadata.get("before", ""), read_code(reply), task.metadata["tests"]))


@lru_cache(maxsize=8192)
def _passes(text: str, settings: str) -> bool:
    # Ending well is not enough: a program may end before its tests. So it is to say at its end what its hash is.
    mark = hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()
    ran = _sandbox(settings).run(f"{text}\nprint('{mark}')\n")
    return ran.status == 0 and ran.killed is None and ran.stdout.rstrip("\n").endswith(mark)


def _settings(task: Task) -> str:
    return json.dumps({**LIMITS, **task.metadata.get("sandbox", {})}, sort_keys=True)


@lru_cache(maxsize=8)
def _sandbox(settings: str) -> Sandbox:
    try:
        return Sandbox(**json.loads(settings))
    except TypeError as error:
        raise ValueError(f"sandbox: {error}") from error
