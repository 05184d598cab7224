"""Tasks from files and data sets of others: JSON lines, or Hugging Face `datasets`."""

import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from games.tasks import answers
from games.tasks.base import Split, Task, TaskSet, refused
from games.tasks.generated import split_of

OWN = ("id", "check", "metadata")
"""Fields with a meaning of their own, besides the prompt and the answer, which the settings name."""


def from_file(
    path: str,
    *,
    split: Split | None = None,
    prompt: str = "prompt",
    answer: str = "answer",
    check: str = "exact",
    after: str = "",
) -> TaskSet:
    """The tasks of a file of JSON objects, one a line; `split` keeps a fixed part of them, by their prompts.

    `prompt`, `answer`: names of these fields. `check`: the checker of rows that name none. `after`: the gold answer is
    what follows the last of these marks in the field (`####` in GSM8K). Fields without a meaning become metadata.

    Raises:
        ValueError: the file cannot be read or has no tasks, or a line is broken; names the line.
    """
    fields = Fields(source=path, prompt=prompt, answer=answer, check=check, after=after)
    return _task_set(path, split, tasks_of_file(path, fields))


def from_hugging_face(
    name: str,
    *,
    split: str = "train",
    subset: str | None = None,
    prompt: str = "prompt",
    answer: str = "answer",
    check: str = "exact",
    after: str = "",
) -> TaskSet:
    """The tasks of a data set of the Hugging Face hub, or of a folder: settings as for a file, and its own splits.

    `split` is one of the data set (`train`, `test[:500]`), `subset` its configuration (`main` of `openai/gsm8k`).

    Raises:
        ValueError: `datasets` is not installed or cannot load it, or a row is broken; names the row.
    """
    fields = Fields(source=f"hf:{name}", prompt=prompt, answer=answer, check=check, after=after)
    return _task_set(f"hf:{name}", None, tasks_of_hub(name, subset, split, fields))


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row of a file or a data set, and where it stands."""

    place: str
    """For errors: `tasks.jsonl, line 3`."""
    fields: Mapping[str, Any]
    """What it says."""

    def text(self, field: str, *, numbers: bool = False) -> str:
        """A field that must be there and must not be empty; numbers are written out where they are allowed.

        Raises:
            ValueError: it is not there, or something else; names the place.
        """
        value = self._there(field)
        if numbers and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            value = str(value)
        if not isinstance(value, str) or not value.strip():
            raise self.refused(field, "a text or a number" if numbers else "a text")
        return value

    def texts(self, field: str) -> tuple[str, ...]:
        """A field that must be a list of texts, which may be empty where the list may not.

        Raises:
            ValueError: it is not; names the place.
        """
        value = self._there(field)
        listed = isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0
        if not listed or not all(isinstance(text, str) for text in value):
            raise self.refused(field, "a list of texts")
        return tuple(value)

    def refused(self, field: str, allowed: str) -> ValueError:
        """The error that names the place, the field, what it says and what is allowed."""
        return ValueError(
            f"{self.place}: field {field!r}: {_short(self.fields.get(field))} is not allowed; it must be {allowed}"
        )

    def _there(self, field: str) -> Any:
        if field not in self.fields:
            there = ", ".join(map(str, self.fields)) or "none"
            raise ValueError(f"{self.place}: field {field!r} is missing; there are: {there}")
        return self.fields[field]


class Reader(ABC):
    """Makes tasks of rows. Equal readers make the same ones, so that they are made once in a process."""

    @abstractmethod
    def task(self, row: Row, number: int) -> Task | None:
        """The task of a row, `number` counting the tasks before it; None: the row is none of them.

        Raises:
            ValueError: the row is broken; names its place.
        """

    def tasks(self, rows: Iterable[tuple[str, Any]]) -> list[Task]:
        """The tasks of rows, each given with its place.

        Raises:
            ValueError: a row is broken, or an id comes twice; names the place.
        """
        places: dict[str, str] = {}
        tasks: list[Task] = []
        for place, content in rows:
            if not isinstance(content, Mapping):
                raise ValueError(f"{place}: {_short(content)} is not allowed; it must be an object with fields")
            task = self.task(Row(place=place, fields=content), len(tasks))
            if task is None:
                continue
            if task.id in places:
                raise ValueError(f"{place}: id {task.id!r} is taken by {places[task.id]}")
            try:
                answers.validate(task)
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from error
            places[task.id] = place
            tasks.append(task)
        return tasks


@dataclass(frozen=True, kw_only=True, slots=True)
class Fields(Reader):
    """Which fields of a row make a task."""

    source: str
    """For errors."""
    prompt: str
    """Name of the question's field."""
    answer: str
    """Name of the gold answer's field."""
    check: str
    """Checker of rows that name none."""
    after: str
    """The gold answer is what follows the last of these marks in its field; empty: all of it."""

    def __post_init__(self) -> None:
        if self.check not in answers.CHECKERS:
            raise refused(self.source, "check", self.check, f"one of {', '.join(answers.CHECKERS)}")

    def task(self, row: Row, number: int) -> Task:
        prompt, answer = row.text(self.prompt), row.text(self.answer, numbers=True)
        metadata = row.fields.get("metadata", {})
        if not isinstance(metadata, Mapping):
            raise row.refused("metadata", "an object")
        others = {key: value for key, value in row.fields.items() if key not in (*OWN, self.prompt, self.answer)}
        return Task(
            id=row.text("id", numbers=True) if "id" in row.fields else row.place,
            prompt=prompt,
            answer=answers.final_answer(answer.rpartition(self.after)[2] if self.after else answer),
            check=row.text("check") if "check" in row.fields else self.check,
            metadata={**others, **metadata},
        )


def tasks_of_file(path: str, reader: Reader) -> list[Task]:
    """The tasks of a file of JSON objects, one a line, which is read again only if it has changed.

    Raises:
        ValueError: the file cannot be read, or a line is broken; names the line.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    return _tasks(path, (found.st_mtime_ns, found.st_size), reader)


@lru_cache(maxsize=32)
def _tasks(path: str, stamp: tuple[int, int], reader: Reader) -> list[Task]:
    """The tasks of a file; `stamp`: when it was changed (ns), and its bytes."""
    return reader.tasks(_lines(path))


@lru_cache(maxsize=32)
def tasks_of_hub(name: str, subset: str | None, split: str, reader: Reader) -> list[Task]:
    """The tasks of a data set, which is loaded once in a process.

    Raises:
        ValueError: `datasets` is not installed or cannot load it, or a row is broken; names the row.
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ValueError(f"tasks hf:{name}: needs the package datasets: pip install 'marl-llm[tasks]'") from error
    try:
        rows = load_dataset(name, subset, split=split)
    except Exception as error:  # whatever the hub, the network or the data set's own files may raise
        reason = " ".join(str(error).split())
        raise ValueError(f"tasks hf:{name}: cannot be loaded: {type(error).__name__}: {reason}") from error
    return reader.tasks(((f"hf:{name}, row {number}", row) for number, row in enumerate(rows)))


def _lines(path: str) -> Iterator[tuple[str, Any]]:
    """Place and content of every line that is not blank."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    for number, line in enumerate(content.split(b"\n"), start=1):
        place = f"{path}, line {number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            if text.strip():
                yield place, json.loads(text)
        except UnicodeDecodeError as error:
            raise ValueError(f"{place}: not UTF-8 (byte {error.start + 1})") from error
        except json.JSONDecodeError as error:
            raise ValueError(f"{place}: not JSON: {error.msg} (column {error.colno})") from error
        except (RecursionError, ValueError) as error:  # nested too deeply, or a number with thousands of digits
            raise ValueError(f"{place}: not JSON that can be read: {error}") from error


def _task_set(source: str, split: Split | None, tasks: list[Task]) -> TaskSet:
    if split not in (None, "train", "test"):
        raise refused(source, "split", split, "train or test, or left out")
    kept = [task for task in tasks if split in (None, split_of(task.prompt))]
    if not kept:
        raise ValueError(f"{source}: there are no tasks" + (f" in split {split!r}" if split and tasks else ""))
    return TaskSet(name=source if split is None else f"{source}/{split}", size=len(kept), make=kept.__getitem__)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
