"""Workflow: agents work on one task, in the order and with the readers that a small graph in the settings says."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from types import MappingProxyType
from typing import Any, Literal, get_args

from games.base import Legal, Parts
from games.pipelines import ARITHMETIC
from games.pipelines.graph import Node, layers, read_nodes
from games.pipelines.task_game import SHOWN, TaskGame, quoted
from games.pipelines.work import MARKS, PLAIN, Call, Kit, Message, Work
from games.settings import OnIllegal, check_choice, check_positive, check_whole, refused
from games.tasks import Task, check
from games.tasks.answers import alike
from games.tools.base import Tool, parse_call
from games.tools.named import TOOLS, named

NAME = "workflow"
SILENCE = "no answer"
"""What is heard of an agent whose reply could not be read."""
ALONE: Mapping[str, Mapping[str, Any]] = {"solver": {"prompt": "Give your answer.", "answers": True}}
"""One agent, with whom every team can be compared."""
RIGHT, WRONG = "It is right.", "It is wrong."
ATTRIBUTE = "For each message below, in order, give a number from -1 (harm) to 3 (decisive)."
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
    sandbox: Mapping[str, Any] = MappingProxyType({}),
    tool_seconds: float = 60.0,
    output: int = 400,
    on_illegal: OnIllegal = "default_action",
) -> "Workflow":
    """Agents that work on one task by a graph of roles.

    `tasks`: where tasks come from, as in `{source: arithmetic, level: 2}` (`games.tasks`). `nodes`: role to what it
    does: `prompt`, `count`, `sees`, `recalls`, `reach`, `rounds`, `choices`, `answers`, `asks`, `attributes`, `tools`,
    `tool_turns` (`games.pipelines.graph.Node`). `answer`: the role whose messages of the last round are the team's
    answer; by default the last node with `answers`. `decide`: its last agent's message, or the answer that most of them
    give. `pay`: reward parts, for every agent: `outcome`, whether the team's answer is right; `correct`, whether its
    own last answer is; `format`, the share of its messages that could be read.

    Whoever has tools says `calculate: EXPRESSION` or `python: CODE`, reads what comes of it, and in the end says its
    message, which alone the others read. `sandbox`: settings of the one that `python` runs in, as in
    `{isolation: bubblewrap, wall_seconds: 10}`; `output`: characters of a tool's output that are shown;
    `tool_seconds`: a tool that takes longer is a fault.

    Raises:
        ValueError: a setting is unknown or out of range, roles wait for each other in a circle, or a node has the tool
            `python` and nothing isolates programs here.
    """
    check_positive(NAME, tool_seconds=tool_seconds)
    check_whole(NAME, output=output)
    return Workflow(
        name=NAME,
        tasks=tasks,
        nodes=read_nodes(NAME, nodes),
        rounds=rounds,
        answer=answer,
        decide=decide,
        pay=pay,
        on_illegal=on_illegal,
        kit=Kit(sandbox=sandbox, seconds=float(tool_seconds), characters=output),
    )


class Workflow(TaskGame[Work]):
    """Utility: what the parts of `pay` sum to, for all who spoke. Nobody sees the gold answer, or who has it right.

    A game of its own may say when the work is done early (`stops`), which of those who could speak do (`speakers`),
    what each is asked (`question`) and hears (`heard`), and what in a message answers the task (`answer_in`).

    `hidden` tells the task, the gold answer, the team's answer, whether it is right, the share of right answers by
    role, `answers` (the turn of each, and whether it is right), `attributions` (of judges: turn, judge's turn, number,
    which is None where it could not be read), and how many calls of tools there were.
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
        kit: Kit = PLAIN,
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
        self._tools = {node.role: named(node.tools, sandbox=kit.sandbox) for node in nodes}
        self._kit = kit
        super().__init__(
            name=name,
            rules=rules,
            tasks=tasks,
            silence=SILENCE,
            seats=self._role,
            utility_range=(0.0, float(len(self._pay))),
            on_illegal=on_illegal,
        )
        self.metadata["gold"] = True
        if any(node.asks == "paraphrase" for node in nodes):
            for task in self._tasks[:SHOWN]:
                self._paraphrase(task)

    def deal(self, draws: Random) -> Work:
        number, task = self.draw(draws)
        return Work(task=task, number=number)

    def advise(self, state_key: str) -> str:
        """What somebody who knows the gold answer would say in the seat whose state key it is.

        It answers rightly; of several choices a judge takes the first if the latest answer that it reads is right, else
        the last; one that attributes gives right answers 3 and all else 0; any other role says whether the latest
        answer is right. Nobody uses a tool.
        """
        _, agent, _, number, heard, _ = json.loads(state_key)
        node, task = self._nodes[self._role[agent]], self._tasks[int(number)]
        if node.answers:
            return task.answer
        if node.attributes:
            return ", ".join(str(MARKS[-1] if check(task, text) == 1.0 else 0) for _, text in heard)
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

    def read(self, agent: str, text: str) -> str | None:
        return super().read(agent, text) if self._call(agent, text) is None else text.strip()

    def stops(self, message: Message) -> bool:
        """Whether the work is done with this message, so that nobody speaks after its stage."""
        return False

    def speakers(self, position: Work) -> tuple[str, ...]:
        """Who speaks in the position's stage."""
        _, layer = self._stages[position.stage]
        return tuple(agent for node in layer for agent in node.agents)

    def question(self, agent: str) -> str:
        """What the agent is asked."""
        task = self.position.task
        return task.prompt if self._nodes[self._role[agent]].asks == "question" else self._paraphrase(task)

    def answer_in(self, text: str) -> str:
        """The part of a message that answers the task."""
        return text

    def is_answer(self, message: Message) -> bool:
        """Whether a message is an answer to the task."""
        return self._nodes[message.role].answers

    def examples(self, agent: str) -> tuple[str, ...]:
        return (*super().examples(agent), *(TOOLS[tool.name] for tool in self._at_hand(agent)))

    def see(self, agent: str) -> str:
        node = self._nodes[self._role[agent]]
        told = " ".join((node.prompt, *((ATTRIBUTE,) if node.attributes else ()))).strip()
        heard = [quoted(message.agent, message.text) for message in self.heard(agent)]
        called = [f"{call.text}\n{call.result}" for call in self._calls(agent)]
        tools = self._at_hand(agent)
        usage = [f"Tools: {'; '.join(tool.usage for tool in tools)}."] if tools else []
        return "\n".join((f"{told}{' ' if told else ''}Question: {self.question(agent)}", *heard, *usage, *called))

    def state_key(self, agent: str) -> str:
        position = self.position
        heard = [(message.agent, message.text) for message in self.heard(agent)]
        called = [(call.text, call.result) for call in self._calls(agent)]
        return json.dumps([self.metadata["name"], agent, position.stage, position.number, heard, called])

    def after(self, actions: Mapping[str, str]) -> tuple[Work, Parts]:
        position = self.position
        number, _ = self._stages[position.stage]
        calls, spoken = list(position.calls), list(position.spoken)
        for turn, (agent, text) in enumerate(actions.items(), position.turns):
            call = self._call(agent, text)
            if call is not None:
                calls.append(Call(agent=agent, text=text, result=self._kit.use(*call)))
                continue
            role = self._role[agent]
            about = tuple(message.turn for message in self.heard(agent))
            spoken.append(Message(agent=agent, role=role, round=number, text=text, turn=turn, about=about))
        position = replace(position, calls=tuple(calls), spoken=tuple(spoken), turns=position.turns + len(actions))
        order = self.speakers(position)
        if len(spoken) < len(order):
            return position, {}
        said = position.said + tuple(sorted(spoken, key=lambda message: order.index(message.agent)))
        stage = len(self._stages) if any(map(self.stops, spoken)) else position.stage + 1
        position = replace(position, said=said, used=position.used + len(calls), spoken=(), calls=(), stage=stage)
        while position.stage < len(self._stages) and not self.speakers(position):
            position = replace(position, stage=position.stage + 1)
        return position, self._parts(position) if position.stage == len(self._stages) else {}

    def over(self, agent: str) -> bool:
        return self.position.stage == len(self._stages)

    @property
    def hidden(self) -> dict[str, Any]:
        position = self.position
        facts: dict[str, Any] = {"task": position.task.id, "gold": position.task.answer}
        if position.stage < len(self._stages):
            return facts
        answer = self.team_answer(position)
        graded = [(m, check(position.task, self.answer_in(m.text))) for m in position.said if self.is_answer(m)]
        told: dict[str, Any] = {"answers": [{"turn": message.turn, "right": right} for message, right in graded]}
        for role in self._nodes:
            if shares := [right for message, right in graded if message.role == role]:
                told[f"correct_{role}"] = sum(shares) / len(shares)
        if any(node.attributes for node in self._nodes.values()):
            told["attributions"] = [mark for m in position.said if self._nodes[m.role].attributes for mark in m.marks()]
        if any(self._tools.values()):
            told["tool_calls"] = position.used
        return {**facts, "answer": answer, "correct": check(position.task, answer), **told}

    def team_answer(self, position: Work) -> str:
        """What the team answers, once all have spoken."""
        last = max(message.round for message in position.said)
        given = [message.text for message in position.said if message.role == self._answer and message.round == last]
        return self.answer_in(given[-1] if self._decide == "last" else majority(position.task, given))

    def _speaking(self, agent: str) -> Node | None:
        """The agent's node, if it is to speak now."""
        position = self.position
        if position.stage == len(self._stages) or agent in [message.agent for message in position.spoken]:
            return None
        return self._nodes[self._role[agent]] if agent in self.speakers(position) else None

    def _calls(self, agent: str) -> list[Call]:
        """What the agent did with tools in this stage."""
        return [call for call in self.position.calls if call.agent == agent]

    def _at_hand(self, agent: str) -> tuple[Tool, ...]:
        """The tools that the agent may use now."""
        node = self._speaking(agent)
        left = node is not None and len(self._calls(agent)) < node.tool_turns
        return self._tools[self._role[agent]] if left else ()

    def _call(self, agent: str, text: str) -> tuple[Tool, str] | None:
        """The tool and the argument that the text means; None: it is a message."""
        return parse_call(text, self._at_hand(agent))

    def _paraphrase(self, task: Task) -> str:
        text = task.metadata.get("paraphrase")
        if not isinstance(text, str) or not text:
            raise refused(self.metadata["name"], "asks", "paraphrase", f"question: task {task.id} has no paraphrase")
        return text

    def heard(self, agent: str) -> list[Message]:
        """What the agent reads now, in the order in which it was said."""
        if self.position.stage == len(self._stages):
            return []
        node, (number, _) = self._nodes[self._role[agent]], self._stages[self.position.stage]
        since = 0 if node.reach == "all" else number - 1
        return [
            message
            for message in self.position.said
            if (message.round == number and message.role in node.sees)
            or (since <= message.round < number and message.role in node.recalls)
        ]

    def _parts(self, position: Work) -> Parts:
        outcome = check(position.task, self.team_answer(position))
        spoke = {message.agent for message in position.said}
        return {agent: self._earned(position, agent, outcome) for agent in self.possible_agents if agent in spoke}

    def _earned(self, position: Work, agent: str, outcome: float) -> dict[str, float]:
        """The parts that are paid to the agent."""
        own = [message for message in position.said if message.agent == agent]
        answers = [message.text for message in own if self.is_answer(message)]
        earned = {
            "outcome": outcome,
            "correct": check(position.task, self.answer_in(answers[-1])) if answers else 0.0,
            "format": sum(message.text != SILENCE for message in own) / len(own),
        }
        return {part: earned[part] for part in self._pay}


def majority(task: Task, given: Sequence[str]) -> str:
    """The text whose final answer most have given, in other words or the same (`alike`); of equals the first.

    Silence has no vote, unless there is nothing else.
    """
    given = [text for text in given if text != SILENCE] or given
    answers = [alike(task, text) for text in given]
    return given[answers.index(max(answers, key=answers.count))]
