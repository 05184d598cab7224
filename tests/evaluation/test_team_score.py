"""A team, everybody in the seat that the experiment gives: returns by role, facts and tokens."""

from typing import Any

import pytest

from games.base import counted
from marl_llm.config import GameConfig
from marl_llm.evaluation.team_score import score_of, team_score
from marl_llm.evaluation.tournament import Mean
from marl_llm.policies.scripted import make_scripted
from marl_llm.types import Completion, Episode, Match, Turn

SUMS = GameConfig(name="discussion", settings={"tasks": {"source": "arithmetic"}, "agents": 3, "rounds": 1})


def turn(agent: str, role: str, *, tokens: int, legal: bool = True) -> Turn:
    completion = Completion(tokens=(7,) * tokens, logprobs=(0.0,) * tokens, stop="eos", versions=(0,) * tokens)
    return Turn(
        agent=agent,
        role=role,
        policy="p",
        observation="",
        prompt=(1, 2),
        completion=completion,
        reply="",
        action="",
        legal=legal,
    )


def episode(name: str, returns: dict[str, float], *turns: Turn, **hidden: Any) -> Episode:
    match = Match(id=name, game="g", seed=0, group=name, seats={"*": "p"})
    return Episode(match=match, turns=turns, returns=returns, hidden=hidden)


def test_returns_are_told_by_role_and_tokens_by_game() -> None:
    one = episode("1", {"a_0": 1.0}, turn("a_0", "planner", tokens=3), turn("a_0", "planner", tokens=2), correct=1.0)
    two = episode("2", {"a_0": 0.0}, turn("a_0", "planner", tokens=1, legal=False), correct=0.0)
    score = score_of([one, two])
    assert (score.games, score.turns, score.illegal_fraction) == (2, 3, 1 / 3)
    assert (score.sampled_tokens, score.prompt_tokens) == (3.0, 3.0)
    assert score.returns["planner"].mean == score.facts["correct"].mean == 0.5
    assert score.facts["correct"].high == 0.5 + 1.959964 * (0.5 / 2) ** 0.5


def test_agents_that_share_an_outcome_are_no_more_evidence_than_the_game_is() -> None:
    solvers = [turn(f"a_{number}", "solver", tokens=1) for number in range(4)]
    games = [episode(str(i), {f"a_{n}": float(i) for n in range(4)}, *solvers, correct=float(i)) for i in range(2)]
    score = score_of(games)
    assert score.returns["solver"] == score.facts["correct"]


def test_the_informed_are_always_right_and_the_same_seed_asks_the_same() -> None:
    knowing = {"all": make_scripted("informed", {"accuracy": 1.0})}
    scores = [team_score(SUMS, knowing, {"*": "all"}, num_games=5, seed=3) for _ in range(2)]
    assert scores[0] == scores[1]
    assert scores[0].facts["correct"] == Mean(mean=1.0, low=1.0, high=1.0)


def test_of_what_games_count_all_weighs_alike_and_the_interval_is_over_games() -> None:
    """3 of 3 and 0 of 1 are 3/4; by linearisation the games lie 3/8 above and below, and so does one standard error."""
    told = [counted([1.0, 1.0, 1.0]), counted([0.0])]
    score = score_of([episode(str(i), {"a_0": 0.0}, precision=fact) for i, fact in enumerate(told)])
    precision = score.facts["precision"]
    assert precision.mean == 0.75
    assert (precision.low, precision.high) == pytest.approx((0.75 - 1.959964 * 0.375, 0.75 + 1.959964 * 0.375))


def test_how_judges_fare_is_told_of_the_team() -> None:
    knowing = {"all": make_scripted("informed", {"accuracy": 0.6})}
    facts = team_score(SUMS, knowing, {"*": "all"}, num_games=20, seed=0).facts
    assert facts.keys() >= {"score_mean", "score_full", "score_lowest", "score_readable"}
    for name in ("judge_precision", "judge_recall"):
        assert 0 < facts[name].low < facts[name].mean < facts[name].high
