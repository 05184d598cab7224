"""A question with its gold answer, and ordered sets of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, overload

Split = Literal["train", "test"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A question with its gold answer."""

    id: str
    """Its name, the only one of its kind in its set; of a generated task, all that is needed to make it again."""
    prompt: str
    """What is asked."""
    answer: str
    """The gold answer, or one of several right ones: the checker knows."""
    check: str = "exact"
    """Name of the checker that compares a reply with the answer (`games.tasks.answers.CHECKERS`)."""
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What else is known, as JSON has it: level, solution, supporting documents. May give the answer away."""


class TaskSet(Sequence[Task]):
    """Tasks by index, made when they are asked for: `set[i]` is the same task whenever and wherever it is asked for."""

    def __init__(self, *, name: str, size: int, make: Callable[[int], Task]) -> None:
        self.name = name
        self._size = size
        self._make = make

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        if isinstance(index, slice):
            return [self._make(i) for i in range(*index.indices(self._size))]
        if not -self._size <= index < self._size:
            raise IndexError(f"{self.name}: there is no task {index}; there are {self._size}")
        return self._make(index % self._size)

    def __repr__(self) -> str:
        return f"TaskSet({self.name}, {self._size} tasks)"

    def draw(self, seed: int) -> Task:
        """The task of a seed: uniform over the set, and the same one for the same seed."""
        return self[Random(f"draw {seed}").randrange(self._size)]


def refused(source: str, setting: str, value: object, allowed: str) -> ValueError:
    """The error that names the source of tasks, the setting, its value and what is allowed."""
    return ValueError(f"tasks {source}: {setting}={value!r} is not allowed; it must be {allowed}")


def check_between(source: str, low: int, high: int | None, **settings: object) -> None:
    """Refuse settings that are not whole numbers from `low` to `high` (None: no upper limit).

    Raises:
        ValueError: names the first of them.
    """
    for setting, value in settings.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or value < low or (high is not None and value > high):  # type: ignore[operator]
            allowed = f"{low} or more" if high is None else f"{low} to {high}"
            raise refused(source, setting, value, f"a whole number, {allowed}")
