"""Proposer and solvers: one agent writes questions with answers, others solve them (dual play, PasoDoble)."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from random import Random
from typing import Any

from games.base import Legal, Parts
from games.pipelines import ARITHMETIC
from games.pipelines.task_game import SHOWN, TaskGame
from games.settings import OnIllegal, check_flag, check_whole, refused
from games.tasks import Task, check
from games.tasks.answers import normalised, read_number
from games.tools.base import ToolError
from games.tools.calculator import value

NAME = "proposer_solver"
PROPOSER = "proposer_0"
SILENCE = "nothing"
"""What is heard of an agent whose reply could not be read."""
TOO_HARD = 0.2
"""Pass rate up to which a question is worth nothing."""
WORTH = 1.1
"""What a question is worth, less its pass rate."""
PROPOSE = (
    "Write a new question like the one below, and its answer, in this form: question: TEXT answer: TEXT. "
    "The answer must not stand in the question."
)


def env(
    *,
    tasks: Mapping[str, Any] = ARITHMETIC,
    solvers: int = 4,
    verify: bool = True,
    on_illegal: OnIllegal = "default_action",
) -> "ProposerSolver":
    """A proposer and `solvers` that answer its question side by side, each by itself (PasoDoble, arXiv 2511.11881).

    The proposer is shown a question of `tasks` (as in `workflow`) as a seed, and says `question: TEXT answer: TEXT`.
    Its question is put to the solvers unless it has no question or answer, the answer stands in the question or the
    question in the answer, the question has a boxed answer in it, or is the seed's own; then the game is over.
    `verify`: questions must be of the form that `arithmetic` has, `What is EXPRESSION?`, and solvers are held against
    its value, not against the proposer's answer; a wrong one earns nothing. Without it the proposer's word counts.

    Raises:
        ValueError: a setting is out of range, or `verify` with tasks of another form.
    """
    check_whole(NAME, solvers=solvers)
    check_flag(NAME, verify=verify)
    return ProposerSolver(tasks=tasks, solvers=solvers, verify=verify, on_illegal=on_illegal)


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """A question and what is wrong with it."""

    question: str
    """What is asked."""
    answer: str
    """What the proposer says is right."""
    reference: str
    """What solvers are held against."""
    problem: str
    """Why it cannot be asked; empty: it can."""
    wrong: bool
    """Whether the proposer's answer is known to be wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Play:
    """How far it has come."""

    task: Task
    """The seed."""
    number: int
    """Its place among the tasks."""
    proposal: Proposal | None = None
    """What was proposed; None: nothing yet."""
    right: tuple[float, ...] | None = None
    """Of each solver, whether it is right; None: they have not answered."""


class ProposerSolver(TaskGame[Play]):
    """Utility: of a solver `correct`, whether it is right; of the proposer `challenge`: 1.1 minus the solvers' pass
    rate, and 0 where that is 0.2 or less, its own answer is wrong or its question cannot be asked. What a question is
    worth beside others, its diversity, is said by the recipe `pasodoble`, which sees all of a step's.

    `hidden` tells the seed, the question, its reference answer, whether it could be asked (`valid`) and else why not
    (`problem`), whether the proposer's own answer was wrong, and the pass rate.
    """

    calls = True

    def __init__(self, *, tasks: Mapping[str, Any], solvers: int, verify: bool, on_illegal: OnIllegal) -> None:
        self._verify = verify
        self._solvers = tuple(f"solver_{number}" for number in range(solvers))
        super().__init__(
            name=NAME,
            rules=(
                "Proposer and solvers. The proposer writes a question with its answer, the solvers answer it. A good "
                "question is new and solved by some, not by all."
            ),
            tasks=tasks,
            silence=SILENCE,
            seats={PROPOSER: "proposer", **dict.fromkeys(self._solvers, "solver")},
            utility_range=(0.0, 1.0),
            on_illegal=on_illegal,
        )
        self.metadata["reward_parts"] = ["challenge", "correct"]
        if verify and exact_value(self._tasks[0].prompt) is None:
            raise refused(NAME, "verify", verify, "false where questions are not of the form What is EXPRESSION?")
        self._proposals = tuple(_stated(task) for task in self._tasks[:SHOWN])

    def deal(self, draws: Random) -> Play:
        number, task = self.draw(draws)
        return Play(task=task, number=number)

    def advise(self, state_key: str) -> str:
        """What somebody who knows the tasks would say in the seat whose state key it is: the next of them that is not
        the seed, or the right answer."""
        _, agent, told = json.loads(state_key)
        if agent != PROPOSER:
            exact = exact_value(told)
            return str(exact) if exact is not None else self._gold.get(told, SILENCE)
        seed = self._tasks[told]
        following = (self._tasks[(told + step) % len(self._tasks)] for step in range(1, len(self._tasks)))
        usable = (task for task in following if not self._judged(_stated(task), seed).problem)
        return _stated(next(usable, seed))

    def legal(self, agent: str) -> Legal:
        position = self.position
        waiting = position.proposal is None if agent == PROPOSER else position.proposal is not None
        return None if waiting and not self.over(agent) else ()

    def examples(self, agent: str) -> tuple[str, ...]:
        return (self._silence, *self._proposals) if agent == PROPOSER else super().examples(agent)

    def see(self, agent: str) -> str:
        position = self.position
        if agent == PROPOSER:
            return f"{PROPOSE}\nLike this: {position.task.prompt}"
        return f"Question: {position.proposal.question}" if position.proposal else "Nothing is asked yet."

    def state_key(self, agent: str) -> str:
        position = self.position
        asked = position.proposal.question if position.proposal else None
        return json.dumps([NAME, agent, position.number if agent == PROPOSER else asked])

    def after(self, actions: Mapping[str, str]) -> tuple[Play, Parts]:
        position = self.position
        if position.proposal is None:
            return replace(position, proposal=self._judged(actions[PROPOSER], position.task)), {}
        asked = _asked(position.proposal)
        right = tuple(check(asked, actions[agent]) for agent in self._solvers)
        solved = {agent: {"correct": share} for agent, share in zip(self._solvers, right, strict=True)}
        return replace(position, right=right), {**solved, PROPOSER: {"challenge": _worth(position.proposal, right)}}

    def over(self, agent: str) -> bool:
        position = self.position
        return position.right is not None or bool(position.proposal and position.proposal.problem)

    @property
    def hidden(self) -> dict[str, Any]:
        position, proposal = self.position, self.position.proposal
        facts: dict[str, Any] = {"task": position.task.id}
        if proposal is None:
            return facts
        told = {"question": proposal.question, "gold": proposal.reference, "valid": not proposal.problem}
        facts |= {**told, "problem": proposal.problem, "wrong": proposal.wrong}
        if position.right is not None:
            return {**facts, "pass_rate": _pass_rate(position.right)}
        return {**facts, "pass_rate": 0.0} if proposal.problem else facts

    @cached_property
    def _gold(self) -> dict[str, str]:
        """Answers by prompt, for advice."""
        return {task.prompt: task.answer for task in self._tasks}

    def _info(self, agent: str, legal: Legal, parts: Parts, *, illegal: bool) -> dict[str, Any]:
        """A solver was called by the proposer's turn."""
        told = super()._info(agent, legal, parts, illegal=illegal)
        return told if agent == PROPOSER else {**told, "caller": PROPOSER}

    def _judged(self, text: str, seed: Task) -> Proposal:
        """A proposal, and whether it can be asked."""
        question, answer = read_proposal(text)
        problem = _leak(question, answer) or ("repeats the seed" if _same(question, seed.prompt) else "")
        exact = exact_value(question) if self._verify else None
        if self._verify and exact is None:
            problem = problem or "cannot be verified"
        wrong = exact is not None and read_number(answer) != exact
        reference = answer if exact is None else str(exact)
        return Proposal(question=question, answer=answer, reference=reference, problem=problem, wrong=wrong)


def read_proposal(text: str) -> tuple[str, str]:
    """Question and answer of a text `question: ... answer: ...`, both empty if it is none."""
    found = re.fullmatch(r".*?\bquestion\s*:(.*?)\banswer\s*:(.*)", text, flags=re.IGNORECASE | re.DOTALL)
    return (found[1].strip(), found[2].strip()) if found else ("", "")


def exact_value(question: str) -> Fraction | None:
    """The value that a question `What is EXPRESSION?` asks for; None: it is another, or has no exact value."""
    found = re.fullmatch(r"\s*what\s+is\s+(.+?)\s*\?\s*", question, flags=re.IGNORECASE)
    try:
        exact = value(found[1]) if found else None
    except ToolError:
        return None
    return exact if isinstance(exact, Fraction) else None


def _stated(task: Task) -> str:
    return f"question: {task.prompt} answer: {task.answer}"


def _leak(question: str, answer: str) -> str:
    """What gives the answer away, or is missing; whole words count, so that 7 does not stand in 17."""
    asked, said = (f" {normalised(text)} " for text in (question, answer))
    if not asked.strip() or not said.strip():
        return "question or answer is missing"
    if "\\boxed" in question:
        return "boxed answer in the question"
    return "leaks" if said in asked or asked in said else ""


def _same(one: str, other: str) -> bool:
    """Whether two questions differ in blank space and case alone; `3 - 1` and `3 + 1` are two."""
    return one.casefold().split() == other.casefold().split()


def _asked(proposal: Proposal) -> Task:
    """The question as a task, to check answers by."""
    kind = "exact" if read_number(proposal.reference) is None else "number"
    return Task(id=NAME, prompt=proposal.question, answer=proposal.reference, check=kind)


def _pass_rate(right: tuple[float, ...]) -> float:
    return sum(right) / len(right)


def _worth(proposal: Proposal, right: tuple[float, ...]) -> float:
    """What the proposal is worth to its proposer, diversity apart; rounded, so that 1.1 - 1 is 0.1."""
    rate = _pass_rate(right)
    return 0.0 if proposal.wrong or rate <= TOO_HARD else round(WORTH - rate, 9)
