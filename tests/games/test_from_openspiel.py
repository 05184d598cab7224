"""OpenSpiel's other games by name: what is seen, how actions are called, and what is refused."""

import pytest

import games
from games.conformance import check

SOME = (
    "goofspiel(num_cards=4,imp_info=True)",
    "liars_dice",
    "matrix_rps",
    "matching_pennies_3p",
    "tiny_hanabi",
    "bargaining",
    "colored_trails",
    "coop_box_pushing(horizon=10)",
    "repeated_game(stage_game=matrix_pd(),num_repetitions=5)",
    "misere(game=kuhn_poker())",
    "blackjack",
    "crazy_eights(players=3)",
    "nim",
    "twixt(board_size=5)",
    "social_deduction(players=4)",
)


def new(name, **settings):
    env = games.make(f"openspiel:{name}", **settings)
    env.reset(seed=0)
    return env


@pytest.mark.parametrize("name", SOME)
def test_games_of_every_kind_keep_their_promises(name):
    assert check(lambda: games.make(f"openspiel:{name}"), games=2) == []


@pytest.mark.parametrize("name", ["matrix_rps", "coop_box_pushing(horizon=10)"])
def test_they_take_the_settings_of_our_own_games(name):
    settings = {"on_illegal": "default_action", "scale": 4, "opening": 1}
    assert check(lambda: games.make(f"openspiel:{name}", **settings), games=2) == []


def test_simultaneous_moves_are_made_in_turn_and_unseen():
    env = new("matrix_rps")
    env.step("paper")
    assert env.agent_selection == "player_1"
    assert env.observe("player_1")["text"] == (
        "You are player_1. You see:\nCurrent player: 1\nNon-terminal\nLegal actions: Rock; Paper; Scissors"
    )
    assert "action this turn" not in env.infos["player_1"]["state_key"]
    assert "action this turn: 1" in env.observe("player_0")["text"]
    env.step("rock")
    assert env.rewards == {"player_0": 1.0, "player_1": -1.0}


def test_what_is_seen_is_openspiels_text_with_the_legal_actions_below():
    env = new("liars_dice")
    die = env.position.history()[0] + 1
    text = env.observe("player_0")["text"]
    assert text.startswith(f"You are player_0. You see:\n{die}\nLegal actions: 1-1; 1-2; ")
    assert env.metadata["rules"] == (
        "Liars Dice, a game for 2 player(s), as in OpenSpiel: liars_dice. "
        "Answer with one of the legal actions; anything else forfeits."
    )


def test_rewards_on_the_way_are_a_part_of_each_step():
    env = new("repeated_game(stage_game=matrix_pd(),num_repetitions=2)")
    paid = []
    for move in ["cooperate", "defect", "defect", "defect"]:
        env.step(move)
        paid.append((env.infos["player_0"]["reward_parts"], env.infos["player_1"]["reward_parts"]))
    assert paid == [({}, {}), ({}, {"step": 10.0}), ({}, {}), ({"step": 1.0}, {"step": 1.0})]


def test_case_decides_only_where_nothing_else_does():
    after = {}
    for reply in ["Bxc3", "bxc3", "nXC3", "BXC3"]:
        env = new("chess")
        for move in ["d4", "Nf6", "Bd2", "Ne4", "h3", "Nc3", reply]:
            mover = env.agent_selection
            env.step(move)
        after[reply] = env.observe("player_0")["text"].splitlines()[1], env.infos[mover]["illegal"]
    assert after["Bxc3"] == ("rnbqkb1r/pppppppp/8/8/3P4/2B4P/PPP1PPP1/RN1QKBNR b KQkq - 0 4", False)
    assert after["bxc3"] == ("rnbqkb1r/pppppppp/8/8/3P4/2P4P/P1PBPPP1/RN1QKBNR b KQkq - 0 4", False)
    assert after["nXC3"] == ("rnbqkb1r/pppppppp/8/8/3P4/2N4P/PPPBPPP1/R2QKBNR b KQkq - 0 4", False)
    assert after["BXC3"][1] is True


def test_action_texts_hold_no_separator_and_no_colors():
    nim = new("nim")
    assert nim.infos["player_0"]["legal_actions"][0] == "pile:1, take:1"
    assert "\x1b" not in new("twixt").observe("player_0")["text"]


def test_a_deal_that_leaves_nothing_to_decide_is_dealt_anew():
    env = games.make("openspiel:go_fish(suits=2,ranks=2,initial_cards=2)")
    for seed in range(50):
        env.reset(seed=seed)
        assert env.infos[env.agent_selection]["legal_actions"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("kuhn_pokker", "OpenSpiel has no game 'kuhn_pokker'; nearest valid name: kuhn_poker"),
        ("kuhn_poker(plyers=3)", "OpenSpiel refuses: Unknown parameter 'plyers'. Available parameters are: players"),
        ("kuhn_poker(players=3", "OpenSpiel refuses: Missing closing bracket"),
        ("mfg_garnet", "its player is the average of a crowd"),
        ("negotiation", "OpenSpiel draws its chance by itself"),
        ("crossword", "This game uses action structs only"),
    ],
)
def test_what_cannot_be_played_is_refused_in_one_line_with_the_reason(name, reason):
    with pytest.raises(ValueError, match="game openspiel:") as caught:
        games.make(f"openspiel:{name}")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="unexpected keyword argument 'players'; its settings: opening, on_illegal"):
        games.make("openspiel:kuhn_poker", players=3)
    with pytest.raises(ValueError, match="scale=0 is not allowed; it must be more than 0, or null"):
        games.make("openspiel:kuhn_poker", scale=0)
