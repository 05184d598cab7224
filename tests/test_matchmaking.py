"""Who plays whom, on which seed."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from marl_llm.config import Config, GameConfig, MatchmakingConfig, RunConfig
from marl_llm.errors import ConfigError
from marl_llm.matchmaking import one_against, schedule, seat_policy, series

GAME = GameConfig(name="kuhn_poker", settings={"players": 3})
CONFIG = Config(
    game=GAME, matchmaking=MatchmakingConfig(groups=3, group_size=2, seats={"*": "agent"}), run=RunConfig(seed=5)
)


def test_a_step_has_groups_of_matches_on_one_seed_each() -> None:
    matches = schedule(CONFIG, 7)
    assert [match.id for match in matches] == [
        "s7/g0/m0",
        "s7/g0/m1",
        "s7/g1/m0",
        "s7/g1/m1",
        "s7/g2/m0",
        "s7/g2/m1",
    ]
    assert [match.group for match in matches] == ["s7/g0"] * 2 + ["s7/g1"] * 2 + ["s7/g2"] * 2
    assert [match.member for match in matches] == [0, 1] * 3
    assert len({(match.group, match.seed) for match in matches}) == len({match.seed for match in matches}) == 3
    assert all(
        (match.game, match.settings, match.seats) == (GAME.name, GAME.settings, {"*": "agent"}) for match in matches
    )


def test_matches_that_are_trained_on_may_have_settings_of_their_own() -> None:
    making = replace(CONFIG.matchmaking, settings={"players": 4, "on_illegal": "default_action"})
    matches = schedule(replace(CONFIG, matchmaking=making), 7)
    assert {str(match.settings) for match in matches} == {"{'players': 4, 'on_illegal': 'default_action'}"}
    assert CONFIG.game.settings == {"players": 3}


def test_a_resumed_run_plays_the_same_matches_and_no_two_steps_or_runs_share_a_seed() -> None:
    assert schedule(CONFIG, 7) == schedule(CONFIG, 7)
    seeds = [
        match.seed
        for run in range(4)
        for step in range(1, 20)
        for match in schedule(replace(CONFIG, run=RunConfig(seed=run)), step)
        if match.member == 0
    ]
    assert len(set(seeds)) == len(seeds) == 4 * 19 * 3


def test_more_groups_or_members_leave_the_earlier_ones_as_they_are() -> None:
    larger = replace(CONFIG, matchmaking=replace(CONFIG.matchmaking, groups=5, group_size=4))
    assert set(map(repr, schedule(CONFIG, 1))) < set(map(repr, schedule(larger, 1)))


def test_a_series_is_of_independent_matches() -> None:
    matches = series(GAME, {"*": "random"}, name="corpus", games=4, seed=1)
    assert [match.id for match in matches] == ["corpus/0", "corpus/1", "corpus/2", "corpus/3"]
    assert len({match.seed for match in matches}) == len({match.group for match in matches}) == 4
    assert all(match.settings == {"players": 3} for match in matches)
    assert matches == series(GAME, {"*": "random"}, name="corpus", games=9, seed=1)[:4]
    for other in (
        series(GAME, {"*": "random"}, name="corpus", games=4, seed=2),
        series(GAME, {"*": "random"}, name="x", games=4, seed=1),
    ):
        assert {match.seed for match in matches}.isdisjoint(match.seed for match in other)


@pytest.mark.parametrize(
    ("agent", "policy"), [("player_1", "first"), ("player_10", "others"), ("player_2", "others"), ("judge", "rest")]
)
def test_the_first_pattern_that_fits_decides(agent: str, policy: str) -> None:
    seats = {"player_1": "first", "player_*": "others", "*": "rest"}
    assert seat_policy(seats, agent) == policy


def test_an_agents_own_name_decides_wherever_it_stands() -> None:
    # An override on the command line comes after what the file says.
    seats = {"*": "agent", "player_0": "random"}
    assert [seat_policy(seats, agent) for agent in ("player_0", "player_1")] == ["random", "agent"]


def test_an_empty_seat_is_refused_with_the_patterns() -> None:
    with pytest.raises(
        ConfigError, match=r"matchmaking.seats: nobody sits at 'Player_0'; patterns are \['player_\*'\]"
    ):
        seat_policy({"player_*": "agent"}, "Player_0")


@pytest.mark.parametrize("seat", ["x", "y", "z"])
def test_one_against_all_others(seat: str) -> None:
    seats = one_against(["x", "y", "z"], seat, "me", "them")
    who: Callable[[str], str] = lambda agent: "me" if agent == seat else "them"  # noqa: E731
    assert seats == {agent: who(agent) for agent in "xyz"}
