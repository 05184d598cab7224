"""AMC 12 of 2023, both papers: the 40 problems whose answer is a number."""

from games.tasks.base import TaskSet
from games.tasks.benchmarks.base import Hub, Item, benchmark
from games.tasks.rows import Row

HUB = Hub(name="math-ai/amc23", split="test")
PROMPT = "{question}\nReason step by step, and put the final answer in \\boxed{{}}."


def tasks(name: str, *, path: str | None = None, size: int | None = None) -> TaskSet:
    """The tasks, with the settings of `benchmark`."""
    return benchmark(name, HUB, read, path=path, size=size)


def read(row: Row) -> Item:
    """The item of a row."""
    return Item(
        prompt=PROMPT.format(question=row.text("question").strip()),
        answer=row.text("answer", numbers=True).strip(),
        check="math",
    )
