"""What holds in every game, whatever is played: sums, clones, replays, and the price of an illegal move."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import games
from tests.games.test_text_game import VARIANTS

PIPELINES = (
    "autogen",
    "debate",
    "deep_research",
    "discussion",
    "generate_verify_refine",
    "mad",
    "mixture_of_agents",
    "planner",
    "proposer_solver",
    "self_consistency",
    "workflow",
)
"""They go on after an illegal move, unless they are told to forfeit."""
PLAIN = [
    *((name, {}) for name in games.names() if (name, {}) not in VARIANTS and name not in PIPELINES),
    ("openspiel:goofspiel(num_cards=4,imp_info=True)", {}),
    ("openspiel:kuhn_poker(players=3)", {}),
    ("openspiel:coop_box_pushing(horizon=5)", {}),
]
SCALED = [(name, {"scale": scale}) for name, _ in PLAIN for scale in (4, 0.5)]
FORFEITING = [(name, {**chosen, "on_illegal": "forfeit"}) for name, chosen in VARIANTS]
CASES = [*PLAIN, *SCALED, *FORFEITING]
SEEDS = st.integers(0, 2**63)
CHOICES = st.integers(0, 2**32)
few = settings(max_examples=8, deadline=None, derandomize=True)


def start(name, chosen, seed):
    env = games.make(name, **chosen)
    env.reset(seed=seed)
    return env


def bury(env):
    """Make the dead steps that are due."""
    while env.agents and (env.terminations[env.agent_selection] or env.truncations[env.agent_selection]):
        env.step(None)


def choose(env, chooser):
    info = env.infos[env.agent_selection]
    return chooser.choice(info["examples"] if info["legal_actions"] is None else info["legal_actions"])


def advance(env, chooser, limit=10_000):
    """Play at random for up to `limit` moves, dead steps apart: what was chosen, and what each agent was paid."""
    moves, paid = [], dict.fromkeys(env.possible_agents, 0.0)
    while env.agents and len(moves) < limit:
        moves.append(choose(env, chooser))
        env.step(moves[-1])
        for agent, reward in env.rewards.items():
            paid[agent] += reward
        bury(env)
    return moves, paid


def seen(env):
    return [(agent, env.observe(agent), env.infos[agent], env.rewards[agent]) for agent in env.agents]


@pytest.mark.parametrize(("name", "chosen"), CASES)
@few
@given(seed=SEEDS, choices=CHOICES)
def test_returns_stay_in_their_range_and_sum_to_zero_where_declared(name, chosen, seed, choices):
    env = start(name, chosen, seed)
    _, paid = advance(env, random.Random(choices))
    low, high = env.metadata["utility_range"]
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in paid.values())
    if "scale" in chosen:
        assert max(-low, high) == pytest.approx(chosen["scale"])
    if env.metadata["zero_sum"]:
        assert sum(paid.values()) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("name", "chosen"), [*PLAIN, *VARIANTS])
@few
@given(seed=SEEDS, choices=CHOICES, before=st.integers(0, 20))
def test_a_clone_and_a_replay_are_in_the_same_state_and_go_on_alike(name, chosen, seed, choices, before):
    env = start(name, chosen, seed)
    moves, _ = advance(env, random.Random(choices), before)
    replayed = start(name, chosen, seed)
    for move in moves:
        replayed.step(move)
        bury(replayed)
    twin = env.clone()
    now = seen(env)
    assert now == seen(twin) == seen(replayed)
    went_on = advance(env, random.Random(1))
    assert seen(twin) == now
    assert advance(twin, random.Random(1)) == advance(replayed, random.Random(1)) == went_on


@pytest.mark.parametrize(("name", "chosen"), CASES)
@few
@given(seed=SEEDS, choices=CHOICES, before=st.integers(0, 20), text=st.text(max_size=12))
def test_an_illegal_move_is_worse_than_every_legal_outcome(name, chosen, seed, choices, before, text):
    env = start(name, chosen, seed)
    _, paid = advance(env, random.Random(choices), before)
    if not env.agents:
        return
    offender = env.agent_selection
    legal = env.infos[offender]["legal_actions"]
    if legal is None:
        text = ""  # where actions are no list, any other text may be one
    elif text.strip().casefold() in map(str.casefold, legal):
        return
    env.step(text)
    assert env.infos[offender]["illegal"] is True
    while not all(env.terminations.values()):  # others choose in the same round
        paid[offender] += env.rewards[offender]
        env.step(choose(env, random.Random(choices)))
    assert paid[offender] + env.rewards[offender] == pytest.approx(env.metadata["utility_range"][0] - 1)
    assert all(reward == 0 for agent, reward in env.rewards.items() if agent != offender)
