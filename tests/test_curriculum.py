"""Which games are played how much, worked out by hand."""

from dataclasses import replace

import pytest

from marl_llm.config import Config, CurriculumConfig, MatchmakingConfig, PlayedGame
from marl_llm.curriculum import after, parts

GAMES = {
    "slow": PlayedGame(name="kuhn_poker"),
    "quick": PlayedGame(name="tic_tac_toe", share=3),
    "held out": PlayedGame(name="leduc_poker", share=0),
}
FIXED = Config(games=GAMES)
LED = replace(FIXED, matchmaking=MatchmakingConfig(curriculum=CurriculumConfig(floor=0.2, fast=0.5, slow=0.25)))
WIDTHS = {"slow": 4.0, "quick": 2.0}


def test_without_a_curriculum_games_are_played_by_their_shares() -> None:
    moved = {"slow/x": (1.0, 0.0)}
    assert parts(FIXED, moved) == {"slow": 0.25, "quick": 0.75}
    assert after(FIXED, {}, {"slow/x": 1.0}, {}) == {}


def test_while_nothing_is_learned_games_are_played_by_their_shares() -> None:
    assert parts(LED, {}) == {"slow": 0.25, "quick": 0.75}
    assert parts(LED, {"slow/x": (0.5, 0.5)}) == {"slow": 0.25, "quick": 0.75}


def test_a_game_whose_returns_move_gets_more_of_the_groups() -> None:
    averages = after(LED, {}, {"slow/x": 2.0, "slow/o": -2.0, "quick/x": 1.0}, WIDTHS)
    assert averages == {"slow/x": (0.5, 0.5), "slow/o": (-0.5, -0.5), "quick/x": (0.5, 0.5)}
    # The quick average goes half of the way to the new value, the slow one a quarter of it.
    averages = after(LED, averages, {"slow/x": 4.0, "slow/o": -4.0, "quick/x": 1.0}, WIDTHS)
    assert averages == {"slow/x": (0.75, 0.625), "slow/o": (-0.75, -0.625), "quick/x": (0.5, 0.5)}
    # Nothing moves in the quick game: it keeps its share of the floor, 0.2 * 0.75.
    assert parts(LED, averages) == {"slow": pytest.approx(0.85), "quick": pytest.approx(0.15)}
    # Progress counts as often as the share says: 0.125 in one, 3 times 0.125 in the other.
    averages |= {"quick/x": (0.75, 0.625)}
    assert parts(LED, averages) == {"slow": pytest.approx(0.25), "quick": pytest.approx(0.75)}


def test_a_role_that_did_not_play_keeps_its_averages() -> None:
    averages = {"slow/x": (0.75, 0.5)}
    assert after(LED, averages, {}, WIDTHS) == averages


def test_a_single_game_needs_no_averages() -> None:
    alone = replace(LED, games={"slow": GAMES["slow"]})
    assert after(alone, {}, {"player_0": 1.0}, WIDTHS) == {}
    assert parts(alone, {}) == {"slow": 1.0}
