"""The process behind `games.tasks.math_answers`: lines of [gold answer, answer] in, 1 or 0 out."""

import json
import logging
import resource
import sys
from typing import Any

from math_verify import parse, verify

MEMORY = 4 * 2**30
"""Bytes of address space; a check that needs more is wrong."""


def equal(gold: str, answer: str) -> bool:
    """Whether math-verify finds the answers equal; False for one that it cannot read."""
    try:
        return bool(verify(_read(gold), _read(answer), timeout_seconds=None))
    except (MemoryError, RecursionError, OverflowError):
        return False


def _read(text: str) -> list[Any]:
    # Inside dollars the whole text is one answer. Outside, the last number of a text would do: "1, 2, 3" would be 3.
    bare = text.strip().strip("$").strip()
    parsed: list[Any] = parse(text if "$" in bare else f"${bare}$", parsing_timeout=None)
    return parsed


def main() -> None:
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for line in sys.stdin:
        gold, answer = json.loads(line)
        print(int(equal(gold, answer)), flush=True)


if __name__ == "__main__":
    main()
