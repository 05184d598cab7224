"""Negotiation: pools and values, offers in words and in numbers, deals and what they are worth."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import games
from games.negotiation import Talks


def start(counts=(2, 1, 3), values=((1, 2, 2), (3, 1, 1)), **chosen):
    """A game with this pool and these values, worth 10 to both."""
    env = games.make("negotiation", **chosen)
    for seed in range(3000):
        env.reset(seed=seed)
        if env.parallel.position.counts == counts:
            break
    env.parallel.position = Talks(counts=counts, values=values)
    return env


def play(*moves, **chosen):
    env = start(**chosen)
    for move in moves:
        env.step(move)
    return env


@given(
    seed=st.integers(0, 10**6),
    chosen=st.sampled_from([{}, {"types": 2, "max_items": 5}, {"types": 5, "max_items": 8, "total": 12}]),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_pool_is_worth_the_same_to_both_and_something_can_be_gained_by_talking(seed, chosen):
    env = games.make("negotiation", **chosen)
    env.reset(seed=seed)
    position, total = env.parallel.position, chosen.get("total", 10)
    assert 5 <= sum(position.counts) <= chosen.get("max_items", 7)
    for values in position.values:
        assert sum(count * value for count, value in zip(position.counts, values)) == total
    assert all(max(pair) > 0 for pair in zip(*position.values))
    assert any(min(pair) > 0 for pair in zip(*position.values))
    assert total <= env.hidden["max_joint_value"] <= 2 * total


def test_a_party_sees_the_pool_and_its_own_values_only():
    env = play("propose: 2 books, 1 hat", "say: I like  books")
    assert env.observe("player_0")["text"] == (
        "You are player_0. Pool: 2 books, 1 hat, 3 balls. Worth to you: book 1, hat 2, ball 2. Turns left: 18. "
        "Latest moves: You: propose: 2 books, 1 hat; Other: say: I like books."
    )
    assert "book 3, hat 1, ball 1" in env.observe("player_1")["text"]


def test_an_accepted_offer_pays_the_proposer_what_it_asked_and_the_other_the_rest():
    env = play("say: hello", "propose: 2 books", "accept")
    # player_1 gets 2 books at 3, player_0 a hat and 3 balls at 2.
    assert env.rewards == {"player_0": 8.0, "player_1": 6.0}
    assert env.infos["player_0"]["reward_parts"] == {"outcome": 8.0}
    assert env.hidden == {
        "counts": [2, 1, 3],
        "values": {"player_0": [1, 2, 2], "player_1": [3, 1, 1]},
        "deal": True,
        "joint_value": 14,
        "max_joint_value": 14,
        "joint_share": 1.0,
    }


def test_an_offer_stands_through_talk_until_another_is_made():
    env = play("propose: 3 balls", "say: hm", "say: please")
    assert env.parallel.accepts("player_1", "accept")
    env = play("propose: 3 balls", "propose: 1 book", "propose: nothing", "accept")
    assert env.rewards == {"player_0": 0.0, "player_1": 10.0}


@pytest.mark.parametrize("moves", [(), ("say: hi",), ("propose: 1 hat", "say: no")])
def test_nobody_accepts_its_own_offer_or_none(moves):
    env = play(*moves)
    offender = env.agent_selection
    env.step("accept")
    assert env.infos[offender]["illegal"] is True
    assert env.rewards[offender] == -1.0


@pytest.mark.parametrize("moves", [("walk away",), ("propose: 1 hat", "Walk  Away"), ("say: a",) * 4])
def test_without_a_deal_nobody_gets_anything(moves):
    env = play(*moves, rounds=2)
    assert all(env.terminations.values())
    assert env.rewards == {"player_0": 0.0, "player_1": 0.0}
    assert env.hidden["deal"] is False
    assert env.hidden["joint_value"] == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("propose: 1 book, 2 balls", "propose: 1 book, 2 balls"),
        ("PROPOSE : 2 Books and 1 hat", "propose: 2 books, 1 hat"),
        ("propose:1 hat, 1 book, and 1 ball", "propose: 1 book, 1 hat, 1 ball"),
        ("propose: 0 books", "propose: nothing"),
        ("Say: accept", "say: accept"),
    ],
)
def test_moves_are_understood(text, told):
    assert f"Latest moves: Other: {told}." in play(text).observe("player_1")["text"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "say:",
        "propose:",
        "propose 1 book",
        "propose: 3 books",
        "propose: 1 pen",
        "propose: one book",
        "propose: -1 book",
        "propose: 1 book, 1 book",
        "propose: 1 book; 1 hat",
        "propose: ² books",
        "accept please",
    ],
)
def test_anything_else_is_illegal(text):
    env = play(text)
    assert env.infos["player_0"]["illegal"] is True
    assert env.rewards == {"player_0": -1.0, "player_1": 0.0}


def test_long_messages_are_cut():
    assert len(play("say: " + "x" * 5000).observe("player_1")["text"]) < 400


def test_the_compact_form_lists_offers_as_numbers():
    env = play("propose 2 1 0", talk=False)
    assert env.observe("player_1")["text"] == (
        "You are player_1. Pool: 2 books, 1 hat, 3 balls. Worth to you: book 3, hat 1, ball 1. Turns left: 19. "
        "Latest moves: Other: propose 2 1 0. Legal actions: walk away, accept, propose 0-2 0-1 0-3"
    )
    legal = env.infos["player_1"]["legal_actions"]
    assert legal[:3] == ("walk away", "accept", "propose 0 0 0")
    assert len(legal) == 2 + 3 * 2 * 4
    env.step("accept")
    assert env.rewards == {"player_0": 4.0, "player_1": 3.0}
    assert "say: hi" not in legal


def test_a_default_action_walks_away():
    assert all(play("er", on_illegal="default_action").terminations.values())


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"types": 6}, "types=6 is not allowed; it must be between 2 and 5"),
        ({"rounds": 0}, "rounds=0 is not allowed"),
        ({"total": 1}, "total=1 is not allowed; it must be possible with 3 types and 5 to 7 items"),
    ],
)
def test_bad_settings_are_refused_in_one_line(chosen, message):
    with pytest.raises(ValueError, match="game negotiation") as caught:
        games.make("negotiation", **chosen)
    assert message in str(caught.value)
