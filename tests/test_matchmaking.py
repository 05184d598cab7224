"""Who plays whom, on which seed."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from marl_llm.config import Config, MatchmakingConfig, PlayedGame, PolicyConfig, RunConfig
from marl_llm.errors import ConfigError
from marl_llm.matchmaking import one_against, quotas, schedule, seat_policy, series

GAME = PlayedGame(name="kuhn_poker", settings={"players": 3})
PARTS = {"game": 1.0}
CONFIG = Config(
    games={"game": GAME},
    matchmaking=MatchmakingConfig(groups=3, group_size=2, seats={"*": "agent"}),
    run=RunConfig(seed=5),
)


def test_a_step_has_groups_of_matches_on_one_seed_each() -> None:
    matches = schedule(CONFIG, 7, PARTS)
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
    game = replace(GAME, training={"players": 4, "on_illegal": "default_action"})
    matches = schedule(replace(CONFIG, games={"game": game}), 7, PARTS)
    assert {str(match.settings) for match in matches} == {"{'players': 4, 'on_illegal': 'default_action'}"}
    assert game.settings == {"players": 3}


def test_several_games_get_their_parts_of_the_groups_and_their_own_seats() -> None:
    board = PlayedGame(name="tic_tac_toe", seats={"player_0": "agent", "player_1": "random"}, training={"opening": 2})
    held_out = PlayedGame(name="leduc_poker", share=0)
    policies = {"agent": PolicyConfig(), "random": PolicyConfig(kind="random")}
    games = {"kuhn": GAME, "board": board, "leduc": held_out}
    matches = schedule(replace(CONFIG, games=games, policies=policies), 7, {"kuhn": 1 / 3, "board": 2 / 3})
    assert [match.title for match in matches] == ["kuhn"] * 2 + ["board"] * 4
    assert [match.game for match in matches] == ["kuhn_poker"] * 2 + ["tic_tac_toe"] * 4
    assert matches[0].seats == {"*": "agent"}
    assert (matches[2].seats, matches[2].settings) == (board.seats, {"opening": 2})
    assert len({match.id for match in matches}) == 6
    assert len({match.seed for match in matches}) == 3


def test_a_single_game_goes_by_its_own_name() -> None:
    assert {match.title for match in schedule(CONFIG, 7, PARTS)} == {"kuhn_poker"}


@pytest.mark.parametrize(
    ("parts", "total", "counts"),
    [
        ({"a": 1.0}, 5, [5]),
        ({"a": 0.5, "b": 0.25, "c": 0.25}, 8, [4, 2, 2]),
        ({"a": 0.7, "b": 0.3}, 4, [3, 1]),  # 2.8 and 1.2
        ({"a": 0.96, "b": 0.04}, 4, [4, 0]),
    ],
)
def test_groups_are_dealt_out_by_largest_remainder(parts: dict[str, float], total: int, counts: list[int]) -> None:
    assert list(quotas(parts, total, 1).values()) == counts


def test_games_with_equal_parts_take_turns_with_what_is_left() -> None:
    thirds = {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}
    dealt = [quotas(thirds, 4, step) for step in range(1, 31)]
    assert all(sum(counts.values()) == 4 for counts in dealt)
    assert [sum(counts[name] for counts in dealt) for name in thirds] == [40, 40, 40]


def test_a_resumed_run_plays_the_same_matches_and_no_two_steps_or_runs_share_a_seed() -> None:
    assert schedule(CONFIG, 7, PARTS) == schedule(CONFIG, 7, PARTS)
    seeds = [
        match.seed
        for run in range(4)
        for step in range(1, 20)
        for match in schedule(replace(CONFIG, run=RunConfig(seed=run)), step, PARTS)
        if match.member == 0
    ]
    assert len(set(seeds)) == len(seeds) == 4 * 19 * 3


def test_more_groups_or_members_leave_the_earlier_ones_as_they_are() -> None:
    larger = replace(CONFIG, matchmaking=replace(CONFIG.matchmaking, groups=5, group_size=4))
    assert set(map(repr, schedule(CONFIG, 1, PARTS))) < set(map(repr, schedule(larger, 1, PARTS)))


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
