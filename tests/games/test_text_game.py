"""What all games with rules of our own have in common: clones, replays, forfeits, seats that wait or leave."""

import random
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pettingzoo.test import parallel_api_test

import games
from games.conformance import check
from games.matrix_game import MatrixGame
from games.turns import InTurns, in_turns

VARIANTS = [
    ("matrix_game", {}),
    ("matrix_game", {"talk": True, "continuation": 0.5}),
    ("matrix_game", {"payoffs": "rock_paper_scissors"}),
    ("matrix_game", {"payoffs": [[[1, 2], [-3, 4], [0, 0]], [[5, 1], [2, 2], [1, 0]]]}),
    ("negotiation", {}),
    ("negotiation", {"talk": False, "types": 2, "rounds": 3}),
    ("donor_game", {}),
    ("donor_game", {"players": 3, "rounds": 1, "generations": 3, "reputation": False}),
    ("public_goods", {}),
    ("public_goods", {"players": 2, "punishment": False, "rounds": 2}),
    ("taboo", {}),
]
FORFEITS = pytest.mark.parametrize("on_illegal", ["forfeit", "default_action"])

play = given(
    variant=st.sampled_from(VARIANTS),
    seed=st.integers(0, 2**63),
    before=st.integers(0, 20),
    choices=st.integers(0, 2**32),
)
few = settings(max_examples=60, deadline=None, derandomize=True)


def start(variant, seed):
    name, chosen = variant
    env = games.make(name, **chosen)
    env.reset(seed=seed)
    return env


def choose(env, chooser):
    info = env.infos[env.agent_selection]
    return chooser.choice(info["examples"] if info["legal_actions"] is None else info["legal_actions"])


def advance(env, chooser, moves=10_000):
    """Play random legal moves; the actions made and the rewards paid to each agent."""
    actions, paid = [], dict.fromkeys(env.possible_agents, 0.0)
    while env.agents and len(actions) < moves:
        if env.terminations[env.agent_selection]:
            env.step(None)
            continue
        actions.append(choose(env, chooser))
        env.step(actions[-1])
        for agent, reward in env.rewards.items():
            paid[agent] += reward
    while env.agents and env.terminations[env.agent_selection]:
        env.step(None)
    return actions, paid


def seen(env):
    return [(agent, env.observe(agent), env.infos[agent]) for agent in env.agents]


@play
@few
def test_clone_and_replay_give_the_same_observations_and_state_keys(variant, seed, before, choices):
    env = start(variant, seed)
    actions, _ = advance(env, random.Random(choices), before)
    again = start(variant, seed)
    for action in actions:
        while again.terminations[again.agent_selection]:
            again.step(None)
        again.step(action)
    advance(again, random.Random(0), 0)
    twin = env.clone()
    assert seen(twin) == seen(again) == seen(env)
    untouched = seen(twin)
    went_on = advance(env, random.Random(1))
    assert seen(twin) == untouched
    assert advance(twin, random.Random(1)) == advance(again, random.Random(1)) == went_on


@play
@few
def test_illegal_is_always_worse_than_legal(variant, seed, before, choices):
    env = start(variant, seed)
    _, paid = advance(env, random.Random(choices), before)
    if not env.agents:
        return
    offender = env.agent_selection
    _, legal = advance(env.clone(), random.Random(choices))
    env.step("")
    assert env.infos[offender]["illegal"] is True
    _, rest = advance(env, random.Random(choices)) if not any(env.terminations.values()) else (None, {})
    fine = env.rewards.get(offender, 0.0) + rest.get(offender, 0.0)
    least = env.metadata["utility_range"][0]
    assert paid[offender] + fine == pytest.approx(least - 1)
    assert paid[offender] + legal[offender] >= least - 1e-9


@play
@few
def test_returns_stay_in_the_declared_range_and_zero_sum_games_sum_to_zero(variant, seed, before, choices):
    env = start(variant, seed)
    _, paid = advance(env, random.Random(choices))
    low, high = env.metadata["utility_range"]
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in paid.values())
    if env.metadata["zero_sum"]:
        assert sum(paid.values()) == 0


@FORFEITS
@pytest.mark.parametrize(("name", "chosen"), VARIANTS)
def test_variants_keep_their_promises(name, chosen, on_illegal):
    assert check(lambda: games.make(name, on_illegal=on_illegal, **chosen), games=5) == []


@FORFEITS
@pytest.mark.parametrize(("name", "chosen"), VARIANTS)
def test_the_parallel_form_passes_pettingzoos_test(name, chosen, on_illegal, capsys):
    env = games.make(name, on_illegal=on_illegal, **chosen)
    assert isinstance(env, InTurns)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(env.parallel, 50)
    assert "Passed" in capsys.readouterr().out


def test_whoever_is_not_to_move_is_not_looked_at():
    game = games.make("donor_game", players=2, rounds=1, generations=1).parallel
    _, infos = game.reset(seed=0)
    (mover,) = [agent for agent, info in infos.items() if info["legal_actions"]]
    (other,) = set(game.agents) - {mover}
    _, rewards, terminations, _, infos = game.step({mover: "give", other: "nonsense"})
    assert rewards == {mover: -1.0, other: 3.0}
    assert infos[other]["legal_actions"] == ("give", "keep")
    assert not any(terminations.values())


def test_two_who_are_illegal_at_once_both_forfeit():
    game = games.make("matrix_game", max_rounds=3, continuation=1.0).parallel
    game.reset(seed=0)
    game.step({"player_0": "defect", "player_1": "cooperate"})
    _, rewards, terminations, _, infos = game.step({"player_0": "split"})
    assert rewards == {"player_0": -6.0, "player_1": -1.0}  # both end at the least utility, 0, minus 1
    assert infos["player_0"]["reward_parts"] == {"illegal": -6.0}
    assert terminations == {"player_0": True, "player_1": True}
    assert game.agents == []


class Lenient(MatrixGame):
    """Forgets what it has paid."""

    def step(self, actions):
        self._returns = dict.fromkeys(self.possible_agents, 0.0)
        return super().step(actions)


def test_a_forfeit_that_leaves_earlier_pay_is_found_too_cheap():
    chosen = {"table": [[(2.0, 2.0)]], "actions": (("go",), ("go",)), "continuation": 1.0, "max_rounds": 3}

    def lenient():
        return in_turns(Lenient(talk=False, memory=1, on_illegal="forfeit", **chosen))

    problems = check(lenient, games=5, seed=5)  # seeds 5 and 6 play a whole round before the illegal move
    assert any("which is not less than the worst legal outcome 2" in told for told in problems), problems
