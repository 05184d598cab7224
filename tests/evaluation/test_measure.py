"""One evaluation: opponents met from both seats, exploitability where it can be had, and its form on disk."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from marl_llm.config import Config, EvaluationConfig, MatchmakingConfig, PlayConfig, PlayedGame, PolicyConfig
from marl_llm.evaluation.best_response import BestResponse
from marl_llm.evaluation.exploitability import Exploitability
from marl_llm.evaluation.measure import Evaluation, GameEvaluation, evaluate, measure_exploitability
from marl_llm.evaluation.positions import Outcome
from marl_llm.evaluation.team_score import TeamScore
from marl_llm.evaluation.tournament import Mean, Score
from marl_llm.models import LanguageModel
from marl_llm.policies.scripted import make_scripted
from tests.tiny import CONTEXT, dictated, saying, seated, untrained

RANDOM = make_scripted("random", {})
SCORE = Score(
    games=3,
    mean=-1 / 3,
    low=-1.0,
    high=0.1 + 0.2,
    win_rate=2 / 3,
    win_low=0.2,
    win_high=0.9,
    not_lost=1.0,
    turns=5,
    illegal_fraction=0.2,
    details={"action/bet": 1 / 3, "fact/deal": 1.0},
)
TEAM = TeamScore(
    games=3,
    returns={"solver": Mean(mean=1 / 3, low=0.0, high=1.0)},
    facts={"correct": Mean(mean=0.5, low=0.4, high=0.6)},
    turns=9,
    illegal_fraction=1 / 9,
    sampled_tokens=12.5,
    prompt_tokens=300.0,
)


def config(*opponents: str, game: str = "kuhn_poker", thinking: bool = False, **evaluation: Any) -> Config:
    return Config(
        games={"game": PlayedGame(name=game)},
        play=PlayConfig(max_reply_tokens=8, context_tokens=CONTEXT, thinking=thinking),
        policies={"agent": PolicyConfig(), "random": PolicyConfig(kind="random")},
        evaluation=EvaluationConfig(**({"games": 20, "opponents": list(opponents), "samples": 12} | evaluation)),
    )


def always(action: str) -> LanguageModel:
    return dictated(saying({action: 1.0}))


@pytest.mark.parametrize(
    "measured",
    [
        None,
        Exploitability(value=0.1 + 0.2, illegal_mass=1e-9, states=12),
        Exploitability(value=0.5, illegal_mass=0.0, states=12, samples=64, low=0.4, high=0.6),
    ],
)
def test_an_evaluation_comes_back_from_json_as_it_was(measured: Exploitability | None) -> None:
    one = GameEvaluation(
        exploitability=measured,
        illegal_fraction=1 / 3,
        opponents={"random": {"player_0": SCORE, "player_1": SCORE}, "start": {}},
        best_response=BestResponse(
            value=0.1,
            low=-0.1,
            high=0.3,
            exact=False,
            simulations=9,
            seats={"player_0": Mean(mean=0.1, low=0.0, high=0.2)},
        ),
        outcomes={"random": {"player_0": Outcome(win=1 / 3, draw=0.0, loss=2 / 3)}},
        team=TEAM,
    )
    other = GameEvaluation(exploitability=None, illegal_fraction=None, opponents={})
    evaluation = Evaluation(policy="agent", games={"one": one, "other": other})
    written = json.dumps(evaluation.to_json(), allow_nan=False)
    assert Evaluation.from_json(json.loads(written)) == evaluation
    assert json.loads(written)["exploitability"] == (measured.value if measured else None)


def test_every_game_is_measured_and_the_first_one_is_what_others_read(tmp_path: Path) -> None:
    games = {"kuhn": PlayedGame(name="kuhn_poker"), "board": PlayedGame(name="tic_tac_toe", share=0, opponents=[])}
    two = replace(config("random"), games=games)
    result = evaluate(two, {"agent": seated(always("bet")), "random": RANDOM}, tmp_path)
    assert list(result.games) == ["kuhn", "board"]
    assert list(result.games["kuhn"].opponents) == ["random"]
    assert (result.games["board"].exploitability, result.games["board"].opponents) == (None, {})
    written = result.to_json()
    assert written["exploitability"] == written["games"]["kuhn"]["exploitability"]
    assert written["opponents"] == written["games"]["kuhn"]["opponents"]
    metrics = result.metrics()
    assert metrics["eval/kuhn/exploitability"] == written["exploitability"]
    assert metrics["eval/kuhn/return/random/player_0"] == written["opponents"]["random"]["player_0"]["mean"]
    alone = replace(result, games={"kuhn": result.first}).metrics()
    assert alone["eval/exploitability"] == written["exploitability"]


def test_the_opponent_start_plays_with_the_weights_of_step_0(tmp_path: Path) -> None:
    always("fold").save(tmp_path / "agent")
    result = evaluate(config("start"), {"agent": seated(always("bet"))}, tmp_path)
    (seats,) = result.first.opponents.values()
    # First to move it bets, and the former self folds; second, the former self has folded without a bet: illegal.
    assert (seats["player_0"].mean, seats["player_0"].win_rate) == (1.0, 1.0)
    assert (seats["player_1"].mean, seats["player_1"].win_rate) == (0.0, 1.0)
    assert (seats["player_0"].turns, seats["player_1"].turns) == (20, 0)
    assert result.first.illegal_fraction == 0.0


def test_illegal_moves_are_counted_over_all_turns_of_the_policy(tmp_path: Path) -> None:
    result = evaluate(
        config("random", exploitability=False), {"agent": seated(always("bet")), "random": RANDOM}, tmp_path
    )
    seats = result.first.opponents["random"]
    # A bet as first move is legal; as answer to a bet, which random play makes half of the time, it is not.
    assert seats["player_0"].illegal_fraction == 0.0
    assert 0.2 < seats["player_1"].illegal_fraction < 0.8
    illegal = seats["player_1"].illegal_fraction * 20
    assert illegal == pytest.approx(round(illegal))
    assert result.first.illegal_fraction == pytest.approx(illegal / 40)
    assert result.first.exploitability is None


def test_actions_and_facts_are_those_of_the_games_that_were_played(tmp_path: Path) -> None:
    dilemma = config("random", game="matrix_game", games=2)
    agent = seated(dictated(saying({"cooperate": 1.0}), "matrix_game"))
    score = evaluate(dilemma, {"agent": agent, "random": RANDOM}, tmp_path).first.opponents["random"]["player_1"]
    assert score.details == {"action/cooperate": 1.0, "action/defect": 0.0}
    divided = config("random", game="negotiation", games=20)
    score = evaluate(divided, {"agent": RANDOM, "random": RANDOM}, tmp_path).first.opponents["random"]["player_0"]
    assert list(score.details) == [f"fact/{name}" for name in ("deal", "joint_share", "joint_value", "max_joint_value")]
    assert 0 < score.details["fact/joint_share"] < score.details["fact/deal"] <= 1


def test_without_games_nobody_is_met(tmp_path: Path) -> None:
    result = evaluate(config("random", "start", games=0), {"agent": seated(always("bet")), "random": RANDOM}, tmp_path)
    assert result.first.opponents == {}
    assert result.first.illegal_fraction is None
    assert result.first.exploitability is not None
    assert result.first.exploitability.samples is None


def test_with_thinking_exploitability_is_an_estimate_with_an_interval(tmp_path: Path) -> None:
    mixed = saying({"check": 0.25, "bet": 0.25, "fold": 0.25, "call": 0.25})
    agent = seated(dictated(mixed, thinking=True), thinking=True, samples=12)
    measured = evaluate(config(thinking=True), {"agent": agent}, tmp_path).first.exploitability
    assert measured is not None
    assert (measured.states, measured.samples) == (12, 12)
    # Half of the replies are legal, and uniform among them: 0.458 is the truth, and an estimate lies above it.
    assert 0.35 < measured.illegal_mass < 0.65
    assert measured.low is not None
    assert measured.high is not None
    assert measured.low < measured.value < measured.high
    assert measured.low < 0.458 + 0.3
    assert measured.high > 0.458


def test_exploitability_is_that_of_whoever_sits_in_the_seats() -> None:
    policies = {"agent": seated(always("bet")), "random": RANDOM}
    both = measure_exploitability(config(), "game", policies)
    mixed = Config(
        policies=config().policies, matchmaking=MatchmakingConfig(seats={"player_0": "random", "*": "agent"})
    )
    one = measure_exploitability(mixed, "game", policies)
    assert both is not None
    assert one is not None
    assert both.illegal_mass == pytest.approx(0.5, abs=1e-4)
    assert one.illegal_mass == pytest.approx(0.25, abs=1e-4)
    assert both.value != one.value


def test_where_exploitability_cannot_be_computed_there_is_none() -> None:
    assert measure_exploitability(config(game="connect_four"), "game", {"agent": seated(always("bet"))}) is None


def test_a_best_response_is_a_lower_bound_where_it_is_searched_for() -> None:
    asked = config("random", games=0, best_response=200)
    result = evaluate(asked, {"agent": seated(always("bet")), "random": RANDOM}, Path("unused")).first
    found, exact = result.best_response, result.exploitability
    assert found is not None
    assert exact is not None
    assert (found.exact, found.simulations, list(found.seats)) == (False, 200, ["player_0", "player_1"])
    assert found.low < exact.value
    assert found.value > exact.value / 2
    assert result.outcomes == {}
    assert result.metrics()["best_response"] == found.value
    assert result.to_json()["best_response"]["seats"].keys() == {"player_0", "player_1"}


def test_a_best_response_and_outcomes_are_exact_where_positions_are_listed() -> None:
    nim = "openspiel:nim(pile_sizes=1;2)"
    asked = config("random", game=nim, games=0, exploitability=False, best_response=1)
    seats = replace(asked.matchmaking, seats={"player_0": "random", "player_1": "agent"})
    result = evaluate(
        replace(asked, matchmaking=seats), {"agent": seated(untrained()), "random": RANDOM}, Path("unused")
    ).first
    assert result.best_response is not None
    assert (result.best_response.exact, result.best_response.simulations) == (True, 0)
    assert result.best_response.low == result.best_response.value == result.best_response.high
    assert result.outcomes.keys() == {"random"}
    for outcome in result.outcomes["random"].values():
        assert outcome.win + outcome.loss == pytest.approx(1)
        assert outcome.draw == 0
    assert "loss/random/player_0" in result.metrics()


def test_without_simulations_or_in_games_of_three_there_is_no_best_response() -> None:
    policies = {"agent": seated(always("bet")), "random": RANDOM}
    assert evaluate(config(games=0), policies, Path("unused")).first.best_response is None
    three = replace(config(games=0, best_response=5), games={"game": PlayedGame(name="public_goods")})
    assert evaluate(three, policies, Path("unused")).first.best_response is None
