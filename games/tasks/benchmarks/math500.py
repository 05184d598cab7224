"""MATH-500: 500 problems of competitions (MATH, arXiv 2103.03874, as chosen in arXiv 2305.20050)."""

from games.tasks.base import TaskSet
from games.tasks.benchmarks.base import Hub, Item, benchmark
from games.tasks.rows import Row

HUB = Hub(name="HuggingFaceH4/MATH-500", split="test")
PROMPT = "{question}\nReason step by step, and put the final answer in \\boxed{{}}."


def tasks(name: str, *, path: str | None = None, size: int | None = None) -> TaskSet:
    """The tasks, with the settings of `benchmark`."""
    return benchmark(name, HUB, read, path=path, size=size)


def read(row: Row) -> Item:
    """The item of a row."""
    return Item(
        prompt=PROMPT.format(question=row.text("problem").strip()),
        answer=row.text("answer").strip(),
        check="math",
        metadata={name: row.fields[name] for name in ("subject", "level") if name in row.fields},
    )
