"""HumanEval: functions to be written from their docstrings (arXiv 2107.03374); run in the sandbox."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from games.tasks.base import TaskSet
from games.tasks.benchmarks.base import Hub, Item, benchmark
from games.tasks.rows import Row

HUB = Hub(name="openai/openai_humaneval", split="test")
PROMPT = "Complete this Python function. Give all of it, imports included, in one fence.\n```python\n{code}\n```"


def tasks(
    name: str,
    *,
    path: str | None = None,
    size: int | None = None,
    sandbox: Mapping[str, Any] = MappingProxyType({}),
) -> TaskSet:
    """The tasks, with the settings of `benchmark`; `sandbox`: those of `games.tools.sandbox.Sandbox`."""
    return benchmark(name, HUB, read, path=path, size=size, sandbox=json.dumps(dict(sandbox), sort_keys=True))


def read(row: Row, sandbox: str) -> Item:
    """The item of a row. What stands before the function, imports and helpers, is run before a reply."""
    code, function = row.text("prompt"), row.text("entry_point").strip()
    return Item(
        prompt=PROMPT.format(code=code.strip()),
        answer=code + row.text("canonical_solution"),
        check="code",
        metadata={
            "before": code.rpartition(f"def {function}(")[0],
            "tests": f"{row.text('test')}\ncheck({function})",
            "sandbox": json.loads(sandbox),
        },
    )
