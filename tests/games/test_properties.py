"""What holds in every game, whatever is played: sums, clones, replays, and the price of an illegal move."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import games

BY_NAME = (
    *games.names(),
    "openspiel:goofspiel(num_cards=4,imp_info=True)",
    "openspiel:kuhn_poker(players=3)",
    "openspiel:coop_box_pushing(horizon=5)",
)
KNOWN = [name for name in BY_NAME if games.make(name).metadata["clone"]]
SCALES = st.sampled_from([None, 4, 0.5])
SEEDS = st.integers(0, 2**32)
few = settings(max_examples=8, deadline=None)


def run(env, chooser, limit=10_000):
    """Play at random for up to `limit` moves: what was chosen, and what each seat was paid."""
    moves, paid = [], dict.fromkeys(env.possible_agents, 0.0)
    while env.agents and len(moves) < limit and not env.terminations[env.agent_selection]:
        legal = env.infos[env.agent_selection]["legal_actions"]
        moves.append(chooser.choice(legal) if legal else f"text {chooser.randrange(99)}")
        env.step(moves[-1])
        for agent, reward in env.rewards.items():
            paid[agent] += reward
    return moves, paid


def seen(env):
    return [(agent, env.observe(agent), env.infos[agent]["state_key"], env.rewards[agent]) for agent in env.agents]


@pytest.mark.parametrize("name", BY_NAME)
@few
@given(seed=SEEDS, scale=SCALES)
def test_returns_stay_in_their_range_and_sum_to_zero_where_declared(name, seed, scale):
    env = games.make(name, scale=scale)
    env.reset(seed=seed)
    _, paid = run(env, random.Random(seed))
    low, high = env.metadata["utility_range"]
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in paid.values())
    if scale is not None:
        assert max(-low, high) == pytest.approx(scale)
    if env.metadata["zero_sum"]:
        assert sum(paid.values()) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("name", KNOWN)
@few
@given(seed=SEEDS, before=st.integers(0, 12))
def test_a_clone_and_a_replay_are_in_the_same_state(name, seed, before):
    env = games.make(name)
    env.reset(seed=seed)
    moves, _ = run(env, random.Random(seed), limit=before)
    replayed = games.make(name)
    replayed.reset(seed=seed)
    for move in moves:
        replayed.step(move)
    twin = env.clone()
    assert seen(env) == seen(twin) == seen(replayed)
    assert run(env, random.Random(1)) == run(twin, random.Random(1)) == run(replayed, random.Random(1))
    assert seen(env) == seen(twin) == seen(replayed)


@pytest.mark.parametrize("name", BY_NAME)
@few
@given(seed=SEEDS, before=st.integers(0, 12), scale=SCALES, text=st.text(max_size=12))
def test_an_illegal_move_is_worse_than_every_legal_outcome(name, seed, before, scale, text):
    env = games.make(name, scale=scale)
    env.reset(seed=seed)
    _, paid = run(env, random.Random(seed), limit=before)
    offender = env.agent_selection
    if env.terminations[offender] or text.strip().casefold() in map(str.casefold, env.infos[offender]["legal_actions"]):
        return
    env.step(text)
    assert env.infos[offender]["illegal"] is True
    assert all(env.terminations.values())
    assert paid[offender] + env.rewards[offender] == pytest.approx(env.metadata["utility_range"][0] - 1)
    assert all(reward == 0 for agent, reward in env.rewards.items() if agent != offender)
