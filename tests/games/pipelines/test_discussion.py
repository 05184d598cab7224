"""Discussion: who judges whom, what everybody reads, and what the judgements are."""

from collections import Counter
from random import Random
from typing import Any

import pytest

import games
from games.pipelines.discussion import Job, Plan
from marl_llm.credit.rewards import comas
from marl_llm.metrics import facts
from marl_llm.play import play
from marl_llm.policies.scripted import make_scripted
from marl_llm.types import Episode, Match


def plan(**changes: Any) -> Plan:
    settings: dict[str, Any] = {
        "agents": tuple(f"agent_{i}" for i in range(4)),
        "rounds": 2,
        "evaluations": 1,
        "scorers": 1,
        "references": 2,
        "balanced": True,
        "self_scoring": False,
    }
    return Plan(**settings | changes)


def jobs(drawn: tuple[tuple[Job, ...], ...]) -> list[Job]:
    return [job for stage in drawn for job in stage]


@pytest.mark.parametrize("seed", range(20))
def test_everybody_speaks_equally_often_and_judges_nothing_of_its_own(seed: int) -> None:
    drawn = plan().draw(Random(seed))
    listed = jobs(drawn)
    assert all(len({job.agent for job in stage}) == len(stage) for stage in drawn)
    loads = Counter((job.agent, job.kind) for job in listed)
    assert set(loads.values()) == {2}
    for job in listed:
        authors = {listed[turn].agent for turn in job.about}
        assert job.agent not in authors
        if job.kind == "scorer":
            solution, evaluation = job.about
            assert listed[evaluation].about == (solution,)


def test_a_solver_reads_solutions_of_the_round_before() -> None:
    listed = jobs(plan(references=3).draw(Random(0)))
    solvers = [job for job in listed if job.kind == "solver"]
    assert [job.references for job in solvers[:4]] == [()] * 4
    assert len({job.references for job in solvers[4:]}) == 1
    assert len(solvers[4].references) == 3
    assert all(listed[turn].kind == "solver" and turn < 4 for turn in solvers[4].references)


def test_an_agent_with_two_things_to_say_says_them_one_after_the_other() -> None:
    drawn = plan(evaluations=2, agents=("agent_0", "agent_1", "agent_2")).draw(Random(1))
    assert [len(stage) for stage in drawn[:3]] == [3, 3, 3]
    listed = jobs(drawn)
    for turn in range(3):
        judges = [job.agent for job in listed if job.kind == "evaluator" and job.about == (turn,)]
        assert len(judges) == len(set(judges)) == 2


def test_turns_are_numbered_as_play_records_them() -> None:
    match = Match(id="m", game="discussion", seed=5, group="g", seats={"*": "random"})
    (episode,) = play([match], {"random": make_scripted("random", {})})
    roles = [turn.role for turn in episode.turns]
    assert Counter(roles) == {"solver": 8, "evaluator": 8, "scorer": 8}
    for judgement in episode.hidden["judgements"]:
        solution, evaluation, score = (episode.turns[judgement[name]] for name in ("solution", "evaluation", "judge"))
        assert (solution.role, evaluation.role, score.role) == ("solver", "evaluator", "scorer")
        assert f"Solution: {solution.action}" in evaluation.observation
        assert f"Solution: {solution.action}\nEvaluation: {evaluation.action}" in score.observation
        assert str(judgement["score"]) == score.action
    parts = comas(episode)
    assert sorted(parts) == list(range(24))
    for judgement in episode.hidden["judgements"]:
        solved, criticised = parts[judgement["solution"]]["solution"], parts[judgement["evaluation"]]["evaluation"]
        assert solved is not None
        assert criticised is not None
        assert solved + criticised == pytest.approx(1.0)


def test_nobody_reads_the_gold_answer() -> None:
    env = games.make("discussion", tasks={"source": "arithmetic", "level": 3})
    env.reset(seed=2)
    gold = env.hidden["gold"]
    while not any(env.terminations.values()):
        assert gold not in env.observe(env.agent_selection)["text"].split()
        env.step("1")


def test_a_score_that_cannot_be_read_is_no_score() -> None:
    env = games.make("discussion", rounds=1, agents=3)
    env.reset(seed=0)
    gold = env.hidden["gold"]
    for reply in (gold, gold, "x", "e", "e", "e", "3", "four", "1"):
        env.step(reply)
    told = env.hidden
    assert [judgement["score"] for judgement in told["judgements"]] == [3, None, 1]
    assert told["correct"] == pytest.approx(2 / 3)
    assert {name: (fact["sum"], fact["count"]) for name, fact in told.items() if isinstance(fact, dict)} == {
        "score_readable": (2, 3),
        "score_mean": (1, 2),
        "score_full": (1, 2),
        "score_lowest": (1, 2),
        "judge_precision": (0, 1),  # the 3 is about the wrong solution
        "judge_recall": (0, 1),
    }


def test_precision_and_recall_are_over_all_judgements_of_all_games() -> None:
    """Two games of three solutions: right, right, wrong with marks 3, 3, 3, and right, wrong, wrong with 1, 3, 1."""
    match = Match(id="m", game="discussion", seed=0, group="g", seats={})
    played = []
    for answers, marks in (("rrw", "333"), ("rww", "131")):
        env = games.make("discussion", rounds=1, agents=3)
        env.reset(seed=0)
        gold = env.hidden["gold"]
        for reply in (*(gold if answer == "r" else "x" for answer in answers), "e", "e", "e"):
            env.step(reply)
        by_answer = dict(zip(env.possible_agents, marks, strict=True))
        for scorer in env.possible_agents:
            job = next(job for job in env.parallel.position.stages[2] if job.agent == scorer)
            env.step(by_answer[env.possible_agents[job.about[0]]])
        played.append(Episode(match=match, turns=(), returns={}, hidden=env.hidden))
    told = facts(played)
    # Full marks: 3 and 1, of which 2 and 0 are right; right solutions: 2 and 1, of which 2 and 0 got them.
    assert (told["judge_precision"], told["judge_recall"]) == (0.5, pytest.approx(2 / 3))
    assert (told["score_full"], told["score_lowest"], told["score_mean"]) == pytest.approx((4 / 6, 2 / 6, 4 / 6))


@pytest.mark.parametrize("settings", [{"evaluate": False}, {"score": False, "agents": 2}])
def test_without_evaluations_or_scorers_a_solution_is_scored_all_the_same(settings: dict[str, Any]) -> None:
    match = Match(id="m", game="discussion", settings=settings, seed=5, group="g", seats={"*": "random"})
    (episode,) = play([match], {"random": make_scripted("random", {})})
    judged = episode.hidden["judgements"]
    assert sorted(j["solution"] for j in judged) == [i for i, t in enumerate(episode.turns) if t.role == "solver"]
    assert all(j["evaluation"] is None for j in judged)
    assert all(episode.turns[j["judge"]].action in ("1", "2", "3") for j in judged)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"agents": 2}, "agents=2 is not allowed; it must be 3 or more, for nobody to score what is its own"),
        ({"speakers": "loud"}, "speakers='loud' is not allowed; it must be balanced or random"),
        ({"evaluate": False, "score": False}, "score=False is not allowed; it must be true where evaluate is false"),
        ({"self_scoring": 1}, "self_scoring=1 is not allowed; it must be true or false"),
        ({"rounds": 0}, "rounds=0 is not allowed"),
        ({"tasks": "arithmetic"}, "it must be a mapping with a source"),
    ],
)
def test_a_wrong_setting_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="discussion") as caught:
        games.make("discussion", **settings)
    assert message in str(caught.value)


def test_one_agent_may_judge_itself_where_that_is_allowed() -> None:
    env = games.make("discussion", agents=1, self_scoring=True, rounds=1)
    env.reset(seed=0)
    for reply in ("1", "fine", "3"):
        env.step(reply)
    assert len(env.hidden["judgements"]) == 1


def test_whoever_follows_advice_solves_and_judges_rightly() -> None:
    env = games.make("discussion", rounds=1, agents=3)
    env.reset(seed=6)
    told = iter([None, "no idea", None, *[None] * 6])
    while not any(env.terminations.values()):
        agent = env.agent_selection
        env.step(next(told) or env.parallel.advise(env.infos[agent]["state_key"]))
    assert env.hidden["correct"] == pytest.approx(2 / 3)
    assert env.hidden["judge_precision"] == env.hidden["judge_recall"] == {"sum": 2.0, "count": 2}
    assert sorted(judgement["score"] for judgement in env.hidden["judgements"]) == [1, 3, 3]
