"""The base of pipelines in which agents talk about one task, in free text or by a choice."""

from collections.abc import Mapping
from random import Random
from typing import Any

from games.pipelines import tasks_of
from games.settings import OnIllegal
from games.tasks import Task
from games.tasks.answers import LINES
from games.text_game import Position, TextGame

SHOWN = 4
"""Tasks whose answers are examples of what may be said."""


class TaskGame(TextGame[Position]):
    """A game says what `TextGame` asks for, but for reading: where it lists no legal actions any text is one.

    A message is one line, so that none can pass for somebody else's; on tasks whose checker reads lines (`LINES`) it
    keeps them, and is shown by `quoted`. The position has a `task`.

    `silence`: what is heard of an agent whose reply could not be read. What several agents say is to be read in
    columns, unless they call each other (`metadata["form"]`).
    """

    calls = False
    """Whether its agents call each other: their turns are a tree."""
    max_observation = 2**16

    def __init__(
        self,
        *,
        name: str,
        rules: str,
        tasks: Mapping[str, Any],
        silence: str,
        seats: Mapping[str, str],
        utility_range: tuple[float, float],
        on_illegal: OnIllegal,
    ) -> None:
        self._tasks = tasks_of(name, tasks)
        self._silence = silence
        self._examples = (silence, *(task.answer for task in self._tasks[:SHOWN] if task.answer))
        super().__init__(
            name=name,
            rules=rules,
            answer="Answer with what your role asks for",
            default=f"is heard as '{silence}'",
            seats=seats,
            utility_range=utility_range,
            on_illegal=on_illegal,
        )
        self.metadata["form"] = "columns" if len(seats) > 1 and not self.calls else "list"

    def draw(self, draws: Random) -> tuple[int, Task]:
        """A task, and its place among all."""
        number = draws.randrange(len(self._tasks))
        return number, self._tasks[number]

    def read(self, agent: str, text: str) -> str | None:
        return super().read(agent, text) if self._legal[agent] else self.message(text)

    def message(self, text: str) -> str | None:
        """The text as others are to read it; None: it says nothing."""
        task: Task = self.position.task  # type: ignore[attr-defined]
        if task.check not in LINES:
            return " ".join(text.split()) or None
        return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n") or None

    def examples(self, agent: str) -> tuple[str, ...]:
        return self._examples

    def offer(self, agent: str) -> str:
        return super().offer(agent) if self._legal[agent] else ""

    def _default(self, agent: str) -> str:
        return self._silence


def quoted(name: str, text: str) -> str:
    """What somebody said, as it is shown: further lines are indented, so that none of them begins with a name."""
    return f"{name}: {text}".replace("\n", "\n    ")
