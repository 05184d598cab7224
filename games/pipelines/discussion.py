"""Discussion: agents solve, judge each other's solutions and score the judgements; nobody knows the truth (CoMAS)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any, Literal, get_args

from games.base import Legal, Parts, counted
from games.pipelines import ARITHMETIC, number_of
from games.pipelines.task_game import TaskGame, quoted
from games.pipelines.workflow import RIGHT, WRONG
from games.settings import OnIllegal, check_choice, check_flag, check_whole, refused
from games.tasks import Task, check

NAME = "discussion"
Kind = Literal["solver", "evaluator", "scorer"]
Speakers = Literal["balanced", "random"]
SCORES = ("1", "2", "3")
SILENCE = "none"
"""What is heard of an agent whose reply could not be read; as a score it is no number."""
PROMPTS: dict[Kind, str] = {
    "solver": "Solve the question.",
    "evaluator": "Find what is wrong with the solution.",
    "scorer": "Score the solution in the light of the evaluation: 3 it is right, 2 it has small flaws, 1 it is wrong.",
}


def env(
    *,
    tasks: Mapping[str, Any] = ARITHMETIC,
    agents: int = 4,
    rounds: int = 2,
    evaluations: int = 1,
    scorers: int = 1,
    references: int = 2,
    speakers: Speakers = "balanced",
    self_scoring: bool = False,
    evaluate: bool = True,
    score: bool = True,
    on_illegal: OnIllegal = "default_action",
) -> "Discussion":
    """CoMAS (arXiv 2510.08529): in each round every agent solves, solutions are evaluated, evaluations are scored.

    `tasks`: as in `workflow`. `evaluations`: of each solution. `scorers`: of each evaluation. `references`: solutions
    of the round before, with an evaluation, that everybody reads; the seed draws them. `speakers`: who evaluates and
    scores what: every agent equally often, or anybody each time. `self_scoring`: whether an agent may evaluate or score
    its own solution, or score its own evaluation. `evaluate`, `score`: the ablations without evaluations (the scorer
    sees the solution alone) and without scorers (the evaluator gives a score instead of an evaluation).

    Raises:
        ValueError: a setting is out of range, or there are too few agents for somebody else to do the scoring.
    """
    check_whole(NAME, agents=agents, rounds=rounds, evaluations=evaluations, scorers=scorers)
    check_whole(NAME, least=0, references=references)
    check_choice(NAME, Speakers, speakers=speakers)
    check_flag(NAME, self_scoring=self_scoring, evaluate=evaluate, score=score)
    if not evaluate and not score:
        raise refused(NAME, "score", score, "true where evaluate is false")
    least = 1 if self_scoring else 1 + evaluate + score
    if agents < least:
        raise refused(NAME, "agents", agents, f"{least} or more, for nobody to score what is its own")
    plan = Plan(
        agents=tuple(f"agent_{number}" for number in range(agents)),
        rounds=rounds,
        evaluations=evaluations if evaluate else 0,
        scorers=scorers if score else 0,
        references=references,
        balanced=speakers == "balanced",
        self_scoring=self_scoring,
    )
    return Discussion(plan=plan, tasks=tasks, on_illegal=on_illegal)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One thing to be said: by whom, as what, about what."""

    agent: str
    """Who says it."""
    kind: Kind
    """As what."""
    about: tuple[int, ...]
    """Turns that it is about: of an evaluation its solution, of a score the solution and the evaluation."""
    references: tuple[int, ...]
    """Turns of the round before that a solver reads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How a discussion goes, whatever it is about."""

    agents: tuple[str, ...]
    """Who takes part."""
    rounds: int
    """How often all of it is done."""
    evaluations: int
    """Of each solution."""
    scorers: int
    """Scores of each evaluation, or of each solution where there are no evaluations."""
    references: int
    """Solutions of the round before that a solver reads."""
    balanced: bool
    """Whether everybody speaks equally often."""
    self_scoring: bool
    """Whether one may judge one's own."""

    def draw(self, draws: Random) -> tuple[tuple[Job, ...], ...]:
        """Who says what, stage by stage; the jobs of a stage are of different agents. Turns are numbered in order."""
        stages: list[tuple[Job, ...]] = []
        earlier: list[int] = []
        for _ in range(self.rounds):
            shown = tuple(sorted(draws.sample(earlier, min(self.references, len(earlier)))))
            solved = _enter(stages, [Job(agent=a, kind="solver", about=(), references=shown) for a in self.agents])
            author = {turn: job.agent for turn, job in solved}
            judged: list[tuple[tuple[int, ...], set[str]]] = [((turn,), {job.agent}) for turn, job in solved]
            if self.evaluations:
                said = _enter(stages, self._assign(draws, "evaluator", judged, self.evaluations))
                judged = [((*job.about, turn), {job.agent, author[job.about[0]]}) for turn, job in said]
            if self.scorers:
                _enter(stages, self._assign(draws, "scorer", judged, self.scorers))
            earlier = list(author)
        return tuple(stages)

    def _assign(
        self, draws: Random, kind: Kind, about: Sequence[tuple[tuple[int, ...], set[str]]], times: int
    ) -> list[Job]:
        """`times` jobs about each item, by others than those who own it; balanced, loads differ by one at most."""
        while True:
            load = dict.fromkeys(self.agents, 0)
            jobs: list[Job] = []
            for turns, own in about:
                free = [agent for agent in self.agents if self.self_scoring or agent not in own]
                for number in range(times):
                    asked = [job.agent for job in jobs[len(jobs) - number :]]
                    fresh = [agent for agent in free if agent not in asked] or free
                    least = min(load[agent] for agent in fresh)
                    agent = draws.choice([a for a in fresh if not self.balanced or load[a] == least])
                    load[agent] += 1
                    jobs.append(Job(agent=agent, kind=kind, about=turns, references=()))
            if not self.balanced or max(load.values()) - min(load.values()) <= 1:
                return jobs


def _enter(stages: list[tuple[Job, ...]], jobs: Sequence[Job]) -> list[tuple[int, Job]]:
    """Add jobs as stages in which every agent has one at most; each with the number of its turn."""
    entered = []
    waiting = list(enumerate(jobs))
    while waiting:
        first: dict[str, tuple[int, Job]] = {}
        for number, job in waiting:
            first.setdefault(job.agent, (number, job))
        begin = sum(map(len, stages))
        # In the order of seats, as play records the turns of a round.
        stage = [first[agent] for agent in sorted(first, key=number_of)]
        stages.append(tuple(job for _, job in stage))
        entered += [(begin + place, job) for place, (_, job) in enumerate(stage)]
        taken = {number for number, _ in stage}
        waiting = [item for item in waiting if item[0] not in taken]
    return entered


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """A score, and what it is about."""

    solution: int
    """Turn of the solution."""
    evaluation: int | None
    """Turn of the evaluation; None: the judge read the solution alone."""
    judge: int
    """Turn of the score."""
    score: int | None
    """1 to 3; None: it could not be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Talk:
    """How far a discussion has come."""

    task: Task
    """What is asked."""
    number: int
    """Its place among the tasks."""
    stages: tuple[tuple[Job, ...], ...]
    """Who says what."""
    said: tuple[str, ...] = ()
    """What was said, by turn."""
    stage: int = 0
    """Stages done."""

    @property
    def jobs(self) -> tuple[Job, ...]:
        """All jobs, by turn."""
        return tuple(job for stage in self.stages for job in stage)


class Discussion(TaskGame[Talk]):
    """Utility: 0. What is learned from is what the agents say of each other (`marl_llm.credit.rewards:comas`), or the
    truth (`outcome`), which `hidden` tells for comparison.

    `hidden` holds the gold answer, the share of right solutions, `judgements` (the turns of a solution, of the
    evaluation and of the score, and the score, which is None where it could not be read), and how well the scores fit
    the truth.
    """

    def __init__(self, *, plan: Plan, tasks: Mapping[str, Any], on_illegal: OnIllegal) -> None:
        self._plan = plan
        super().__init__(
            name=NAME,
            rules=(
                "Discussion. Several agents discuss a question: they solve it, look for mistakes in each other's "
                "solutions, and score solutions from 1 (wrong) to 3 (right)."
            ),
            tasks=tasks,
            silence=SILENCE,
            seats=dict.fromkeys(plan.agents, "solver"),
            utility_range=(0.0, 0.0),
            on_illegal=on_illegal,
        )
        self.metadata["roles"] = get_args(Kind)
        self.metadata["gold"] = True

    def deal(self, draws: Random) -> Talk:
        number, task = self.draw(draws)
        return Talk(task=task, number=number, stages=self._plan.draw(draws))

    def advise(self, state_key: str) -> str:
        """What somebody who knows the gold answer would say in the seat whose state key it is."""
        _, _, number, kind, about, _ = json.loads(state_key)
        task = self._tasks[int(number)]
        if kind == "solver":
            return task.answer
        right = check(task, about[0]) == 1.0
        if kind == "scorer":
            return SCORES[-1] if right else SCORES[0]
        return RIGHT if right else WRONG

    def legal(self, agent: str) -> Legal:
        job = self._job(agent)
        if job is None:
            return ()
        return SCORES if self._scores(job) else None

    def see(self, agent: str) -> str:
        job, position = self._job(agent), self.position
        question = f"Question: {position.task.prompt}"
        if job is None:
            return question
        told = PROMPTS[self._asked(job)]
        named = zip(("Solution", "Evaluation"), job.about, strict=False)
        about = [quoted(name, position.said[turn]) for name, turn in named]
        return "\n".join((f"{told} {question}", *self._references(job), *about))

    def state_key(self, agent: str) -> str:
        job, position = self._job(agent), self.position
        if job is None:
            return json.dumps([NAME, agent, position.number])
        about = [position.said[turn] for turn in job.about]
        return json.dumps([NAME, agent, position.number, self._asked(job), about, self._references(job)])

    def after(self, actions: Mapping[str, str]) -> tuple[Talk, Parts]:
        position = self.position
        said = tuple(actions[job.agent] for job in position.stages[position.stage])
        return replace(position, said=position.said + said, stage=position.stage + 1), {}

    def over(self, agent: str) -> bool:
        return self.position.stage == len(self.position.stages)

    @property
    def hidden(self) -> dict[str, Any]:
        position = self.position
        facts: dict[str, Any] = {"task": position.task.id, "gold": position.task.answer}
        if position.stage < len(position.stages):
            return facts
        jobs = position.jobs
        right = {turn: check(position.task, position.said[turn]) for turn, j in enumerate(jobs) if j.kind == "solver"}
        judgements = [self._judgement(turn, job) for turn, job in enumerate(jobs) if self._scores(job)]
        last = list(right.values())[-len(self.possible_agents) :]
        return {
            **facts,
            "judgements": [asdict(judgement) for judgement in judgements],
            "correct": sum(right.values()) / len(right),
            "correct_last": sum(last) / len(last),
            **_audit([(right[judgement.solution], judgement.score) for judgement in judgements]),
        }

    def _info(self, agent: str, legal: Legal, parts: Parts, *, illegal: bool) -> dict[str, Any]:
        """An agent's role is what it does next; afterwards, what it did last."""
        told = super()._info(agent, legal, parts, illegal=illegal)
        job = self._job(agent)
        return told if job is None else {**told, "role": job.kind}

    def _job(self, agent: str) -> Job | None:
        """What the agent is to say now."""
        if self.over(agent):
            return None
        return next((job for job in self.position.stages[self.position.stage] if job.agent == agent), None)

    def _judgement(self, turn: int, job: Job) -> "Judgement":
        said = self.position.said[turn]
        return Judgement(
            solution=job.about[0],
            evaluation=job.about[1] if len(job.about) > 1 else None,
            judge=turn,
            score=int(said) if said in SCORES else None,
        )

    def _asked(self, job: Job) -> Kind:
        """What is asked for: where there are no scorers, evaluators are asked for the score."""
        return "scorer" if job.kind == "evaluator" and not self._plan.scorers else job.kind

    def _scores(self, job: Job) -> bool:
        return self._asked(job) == "scorer"

    def _references(self, job: Job) -> list[str]:
        """What a solver reads of the round before: solutions, each with the first evaluation of it."""
        position, shown = self.position, []
        for turn in job.references:
            shown.append(quoted("Earlier solution", position.said[turn]))
            judging = (number for number, other in enumerate(position.jobs) if other.kind == "evaluator")
            evaluation = next((number for number in judging if position.jobs[number].about[0] == turn), None)
            if evaluation is not None:
                shown.append(quoted("Evaluation of it", position.said[evaluation]))
        return shown


def _audit(judged: Sequence[tuple[float, int | None]]) -> dict[str, dict[str, float]]:
    """How scores fit the truth: shares of readable ones, their mean (0 to 1), of full and of lowest marks, of full
    marks given rightly (precision), and of right solutions that got them (recall)."""
    read = [(right == 1, score) for right, score in judged if score is not None]
    facts: dict[str, list[float]] = {
        "score_readable": [float(score is not None) for _, score in judged],
        "score_mean": [(score - 1) / 2 for _, score in read],
        "score_full": [float(score == 3) for _, score in read],
        "score_lowest": [float(score == 1) for _, score in read],
        "judge_precision": [float(right) for right, score in read if score == 3],
        "judge_recall": [float(score == 3) for right, score in read if right],
    }
    return {name: counted(values) for name, values in facts.items()}
