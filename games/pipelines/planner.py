"""Planner: one agent asks sub-questions, others answer them side by side, and it answers from what they say."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from games.base import Legal, Parts
from games.pipelines import ARITHMETIC, number_of
from games.pipelines.graph import Node
from games.pipelines.task_game import quoted
from games.pipelines.work import Message, Work
from games.pipelines.workflow import SILENCE, Pay, Workflow
from games.settings import OnIllegal, check_whole

NAME = "planner"
PLANNER = "planner_0"
PLAN = "Split the question into parts that others can answer alone. Say at most {helpers} of them, with | between them."
FINISH = "Read what the helpers say to your questions, which may be wrong, and give the final answer."
HELP = "Answer briefly."

_ITEM = re.compile(r"\s*(?:[-*]|\(?[0-9]+[.):])\s+")
"""What an item of a list begins with."""


def env(
    *,
    tasks: Mapping[str, Any] = ARITHMETIC,
    helpers: int = 3,
    pay: Sequence[Pay] = ("outcome",),
    on_illegal: OnIllegal = "default_action",
) -> "Planner":
    """A planner with up to `helpers`, each of whom gets one sub-question and knows nothing else.

    The planner states its sub-questions with | between them, as items of a list or one a line; those too many are left
    out. The helpers that have one answer side by side; the planner reads the answers and gives its own. If it states
    none (its reply cannot be read), it answers alone. `tasks`, `pay`: as in `workflow`.

    Raises:
        ValueError: a setting is out of range.
    """
    check_whole(NAME, helpers=helpers)
    return Planner(
        name=NAME,
        tasks=tasks,
        nodes=(
            Node(role="planner", recalls=("planner", "helper"), answers=True),
            Node(role="helper", prompt=HELP, count=helpers, sees=("planner",), rounds="first"),
        ),
        rounds=2,
        answer="planner",
        decide="last",
        pay=pay,
        on_illegal=on_illegal,
        rules="Planner and helpers. The planner splits a question, helpers answer its parts, the planner answers.",
    )


class Planner(Workflow):
    """Utility and `hidden`: as in `workflow`, for all who were asked; `hidden` tells how many calls there were."""

    calls = True

    def advise(self, state_key: str) -> str:
        """What somebody who knows the gold answer would say: the planner asks a helper the whole question."""
        _, agent, stage, number, *_ = json.loads(state_key)
        task = self._tasks[int(number)]
        return _one_line(task.prompt) if agent == PLANNER and stage == 0 else task.answer

    def read(self, agent: str, text: str) -> str | None:
        if agent != PLANNER or self.position.stage:
            return super().read(agent, text)
        return " | ".join(sub_questions(text)[: self._count]) or None

    def speakers(self, position: Work) -> tuple[str, ...]:
        who = super().speakers(position)
        return who if PLANNER in who else who[: len(_asked(position))]

    def question(self, agent: str) -> str:
        if agent == PLANNER:
            return super().question(agent)
        asked, number = _asked(self.position), number_of(agent)
        return asked[number] if number < len(asked) else "none yet"

    def heard(self, agent: str) -> list[Message]:
        return super().heard(agent) if agent == PLANNER else []

    def see(self, agent: str) -> str:
        if agent != PLANNER:
            return super().see(agent)
        question = f"Question: {self.question(agent)}"
        if not self.position.stage:
            return f"{PLAN.format(helpers=self._count)} {question}"
        asked = _asked(self.position)
        answers = [message for message in self.heard(agent) if message.role == "helper"]
        told = [quoted(f"{asked[number_of(message.agent)]} {message.agent}", message.text) for message in answers]
        return "\n".join((f"{FINISH} {question}", *told))

    def state_key(self, agent: str) -> str:
        key = super().state_key(agent)
        return key if agent == PLANNER else json.dumps([*json.loads(key), self.question(agent)])

    def is_answer(self, message: Message) -> bool:
        return message.role == "planner" and message.round == 1

    @property
    def hidden(self) -> dict[str, Any]:
        return {**super().hidden, "calls": len(_asked(self.position))}

    @property
    def _count(self) -> int:
        return self._nodes["helper"].count

    def _info(self, agent: str, legal: Legal, parts: Parts, *, illegal: bool) -> dict[str, Any]:
        """A helper was called by the planner's turn."""
        told = super()._info(agent, legal, parts, illegal=illegal)
        return told if agent == PLANNER else {**told, "caller": PLANNER}


def sub_questions(text: str) -> list[str]:
    """The sub-questions of a plan: between marks |, else the items of a list, else its lines."""
    text = re.sub(r"\A\s*ask\s*:", "", text, flags=re.IGNORECASE)
    lines = text.splitlines()
    items = [line for line in lines if _ITEM.match(line)]
    parts = text.split("|") if "|" in text else items or lines
    return [question for part in parts if (question := _one_line(_ITEM.sub("", part, count=1)))]


def _one_line(text: str) -> str:
    return " ".join(text.replace("|", "/").split())


def _asked(position: Work) -> list[str]:
    """What the planner has asked."""
    plan = next((message.text for message in position.said if message.agent == PLANNER), SILENCE)
    return [] if plan == SILENCE else plan.split(" | ")
