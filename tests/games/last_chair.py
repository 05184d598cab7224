"""A little game of PettingZoo's own kind, with arrays and numbers: who empties the stock is out, the last one wins."""

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv


def env(*, players=3, mask_in_infos=False, continuous=False):
    return Continuous() if continuous else LastChair(players, mask_in_infos)


class Continuous(AECEnv):
    """A game whose actions cannot be named."""

    possible_agents = ("player_0",)

    def action_space(self, agent):
        return spaces.Box(0, 1)


def describe(observation, agent):
    return f"The stock is {observation['observation'][0]}, says {agent}."


def name_action(action, agent):
    return ("Take one", "Take two")[action]


def same_name(action, agent):
    return "take"


class LastChair(AECEnv):
    """Each takes 1 or 2 (actions 0 and 1) of a stock of 1 to 4; whoever takes the last is out with -1."""

    def __init__(self, players, mask_in_infos):
        self.metadata = {"name": "last_chair", "is_parallelizable": False}
        self.possible_agents = [f"player_{number}" for number in range(players)]
        self._in_infos = mask_in_infos
        seen = {"observation": spaces.Box(0, 9, (2,), np.int64), "action_mask": spaces.Box(0, 1, (2,), np.int8)}
        self._observations = {agent: spaces.Dict(seen) for agent in self.possible_agents}
        self._actions = {agent: spaces.Discrete(2) for agent in self.possible_agents}

    def observation_space(self, agent):
        return self._observations[agent]

    def action_space(self, agent):
        return self._actions[agent]

    def reset(self, seed=None, options=None):
        self._rng = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self._skip_agent_selection = None
        self.agent_selection = self.agents[0]
        self._restock()

    def _restock(self):
        self.stock = int(self._rng.integers(1, 5))
        self._tell()

    def _tell(self):
        mask = np.array([1, self.stock > 1], np.int8)
        self.infos = {agent: {"action_mask": mask} if self._in_infos else {} for agent in self.agents}

    def observe(self, agent):
        array = np.array([self.stock, len(self.agents)])
        return (
            {"observation": array}
            if self._in_infos
            else {
                "observation": array,
                "action_mask": np.array([1, self.stock > 1], np.int8),
            }
        )

    def step(self, action):
        agent = self.agent_selection
        if self.terminations[agent]:
            self._was_dead_step(action)
            return
        self._cumulative_rewards[agent] = 0.0
        self._clear_rewards()
        following = self.agents[(self.agents.index(agent) + 1) % len(self.agents)]
        self.stock -= action + 1
        assert self.stock >= 0
        if self.stock == 0:
            self.rewards[agent], self.terminations[agent] = -1.0, True
            staying = [other for other in self.agents if not self.terminations[other]]
            if len(staying) == 1:
                self.rewards[staying[0]], self.terminations[staying[0]] = 1.0, True
            self._restock()
        self._tell()
        self.agent_selection = following
        self._accumulate_rewards()
        self._deads_step_first()

    def close(self):
        pass
