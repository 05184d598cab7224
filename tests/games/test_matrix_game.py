"""Iterated matrix games: payoffs, the random end, talk, and what a seat sees."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import games
from games.matrix_game import NAMED, moves_of


def play(*rounds, **chosen):
    """The game after these rounds, written `cooperate/defect`, and the points of both."""
    env = games.make("matrix_game", **{"max_rounds": len(rounds) + 1, "continuation": 1.0} | chosen)
    env.reset(seed=0)
    points = [0.0, 0.0]
    for pair in rounds:
        for action in pair.split("/"):
            env.step(action)
        points = [total + reward for total, reward in zip(points, env.rewards.values())]
    return env, points


@pytest.mark.parametrize(
    ("payoffs", "pair", "points"),
    [
        ("prisoners_dilemma", "cooperate/cooperate", [3, 3]),
        ("prisoners_dilemma", "cooperate/defect", [0, 5]),
        ("prisoners_dilemma", "defect/defect", [1, 1]),
        ("stag_hunt", "stag/stag", [4, 4]),
        ("stag_hunt", "stag/hare", [0, 3]),
        ("stag_hunt", "hare/hare", [2, 2]),
        ("chicken", "swerve/straight", [1, 4]),
        ("chicken", "straight/straight", [0, 0]),
        ("battle_of_the_sexes", "opera/opera", [3, 2]),
        ("battle_of_the_sexes", "football/football", [2, 3]),
        ("battle_of_the_sexes", "opera/football", [0, 0]),
        ("rock_paper_scissors", "rock/paper", [-1, 1]),
        ("rock_paper_scissors", "rock/scissors", [1, -1]),
        ("rock_paper_scissors", "paper/scissors", [-1, 1]),
    ],
)
def test_named_games_pay_what_they_are_known_for(payoffs, pair, points):
    assert play(pair, payoffs=payoffs)[1] == points


@pytest.mark.parametrize("name", ["prisoners_dilemma", "stag_hunt", "chicken"])
def test_named_dilemmas_are_what_their_names_say(name):
    (both, sucker), (temptation, neither) = [[cell[0] for cell in row] for row in NAMED[name][1]]
    assert both > neither
    assert {
        "prisoners_dilemma": temptation > both and neither > sucker and 2 * both > temptation + sucker,
        "stag_hunt": both > temptation > neither > sucker,
        "chicken": temptation > both > sucker > neither,
    }[name]


@given(payoffs=st.sampled_from(sorted(NAMED)), choices=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2))))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_points_are_the_sum_of_the_matrix_cells(payoffs, choices):
    actions, table = NAMED[payoffs]
    pairs = [(one % len(actions), other % len(actions)) for one, other in choices]
    _, points = play(*(f"{actions[one]}/{actions[other]}" for one, other in pairs), payoffs=payoffs)
    assert points == [sum(table[one][other][seat] for one, other in pairs) for seat in (0, 1)]


def test_a_seat_sees_its_own_moves_first_and_the_latest_rounds_only():
    env, _ = play("cooperate/defect", "defect/defect", "defect/cooperate", memory=2)
    assert env.observe("player_1")["text"] == (
        "You are player_1. Round 4. Rounds so far, you/other: ..., defect/defect, cooperate/defect. "
        "Legal actions: cooperate, defect"
    )
    assert "defect/defect, defect/cooperate." in env.observe("player_0")["text"]


def test_the_number_of_rounds_is_drawn_from_the_seed_and_seldom_the_greatest():
    env = games.make("matrix_game", continuation=0.9)
    numbers = []
    for seed in range(2000):
        env.reset(seed=seed)
        numbers.append(env.parallel.position.number)
    assert min(numbers) == 1
    assert max(numbers) <= 50
    # The mean of a geometric number cut at 50 is (1 - 0.9 ** 50) / 0.1 = 9.95, its deviation about 9.
    assert abs(sum(numbers) / len(numbers) - 9.95) < 3 * 9 / 2000**0.5


def test_seats_share_a_role_where_the_game_is_the_same_from_both():
    assert games.make("matrix_game", payoffs="chicken").metadata["roles"] == ("player",)
    assert games.make("matrix_game", payoffs="battle_of_the_sexes").metadata["roles"] == ("player_0", "player_1")


def test_only_rock_paper_scissors_is_zero_sum():
    assert [name for name in NAMED if games.make("matrix_game", payoffs=name).metadata["zero_sum"]] == [
        "rock_paper_scissors"
    ]


def test_the_utility_range_holds_for_games_of_any_length():
    span = {name: games.make("matrix_game", payoffs=name, max_rounds=10).metadata["utility_range"] for name in NAMED}
    assert span["prisoners_dilemma"] == (0, 50)
    assert span["rock_paper_scissors"] == (-10, 10)
    # Where every round pays, one round is the least there can be.
    assert games.make("matrix_game", payoffs=[[[2, 3]]], max_rounds=10).metadata["utility_range"] == (2, 30)


def test_an_explicit_matrix_may_have_names_and_need_not_be_square():
    payoffs = [[[1, 0], [2, 5]], [[0, 0], [3, 3]], [[-4, 1], [0, 0]]]
    env, points = play("mid/right", payoffs=payoffs, actions=[["Top", "mid", "low"], ["left", "right"]])
    assert points == [3, 3]
    env.step("top")
    assert env.infos["player_1"]["legal_actions"] == ("left", "right")
    assert play("b/a", payoffs=payoffs[:2])[1] == [0, 0]


def test_talk_comes_before_each_round_and_neither_hears_the_other_first():
    env, _ = play(max_rounds=2, talk=True)
    assert env.infos["player_0"]["legal_actions"] is None
    env.step("  I will\n cooperate ")
    assert "cooperate" not in env.observe("player_1")["text"]
    env.step("me too " * 40)
    text = env.observe("player_0")["text"]
    assert "You said: 'I will cooperate'. The other said: 'me too me too" in text
    assert len(text) < 320
    assert env.infos["player_0"]["legal_actions"] == ("cooperate", "defect")
    for action in ("cooperate", "defect"):
        env.step(action)
    assert env.rewards == {"player_0": 0.0, "player_1": 5.0}
    assert env.infos["player_0"]["legal_actions"] is None
    assert "said" not in env.observe("player_0")["text"]


def test_saying_nothing_is_illegal_where_something_must_be_said():
    env, _ = play(talk=True)
    env.step("  ")
    assert env.infos["player_0"]["illegal"] is True


def test_state_keys_tell_the_moves_whatever_was_said():
    env, _ = play(max_rounds=2, talk=True)
    for text in ("0/1 |", "|2/2", "defect", "cooperate"):
        env.step(text)
    assert moves_of(env.infos["player_0"]["state_key"]) == [(1, 0)]
    env.step("yes")
    assert moves_of(env.infos["player_1"]["state_key"]) == [(0, 1)]
    for key in (None, "", "0pb"):
        with pytest.raises(ValueError, match="not a state key of matrix_game"):
            moves_of(key)


def test_different_histories_have_different_keys():
    rounds = [f"{one}/{other}" for one, other in product(("cooperate", "defect"), repeat=2)]
    keys = {play(first, second)[0].infos["player_0"]["state_key"] for first, second in product(rounds, repeat=2)}
    assert len(keys) == 16


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"payoffs": "prisoners"}, "payoffs='prisoners' is not allowed; it must be prisoners_dilemma, stag_hunt"),
        ({"payoffs": [[[1, 2], [3, 4]], [[5, 6]]]}, "with rows of one length"),
        ({"payoffs": [[1, 2], [3, 4]]}, "a matrix of [payoff of player_0, payoff of player_1]"),
        ({"payoffs": []}, "payoffs=[] is not allowed"),
        ({"payoffs": [[[1, 2]]], "actions": ["a", "b"]}, "it must be 1 and 1 different names"),
        ({"actions": ["a", "b"]}, "left out, prisoners_dilemma has its own"),
        ({"continuation": 1.5}, "continuation=1.5 is not allowed; it must be between 0 and 1"),
        ({"max_rounds": 0}, "max_rounds=0 is not allowed; it must be a whole number, 1 or more"),
        ({"memory": 1.5}, "memory=1.5 is not allowed"),
    ],
)
def test_bad_settings_are_refused_in_one_line(chosen, message):
    with pytest.raises(ValueError, match="game matrix_game") as caught:
        games.make("matrix_game", **chosen)
    assert message in str(caught.value)
