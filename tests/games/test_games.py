"""The games: what seats see, who is paid what, and how a game is made by name."""

import pytest

import games
from games.conformance import check

LEDUC_WORST = "check bet raise call bet raise call"


def play(name, deal, moves, **settings):
    """The game after `moves`, from the first seed in which the seats see `deal`."""
    env = games.make(name, **settings)
    for seed in range(1000):
        env.reset(seed=seed)
        if all(f"Your card: {card}." in env.observe(agent)["text"] for agent, card in zip(env.agents, deal)):
            break
    for move in moves.split():
        env.step(move)
    return env


@pytest.mark.parametrize("name", games.names())
@pytest.mark.parametrize("on_illegal", ["forfeit", "default_action"])
def test_our_games_keep_their_promises(name, on_illegal):
    assert check(lambda: games.make(name, on_illegal=on_illegal)) == []


@pytest.mark.parametrize(("name", "players"), [("kuhn_poker", 3), ("kuhn_poker", 10), ("leduc_poker", 3)])
def test_poker_of_more_players_keeps_its_promises(name, players):
    assert check(lambda: games.make(name, players=players), games=5) == []


@pytest.mark.parametrize(("name", "opening"), [("tic_tac_toe", 9), ("connect_four", 4)])
def test_games_that_begin_with_random_moves_keep_their_promises(name, opening):
    assert check(lambda: games.make(name, opening=opening), games=10) == []


def test_an_opening_is_of_up_to_that_many_moves_and_never_ends_the_game():
    env = games.make("tic_tac_toe", opening=9)
    made = set()
    for seed in range(300):
        env.reset(seed=seed)
        made.add(len(env.position.history()))
        assert not env.position.is_terminal()
        assert env.agent_selection == f"player_{len(env.position.history()) % 2}"
    assert {0, 1, 2, 3, 4, 5, 6, 7} <= made
    env.reset(seed=3)
    first = env.position.history()
    env.reset(seed=3)
    assert env.position.history() == first
    with pytest.raises(ValueError, match="opening=-1 is not allowed"):
        games.make("tic_tac_toe", opening=-1)


@pytest.mark.parametrize("name", games.names())
def test_rules_are_short_and_name_the_answer(name):
    metadata = games.make(name).metadata
    rules = metadata["rules"]
    assert 20 <= len(rules.split()) <= (130 if name.endswith("hanabi") else 75)
    assert "Answer with " in rules
    ends = "; anything else forfeits." if metadata["on_illegal"] == "forfeit" else "; anything else is heard as 'no"
    assert ends in rules


@pytest.mark.parametrize(
    ("deal", "moves", "returns"),
    [
        ("KQ", "check check", [1, -1]),
        ("JQ", "check bet fold", [-1, 1]),
        ("JQ", "check bet call", [-2, 2]),
        ("JK", "bet fold", [1, -1]),
        ("KJ", "bet call", [2, -2]),
    ],
)
def test_kuhn_poker_pays_what_the_rules_say(deal, moves, returns):
    env = play("kuhn_poker", deal, moves)
    assert list(env.rewards.values()) == returns
    assert all(env.terminations.values())


def test_kuhn_poker_shows_a_seat_its_own_card_only():
    env = play("kuhn_poker", "QK", "check bet")
    assert env.observe("player_0")["text"] == (
        "You are player_0. Your card: Q. Moves so far: check, bet. Legal actions: fold, call"
    )
    assert env.observe("player_1")["text"] == "You are player_1. Your card: K. Moves so far: check, bet."


def test_kuhn_poker_of_three_lets_earlier_players_answer_a_bet():
    env = play("kuhn_poker", "JQK", "check check bet", players=3)
    assert env.infos["player_0"]["legal_actions"] == ("fold", "call")
    env.step("fold")
    env.step("call")
    assert list(env.rewards.values()) == [-1, -2, 3]


def test_leduc_poker_names_moves_as_poker_players_do():
    env = play("leduc_poker", "QK", "check bet raise")
    assert env.observe("player_1")["text"] == (
        "You are player_1. Your card: K. Round 1: check, bet, raise. Legal actions: fold, call"
    )
    env.step("call")
    text = env.observe("player_0")["text"]
    assert text.startswith("You are player_0. Your card: Q. Round 1: check, bet, raise, call. Table card: ")
    assert text.endswith(". Round 2: none. Legal actions: check, bet")


def test_leduc_poker_loses_at_most_thirteen_chips():
    env = play("leduc_poker", "JK", LEDUC_WORST)
    assert sorted(env.rewards.values()) == [-13, 13]
    assert env.metadata["utility_range"] == (-13.0, 13.0)


def test_tic_tac_toe_draws_the_board_with_the_names_of_the_cells():
    env = play("tic_tac_toe", "", "e a")
    assert env.observe("player_0")["text"] == (
        "You are player_0. You play X. Board:\naO b c\nd eX f\ng h i\nLegal actions: b, c, d, f, g, h, i"
    )
    for move in ["c", "d", "g"]:
        env.step(move)
    assert env.rewards == {"player_0": 1.0, "player_1": -1.0}


def test_tic_tac_toe_spells_out_its_lines_where_wanted():
    env = play("tic_tac_toe", "", "e a c", lines=True)
    assert "aO b cX\nd eX f\ng h i\nLines: ObX dXf ghi Odg bXh Xfi OXi XXg\n" in env.observe("player_1")["text"]
    with pytest.raises(ValueError, match="lines=3 is not allowed; it must be true or false"):
        games.make("tic_tac_toe", lines=3)


def test_connect_four_refuses_a_full_column():
    env = play("connect_four", "", "4 4 4 4 4 4")
    assert env.infos["player_0"]["legal_actions"] == ("1", "2", "3", "5", "6", "7")
    assert "...o...\n...x...\n...o...\n...x...\n...o...\n...x...\n1234567\n" in env.observe("player_0")["text"]


def test_names_lists_every_game_that_make_knows():
    assert list(games.names()) == sorted(games.names())
    assert [games.make(name).metadata["name"] for name in games.names()] == list(games.names())


def test_make_takes_a_game_of_the_users_own():
    assert games.make("games.kuhn_poker:env", players=3).max_num_agents == 3


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("kuhn", {}, "unknown game 'kuhn'; nearest valid name: kuhn_poker; allowed: autogen, connect_four, "),
        ("kuhn_poker", {"plaers": 3}, "unexpected keyword argument 'plaers'; its settings: players, on_illegal"),
        ("kuhn_poker", {"players": 11}, "players=11 is not allowed; it must be between 2 and 10"),
        ("leduc_poker", {"players": 1}, "players=1 is not allowed"),
        ("tic_tac_toe", {"on_illegal": "ignore"}, "on_illegal='ignore' is not allowed"),
        ("no_such.module:env", {}, "cannot import 'no_such.module': ModuleNotFoundError: No module named 'no_such'"),
        ("json:env", {}, "module 'json' has no function 'env'"),
    ],
)
def test_make_refuses_in_one_line(name, settings, message):
    with pytest.raises(ValueError, match="game") as caught:
        games.make(name, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
