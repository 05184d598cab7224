"""Pipelines by name, and who sits where in them."""

from dataclasses import replace

import pytest

from marl_llm.config import Config, GameConfig, MatchmakingConfig, PlayedGame, PolicyConfig
from marl_llm.errors import ConfigError
from marl_llm.evaluation.protocols import PROTOCOLS, asking, protocol, seats_for, with_tasks
from marl_llm.play import agents_of, make_game

SEATS = {"generator_*": "writer", "verifier_*": "critic", "*": "writer"}
TEAM = Config(
    games={
        "talk": PlayedGame(
            name="generate_verify_refine", seats={"generator_*": "writer", "verifier_*": "critic", "*": "writer"}
        )
    },
    policies={"writer": PolicyConfig(), "critic": PolicyConfig()},
    matchmaking=MatchmakingConfig(seats={"*": "writer"}),
)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_asks_any_question_and_tells_its_answer(name: str) -> None:
    game = asking(protocol(name), "What is left?")
    env = make_game(game.name, game.settings)
    env.reset(seed=1)
    assert "What is left?" in env.last()[0]["text"]
    while env.agents:
        _, _, over, _, _ = env.last()
        env.step(None if over else "nothing")
    assert env.unwrapped.hidden["answer"] == "nothing"


def test_a_protocol_that_is_unknown_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="protocol 'debat' is unknown; nearest valid name: debate; allowed: single"):
        protocol("debat")


def test_tasks_are_put_into_the_settings_beside_the_others() -> None:
    game = with_tasks(GameConfig(name="debate", settings={"debaters": 2}), {"source": "arithmetic", "item": 3})
    assert agents_of(game) == ["debater_0", "debater_1"]
    assert game.settings["tasks"] == {"source": "arithmetic", "item": 3}


def test_a_game_without_tasks_is_no_protocol() -> None:
    with pytest.raises(ConfigError, match="tasks"):
        with_tasks(GameConfig(name="kuhn_poker"), {"source": "arithmetic"})


def test_who_has_a_seat_in_the_runs_own_game_of_that_kind_keeps_it() -> None:
    assert seats_for(TEAM, protocol("generate_verify_refine")) == SEATS
    assert seats_for(TEAM, protocol("debate")) == {"*": "writer"}
    part = replace(TEAM, games={"talk": PlayedGame(name="generate_verify_refine", seats={"verifier_*": "critic"})})
    assert seats_for(part, protocol("generate_verify_refine")) == {"verifier_*": "critic", "*": "critic"}
