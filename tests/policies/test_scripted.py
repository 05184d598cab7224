"""Scripted players: what they play, how strong they are, and that a seed fixes them."""

import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest
from open_spiel.python import policy as tabular
from open_spiel.python.algorithms.exploitability import exploitability

import games
from marl_llm.errors import ConfigError
from marl_llm.policies.base import View
from marl_llm.policies.openspiel import rules_of
from marl_llm.policies.scripted import (
    CFRPolicy,
    MCTSPolicy,
    MinimaxPolicy,
    NoisyPolicy,
    RandomPolicy,
    make_scripted,
)

EVERY_KIND = ["random", "noisy", "cfr", "minimax", "mcts"]


def view(*, game="kuhn_poker", agent="player_0", legal=("check", "bet"), key="2", seed=0, settings=None):
    return View(
        game=game,
        settings=settings or {},
        match="m",
        agent=agent,
        rules="",
        observation="",
        legal_actions=legal,
        state_key=key,
        seed=seed,
    )


def view_of(env, seed=0):
    agent = env.agent_selection
    info = env.infos[agent]
    name = env.metadata["name"]
    return view(game=name, agent=agent, legal=info["legal_actions"], key=info["state_key"], seed=seed)


def reply(policy, seen):
    policy.submit("ticket", seen)
    ((ticket, answer),) = policy.poll()
    assert ticket == "ticket"
    return answer


def returns(name, seats, seed):
    """What player_0 gets when the two policies play one game."""
    env = games.make(name)
    env.reset(seed=seed)
    turn = 0
    while not env.terminations[env.agent_selection]:
        player = env.possible_agents.index(env.agent_selection)
        env.step(reply(seats[player], view_of(env, seed * 100 + turn)).text)
        turn += 1
    return env.rewards["player_0"]


def table(policy, name):
    """The policy in every information state of the game, and its smallest probability."""
    rules = rules_of(name, {})
    made, least = tabular.TabularPolicy(rules.env.game), 1.0
    for key, state in rules.tree.states.items():
        player = state.current_player()
        ids = rules.env.legal(state, player)
        (strategy,) = policy.strategies([view(game=name, agent=f"player_{player}", legal=tuple(ids), key=key)])
        row = made.policy_for_key(key)
        row[:] = np.bincount(list(ids.values()), list(strategy.actions.values()), minlength=len(row))
        least = min(least, *strategy.actions.values())
    return rules.env.game, made, least


def test_a_reply_is_the_bare_action_and_comes_at_once():
    policy = RandomPolicy()
    policy.submit(1, view(seed=1))
    policy.submit(2, view(seed=2))
    answers = dict(policy.poll())
    assert set(answers) == {1, 2}
    assert all(answer.text == answer.action in ("check", "bet") for answer in answers.values())
    assert policy.poll() == []


def test_random_play_is_uniform():
    policy = RandomPolicy()
    (strategy,) = policy.strategies([view(legal=("a", "b", "c", "d"))])
    assert strategy.actions == {"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25}
    count = sum(reply(policy, view(seed=seed)).text == "bet" for seed in range(2000))
    assert abs(count - 1000) < 67  # three standard deviations


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_the_seed_of_the_view_fixes_the_decision(kind):
    game = "tic_tac_toe" if kind == "minimax" else "kuhn_poker"
    env = games.make(game)
    env.reset(seed=0)
    policies = [make_scripted(kind, {}) for _ in range(2)]
    for seed in (0, 1, 2**63 - 1):
        first, second = (reply(policy, view_of(env, seed)) for policy in policies)
        assert first == second
        assert first.action in env.infos["player_0"]["legal_actions"]


@pytest.mark.parametrize(("game", "bound"), [("kuhn_poker", 0.001), ("leduc_poker", 0.02)])
def test_cfr_is_close_to_an_equilibrium(game, bound):
    rules, policy, _ = table(CFRPolicy(iterations=100 if game == "leduc_poker" else 1000), game)
    assert exploitability(rules, policy) < bound


def test_cfr_knows_what_kuhn_proved():
    policy = CFRPolicy()
    bluff = policy.strategies([view(key="0")])[0].actions["bet"]
    value_bet = policy.strategies([view(key="2")])[0].actions["bet"]
    assert value_bet == pytest.approx(3 * bluff, abs=0.02)
    call = policy.strategies([view(agent="player_1", key="1b", legal=("fold", "call"))])[0].actions["call"]
    assert call == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize(("game", "low", "high"), [("kuhn_poker", 0.20, 0.30), ("leduc_poker", 1.5, 2.0)])
def test_noisy_play_is_weak_but_not_blind(game, low, high):
    rules, policy, least = table(NoisyPolicy(), game)
    assert low < exploitability(rules, policy) < high
    assert least >= 0.10


def test_noisy_play_weighs_mean_returns_under_random_play():
    # K facing a bet: folding pays -1, calling 2; temperature 0.5 of a range of 4 is 2, so the odds are exp(3 / 2).
    (strategy,) = NoisyPolicy(temperature=0.5).strategies([view(key="2pb", legal=("fold", "call"))])
    assert strategy.actions["call"] == pytest.approx(1 / (1 + np.exp(-1.5)))
    # J to move first: a check pays -5/4, a bet -1/2.
    (strategy,) = NoisyPolicy(temperature=0.5).strategies([view(key="0")])
    assert strategy.actions["bet"] == pytest.approx(1 / (1 + np.exp(-0.375)))


def test_noisy_play_of_a_large_board_takes_a_win_more_often():
    seen = view(game="connect_four", key="3, 0, 3, 0, 3, 1", legal=tuple("1234567"))
    (strategy,) = NoisyPolicy(temperature=0.1).strategies([seen])
    assert max(strategy.actions, key=strategy.actions.get) == "4"
    assert NoisyPolicy(temperature=0.1).strategies([seen]) == [strategy]


def test_minimax_solves_tic_tac_toe_in_time_and_never_loses():
    policy, started = MinimaxPolicy(), time.perf_counter()
    assert returns("tic_tac_toe", (policy, policy), 0) == 0
    assert time.perf_counter() - started < 2
    assert all(returns("tic_tac_toe", (policy, RandomPolicy()), seed) >= 0 for seed in range(50))
    assert all(returns("tic_tac_toe", (RandomPolicy(), policy), seed) <= 0 for seed in range(50))


def test_minimax_is_uniform_among_the_best_moves():
    # x in the middle: only the corners hold the draw.
    (strategy,) = MinimaxPolicy().strategies(
        [view(game="tic_tac_toe", agent="player_1", key="4", legal=tuple("abcdfghi"))]
    )
    assert {action: p for action, p in strategy.actions.items() if p} == dict.fromkeys("acgi", 0.25)
    assert set(strategy.actions) == set("abcdfghi")


def test_mcts_finds_a_win_in_one_and_beats_random_play():
    (strategy,) = MCTSPolicy(simulations=200).strategies(
        [view(game="connect_four", key="3, 0, 3, 0, 3, 1", legal=tuple("1234567"))]
    )
    assert strategy.actions["4"] == 1
    assert sum(returns("tic_tac_toe", (MCTSPolicy(), RandomPolicy()), seed) for seed in range(20)) > 10


@pytest.mark.parametrize(
    ("kind", "game"), [("cfr", "tic_tac_toe"), ("minimax", "connect_four"), ("minimax", "kuhn_poker")]
)
def test_a_game_that_a_kind_cannot_play_is_refused_by_name(kind, game):
    env = games.make(game)
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=f"policy {kind}: {game} .*use (minimax or mcts|mcts|cfr)"):
        reply(make_scripted(kind, {}), view_of(env))


def test_settings_of_the_game_count():
    seen = view(key="3", settings={"players": 3})
    (strategy,) = CFRPolicy(iterations=10).strategies([seen])
    assert sum(strategy.actions.values()) == pytest.approx(1)


def test_a_game_without_state_keys_is_refused():
    with pytest.raises(ConfigError, match="game kuhn_poker: has no state keys, which NoisyPolicy needs"):
        reply(NoisyPolicy(), view(key=None))


def test_a_view_without_legal_actions_has_no_distribution():
    with pytest.raises(ValueError, match="player_0 has no legal actions"):
        RandomPolicy().strategies([view(legal=None)])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("cfr", {"iteration": 3}, "policy cfr: unknown option 'iteration'; nearest valid name: iterations"),
        ("random", {"seed": 3}, "policy random: unknown option 'seed'; it has no options"),
        ("mcts", {"simulations": 0}, "mcts.simulations: 0 is not allowed; it must be a whole number, 1 or more"),
        ("noisy", {"temperature": "hot"}, "noisy.temperature: 'hot' is not allowed; it must be more than 0"),
        ("llm", {}, "policy kind 'llm' is not scripted; scripted are: random, noisy, cfr, minimax, mcts"),
    ],
)
def test_a_wrong_option_is_named(kind, options, message):
    with pytest.raises(ConfigError, match=r"policy|noisy|mcts") as caught:
        make_scripted(kind, options)
    assert message in str(caught.value)


def test_tit_for_tat_cooperates_first_and_then_does_what_was_done_to_it():
    policy = make_scripted("tit_for_tat", {})
    env = games.make("matrix_game", max_rounds=4, continuation=1.0)
    env.reset(seed=0)
    played = []
    for other in ("cooperate", "defect", "defect", "cooperate"):
        env.step(other)
        played.append(reply(policy, view_of(env)).action)
        env.step(played[-1])
    assert played == ["cooperate", "cooperate", "defect", "defect"]


def test_tit_for_tat_knows_no_more_than_its_seat():
    policy = make_scripted("tit_for_tat", {})
    seen = view(game="matrix_game", legal=("cooperate", "defect"), key="matrix_game/player_0 0/0 0/1")
    assert policy.strategies([seen])[0].actions == {"cooperate": 0.0, "defect": 1.0}


def test_tit_for_tat_says_what_it_will_do():
    policy = make_scripted("tit_for_tat", {})
    env = games.make("matrix_game", talk=True, max_rounds=2, continuation=1.0)
    env.reset(seed=0)
    said = []
    for action in ("hello", None, "defect", None, "hello again", None):
        if action is None:
            info = env.infos["player_1"]
            seen = view(game="matrix_game", agent="player_1", legal=info["legal_actions"], key=info["state_key"])
            action = reply(policy, replace(seen, examples=info.get("examples", ()))).action
            said.append(action)
        env.step(action)
    assert said == ["I will play cooperate", "cooperate", "I will play defect"]


def test_tit_for_tat_refuses_other_games_and_different_actions():
    policy = make_scripted("tit_for_tat", {})
    with pytest.raises(ConfigError, match="tit_for_tat: plays matrix_game only, not kuhn_poker"):
        policy.strategies([view()])
    with pytest.raises(ConfigError, match="needs a matrix game with the same actions for both players"):
        policy.strategies([view(legal=("a",), key="matrix_game/player_0 0/1")])


def test_random_play_draws_from_the_examples_where_actions_are_not_a_list():
    policy = RandomPolicy()
    assert policy.strategies([replace(view(legal=None), examples=("a", "b"))])[0].actions == {"a": 0.5, "b": 0.5}
    with pytest.raises(ValueError, match="no legal actions to choose from"):
        policy.strategies([view(legal=None)])


def negotiation_key(told, counts=(1, 4), values=(6, 1)):
    return json.dumps(["negotiation", "player_1", counts, values, told])


def test_a_bargainer_wants_much_and_accepts_by_what_an_offer_leaves_it():
    policy = make_scripted("bargainer", {"temperature": 0.5})
    # The pool is worth 10: both bundles are worth what the other leaves, 6 and 4.
    key = negotiation_key(["propose 0 4"])
    seen = view(game="negotiation", legal=("walk away", "accept", "propose 1 0", "propose 0 4"), key=key)
    actions = policy.strategies([seen])[0].actions
    assert actions["accept"] == pytest.approx(0.6)
    assert actions["walk away"] == 0
    assert actions["propose 1 0"] / actions["propose 0 4"] == pytest.approx(math.exp((0.6 - 0.4) / 0.5))
    assert sum(actions.values()) == pytest.approx(1)


def test_a_bargainer_reads_offers_in_words_and_the_latest_one_counts():
    policy = make_scripted("bargainer", {})
    key = negotiation_key(["propose: 4 hats", "say: hm", "propose: 1 book, 4 hats"])
    seen = view(game="negotiation", legal=None, key=key)
    seen = replace(seen, examples=("walk away", "accept", "say: what do you want most?", "propose: 1 book"))
    assert policy.strategies([seen])[0].actions == {
        "walk away": 0,
        "accept": 0,
        "say: what do you want most?": 0,
        "propose: 1 book": pytest.approx(1),
    }


def test_a_bargainer_refuses_other_games():
    with pytest.raises(ConfigError, match="bargainer: plays negotiation only, not kuhn_poker"):
        make_scripted("bargainer", {}).strategies([view()])
    with pytest.raises(ConfigError, match=r"bargainer.temperature: -1 is not allowed"):
        make_scripted("bargainer", {"temperature": -1})


def test_foresight_sees_what_the_other_will_do():
    # X at a, f and g, O at c and e: O loses at once unless it blocks d.
    seen = view(game="tic_tac_toe", legal=("b", "d", "h", "i"), key="0, 2, 6, 4, 5")
    blind = NoisyPolicy(temperature=0.03).strategies([seen])[0].actions
    seeing = NoisyPolicy(temperature=0.03, foresight=1).strategies([seen])[0].actions
    assert seeing["d"] > 0.99
    assert blind["d"] < seeing["d"]
    with pytest.raises(ConfigError, match=r"foresight: kuhn_poker is not a small board"):
        NoisyPolicy(foresight=1).strategies([view(key="0")])
    with pytest.raises(ConfigError, match=r"foresight: -1 is not allowed; it must be a whole number, 0 or more"):
        NoisyPolicy(foresight=-1)


def test_the_informed_one_says_the_truth_as_often_as_it_is_told_to():
    env = games.make("discussion", rounds=1, agents=3)
    env.reset(seed=0)
    info, gold = env.infos["agent_0"], env.hidden["gold"]
    seen = replace(view(game="discussion", legal=None, key=info["state_key"]), examples=("none", "x", gold))
    actions = make_scripted("informed", {"accuracy": 0.6}).strategies([seen])[0].actions
    assert actions == {"none": pytest.approx(0.2), "x": pytest.approx(0.2), gold: pytest.approx(0.6)}
    assert make_scripted("informed", {"accuracy": 1}).strategies([seen])[0].actions[gold] == 1.0


def test_the_informed_one_refuses_games_without_a_truth():
    with pytest.raises(ConfigError, match="informed: plays pipelines on tasks only, not kuhn_poker"):
        make_scripted("informed", {}).strategies([view()])
    with pytest.raises(ConfigError, match=r"informed.accuracy: 2 is not allowed; it must be between 0 and 1"):
        make_scripted("informed", {"accuracy": 2})
