"""AQuA: algebra in words, with five choices (arXiv 1705.04146)."""

import re

from games.tasks.base import TaskSet
from games.tasks.benchmarks.base import Hub, Item, benchmark, lettered
from games.tasks.rows import Row

HUB = Hub(name="deepmind/aqua_rat", subset="raw", split="test")
PROMPT = "{question}\n{choices}\nReason step by step, and put the letter of the right choice in \\boxed{{}}."


def tasks(name: str, *, path: str | None = None, size: int | None = None) -> TaskSet:
    """The tasks, with the settings of `benchmark`."""
    return benchmark(name, HUB, read, path=path, size=size)


def read(row: Row) -> Item:
    """The item of a row, whose options begin with their letters: `A)21`."""
    choices = tuple(re.sub(r"\A\s*[A-E]\s*\)\s*", "", option).strip() for option in row.texts("options"))
    return Item(
        prompt=PROMPT.format(question=row.text("question").strip(), choices=lettered(choices)),
        answer=row.text("correct").strip(),
        check="choice",
        metadata={"choices": choices},
    )
