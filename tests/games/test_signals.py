"""Signals: who knows what, and what both are paid."""

import pytest

import games
from games.signals import Signs


def play(*moves, symbols=("star", "sun", "star"), **chosen):
    env = games.make("signals", **{"rounds": len(symbols)} | chosen)
    env.reset(seed=0)
    env.parallel.position = Signs(symbols=symbols)
    for move in moves:
        env.step(move)
    return env


@pytest.mark.parametrize(
    ("picked", "score"),
    [("star sun star", 1.0), ("star moon star", 2 / 3), ("sun star sun", 0.0), ("sun sun sun", 1 / 3)],
)
def test_both_get_the_share_of_rounds_that_were_right_at_the_end(picked, score):
    env = play(code="free")
    for number, symbol in enumerate(picked.split()):
        env.step("ba")
        assert env.rewards == {"player_0": 0.0, "player_1": 0.0}
        env.step(symbol)
        paid = score if number == 2 else 0.0
        assert env.rewards == {"player_0": paid, "player_1": paid}
    assert all(env.terminations.values())
    assert env.hidden == {"right": round(3 * score)}


def test_the_listener_hears_the_word_and_never_sees_the_symbol():
    env = play("ba", "star")
    env.step("du")
    assert env.agent_selection == "player_1"
    assert env.observe("player_1")["text"] == (
        "You are player_1. Round 2 of 3. Word: du. Legal actions: sun, moon, star"
    )
    assert env.observe("player_0")["text"] == "You are player_0. Round 2 of 3. Symbol: sun. Word: du."
    assert env.infos["player_1"]["role"] == "listener"
    assert env.infos["player_0"]["state_key"] == "player_0 Round 2 of 3. Symbol: sun. Word: du."


@pytest.mark.parametrize(("code", "score"), [("given", 1 / 3), ("free", 1.0)])
def test_where_the_code_is_given_only_its_own_word_makes_a_symbol_right(code, score):
    # `ba` is the sun's word, `du` the moon's, `ki` the star's; here they are ki, du for a sun, and ba for a star.
    env = play("ki", "star", "du", "sun", "ba", "star", code=code)
    assert env.rewards == {"player_0": score, "player_1": score}


@pytest.mark.parametrize(("code", "told"), [("given", "stands for one symbol"), ("free", "mean nothing yet")])
def test_the_rules_say_whether_there_is_a_code(code, told):
    assert told in games.make("signals", code=code).metadata["rules"]


def test_nobody_is_told_whether_a_round_was_right():
    seen = [
        play("ba", symbol).observe(agent)["text"] for symbol in ("star", "sun") for agent in ("player_0", "player_1")
    ]
    assert seen[:2] == seen[2:]


def test_symbols_are_drawn_from_the_seed_one_by_one():
    env = games.make("signals", rounds=2)
    dealt = {}
    for seed in range(200):
        env.reset(seed=seed)
        dealt[env.parallel.position.symbols] = dealt.get(env.parallel.position.symbols, 0) + 1
    assert len(dealt) == 9
    assert min(dealt.values()) > 8  # 22 on average, deviation 4.4


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"symbols": 7}, "symbols=7 is not allowed; it must be a whole number from 2 to 6"),
        ({"code": "secret"}, "code='secret' is not allowed; it must be given or free"),
        ({"rounds": 0}, "rounds=0 is not allowed; it must be a whole number from 1 to 8"),
    ],
)
def test_bad_settings_are_refused_in_one_line(chosen, message):
    with pytest.raises(ValueError, match="game signals") as caught:
        games.make("signals", **chosen)
    assert message in str(caught.value)
