"""Simultaneous moves in turns: who sees what when, and to which turn rewards fall."""

import pytest
from gymnasium import spaces
from pettingzoo import ParallelEnv

import games
from games.spaces import AnyText
from marl_llm.play import play
from marl_llm.policies.base import Reply
from marl_llm.policies.scripted import make_scripted
from marl_llm.types import Match


def test_no_seat_sees_what_others_chose_in_the_same_round():
    env = games.make("matrix_game")
    env.reset(seed=0)
    before, info = env.observe("player_1"), dict(env.infos["player_1"])
    env.step("defect")
    assert env.agent_selection == "player_1"
    assert env.observe("player_1") == before
    assert env.infos["player_1"] == info | {"legal_actions": ("cooperate", "defect")}
    assert env.infos["player_0"]["legal_actions"] == ()
    assert env.rewards == {"player_0": 0.0, "player_1": 0.0}


def test_rewards_are_paid_when_the_last_one_has_chosen():
    env = games.make("matrix_game")
    env.reset(seed=0)
    env.step("defect")
    env.step("cooperate")
    assert env.rewards == {"player_0": 5.0, "player_1": 0.0}
    assert env.infos["player_0"]["reward_parts"] == {"outcome": 5.0}
    env.step("cooperate")
    assert env.rewards == {"player_0": 0.0, "player_1": 0.0}
    assert env.infos["player_0"]["reward_parts"] == {}


def test_an_illegal_move_is_reported_at_once_and_paid_with_its_round():
    env = games.make("matrix_game")
    env.reset(seed=0)
    env.step("betray")
    assert env.infos["player_0"]["illegal"] is True
    assert env.infos["player_1"]["illegal"] is False
    assert not any(env.terminations.values())
    env.step("cooperate")
    assert env.rewards == {"player_0": -1.0, "player_1": 0.0}
    assert env.infos["player_0"]["reward_parts"] == {"illegal": -1.0}
    assert env.infos["player_1"]["illegal"] is False
    assert all(env.terminations.values())


class Fixed:
    """Plays one action whatever it sees."""

    def __init__(self, action):
        self._action, self._ready = action, []

    def submit(self, ticket, view):
        self._ready.append((ticket, Reply(text=self._action, action=self._action)))

    def poll(self):
        ready, self._ready = self._ready, []
        return ready


def test_in_play_each_turn_gets_the_points_of_its_own_round():
    match = Match(
        id="m",
        game="matrix_game",
        settings={"max_rounds": 3, "continuation": 1.0},
        seed=0,
        group="g",
        seats={"player_0": "tit_for_tat", "player_1": "defect"},
    )
    policies = {"tit_for_tat": make_scripted("tit_for_tat", {}), "defect": Fixed("defect")}
    (episode,) = play([match], policies)
    assert [turn.action for turn in episode.turns] == ["cooperate", "defect", "defect", "defect", "defect", "defect"]
    assert [turn.rewards for turn in episode.turns] == [
        {},
        {"outcome": 5.0},
        {"outcome": 1.0},
        {"outcome": 1.0},
        {"outcome": 1.0},
        {"outcome": 1.0},
    ]
    assert episode.returns == {"player_0": 2.0, "player_1": 7.0}
    assert all(turn.role == "player" and turn.legal for turn in episode.turns)


def test_an_illegal_move_of_whoever_is_asked_first_is_recorded_at_its_own_turn():
    match = Match(id="m", game="matrix_game", seed=0, group="g", seats={"player_0": "rude", "player_1": "polite"})
    (episode,) = play([match], {"rude": Fixed("shout"), "polite": Fixed("cooperate")})
    assert [turn.legal for turn in episode.turns] == [False, True]
    assert [turn.rewards for turn in episode.turns] == [{"illegal": -1.0}, {}]


class Auction(ParallelEnv):
    """Not one of our games: each bids 1 or 2, whoever bids less leaves, and the last one gets 1."""

    def __init__(self):
        self.metadata = {"name": "auction", "rules": "Bid."}
        self.possible_agents = ["bidder_0", "bidder_1", "bidder_2"]
        self._space = AnyText(20)
        self._observed = spaces.Dict({"text": AnyText(20)})

    def observation_space(self, agent):
        return self._observed

    def action_space(self, agent):
        return self._space

    def told(self, agents):
        return {agent: {"text": "bid"} for agent in agents}, {agent: {"legal_actions": ("1", "2")} for agent in agents}

    def reset(self, seed=None, options=None):
        self.agents = list(self.possible_agents)
        return self.told(self.agents)

    def step(self, actions):
        playing = self.agents
        most = max(actions[agent] for agent in playing)
        self.agents = [agent for agent in playing if actions[agent] == most]
        over = len(self.agents) == 1
        rewards = {agent: float(over and agent in self.agents) for agent in playing}
        out = {agent: over or agent not in self.agents for agent in playing}
        if over:
            self.agents = []
        observations, infos = self.told(playing)
        return observations, rewards, out, dict.fromkeys(playing, False), infos


def auction():
    return Auction()


def test_a_users_parallel_game_is_played_in_turns_and_agents_may_leave_early():
    env = games.make("tests.games.test_turns:auction")
    env.reset(seed=0)
    for bid in ("1", "2", "2"):
        env.step(bid)
    assert env.agent_selection == "bidder_0"
    assert env.terminations == {"bidder_0": True, "bidder_1": False, "bidder_2": False}
    env.step(None)
    assert env.agents == ["bidder_1", "bidder_2"]
    assert env.agent_selection == "bidder_1"
    env.step("2")
    env.step("1")
    assert env.rewards == {"bidder_1": 1.0, "bidder_2": 0.0}
    assert all(env.terminations.values())


def test_an_action_outside_the_list_of_a_users_parallel_game_is_reported_as_illegal():
    env = games.make("tests.games.test_turns:auction")
    env.reset(seed=0)
    env.step("3")
    assert env.infos["bidder_0"]["illegal"] is True
    env.step("2")
    assert env.infos["bidder_1"]["illegal"] is False


@pytest.mark.parametrize("name", ["matrix_game", "public_goods"])
def test_random_players_play_whole_matches(name):
    matches = [Match(id=f"m{seed}", game=name, seed=seed, group="g", seats={"*": "random"}) for seed in range(20)]
    episodes = list(play(matches, {"random": make_scripted("random", {})}))
    assert len(episodes) == 20
    for episode in episodes:
        assert episode.status == "done"
        paid = dict.fromkeys(episode.returns, 0.0)
        for turn in episode.turns:
            paid[turn.agent] += sum(turn.rewards.values())
        assert paid == pytest.approx(episode.returns)
