"""Treasure hunt: what is paid, what ends it, and that the castle is what it is said to be."""

from collections.abc import Iterator
from itertools import product

import pytest

import games
from games.treasure_hunt import MAPS, Hunt


def play(*rooms, treasure="vault", start="gate", **chosen):
    env = games.make("treasure_hunt", **chosen)
    env.reset(seed=0)
    env.parallel.position = Hunt(room=start, treasure=treasure, left=chosen.get("moves", 6))
    env.parallel._legal = {"player_0": env.parallel.legal("player_0")}  # as if it had been dealt
    for room in rooms:
        env.step(room)
    return env


def chance(ways, room, treasure, left):
    """Of random play."""
    if room == treasure:
        return 1.0
    if not left or not ways[room]:
        return 0.0
    return sum(chance(ways, next_, treasure, left - 1) for next_ in ways[room]) / len(ways[room])


def distance(ways, room, treasure):
    return next(d for d, rooms in enumerate(spread(ways, room)) if treasure in rooms)


def spread(ways, room) -> Iterator[set[str]]:
    rooms = {room}
    while True:
        yield rooms
        rooms = {next_ for room in rooms for next_ in ways[room]}


def test_only_the_treasure_pays_and_ends_the_hunt():
    env = play("stable", "garden", "crypt")
    assert env.rewards == {"player_0": 0.0}
    assert env.observe("player_0")["text"] == (
        "You are player_0. Room: crypt. Treasure: vault. Moves left: 3. Legal actions: cellar, garden, vault"
    )
    assert env.infos["player_0"]["state_key"] == "player_0 Room: crypt. Treasure: vault. Moves left: 3."
    env.step("vault")
    assert env.rewards == {"player_0": 1.0}
    assert env.terminations == {"player_0": True}
    assert env.hidden == {"found": True}


@pytest.mark.parametrize(
    ("rooms", "moves"), [(("well",), 6), (("yard", "gate", "yard"), 3), (("stable", "garden", "well"), 9)]
)
def test_a_room_without_a_way_on_and_the_last_move_end_the_hunt_for_nothing(rooms, moves):
    env = play(*rooms, moves=moves)
    assert env.rewards == {"player_0": 0.0}
    assert env.terminations == {"player_0": True}
    assert env.hidden == {"found": False}


def test_different_routes_meet_in_one_state():
    routes = (("stable", "kitchen"), ("yard", "kitchen"))
    assert len({play(*route).infos["player_0"]["state_key"] for route in routes}) == 1


def test_the_treasure_can_always_be_found_with_four_moves_and_seldom_at_random():
    castle = MAPS["castle"]
    deals = list(product(castle.starts, castle.treasures))
    assert [distance(castle.ways, *deal) for deal in deals] == [4, 4, 4, 3, 4, 3]
    assert sum(chance(castle.ways, *deal, 6) for deal in deals) / len(deals) == pytest.approx(0.065, abs=0.001)


@pytest.mark.parametrize("place", MAPS)
def test_all_ways_lead_to_rooms_of_the_map(place):
    known = MAPS[place].ways
    assert {room for rooms in known.values() for room in rooms} <= known.keys()
    assert not any(own in rooms for own, rooms in known.items())


@pytest.mark.parametrize("place", MAPS)
def test_deals_are_drawn_from_the_seed_and_all_come_up(place):
    env = games.make("treasure_hunt", place=place)
    dealt = set()
    for seed in range(100):
        env.reset(seed=seed)
        dealt.add((env.parallel.position.room, env.parallel.position.treasure))
    assert dealt == set(product(MAPS[place].starts, MAPS[place].treasures))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"place": "palace"}, "place='palace' is not allowed; it must be cottage or castle"),
        ({"moves": 0}, "moves=0 is not allowed; it must be a whole number, 1 or more"),
    ],
)
def test_bad_settings_are_refused_in_one_line(chosen, message):
    with pytest.raises(ValueError, match="game treasure_hunt") as caught:
        games.make("treasure_hunt", **chosen)
    assert message in str(caught.value)
