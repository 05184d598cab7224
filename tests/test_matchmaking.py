"""Who plays whom, on which seed."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from marl_llm.config import (
    Config,
    ExploiterConfig,
    GameConfig,
    LeagueConfig,
    MatchmakingConfig,
    PolicyConfig,
    RunConfig,
)
from marl_llm.errors import ConfigError
from marl_llm.league import Duel, League
from marl_llm.matchmaking import duels, one_against, pairs, schedule, seat_policy, seatings, series
from marl_llm.types import Episode, Match, Status

GAME = GameConfig(name="kuhn_poker", settings={"players": 3})
CONFIG = Config(
    game=GAME, matchmaking=MatchmakingConfig(groups=3, group_size=2, seats={"*": "agent"}), run=RunConfig(seed=5)
)


AGENTS = ("player_0", "player_1", "player_2")
POOL = League(snapshots=("agent@0",))


def scheduled(config: Config, step: int) -> list[Match]:
    return schedule(config, step, AGENTS, League())


def test_a_step_has_groups_of_matches_on_one_seed_each() -> None:
    matches = scheduled(CONFIG, 7)
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
    matches = scheduled(replace(CONFIG, matchmaking=making), 7)
    assert {str(match.settings) for match in matches} == {"{'players': 4, 'on_illegal': 'default_action'}"}
    assert CONFIG.game.settings == {"players": 3}


def test_a_resumed_run_plays_the_same_matches_and_no_two_steps_or_runs_share_a_seed() -> None:
    assert scheduled(CONFIG, 7) == scheduled(CONFIG, 7)
    seeds = [
        match.seed
        for run in range(4)
        for step in range(1, 20)
        for match in scheduled(replace(CONFIG, run=RunConfig(seed=run)), step)
        if match.member == 0
    ]
    assert len(set(seeds)) == len(seeds) == 4 * 19 * 3


def test_more_groups_or_members_leave_the_earlier_ones_as_they_are() -> None:
    larger = replace(CONFIG, matchmaking=replace(CONFIG.matchmaking, groups=5, group_size=4))
    assert set(map(repr, scheduled(CONFIG, 1))) < set(map(repr, scheduled(larger, 1)))


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


def test_without_a_league_everybody_sits_as_the_settings_say() -> None:
    assert pairs(CONFIG, 1, League()) == [None] * 3


def test_a_share_of_the_groups_meets_the_pool_and_exploiters_have_groups_of_their_own() -> None:
    exploiters = {"spoiler": ExploiterConfig(share=0.2)}
    config = league(exploiters=exploiters, per_step=5)
    found = pairs(config, 1, POOL)
    assert found[:3] == [None] * 3
    assert {one for one, _ in found[3:8]} == {"agent"}  # type: ignore[misc]
    assert {other for step in range(1, 9) for _, other in pairs(config, step, POOL)[3:8]} == {"random", "agent@0"}  # type: ignore[misc]
    assert found[8:] == [("spoiler", "agent")] * 2
    roaming = league(exploiters={"spoiler": ExploiterConfig(share=0.2, against="league")})
    met = {pair for step in range(1, 9) for pair in pairs(roaming, step, POOL)[8:]}
    assert met == {("spoiler", "random"), ("spoiler", "agent@0")}


@pytest.mark.parametrize("shares", [(0.05, 0.05), (0.25, 0.25), (0.5, 0.5), (0.35, 0.65), (1.0, None), (0.0, None)])
def test_shares_are_rounded_so_that_the_number_of_groups_stays(shares: tuple[float, float | None]) -> None:
    share, other = shares
    exploiters = {} if other is None else {"spoiler": ExploiterConfig(share=other)}
    for groups in (1, 2, 3, 10):
        config = league(share=share, exploiters=exploiters)
        config = replace(config, matchmaking=replace(config.matchmaking, groups=groups))
        assert len(pairs(config, 1, POOL)) == groups


def test_opponents_follow_from_step_and_seed() -> None:
    config = league(share=1.0)
    steps = [pairs(config, step, POOL) for step in range(20)]
    assert steps == [pairs(config, step, POOL) for step in range(20)]
    assert len({tuple(step) for step in steps}) > 1
    other = replace(config, run=RunConfig(seed=1))
    assert steps != [pairs(other, step, POOL) for step in range(20)]


def test_in_the_next_group_or_step_whoever_is_alone_sits_in_the_next_seat() -> None:
    for group, seat in enumerate(("player_0", "player_1", "player_2", "player_0")):
        for step in (0, 2):
            seats = seatings(league(), AGENTS, step, group - step, ("agent", "random"))
            assert seats == (one_against(AGENTS, seat, "agent", "random"),) * 6


def test_with_swapped_seats_everybody_has_every_seat_equally_often_in_a_group() -> None:
    config = league()
    config = replace(config, matchmaking=replace(config.matchmaking, swap_seats=True))
    for group in range(3):
        seats = seatings(config, AGENTS, 0, group, ("agent", "random"))
        alone = [agent for by_agent in seats for agent, name in by_agent.items() if name == "agent"]
        assert len(alone) == 6
        assert all(alone.count(agent) == 2 for agent in AGENTS)
    fixed = {"player_0": "random", "player_*": "agent"}
    config = replace(config, matchmaking=replace(config.matchmaking, seats=fixed))
    seats = seatings(config, AGENTS, 5, 0, None)
    assert [by_agent["player_0"] for by_agent in seats] == ["random", "agent", "agent"] * 2
    assert all(sorted(by_agent.values()) == ["agent", "agent", "random"] for by_agent in seats)


def test_swapping_seats_changes_nothing_where_all_seats_are_alike() -> None:
    making = replace(CONFIG.matchmaking, group_size=3, swap_seats=True)
    plain, swapped = (scheduled(replace(CONFIG, matchmaking=replace(making, swap_seats=x)), 1) for x in (False, True))
    assert [replace(match, seats={}) for match in plain] == [replace(match, seats={}) for match in swapped]
    for one, two in zip(plain, swapped, strict=True):
        assert [seat_policy(one.seats, agent) for agent in AGENTS] == list(two.seats.values())


def test_a_group_has_one_opponent() -> None:
    config = league(share=1.0, per_step=3)
    config = replace(config, matchmaking=replace(config.matchmaking, swap_seats=True))
    for step in range(5):
        opponents: dict[str, set[str]] = {}
        for match in schedule(config, step, AGENTS, POOL):
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
