"""PettingZoo's environments in words, shown on a little one of our own."""

import numpy as np
import pytest

import games
from games.conformance import check
from games.from_pettingzoo import numbers

NAME = "pettingzoo:tests.games.last_chair"


def new(seed=0, **settings):
    env = games.make(NAME, **settings)
    env.reset(seed=seed)
    return env


def with_stock(count, **settings):
    seed = next(seed for seed in range(100) if f"\n{count} 3\n" in new(seed).observe("player_0")["text"])
    return new(seed, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"options": {"players": 2}, "zero_sum": True},
        {"options": {"players": 5, "mask_in_infos": True}, "on_illegal": "default_action"},
        {"describe": "tests.games.last_chair:describe", "name_action": "tests.games.last_chair:name_action"},
    ],
)
def test_an_adapted_environment_keeps_our_promises(settings):
    assert check(lambda: games.make(NAME, **settings), games=10) == []


@pytest.mark.parametrize(
    ("module", "settings"),
    [
        ("tictactoe_v3", {"zero_sum": True}),
        ("connect_four_v3", {"zero_sum": True}),
        ("leduc_holdem_v4", {"utility_range": [-7, 7], "zero_sum": True}),
        ("rps_v2", {"options": {"max_cycles": 3}, "utility_range": [-3, 3], "zero_sum": True}),
    ],
)
def test_pettingzoos_own_games_keep_our_promises(module, settings):
    assert check(lambda: games.make(f"pettingzoo:pettingzoo.classic.{module}", **settings), games=3) == []


def test_numbers_are_the_words_for_what_has_none():
    env = with_stock(4)
    assert env.observe("player_0")["text"] == "You are player_0.\n4 3\nLegal actions: 0, 1"
    assert env.observe("player_1")["text"] == "You are player_1.\n4 3\n"
    assert env.metadata["rules"].startswith("last_chair, a game of PettingZoo. Answer with")


def test_functions_of_the_user_describe_and_name():
    settings = {
        "describe": "tests.games.last_chair:describe",
        "name_action": "tests.games.last_chair:name_action",
        "rules": "Do not take the last one.",
    }
    env = with_stock(4, **settings)
    assert env.observe("player_0")["text"] == (
        "You are player_0.\nThe stock is 4, says player_0.\nLegal actions: Take one, Take two"
    )
    env.step("take TWO")
    env.step("take one")
    assert env.infos["player_2"]["legal_actions"] == ("Take one",)
    assert env.metadata["rules"].startswith("Do not take the last one. Answer with")


def test_the_mask_decides_what_is_legal():
    env = with_stock(1)
    assert env.infos["player_0"]["legal_actions"] == ("0",)
    env.step("1")
    assert env.infos["player_0"]["illegal"] is True
    assert env.rewards == {"player_0": -2.0, "player_1": 0.0, "player_2": 0.0}
    for agent in ("player_0", "player_1", "player_2"):
        assert env.agent_selection == agent
        env.step(None)
    assert env.agents == []


def test_an_agent_may_leave_early_while_the_others_go_on():
    env = with_stock(1)
    env.step("0")
    assert env.infos["player_0"]["reward_parts"] == {"outcome": -1.0}
    assert env.last()[1:3] == (-1.0, True)
    env.step(None)
    assert env.agents == ["player_1", "player_2"]
    assert env.rewards == {"player_1": 0.0, "player_2": 0.0}
    assert env.infos[env.agent_selection]["legal_actions"]
    while not env.terminations[env.agent_selection]:
        env.step("0")
    assert sorted(env.rewards.values()) == [-1.0, 1.0]


def test_arrays_become_tables():
    assert numbers(np.array(3)) == "3"
    assert numbers(np.array([0.5, 1 / 3, 2])) == "0.5 0.333333 2"
    assert numbers(np.eye(2, dtype=bool)) == "1 0\n0 1"
    planes = np.zeros((2, 2, 3), np.int8)
    planes[0, 1, 2] = 7
    assert numbers(planes) == "table 2:\n0 7\n0 0"
    assert numbers(planes * 0) == "zeros"
    assert numbers({"observation": np.array([1]), "action_mask": np.array([1])}) == "1"
    assert numbers({"cards": np.array([1, 2]), "note": "hello"}) == "cards: 1 2\nnote: hello"


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("tests.games.last_chairs", {}, "tests.games has no module 'last_chairs'; nearest valid name: tests.games."),
        ("no_such.module", {}, "cannot import 'no_such.module': ModuleNotFoundError"),
        ("tests.games.test_wrappers", {}, "has no function 'env'"),
        ("tests.games.last_chair", {"utility_range": [1, -1]}, "utility_range=[1, -1] is not allowed"),
        ("tests.games.last_chair", {"options": {"continuous": True}}, "only Discrete ones can be named"),
        ("tests.games.last_chair", {"describe": "describe"}, "describe='describe' is not allowed"),
        ("tests.games.last_chair", {"describe": "json:no"}, "module 'json' has no function 'no'"),
        ("tests.games.last_chair", {"on_illegal": "ignore"}, "on_illegal='ignore' is not allowed"),
        ("tests.games.last_chair", {"optoins": {}}, "unexpected keyword argument 'optoins'; its settings: options"),
    ],
)
def test_what_cannot_be_adapted_is_refused_in_one_line(name, settings, message):
    with pytest.raises(ValueError, match="pettingzoo:") as caught:
        games.make(f"pettingzoo:{name}", **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_actions_of_one_name_are_refused():
    with pytest.raises(ValueError, match="name_action calls action 1 of player_0 'take'"):
        with_stock(4, name_action="tests.games.last_chair:same_name")
