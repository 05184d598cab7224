"""How far the work of a workflow has come: what was said, which tools were used, how judges are read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from games.tasks import Task, final_answer
from games.tools.base import Tool, outcome

MARKS = range(-1, 4)
"""What a judge may say of a message: -1 it did harm, 0 nothing, up to 3 it was decisive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kit:
    """How tools work."""

    sandbox: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the sandbox."""
    seconds: float = 60.0
    """After which a tool hangs."""
    characters: int = 400
    """Of its output that are shown."""

    def use(self, tool: Tool, argument: str) -> str:
        """What comes of a call, as the agent is told.

        Raises:
            ToolFault: the tool hangs or is broken.
        """
        return outcome(tool, argument, seconds=self.seconds, characters=self.characters)


PLAIN = Kit()
"""As it comes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """What an agent said."""

    agent: str
    """Who."""
    role: str
    """As what."""
    round: int
    """In which round, from 0."""
    text: str
    """The text."""
    turn: int
    """Number of its turn in the game, from 0."""
    about: tuple[int, ...]
    """Turns of the messages that its agent had read."""

    def marks(self) -> list[dict[str, int | None]]:
        """What a judge says of each message that it has read: as many numbers, or nothing that could be read."""
        found = re.findall(r"(?<![0-9])(?<![0-9]\.)[+-]?[0-9]+(?!\.?[0-9])", final_answer(self.text))
        said = [int(number) for number in found if len(number) < 3]
        readable = len(said) == len(found) == len(self.about) and set(said) <= set(MARKS)
        values = said if readable else [None] * len(self.about)
        return [{"turn": t, "judge": self.turn, "value": value} for t, value in zip(self.about, values, strict=True)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One use of a tool."""

    agent: str
    """Who used it."""
    text: str
    """What it said."""
    result: str
    """What came of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """How far the work on a task has come."""

    task: Task
    """What is asked."""
    number: int
    """Its place among the tasks."""
    said: tuple[Message, ...] = ()
    """All that was said, in order."""
    stage: int = 0
    """Stages done, out of those of the workflow."""
    spoken: tuple[Message, ...] = ()
    """What was said in this stage so far, while others still use tools; nobody reads it yet."""
    calls: tuple[Call, ...] = ()
    """Uses of tools in this stage."""
    turns: int = 0
    """Turns so far."""
    used: int = 0
    """Uses of tools in earlier stages."""
