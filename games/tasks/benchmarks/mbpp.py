"""MBPP: short Python functions with three tests each, the first of them shown (arXiv 2108.07732); in the sandbox."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from games.tasks.base import TaskSet
from games.tasks.benchmarks.base import Hub, Item, benchmark
from games.tasks.rows import Row

HUB = Hub(name="google-research-datasets/mbpp", subset="full", split="test")
PROMPT = "{text}\nThe function must pass this test: {test}\nGive the Python code in one fence."


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
    """The item of a row."""
    tests = row.texts("test_list")
    return Item(
        prompt=PROMPT.format(text=row.text("text").strip(), test=tests[0]),
        answer=row.text("code").strip(),
        check="code",
        metadata={
            "before": str(row.fields.get("test_setup_code") or ""),
            "tests": "\n".join(tests),
            "sandbox": json.loads(sandbox),
        },
    )
