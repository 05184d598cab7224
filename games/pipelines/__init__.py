"""Pipelines: several agents work on one task together, and every step is a turn of a game."""

from collections.abc import Mapping
from typing import Any

from games.settings import refused
from games.tasks import TaskSet, task_set

ARITHMETIC: Mapping[str, Any] = {"source": "arithmetic"}
"""Where tasks come from unless the settings say more."""


def number_of(agent: str) -> int:
    """The number at the end of an agent's id."""
    return int(agent.rpartition("_")[2])


def tasks_of(game: str, given: Any) -> TaskSet:
    """The tasks of a setting `tasks`, as in `{source: arithmetic, level: 2}`; with `item: N`, number N of them alone.

    Raises:
        ValueError: it has no source, there is no such item, or see `games.tasks.task_set`.
    """
    if not isinstance(given, Mapping) or "source" not in given:
        raise refused(game, "tasks", given, "a mapping with a source, as in {source: arithmetic, level: 2}")
    settings = dict(given)
    item = settings.pop("item", None)
    tasks = task_set(**settings)
    if item is None:
        return tasks
    if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item < len(tasks):
        raise refused(game, "tasks.item", item, f"a whole number from 0 to {len(tasks) - 1}")
    return TaskSet(name=f"{tasks.name}/{item}", size=1, make=lambda _: tasks[item])
