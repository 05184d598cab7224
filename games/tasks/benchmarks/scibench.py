"""SciBench: problems of college textbooks in physics, chemistry and mathematics (arXiv 2307.10635)."""

from games.tasks.base import TaskSet
from games.tasks.benchmarks.base import Hub, Item, benchmark
from games.tasks.rows import Row

HUB = Hub(name="xw27/scibench", split="train")
PROMPT = "{question}{unit}\nReason step by step, and put the final number, without its unit, in \\boxed{{}}."
UNIT = "\nGive the answer in units of {unit}."
TOLERANCE = 0.05
"""As in the paper: up to 5 % off is right."""


def tasks(name: str, *, path: str | None = None, size: int | None = None) -> TaskSet:
    """The tasks, with the settings of `benchmark`."""
    return benchmark(name, HUB, read, path=path, size=size)


def read(row: Row) -> Item:
    """The item of a row; a unit may be a power of ten as well."""
    unit = str(row.fields.get("unit") or "").strip()
    return Item(
        prompt=PROMPT.format(question=row.text("problem_text").strip(), unit=UNIT.format(unit=unit) if unit else ""),
        answer=row.text("answer_number", numbers=True).strip(),
        check="number",
        metadata={"tolerance": TOLERANCE},
    )
