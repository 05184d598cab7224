"""Donor game: who gives to whom, what it pays, reputation, and generations that leave."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import games


def start(seed=0, **chosen):
    env = games.make("donor_game", **chosen)
    env.reset(seed=seed)
    return env


def leave(env):
    while env.agents and env.terminations[env.agent_selection]:
        env.step(None)


@given(seed=st.integers(0, 10**6), gifts=st.lists(st.booleans(), min_size=24, max_size=24))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_every_gift_is_worth_benefit_minus_cost_to_all_together(seed, gifts):
    env, paid = start(seed), 0.0
    for gave in gifts:
        env.step("give" if gave else "keep")
        paid += sum(env.rewards.values())
        leave(env)
    assert env.agents == []
    assert paid == 2 * sum(gifts)


def test_in_every_round_each_gives_once_and_receives_once():
    pairs = start(players=5, rounds=2, generations=2).parallel.position.pairs
    assert len(pairs) == 20
    for start_of_round in range(0, 20, 5):
        members = set(range(5)) if start_of_round < 10 else set(range(5, 10))
        part = pairs[start_of_round : start_of_round + 5]
        assert {donor for donor, _ in part} == {receiver for _, receiver in part} == members
        assert all(donor != receiver for donor, receiver in part)


def test_a_gift_is_paid_at_once_in_named_parts():
    env = start(benefit=4, cost=1.5)
    donor, receiver = (f"player_{number}" for number in env.parallel.position.pairs[0])
    assert env.agent_selection == donor
    env.step("give")
    assert env.infos[donor]["reward_parts"] == {"cost": -1.5}
    assert env.infos[receiver]["reward_parts"] == {"benefit": 4.0}
    assert sum(map(bool, env.rewards.values())) == 2


def test_donors_see_how_often_the_receiver_gave():
    env = start(players=2, rounds=2, generations=1)
    first, second = env.parallel.position.pairs[0]
    assert env.observe(f"player_{first}")["text"] == (
        f"You are player_{first}. Generation 1 of 1, round 1 of 2. Your points: 0. The receiver is player_{second}, "
        "who has not been donor yet. Legal actions: give, keep"
    )
    env.step("give")
    assert f"The receiver is player_{first}, who gave 1 of 1 times." in env.observe(f"player_{second}")["text"]
    hidden = start(players=2, reputation=False)
    hidden.step("give")
    assert " gave " not in hidden.observe(hidden.agent_selection)["text"]


def test_a_generation_leaves_when_it_ends_and_the_next_one_hears_of_it():
    env = start(players=2, rounds=1, generations=2)
    donor, receiver = env.parallel.position.pairs[0]
    assert env.observe("player_2")["text"] == "You are player_2. Your generation, 2 of 2, has not begun."
    env.step("give")
    assert not any(env.terminations.values())
    env.step("keep")
    assert env.terminations == {"player_0": True, "player_1": True, "player_2": False, "player_3": False}
    leave(env)
    assert env.agents == ["player_2", "player_3"]
    # Whoever received got 3 and gave nothing; the donor of the first turn is at -1.
    assert env.observe(env.agent_selection)["text"].endswith(
        "The last generation gave 1 of 2 times; its best member gave 0 of 1 times and got 3 points. "
        "Legal actions: give, keep"
    )
    assert {donor, receiver} == {0, 1}


def test_utilities_are_those_of_one_life():
    assert start(rounds=3, generations=5).metadata["utility_range"] == (-3.0, 9.0)
    assert start().metadata["roles"] == ("donor",)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"players": 1}, "players=1 is not allowed; it must be a whole number, 2 or more"),
        ({"generations": 0}, "generations=0 is not allowed"),
        ({"cost": 3.0}, "cost=3.0 is not allowed; it must be more than 0 and less than benefit=3.0"),
    ],
)
def test_bad_settings_are_refused_in_one_line(chosen, message):
    with pytest.raises(ValueError, match="game donor_game") as caught:
        games.make("donor_game", **chosen)
    assert message in str(caught.value)
