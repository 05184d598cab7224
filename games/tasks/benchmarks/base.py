"""What the files of the benchmarks have in common: where rows come from, and how they become tasks."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from games.tasks.base import Task, TaskSet, check_between, refused
from games.tasks.choice_answers import letters
from games.tasks.rows import Reader, Row, tasks_of_file, tasks_of_hub

SAMPLE = "sample"
"""The path that stands for a few questions in the benchmark's form, made up for this project."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hub:
    """A data set of the Hugging Face hub."""

    name: str
    """OWNER/NAME."""
    subset: str | None = None
    """Its configuration."""
    split: str = "test"
    """Its split."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """What a row asks."""

    prompt: str
    """The question as it is put."""
    answer: str
    """The gold answer."""
    check: str
    """Name of the checker."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What the checker needs, and what else is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows(Reader):
    """Reads the rows of one benchmark."""

    name: str
    """Of the benchmark."""
    read: Callable[..., Item | None]
    """What a row asks, given the row and the settings."""
    settings: tuple[tuple[str, Hashable], ...]
    """Of `read`."""

    def task(self, row: Row, number: int) -> Task | None:
        item = self.read(row, **dict(self.settings))
        if item is None:
            return None
        return Task(
            id=f"{self.name}/{number}",
            prompt=item.prompt,
            answer=item.answer,
            check=item.check,
            metadata=item.metadata,
        )


def benchmark(
    name: str,
    hub: Hub,
    read: Callable[..., Item | None],
    *,
    path: str | None,
    size: int | None,
    sample: str | None = None,
    **settings: Hashable,
) -> TaskSet:
    """The tasks that `read(row, **settings)` makes of the rows of a data set, or of JSON lines of the same form.

    `path`: a file; `sample`: a few questions that are made up; None: the data set of the hub. `size`: the first so many
    tasks, at most; None: all. `sample`: whose made-up questions these are, if not its own.

    Raises:
        ValueError: a setting is out of range, rows cannot be had, or one is broken; names the row.
    """
    if size is not None:
        check_between(name, 1, None, size=size)
    if path is not None and (not isinstance(path, str) or (path != SAMPLE and not path.endswith(".jsonl"))):
        raise refused(name, "path", path, f"a .jsonl file, {SAMPLE}, or null: the data set hf:{hub.name}")
    reader = Rows(name=name, read=read, settings=tuple(sorted(settings.items())))
    if path is None:
        tasks = tasks_of_hub(hub.name, hub.subset, hub.split, reader)
    else:
        made_up = Path(__file__).with_name("samples") / f"{sample or name}.jsonl"
        tasks = tasks_of_file(str(made_up) if path == SAMPLE else path, reader)
    if not tasks:
        raise ValueError(f"tasks {name}: there are none in {path or f'hf:{hub.name}'}")
    return TaskSet(name=name, size=min(len(tasks), size or len(tasks)), make=tasks.__getitem__)


def lettered(choices: Sequence[str]) -> str:
    """Choices as they are shown, one a line: `A) 42`."""
    return "\n".join(f"{letter}) {choice}" for letter, choice in zip(letters(choices), choices, strict=True))
