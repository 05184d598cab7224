"""Who plays whom, on which seed."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from marl_llm import matchmaking
from marl_llm.config import (
    Config,
    ExploiterConfig,
    LeagueConfig,
    MatchmakingConfig,
    PlayedGame,
    PolicyConfig,
    RunConfig,
)
from marl_llm.errors import ConfigError
from marl_llm.league import Duel, League
from marl_llm.matchmaking import duels, one_against, pairs, quotas, seat_policy, seatings, series
from marl_llm.types import Episode, Match, Status

GAME = PlayedGame(name="kuhn_poker", settings={"players": 3})
PARTS = {"game": 1.0}
CONFIG = Config(
    games={"game": GAME},
    matchmaking=MatchmakingConfig(groups=3, group_size=2, seats={"*": "agent"}),
    run=RunConfig(seed=5),
)


AGENTS = ("player_0", "player_1", "player_2")
EMPTY, POOL = League(), League(snapshots=("agent@0",))


def schedule(config: Config, step: int, parts: Mapping[str, float] = PARTS, league: League = EMPTY) -> list[Match]:
    return matchmaking.schedule(config, step, parts, dict.fromkeys(parts, AGENTS), league)


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


def league(**settings: object) -> Config:
    """Ten groups a step, half of them against the pool."""
    policies = {"agent": PolicyConfig(), "spoiler": PolicyConfig(), "random": PolicyConfig(kind="random")}
    settings = {"share": 0.5, "members": ["random"], **settings}
    making = MatchmakingConfig(groups=10, group_size=6, league=LeagueConfig(**settings))  # type: ignore[arg-type]
    return Config(policies=policies, matchmaking=making)


def drawn(config: Config, step: int) -> list[tuple[str, str] | None]:
    return pairs(config, step, "game", 10, POOL)


def test_without_a_league_everybody_sits_as_the_settings_say() -> None:
    assert pairs(CONFIG, 1, "game", 3, League()) == [None] * 3


def test_a_share_of_the_groups_meets_the_pool_and_exploiters_have_groups_of_their_own() -> None:
    exploiters = {"spoiler": ExploiterConfig(share=0.2)}
    config = league(exploiters=exploiters, per_step=5)
    found = drawn(config, 1)
    assert found[:3] == [None] * 3
    assert {one for one, _ in found[3:8]} == {"agent"}  # type: ignore[misc]
    assert {other for step in range(1, 9) for _, other in drawn(config, step)[3:8]} == {"random", "agent@0"}  # type: ignore[misc]
    assert found[8:] == [("spoiler", "agent")] * 2
    roaming = league(exploiters={"spoiler": ExploiterConfig(share=0.2, against="league")})
    met = {pair for step in range(1, 9) for pair in drawn(roaming, step)[8:]}
    assert met == {("spoiler", "random"), ("spoiler", "agent@0")}


@pytest.mark.parametrize("shares", [(0.05, 0.05), (0.25, 0.25), (0.5, 0.5), (0.35, 0.65), (1.0, None), (0.0, None)])
def test_shares_are_rounded_so_that_the_number_of_groups_stays(shares: tuple[float, float | None]) -> None:
    share, other = shares
    exploiters = {} if other is None else {"spoiler": ExploiterConfig(share=other)}
    for groups in (1, 2, 3, 10):
        config = league(share=share, exploiters=exploiters)
        assert len(pairs(config, 1, "game", groups, POOL)) == groups


def test_a_share_that_leaves_a_rest_is_right_over_many_steps() -> None:
    config = league(share=0.25, members=[], exploiters={"spoiler": ExploiterConfig(share=0.5)})
    found = [pairs(config, step, "game", 1, POOL)[0] for step in range(1000)]
    assert found.count(("agent", "agent@0")) == pytest.approx(250, abs=60)
    assert found.count(("spoiler", "agent")) == pytest.approx(500, abs=60)


def test_all_games_of_a_step_have_the_same_few_opponents_in_their_own_seats() -> None:
    games = {"kuhn": GAME, "board": replace(GAME, seats={"player_0": "random", "*": "agent"})}
    config = replace(league(share=0.5, per_step=1), games=games)
    parts = {"kuhn": 0.5, "board": 0.5}
    for step in range(5):
        matches = schedule(config, step, parts, POOL)
        against = [set(match.seats.values()) for match in matches if "*" not in match.seats]
        assert len({frozenset(names) for names in against}) == 1
        mirror = [match.seats for match in matches if "*" in match.seats]
        assert all(seats in ({"*": "agent"}, {"player_0": "random", "*": "agent"}) for seats in mirror)


def test_opponents_follow_from_step_and_seed() -> None:
    config = league(share=1.0)
    steps = [drawn(config, step) for step in range(20)]
    assert steps == [drawn(config, step) for step in range(20)]
    assert len({tuple(step) for step in steps}) > 1
    other = replace(config, run=RunConfig(seed=1))
    assert steps != [drawn(other, step) for step in range(20)]


def test_in_the_next_group_or_step_whoever_is_alone_sits_in_the_next_seat() -> None:
    for group, seat in enumerate(("player_0", "player_1", "player_2", "player_0")):
        seats = seatings(league(), "game", AGENTS, group, ("agent", "random"), range(6))
        assert seats == (one_against(AGENTS, seat, "agent", "random"),) * 6
    for step in (1, 2):
        for match in schedule(league(share=1.0), step, PARTS, POOL):
            turn = (step + int(match.group.partition("/g")[2])) % 3
            assert match.seats[AGENTS[turn]] == "agent"


def test_with_swapped_seats_everybody_has_every_seat_equally_often_in_a_group() -> None:
    config = league()
    config = replace(config, matchmaking=replace(config.matchmaking, swap_seats=True))
    for group in range(3):
        seats = seatings(config, "game", AGENTS, group, ("agent", "random"), range(6))
        alone = [agent for by_agent in seats for agent, name in by_agent.items() if name == "agent"]
        assert len(alone) == 6
        assert all(alone.count(agent) == 2 for agent in AGENTS)
    fixed = {"player_0": "random", "player_*": "agent"}
    config = replace(config, matchmaking=replace(config.matchmaking, seats=fixed))
    seats = seatings(config, "game", AGENTS, 5, None, range(6))
    assert [by_agent["player_0"] for by_agent in seats] == ["random", "agent", "agent"] * 2
    assert all(sorted(by_agent.values()) == ["agent", "agent", "random"] for by_agent in seats)


def test_swapping_seats_changes_nothing_where_all_seats_are_alike() -> None:
    making = replace(CONFIG.matchmaking, group_size=3, swap_seats=True)
    plain, swapped = (schedule(replace(CONFIG, matchmaking=replace(making, swap_seats=x)), 1) for x in (False, True))
    assert [replace(match, seats={}) for match in plain] == [replace(match, seats={}) for match in swapped]
    for one, two in zip(plain, swapped, strict=True):
        assert [seat_policy(one.seats, agent) for agent in AGENTS] == list(two.seats.values())


def test_a_group_has_one_opponent() -> None:
    config = league(share=1.0, per_step=3)
    config = replace(config, matchmaking=replace(config.matchmaking, swap_seats=True))
    for step in range(5):
        opponents: dict[str, set[str]] = {}
        for match in schedule(config, step, PARTS, POOL):
            opponents.setdefault(match.group, set()).update(set(match.seats.values()) - {"agent"})
        assert all(len(names) == 1 for names in opponents.values())


def played(group: str, seats: dict[str, str], returns: tuple[float, ...], status: Status = "done") -> Episode:
    match = Match(id=f"{group}/{seats}", game="g", seed=0, group=group, seats=seats)
    return Episode(match=match, turns=(), returns=dict(zip(AGENTS, returns)), status=status)


def test_duels_are_the_mean_win_rates_of_groups_without_games_at_fault() -> None:
    first, second = {"player_0": "a", "player_1": "b"}, {"player_0": "b", "player_1": "a"}
    games = [
        played("g0", first, (1.0, -1.0)),
        played("g0", second, (0.0, 0.0)),
        played("g0", second, (9.0, 0.0), "fault"),
        played("g1", second, (1.0, -1.0)),
        played("g2", {"*": "a"}, (1.0, -1.0)),
        played("g3", first, (9.0, 0.0), "fault"),
    ]
    assert duels(games) == [Duel("a", "b", 0.75, 2), Duel("a", "b", 0.0, 1)]


def test_alone_against_several_one_wins_over_the_share_that_got_less() -> None:
    seats = one_against(AGENTS, "player_1", "b", "a")
    assert duels([played("g", seats, (1.0, 0.5, 0.0))]) == [Duel("b", "a", 0.5, 1)]
    assert duels([played("g", {"player_0": "a", "player_1": "b", "player_2": "c"}, (1.0, 0.5, 0.0))]) == []
