"""Workflow: agents work on one task, in the order and with the readers that a small graph in the settings says."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal, get_args

from games.base import Legal, Parts
from games.pipelines import ARITHMETIC
from games.pipelines.graph import Node, layers, read_nodes
from games.pipelines.task_game import TaskGame
from games.settings import OnIllegal, check_choice, check_whole, refused
from games.tasks import Task, check, final_answer
from games.tasks.answers import normalised

NAME = "workflow"
SILENCE = "no answer"
"""What is heard of an agent whose reply could not be read."""
ALONE: Mapping[str, Mapping[str, Any]] = {"solver": {"prompt": "Give your answer.", "answers": True}}
"""One agent, with whom every team can be compared."""
RIGHT, WRONG = "It is right.", "It is wrong."
Decide = Literal["last", "majority"]
Pay = Literal["outcome", "correct", "format"]


def env(
    *,
    tasks: Mapping[str, Any] = ARITHMETIC,
    nodes: Mapping[str, Mapping[str, Any]] = ALONE,
    rounds: int = 1,
    answer: str | None = None,
    decide: Decide = "last",
    pay: Sequence[Pay] = ("outcome",),
    on_illegal: OnIllegal = "default_action",
) -> "Workflow":
    """Agents that work on one task by a graph of roles.

    `tasks`: where tasks come from, as in `{source: arithmetic, level: 2}` (`games.tasks`). `nodes`: role to what it
    does: `prompt`, `count`, `sees`, `recalls`, `rounds`, `choices`, `answers` (`games.pipelines.graph.Node`). `answer`:
    the role whose messages of the last round are the team's answer; by default the last node with `answers`.
    `decide`: its last agent's message, or the answer that most of them give. `pay`: reward parts, for every
    agent: `outcome`, whether the team's answer is right; `correct`, whether its own last answer is; `format`, the share
    of its replies that could be read.

    Raises:
        ValueError: a setting is unknown or out of range, or roles wait for each other in a circle.
    """
    return Workflow(
        name=NAME,
        tasks=tasks,
        nodes=read_nodes(NAME, nodes),
        rounds=rounds,
        answer=answer,
        decide=decide,
        pay=pay,
        on_illegal=on_illegal,
    )


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


class Workflow(TaskGame[Work]):
    """Utility: what the parts of `pay` sum to. Nobody sees the gold answer, or who has it right.

    `hidden` tells the task, the gold answer, the team's answer, whether it is right, and the share of right answers by
    role.
    """

    def __init__(
        self,
        *,
        name: str,
        tasks: Mapping[str, Any],
        nodes: tuple[Node, ...],
        rounds: int,
        answer: str | None,
        decide: Decide,
        pay: Sequence[Pay],
        on_illegal: OnIllegal,
        rules: str = "Workflow. Agents work on one question together, each in its role.",
    ) -> None:
        check_whole(name, rounds=rounds)
        check_choice(name, Decide, decide=decide)
        if isinstance(pay, str) or not set(pay) <= set(get_args(Pay)):
            raise refused(name, "pay", pay, f"a list of some of {', '.join(get_args(Pay))}")
        answering = [node.role for node in nodes if node.answers and node.speaks(rounds - 1, rounds)]
        if (answer is None and not answering) or (answer is not None and answer not in answering):
            allowed = f"one of {', '.join(answering)}" if answering else "a role with answers: true in the last round"
            raise refused(name, "answer", answer, allowed)
        self._nodes = {node.role: node for node in nodes}
        self._answer, self._decide, self._pay = answer or answering[-1], decide, tuple(pay)
        self._stages = [(number, layer) for number in range(rounds) for layer in layers(nodes, number, rounds)]
        self._role = {agent: node.role for node in nodes for agent in node.agents}
        super().__init__(
            name=name,
            rules=rules,
            tasks=tasks,
            silence=SILENCE,
            seats=self._role,
            utility_range=(0.0, float(len(self._pay))),
            on_illegal=on_illegal,
        )

    def deal(self, draws: Random) -> Work:
        number, task = self.draw(draws)
        return Work(task=task, number=number)

    def advise(self, state_key: str) -> str:
        """What somebody who knows the gold answer would say in the seat whose state key it is.

        It answers rightly; of several choices a judge takes the first if the latest answer that it reads is right, else
        the last; any other role says whether that is right.
        """
        _, agent, _, number, heard = json.loads(state_key)
        node, task = self._nodes[self._role[agent]], self._tasks[int(number)]
        if node.answers:
            return task.answer
        answers = [text for speaker, text in heard if self._nodes[self._role[speaker]].answers]
        right = bool(answers) and check(task, answers[-1]) == 1.0
        if node.choices:
            return node.choices[0] if right else node.choices[-1]
        return RIGHT if right else WRONG

    def legal(self, agent: str) -> Legal:
        node = self._speaking(agent)
        if node is None:
            return ()
        return node.choices or None

    def see(self, agent: str) -> str:
        node = self._nodes[self._role[agent]]
        heard = "".join(f"\n{message.agent}: {message.text}" for message in self._heard(node))
        return f"{node.prompt}{' ' if node.prompt else ''}Question: {self.position.task.prompt}{heard}"

    def state_key(self, agent: str) -> str:
        node = self._nodes[self._role[agent]]
        heard = [(message.agent, message.text) for message in self._heard(node)]
        return json.dumps([self.metadata["name"], agent, self.position.stage, self.position.number, heard])

    def after(self, actions: Mapping[str, str]) -> tuple[Work, Parts]:
        number, layer = self._stages[self.position.stage]
        said = tuple(
            Message(agent=agent, role=node.role, round=number, text=actions[agent])
            for node in layer
            for agent in node.agents
        )
        position = replace(self.position, said=self.position.said + said, stage=self.position.stage + 1)
        return position, self._parts(position) if position.stage == len(self._stages) else {}

    def over(self, agent: str) -> bool:
        return self.position.stage == len(self._stages)

    @property
    def hidden(self) -> dict[str, Any]:
        """Task, gold answer and the team's, whether that is right, and the share of right answers by role."""
        position = self.position
        facts: dict[str, Any] = {"task": position.task.id, "gold": position.task.answer}
        if position.stage < len(self._stages):
            return facts
        answer = self.team_answer(position)
        right = {f"correct_{role}": self._share(position, role) for role, node in self._nodes.items() if node.answers}
        return {**facts, "answer": answer, "correct": check(position.task, answer), **right}

    def team_answer(self, position: Work) -> str:
        """What the team answers, once all have spoken."""
        last = max(message.round for message in position.said)
        given = [message.text for message in position.said if message.role == self._answer and message.round == last]
        return given[-1] if self._decide == "last" else majority(given)

    def _speaking(self, agent: str) -> Node | None:
        """The agent's node, if it is to speak now."""
        if self.position.stage == len(self._stages):
            return None
        _, layer = self._stages[self.position.stage]
        node = self._nodes[self._role[agent]]
        return node if node in layer else None

    def _heard(self, node: Node) -> list[Message]:
        """What the role reads now, in the order in which it was said."""
        if self.position.stage == len(self._stages):
            return []
        number, _ = self._stages[self.position.stage]
        return [
            message
            for message in self.position.said
            if (message.round == number and message.role in node.sees)
            or (message.round == number - 1 and message.role in node.recalls)
        ]

    def _parts(self, position: Work) -> Parts:
        outcome = check(position.task, self.team_answer(position))
        return {agent: self._earned(position, agent, outcome) for agent in self.possible_agents}

    def _earned(self, position: Work, agent: str, outcome: float) -> dict[str, float]:
        """The parts that are paid to the agent."""
        own = [message.text for message in position.said if message.agent == agent]
        earned = {
            "outcome": outcome,
            "correct": check(position.task, own[-1]) if own and self._nodes[self._role[agent]].answers else 0.0,
            "format": sum(text != SILENCE for text in own) / max(len(own), 1),
        }
        return {part: earned[part] for part in self._pay}

    def _share(self, position: Work, role: str) -> float:
        """Share of right answers among all messages of the role."""
        given = [check(position.task, message.text) for message in position.said if message.role == role]
        return sum(given) / len(given)


def majority(given: Sequence[str]) -> str:
    """The text whose final answer most have given, in other words or the same; of equals the first."""
    answers = [normalised(final_answer(text)) for text in given]
    return given[answers.index(max(answers, key=answers.count))]
