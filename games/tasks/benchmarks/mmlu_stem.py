"""MMLU-STEM: the 3,018 questions of MMLU in the 18 subjects that its authors call STEM (arXiv 2009.03300)."""

from games.tasks.base import TaskSet
from games.tasks.benchmarks import mmlu
from games.tasks.benchmarks.base import Item, benchmark
from games.tasks.rows import Row

SUBJECTS = (
    "abstract_algebra",
    "astronomy",
    "college_biology",
    "college_chemistry",
    "college_computer_science",
    "college_mathematics",
    "college_physics",
    "computer_security",
    "conceptual_physics",
    "electrical_engineering",
    "elementary_mathematics",
    "high_school_biology",
    "high_school_chemistry",
    "high_school_computer_science",
    "high_school_mathematics",
    "high_school_physics",
    "high_school_statistics",
    "machine_learning",
)


def tasks(name: str, *, path: str | None = None, size: int | None = None) -> TaskSet:
    """The tasks, with the settings of `benchmark`; a file has the form of MMLU and may hold other subjects."""
    return benchmark(name, mmlu.HUB, read, path=path, size=size, sample="mmlu")


def read(row: Row) -> Item | None:
    """The item of a row; None: of another subject."""
    item = mmlu.read(row)
    return item if item.metadata["subject"] in SUBJECTS else None
