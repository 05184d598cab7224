"""Hanabi: what each seat sees, what cards and bombs pay, and that the deck follows from the seed."""

import random

import pytest

import games

SIZES = ("mini_hanabi", "simple_hanabi", "hanabi")


def new(name="mini_hanabi", seed=1, **settings):
    env = games.make(name, **settings)
    env.reset(seed=seed)
    return env


def finish(env, chooser, only=""):
    """Play at random, with actions of that beginning, to the end; the parts that each step paid player_0."""
    paid = []
    while not env.terminations[env.agent_selection]:
        legal = env.infos[env.agent_selection]["legal_actions"]
        env.step(chooser.choice([action for action in legal if action.startswith(only)]))
        paid.append(env.infos["player_0"]["reward_parts"])
        assert env.infos["player_1"]["reward_parts"] == paid[-1]
    return paid


def own_cards(env):
    """The mover's cards as the next player sees them."""
    agent = env.agent_selection
    other = "player_1" if agent == "player_0" else "player_0"
    (line,) = [line for line in env.observe(other)["text"].splitlines() if line.startswith(f"Hand of {agent}: ")]
    return [card.split()[1] for card in line.partition(": ")[2].strip(".").split(", ")]


def played(env):
    """Color to the highest rank on the table."""
    text = env.observe("player_0")["text"].partition("Played: ")[2].partition(".")[0]
    return {pile[0]: int(pile[1]) for pile in text.split()}


def fitting(env):
    """Numbers of the mover's cards that could be played."""
    return [i for i, card in enumerate(own_cards(env), start=1) if int(card[1]) == played(env)[card[0]] + 1]


def test_a_seat_sees_the_other_hand_but_not_its_own():
    env = new()
    assert env.observe("player_0")["text"] == (
        "You are player_0. Lives: 3. Hint tokens: 3. Played: R0 Y0. Discarded: none. Deck: 2.\n"
        "Last moves: none.\n"
        "Your hand: 1 ?, 2 ?, 3 ?.\n"
        "Hand of player_1: 1 Y1 ?, 2 R1 ?, 3 R2 ?.\n"
        "Legal actions: play card 1, play card 2, play card 3, hint player_1 color R, hint player_1 color Y, "
        "hint player_1 rank 1, hint player_1 rank 2"
    )


def test_a_hint_tells_what_a_card_is_and_what_it_is_not():
    env = new()
    env.step("hint player_1 rank 2")
    text = env.observe("player_1")["text"]
    assert "Hint tokens: 2." in text
    assert "Last moves: player_0 hint player_1 rank 2.\nYour hand: 1 ??/RY1, 2 ??/RY1, 3 ?2/RY2.\n" in text
    assert "Hand of player_1: 1 Y1 ??/RY1, 2 R1 ??/RY1, 3 R2 ?2/RY2.\n" in env.observe("player_0")["text"]


def test_seats_are_named_as_they_sit_and_the_latest_move_of_each_other_seat_is_told():
    env = new("hanabi", players=3)
    assert [line.split(":")[0] for line in env.observe("player_1")["text"].splitlines()[2:]] == [
        "Your hand",
        "Hand of player_2",
        "Hand of player_0",
    ]
    env.step("play card 5")
    hints = [action for action in env.infos["player_1"]["legal_actions"] if action.startswith("hint")]
    assert {hint.split()[1] for hint in hints} == {"player_0", "player_2"}
    env.step(hints[0])
    assert f"Last moves: player_0 play card 5, player_1 {hints[0]}.\n" in env.observe("player_2")["text"]


@pytest.mark.parametrize("name", SIZES)
def test_every_action_is_of_a_form_that_the_rules_name(name):
    env, chooser = new(name), random.Random(0)
    forms = {"play card", "discard card", "hint color", "hint rank"}
    said = env.metadata["rules"].partition("Actions: ")[2]
    assert all(example in said for example in ("play card 1", "discard card 1", "hint player_1 color Y"))
    while not env.terminations[env.agent_selection]:
        actions = env.infos[env.agent_selection]["legal_actions"]
        assert {" ".join(a.replace("player_0 ", "").replace("player_1 ", "").split()[:2]) for a in actions} <= forms
        env.step(chooser.choice(actions).upper())
    assert env.infos["player_0"]["illegal"] is env.infos["player_1"]["illegal"] is False


def test_every_card_that_fits_pays_all_one_and_the_last_life_costs_all_of_it():
    env = new()
    assert own_cards(env) == ["Y1", "Y2", "R1"]
    env.step("play card 1")
    assert env.infos["player_0"]["reward_parts"] == env.infos["player_1"]["reward_parts"] == {"card": 1.0}
    while not env.terminations[env.agent_selection]:
        wrong = [i for i in range(1, len(own_cards(env)) + 1) if i not in fitting(env)]
        env.step(f"play card {wrong[0]}")
    assert "Lives: 0." in env.observe("player_0")["text"]
    assert env.infos["player_0"]["reward_parts"] == {"bomb": -1.0}
    assert env.rewards == {"player_0": -1.0, "player_1": -1.0}


@pytest.mark.parametrize("name", ["mini_hanabi", "simple_hanabi"])
def test_a_perfect_game_is_worth_the_scale(name):
    best = 0.0
    for seed in range(60):
        env, paid = new(name, seed=seed, scale=8), []
        while not env.terminations[env.agent_selection]:
            fits = fitting(env)
            env.step(f"play card {fits[0] if fits else 1}")
            paid.append(env.infos["player_0"]["reward_parts"].get("card", 0.0))
        best = max(best, sum(paid))
    assert best == 8.0
    assert env.metadata["utility_range"] == (0.0, 8.0)


def test_the_greatest_utility_is_what_the_deck_allows_for():
    assert {name: games.make(name).metadata["utility_range"][1] for name in SIZES} == {
        "mini_hanabi": 4.0,
        "simple_hanabi": 4.0,
        "hanabi": 25.0,
    }


@pytest.mark.parametrize("name", SIZES)
def test_bombing_out_ends_at_exactly_nothing(name):
    bombed = 0
    for seed in range(60):
        env = new(name, seed=seed)
        paid = finish(env, random.Random(seed), only="play")
        total = sum(sum(parts.values()) for parts in paid)
        if "Lives: 0." in env.observe("player_0")["text"]:
            bombed += 1
            assert total == 0
        else:
            assert total == sum(played(env).values())
    assert bombed


def test_an_illegal_move_ends_below_every_legal_outcome_whatever_was_scored():
    env = new()
    env.step("play card 1")
    env.step("play card 2")
    env.step("play")
    assert env.rewards == {"player_0": -3.0, "player_1": 0.0}
    assert env.infos["player_0"]["reward_parts"] == {"illegal": -3.0}


def test_the_cards_that_are_drawn_during_play_follow_from_the_seed():
    def drawn(seed):
        env = new("hanabi", seed=seed)
        for _ in range(10):
            env.step(
                "play card 1"
                if "discard card 1" not in env.infos[env.agent_selection]["legal_actions"]
                else "discard card 1"
            )
            if env.terminations[env.agent_selection]:
                break
        return env.position.history()

    assert drawn(5) == drawn(5)
    assert drawn(5)[10:] != drawn(6)[10:]


def test_players_out_of_range_are_refused():
    with pytest.raises(ValueError, match="game hanabi: players=6 is not allowed; it must be between 2 and 5"):
        games.make("hanabi", players=6)
