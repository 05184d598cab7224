"""Deep research: a planner asks sub-agents, which search a corpus, and answers from what they find."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random
from typing import Any, Literal

from games.base import Legal, Parts
from games.pipelines import number_of, tasks_of
from games.pipelines.advice import SILENCE, Steps, look_up, plan, work_alone
from games.settings import OnIllegal, check_choice, check_flag, check_positive, check_whole, refused
from games.tasks import Task, check
from games.tasks.answers import normalised
from games.tasks.corpus import corpus as made_corpus
from games.tasks.survey import questions_of
from games.text_game import TextGame
from games.tools.base import Tool, outcome, parse_call
from games.tools.reader import Reader
from games.tools.search import LONGEST, SNIPPET, Search

NAME = "deep_research"
PLANNER = "planner_0"
MULTIHOP: Mapping[str, Any] = {"source": "multihop", "documents": 200}
SHOWN = 3
"""Tasks whose answers are examples of what may be said."""
Expert = Literal["none", "chain"]


def env(
    *,
    tasks: Mapping[str, Any] = MULTIHOP,
    corpus: str | None = None,
    calls: int = 8,
    planner_turns: int = 6,
    searcher_turns: int = 4,
    results: int = 1,
    snippet: int = SNIPPET,
    output: int = 400,
    memory: int | None = None,
    alone: bool = False,
    expert: Expert = "none",
    tool_seconds: float = 60.0,
    on_illegal: OnIllegal = "default_action",
) -> "DeepResearch":
    """A planner with up to `calls` sub-agents, each of which answers one question of its (M-GRPO, arXiv 2511.13288).

    The planner has `planner_turns`: `ask: QUESTION` opens a call, `ask: ONE | ANOTHER` several that run side by side,
    `answer: TEXT` ends the game. A sub-agent sees its question alone and has `searcher_turns`: `search: QUERY`,
    `read: ID`, and `answer: TEXT`, which the planner gets to read as it is. Without turns left there is no answer.

    `tasks`: as in `workflow`. `corpus`: JSON lines with id, title and text to search; by default the one that the tasks
    are about. `results`: documents a search finds; `snippet`: words of each that it shows, 1 to 64; `output`:
    characters of a tool's output. `memory`: latest tool outputs that whoever has tools still sees of its own, all of
    them by default; with it `note: TEXT` is a turn too, and stays in view. `alone`: the planner searches itself and
    calls nobody. `expert`: how a sub-agent's answer is graded: not at all, or by whether it is one
    of the facts that the question's chain goes by. `tool_seconds`: a tool that takes longer is a fault.

    Raises:
        ValueError: a setting is out of range, or there is no corpus to search.
    """
    check_whole(
        NAME,
        calls=calls,
        planner_turns=planner_turns,
        searcher_turns=searcher_turns,
        results=results,
        snippet=snippet,
        output=output,
        **({} if memory is None else {"memory": memory}),
    )
    if snippet > LONGEST:
        raise refused(NAME, "snippet", snippet, f"a whole number, 1 to {LONGEST}")
    check_flag(NAME, alone=alone)
    check_choice(NAME, Expert, expert=expert)
    check_positive(NAME, tool_seconds=tool_seconds)
    return DeepResearch(
        tasks=tasks,
        corpus=corpus,
        limits=Limits(calls=0 if alone else calls, planner=planner_turns, searcher=searcher_turns, memory=memory),
        results=results,
        snippet=snippet,
        output=output,
        expert=expert,
        tool_seconds=float(tool_seconds),
        on_illegal=on_illegal,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How much may be done."""

    calls: int
    """Sub-agents that may be called; 0: the planner works alone."""
    planner: int
    """Turns of the planner."""
    searcher: int
    """Turns of each sub-agent."""
    memory: int | None
    """Tool outputs that stay in view; None: all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Log:
    """What one agent did."""

    question: str
    """What it works on."""
    steps: tuple[tuple[str, str], ...] = ()
    """Its actions, each with what came of it."""
    answer: str | None = None
    """What it answered; None while it is at work."""
    readable: bool = True
    """Whether all its replies could be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inquiry:
    """How far an inquiry has come."""

    task: Task
    """What is asked."""
    number: int
    """Its place among the tasks."""
    planner: Log
    """What the planner did."""
    calls: tuple[Log, ...] = ()
    """What each sub-agent did that was called, in the order of the calls."""

    @property
    def working(self) -> list[int]:
        """Numbers of the sub-agents at work."""
        return [number for number, log in enumerate(self.calls) if log.answer is None]


class DeepResearch(TextGame[Inquiry]):
    """Utility: of the planner `format` (1 if all its replies could be read) and `correct`; of a sub-agent `format`,
    `main` (whether the planner was right) and `expert`, if it is graded. Whoever could not be read gets nothing.
    The recipe `mgrpo` weighs the parts.

    `hidden` tells the gold answer, the planner's, whether it is right, and how many calls there were, how many of them
    with an answer and, where they are graded, with a fact of the chain.
    """

    max_observation = 2**16

    def __init__(
        self,
        *,
        tasks: Mapping[str, Any],
        corpus: str | None,
        limits: Limits,
        results: int,
        snippet: int,
        output: int,
        expert: Expert,
        tool_seconds: float,
        on_illegal: OnIllegal,
    ) -> None:
        self._tasks = tasks_of(NAME, tasks)
        shown = self._tasks[:SHOWN]
        self._tools = _tools(corpus or _corpus_of(shown[0]), results, snippet)
        self._limits, self._output, self._seconds, self._graded = limits, output, tool_seconds, expert == "chain"
        if self._graded and "chain" not in questions_of(shown[0].metadata)[0]:
            raise refused(NAME, "expert", expert, "none where tasks have no chain of facts")
        self._answers = tuple(f"answer: {task.answer}" for task in shown)
        self._ask = f"ask: {_first(shown[1 % len(shown)].prompt)}"
        searchers = [f"searcher_{number}" for number in range(limits.calls)]
        told = ", ".join(f"'{tool.usage.partition(',')[0]}'" for tool in self._tools)
        if limits.memory is not None:
            told += ", 'note: TEXT'"
        alone = f"Deep research. The planner finds the answer: {told}, and at last 'answer: TEXT'."
        kept = "" if limits.memory is None else f" Tool outputs in view: the latest {limits.memory}. Notes stay."
        team = (
            "Deep research. A planner finds the answer to a question with searchers, who know nothing but what it asks "
            "them. Planner: "
            "'ask: QUESTION', or several with | between them, and at last 'answer: TEXT'. "
            f"Searcher: {told}, and at last 'answer: TEXT'."
        )
        super().__init__(
            name=NAME,
            rules=(team if limits.calls else alone) + kept,
            answer="Answer with one of these",
            default=f"is heard as '{SILENCE}'",
            seats={PLANNER: "planner", **dict.fromkeys(searchers, "searcher")},
            utility_range=(0.0, 3.0 if self._graded else 2.0),
            on_illegal=on_illegal,
        )
        self.metadata["gold"] = True

    def deal(self, draws: Random) -> Inquiry:
        number = draws.randrange(len(self._tasks))
        task = self._tasks[number]
        return Inquiry(task=task, number=number, planner=Log(question=task.prompt))

    def advise(self, state_key: str) -> str:
        """What somebody who knows the world of `multihop` would do in the seat whose state key it is."""
        _, agent, number, question, steps, calls = json.loads(state_key)
        metadata = self._tasks[number].metadata
        world = made_corpus(**metadata["corpus"])
        if agent != PLANNER:
            return look_up(world, question, steps)
        if self._limits.calls:
            return plan(world, questions_of(metadata), calls, self._limits.calls - len(calls))
        return work_alone(world, questions_of(metadata), steps, self._limits.memory)

    def legal(self, agent: str) -> Legal:
        position = self.position
        if position.planner.answer is not None:
            return ()
        if agent == PLANNER:
            return () if position.working else None
        return None if number_of(agent) in position.working else ()

    def read(self, agent: str, text: str) -> str | None:
        kind, colon, rest = (part.strip() for part in text.partition(":"))
        if colon and kind.casefold() == "answer":
            return f"answer: {' '.join(rest.split())}" if rest else None
        if colon and kind.casefold() == "ask" and agent == PLANNER:
            questions = [" ".join(question.split()) for question in rest.split("|")]
            fits = len(self.position.calls) + len(questions) <= self._limits.calls
            return f"ask: {' | '.join(questions)}" if all(questions) and fits else None
        if agent == PLANNER and self._limits.calls:
            return None
        if colon and kind.casefold() == "note" and self._limits.memory is not None:
            return f"note: {' '.join(rest.split())}" if rest else None
        call = parse_call(text, self._tools)
        return f"{call[0].name}: {' '.join(call[1].split())}" if call and call[1].strip() else None

    def examples(self, agent: str) -> tuple[str, ...]:
        if agent == PLANNER and self._limits.calls:
            return (*self._answers, *((self._ask,) if len(self.position.calls) < self._limits.calls else ()))
        log = self._log(agent)
        return (*self._answers, f"search: {_first(log.question) if log else ''}", "read: d0001")

    def offer(self, agent: str) -> str:
        return ""

    def see(self, agent: str) -> str:
        position, log = self.position, self._log(agent)
        if log is None:
            return "Nobody has called."
        limit = self._limits.planner if agent == PLANNER else self._limits.searcher
        told = [f"{action}\n{result}".strip() for action, result in self._seen(log) if not action.startswith("ask: ")]
        if agent == PLANNER:
            told += [f"{call.question} -> {call.answer}" for call in position.calls if call.answer is not None]
        return "\n".join((f"Question: {log.question}", *told, f"Turns left: {limit - len(log.steps)}."))

    def state_key(self, agent: str) -> str:
        position, log = self.position, self._log(agent)
        if log is None:
            return json.dumps([NAME, agent])
        calls = [(call.question, call.answer) for call in position.calls] if agent == PLANNER else []
        return json.dumps([NAME, agent, position.number, log.question, self._seen(log), calls])

    def after(self, actions: Mapping[str, str]) -> tuple[Inquiry, Parts]:
        position = self.position
        if PLANNER in actions and not position.working:
            position = self._plan(position, actions[PLANNER])
        else:
            done = {n: self._work(position.calls[n], actions[f"searcher_{n}"]) for n in position.working}
            calls = tuple(done.get(number, log) for number, log in enumerate(position.calls))
            position = replace(position, calls=calls)
        spent = len(position.planner.steps) == self._limits.planner and not position.working
        if spent and position.planner.answer is None:
            position = replace(position, planner=replace(position.planner, answer=SILENCE))
        return position, {} if position.planner.answer is None else self._parts(position)

    def over(self, agent: str) -> bool:
        return self.position.planner.answer is not None

    @property
    def hidden(self) -> dict[str, Any]:
        position = self.position
        gold = position.task.answer
        facts: dict[str, Any] = {"task": position.task.id, "gold": gold, "gold_action": f"answer: {gold}"}
        if position.planner.answer is None:
            return facts
        calls = position.calls
        told = {"answer": position.planner.answer, "correct": self._correct(position), "calls": len(calls)}
        if calls:
            told["answered"] = sum(log.answer != SILENCE for log in calls) / len(calls)
            if self._graded:
                told["found"] = sum(self._found(position, log) for log in calls) / len(calls)
        return {**facts, **told}

    def _info(self, agent: str, legal: Legal, parts: Parts, *, illegal: bool) -> dict[str, Any]:
        """A sub-agent was called by the planner's latest turn."""
        told = super()._info(agent, legal, parts, illegal=illegal)
        return told if agent == PLANNER else {**told, "caller": PLANNER}

    def _default(self, agent: str) -> str:
        return ""

    def _log(self, agent: str) -> Log | None:
        """What the agent did so far; None: it is a sub-agent that nobody has called."""
        if agent == PLANNER:
            return self.position.planner
        number = number_of(agent)
        return self.position.calls[number] if number < len(self.position.calls) else None

    def _seen(self, log: Log) -> Steps:
        """The agent's actions, with those outputs that are still in view."""
        shown = [number for number, (_, result) in enumerate(log.steps) if result]
        view = shown if self._limits.memory is None else shown[-self._limits.memory :]
        return [(action, result if number in view else "") for number, (action, result) in enumerate(log.steps)]

    def _plan(self, position: Inquiry, action: str) -> Inquiry:
        """After an action of the planner."""
        kind, _, rest = action.partition(": ")
        if kind == "ask":
            opened = tuple(Log(question=question) for question in rest.split(" | "))
            planner = replace(position.planner, steps=(*position.planner.steps, (action, "")))
            return replace(position, planner=planner, calls=position.calls + opened)
        return replace(position, planner=self._step(position.planner, action))

    def _work(self, log: Log, action: str) -> Log:
        """After an action of the sub-agent whose log it is."""
        log = self._step(log, action)
        spent = len(log.steps) == self._limits.searcher
        return replace(log, answer=SILENCE) if spent and log.answer is None else log

    def _step(self, log: Log, action: str) -> Log:
        """After an answer, a call of a tool, a note, or a reply that could not be read, which ends the agent's work."""
        kind, _, rest = action.partition(": ")
        if not action or kind == "answer":
            return replace(log, answer=rest or SILENCE, readable=bool(action))
        if kind == "note":
            return replace(log, steps=(*log.steps, (action, "")))
        call = parse_call(action, self._tools)
        assert call is not None, "`read` lets nothing else pass"
        result = outcome(*call, seconds=self._seconds, characters=self._output)
        return replace(log, steps=(*log.steps, (action, result)))

    def _correct(self, position: Inquiry) -> float:
        return check(position.task, position.planner.answer or "")

    def _found(self, position: Inquiry, log: Log) -> bool:
        """Whether a sub-agent answered with a fact of a question's chain."""
        facts = [name for question in questions_of(position.task.metadata) for name in question["chain"][1:]]
        return normalised(log.answer or "") in [normalised(name) for name in facts]

    def _parts(self, position: Inquiry) -> Parts:
        correct = self._correct(position)
        planner = {"format": 1.0, "correct": correct} if position.planner.readable else {}
        parts = {PLANNER: planner}
        for number, log in enumerate(position.calls):
            graded = {"expert": float(self._found(position, log))} if self._graded else {}
            parts[f"searcher_{number}"] = {"format": 1.0, "main": correct, **graded} if log.readable else {}
        return parts


def _first(question: str) -> str:
    """The first of several questions."""
    return "".join(question.partition("?")[:2])


def _corpus_of(task: Task) -> str:
    """The settings of the corpus that a task is about, as JSON.

    Raises:
        ValueError: it is about none.
    """
    if "corpus" not in task.metadata:
        raise refused(NAME, "corpus", None, "a file of JSON lines, since these tasks are about no corpus of their own")
    return json.dumps(task.metadata["corpus"], sort_keys=True)


@lru_cache(maxsize=8)
def _tools(source: str, results: int, snippet: int) -> tuple[Tool, ...]:
    """Search and reader over a file of JSON lines, or over the corpus that these settings (JSON) make."""
    documents = made_corpus(**json.loads(source)).documents if source.startswith("{") else source
    return Search(documents, results=results, snippet=snippet), Reader(documents)
