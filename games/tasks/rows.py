"""Tasks from files and data sets of others: JSON lines, or Hugging Face `datasets`."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
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
    fields = Fields(prompt=prompt, answer=answer, check=check, after=after)
    return _task_set(path, split, _tasks(path, _stamp(path), fields))


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
    fields = Fields(prompt=prompt, answer=answer, check=check, after=after)
    return _task_set(f"hf:{name}", None, _hugging_face(name, subset, split, fields))


@dataclass(frozen=True, kw_only=True, slots=True)
class Fields:
    """Which fields of a row make a task."""

    prompt: str
    """Name of the question's field."""
    answer: str
    """Name of the gold answer's field."""
    check: str
    """Checker of rows that name none."""
    after: str
    """The gold answer is what follows the last of these marks in its field; empty: all of it."""

    def tasks(self, source: str, rows: Iterable[tuple[str, Any]]) -> list[Task]:
        """The tasks of rows, each given with its place.

        Raises:
            ValueError: a row is broken, or an id comes twice; names the place.
        """
        if self.check not in answers.CHECKERS:
            raise refused(source, "check", self.check, f"one of {', '.join(answers.CHECKERS)}")
        places: dict[str, str] = {}
        tasks = []
        for place, row in rows:
            task = self._task(place, row)
            if task.id in places:
                raise ValueError(f"{place}: id {task.id!r} is taken by {places[task.id]}")
            places[task.id] = place
            tasks.append(task)
        return tasks

    def _task(self, place: str, row: Any) -> Task:
        if not isinstance(row, Mapping):
            raise ValueError(f"{place}: {_short(row)} is not allowed; it must be an object with fields")
        prompt, answer = _text(place, row, self.prompt), _text(place, row, self.answer, numbers=True)
        metadata = row.get("metadata", {})
        if not isinstance(metadata, Mapping):
            raise ValueError(f"{place}: field 'metadata': {_short(metadata)} is not allowed; it must be an object")
        others = {key: value for key, value in row.items() if key not in (*OWN, self.prompt, self.answer)}
        task = Task(
            id=_text(place, row, "id", numbers=True) if "id" in row else place,
            prompt=prompt,
            answer=answers.final_answer(answer.rpartition(self.after)[2] if self.after else answer),
            check=_text(place, row, "check") if "check" in row else self.check,
            metadata={**others, **metadata},
        )
        try:
            answers.validate(task)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
        return task


def _text(place: str, row: Mapping[str, Any], field: str, *, numbers: bool = False) -> str:
    """A field that must be there and must not be empty; numbers are written out where they are allowed."""
    if field not in row:
        raise ValueError(f"{place}: field {field!r} is missing; there are: {', '.join(map(str, row)) or 'none'}")
    value = row[field]
    if numbers and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        allowed = "a text or a number" if numbers else "a text"
        raise ValueError(f"{place}: field {field!r}: {_short(value)} is not allowed; it must be {allowed}")
    return value


@lru_cache(maxsize=32)
def _tasks(path: str, stamp: tuple[int, int], fields: Fields) -> list[Task]:
    """The tasks of a file, which every game that asks them reads again only if it has changed."""
    return fields.tasks(path, _lines(path))


@lru_cache(maxsize=32)
def _hugging_face(name: str, subset: str | None, split: str, fields: Fields) -> list[Task]:
    """The tasks of a data set, which is loaded once in a process."""
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ValueError(f"tasks hf:{name}: needs the package datasets: pip install 'marl-llm[tasks]'") from error
    try:
        rows = load_dataset(name, subset, split=split)
    except Exception as error:  # whatever the hub, the network or the data set's own files may raise
        reason = " ".join(str(error).split())
        raise ValueError(f"tasks hf:{name}: cannot be loaded: {type(error).__name__}: {reason}") from error
    return fields.tasks(f"hf:{name}", ((f"hf:{name}, row {number}", row) for number, row in enumerate(rows)))


def _stamp(path: str) -> tuple[int, int]:
    """When the file was changed (ns), and its bytes."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    return found.st_mtime_ns, found.st_size


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
