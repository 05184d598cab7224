"""Public goods: the pot, punishment, and that both are paid by part."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import games


def play(*choices, **chosen):
    """The game after these choices, in the order in which seats are asked."""
    env = games.make("public_goods", **chosen)
    env.reset(seed=0)
    for choice in choices:
        env.step(choice)
    return env


def test_the_pot_is_multiplied_and_shared():
    env = play("10", "10", "5", "0")
    # The pot of 25 becomes 40, of which everybody gets 10.
    assert env.rewards == {"player_0": 10.0, "player_1": 10.0, "player_2": 15.0, "player_3": 20.0}
    assert env.infos["player_3"]["reward_parts"] == {"income": 20.0}


def test_punishment_costs_both_sides():
    env = play("10", "10", "5", "0", "player_3", "player_3", "nobody", "player_0")
    assert env.rewards == {"player_0": -4.0, "player_1": -1.0, "player_2": 0.0, "player_3": -7.0}
    assert env.infos["player_3"]["reward_parts"] == {"punishment": -7.0}
    assert env.observe("player_3")["text"] == (
        "You are player_3. Round 2 of 5. Your points: 13. Paid last: player_0 10, player_1 10, player_2 5, player_3 0. "
        "Punished you: 2. How many? Legal actions: 0, 5, 10"
    )


def test_nobody_sees_contributions_before_all_have_paid():
    env = play("10", "0")
    assert env.observe("player_2")["text"] == (
        "You are player_2. Round 1 of 5. Your points: 0. How many? Legal actions: 0, 5, 10"
    )
    env.step("5")
    env.step("5")
    assert env.observe("player_0")["text"] == (
        "You are player_0. Round 1 of 5. Your points: 8. Paid now: player_0 10, player_1 0, player_2 5, player_3 5. "
        "Whom do you punish? Legal actions: nobody, player_1, player_2, player_3"
    )


@given(
    levels=st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=2, max_size=2),
    blows=st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=2, max_size=2),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_points_of_all_together_follow_from_pots_and_blows(levels, blows):
    env = games.make("public_goods", players=3, rounds=2, endowment=4, multiplier=1.5, cost=1, fine=2)
    env.reset(seed=0)
    total = 0.0
    for round_levels, round_blows in zip(levels, blows):
        for choices in (round_levels, round_blows):
            for choice in choices:
                env.step(env.infos[env.agent_selection]["legal_actions"][choice])
            total += sum(env.rewards.values())
    pots = 2 * sum(map(sum, levels))  # a level is worth 2 of the endowment of 4
    hits = sum(blow > 0 for round_blows in blows for blow in round_blows)
    assert all(env.terminations.values())
    assert total == pytest.approx(2 * 3 * 4 + 0.5 * pots - (1 + 2) * hits)


def test_without_punishment_a_round_is_one_choice():
    env = play("4", "0", players=2, rounds=1, endowment=4, levels=2, punishment=False)
    assert env.rewards == {"player_0": pytest.approx(3.2), "player_1": pytest.approx(7.2)}
    assert all(env.terminations.values())
    assert "punish" not in env.metadata["rules"]


def test_the_range_of_utilities_is_tight():
    # Alone in a pot of 10 one gets 4 back, punishes for 1 and is fined 3 times 3; all others pay, and one does not: 22.
    assert play().metadata["utility_range"] == pytest.approx((5 * (4 - 1 - 9), 5 * 22))
    # Where the share of one's own contribution exceeds it, paying nothing is the worst, and all paying the best.
    assert play(players=2, multiplier=3, rounds=1, punishment=False).metadata["utility_range"] == (10, 30)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"players": 1}, "players=1 is not allowed"),
        ({"levels": 4}, "endowment=10 is not allowed; it must be a multiple of 3, to have 4 whole levels"),
        ({"fine": -1}, "fine=-1 is not allowed; it must be 0 or more"),
    ],
)
def test_bad_settings_are_refused_in_one_line(chosen, message):
    with pytest.raises(ValueError, match="game public_goods") as caught:
        games.make("public_goods", **chosen)
    assert message in str(caught.value)
