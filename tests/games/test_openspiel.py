"""The base of our games: illegal moves, rewards, seeds, clones."""

import random

import pyspiel
import pytest

import games


def new(seed=0, name="kuhn_poker", **settings):
    env = games.make(name, **settings)
    env.reset(seed=seed)
    return env


def finish(env, chooser):
    """All that is seen and paid until the game ends, when every seat plays at random."""
    seen = []
    while not env.terminations[env.agent_selection]:
        env.step(chooser.choice(env.infos[env.agent_selection]["legal_actions"]))
        seen.append(([env.observe(agent) for agent in env.agents], dict(env.rewards), dict(env.infos)))
    return seen


def test_an_illegal_move_forfeits_one_more_than_the_worst_legal_outcome():
    env = new()
    env.step("fold")
    assert env.rewards == {"player_0": -3.0, "player_1": 0.0}
    assert env.terminations == {"player_0": True, "player_1": True}
    assert env.infos["player_0"]["illegal"] is True
    assert env.infos["player_0"]["reward_parts"] == {"illegal": -3.0}
    assert env.infos["player_1"]["illegal"] is False
    assert env.infos["player_1"]["reward_parts"] == {}
    assert env.infos["player_0"]["legal_actions"] == env.infos["player_1"]["legal_actions"] == ()


def test_an_illegal_move_may_play_the_first_legal_action_instead():
    env = new(on_illegal="default_action")
    env.step("raise")
    assert env.infos["player_0"]["illegal"] is True
    assert env.infos["player_0"]["reward_parts"] == {}
    assert "Moves so far: check." in env.observe("player_1")["text"]
    env.step("bet")
    assert env.infos["player_0"]["illegal"] is False


@pytest.mark.parametrize("text", ["bet", " Bet\n", "BET"])
def test_case_and_outer_spaces_of_an_action_do_not_matter(text):
    env = new()
    env.step(text)
    assert "Moves so far: bet." in env.observe("player_1")["text"]


@pytest.mark.parametrize("text", ["", "be t", "bet.", "bet check", "b", "ベット"])
def test_anything_else_is_illegal(text):
    env = new()
    env.step(text)
    assert env.infos["player_0"]["illegal"] is True


def test_each_seat_collects_its_outcome_once():
    env, collected = new(seed=3), {"player_0": 0.0, "player_1": 0.0}
    env.step("bet")
    env.step("call")
    paid = dict(env.rewards)
    for agent in env.agent_iter():
        collected[agent] += env.last()[1]
        env.step(None)
    assert collected == paid
    assert sorted(paid.values()) == [-2.0, 2.0]


def test_reward_parts_are_those_of_the_last_transition_only():
    env = new(seed=3)
    env.step("bet")
    assert env.infos["player_1"]["reward_parts"] == {}
    env.step("call")
    assert env.infos["player_1"]["reward_parts"] == {"outcome": env.rewards["player_1"]}
    env.step(None)
    assert env.infos["player_1"]["reward_parts"] == {}


def test_the_seed_fixes_the_deal_and_every_later_card():
    one, two, other = (finish(new(seed, "leduc_poker"), random.Random(1)) for seed in (4, 4, 5))
    assert one == two
    assert one != other


def test_seeds_deal_all_cards_about_equally_often():
    env, count = games.make("kuhn_poker"), {"J": 0, "Q": 0, "K": 0}
    for seed in range(3000):
        env.reset(seed=seed)
        count[env.observe("player_0")["text"].split("card: ")[1][0]] += 1
    # Three standard deviations of a binomial with p = 1/3 are 77.
    assert all(abs(times - 1000) < 78 for times in count.values())


def test_without_a_seed_every_reset_is_fresh():
    env, deals = games.make("kuhn_poker", players=10), set()
    for _ in range(5):
        env.reset()
        deals.add(tuple(env.observe(agent)["text"] for agent in env.agents))
    assert len(deals) > 1


def test_a_clone_goes_on_by_itself():
    env = new(7, "leduc_poker")
    env.step("bet")
    twin, before = env.clone(), env.observe("player_1")
    assert finish(twin, random.Random(2)) == finish(env.clone(), random.Random(2))
    assert env.observe("player_1") == before
    assert env.agent_selection == "player_1"
    assert not env.terminations["player_0"]


def test_a_clone_before_the_first_reset_can_be_reset():
    twin = games.make("kuhn_poker").clone()
    twin.reset(seed=0)
    assert twin.agents == ["player_0", "player_1"]


def test_infos_hold_the_information_state_and_the_role_of_each_seat():
    env = new(seed=0, name="tic_tac_toe")
    env.step("e")
    env.step("a")
    assert {agent: info["state_key"] for agent, info in env.infos.items()} == {"player_0": "4, 0", "player_1": "4, 0"}
    assert env.infos["player_1"]["role"] == "player_1"
    kuhn = new(seed=0)
    player_1 = kuhn.position.history()[1]
    kuhn.step("check")
    assert kuhn.infos["player_1"]["state_key"] == f"{player_1}p"


def test_describe_and_legal_serve_any_state_of_the_rules():
    env = games.make("kuhn_poker")
    state = env.unwrapped.game.new_initial_state()
    for action in (2, 0, 0, 1):  # K to player_0, J to player_1, check, bet
        state.apply_action(action)
    assert env.unwrapped.describe(state, 0) == (
        "You are player_0. Your card: K. Moves so far: check, bet. Legal actions: fold, call"
    )
    assert env.unwrapped.legal(state, 0) == {"fold": 0, "call": 1}
    assert env.unwrapped.legal(state, 1) == {}
    assert env.unwrapped.action_names == ("check/fold", "bet/call")


def test_metadata_declares_what_the_game_can_do():
    metadata = games.make("leduc_poker", players=3).metadata
    assert metadata["utility_range"] == (-13.0, 26.0)
    assert metadata["roles"] == ("player_0", "player_1", "player_2")
    assert all(metadata[key] is True for key in ("zero_sum", "seeded", "clone", "state_key"))
    assert metadata["is_parallelizable"] is False


def test_observations_of_any_language_are_in_the_space():
    space = games.make("kuhn_poker").observation_space("player_0")
    assert {"text": "Είσαι ο παίκτης 0"} in space
    assert {"text": "x" * 5000} not in space
    assert {"text": 3} not in space


def test_leduc_by_rank_has_the_value_of_leduc_by_suit():
    by_rank = games.make("leduc_poker").unwrapped.game
    by_suit = pyspiel.load_game("leduc_poker")
    uniform = [pyspiel.exploitability(game, pyspiel.UniformRandomPolicy(game)) for game in (by_rank, by_suit)]
    assert uniform == pytest.approx([2.373611, 2.373611], abs=1e-6)
