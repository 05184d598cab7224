"""Tools that need no documents, by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from games.tools.base import Tool
from games.tools.calculator import Calculator
from games.tools.sandbox import PythonTool, Sandbox

TOOLS: Mapping[str, str] = {"calculate": "calculate: 1 + 2", "python": "python: print(1 + 2)"}
"""Name of each tool, and a call of it as an example."""


def named(names: Sequence[str], *, sandbox: Mapping[str, Any]) -> tuple[Tool, ...]:
    """The tools of these names, each once; `sandbox`: settings of `games.tools.sandbox.Sandbox`, for `python`.

    Raises:
        ValueError: a setting of the sandbox is unknown or out of range, or nothing isolates programs here
            (`games.tools.sandbox.NoIsolation`).
    """
    if not isinstance(sandbox, Mapping):
        raise ValueError(f"sandbox: {sandbox!r} is not allowed; it must be a mapping of settings")
    makers: Mapping[str, Callable[[], Tool]] = {"calculate": Calculator, "python": lambda: _python(sandbox)}
    return tuple(makers[name]() for name in dict.fromkeys(names))


def _python(sandbox: Mapping[str, Any]) -> PythonTool:
    try:
        return PythonTool(Sandbox(**sandbox))
    except TypeError as error:
        raise ValueError(f"sandbox: {dict(sandbox)!r} is not allowed: {error}") from error
