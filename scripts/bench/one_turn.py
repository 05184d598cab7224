"""The smallest game that is a GRPO task: one prompt of about 100 tokens, one reply, a trivial reward."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv

from games.spaces import AnyText
from marl_llm.types import Episode

WORDS = ("river", "stone", "amber", "cloud", "seven", "north", "paper", "light", "green", "quiet", "metal", "grain")
ACTIONS = ("yes", "no")
AGENT = "player_0"


def env() -> AECEnv:
    """A new game; the seed chooses the prompt's words."""
    return OneTurn()


def rewards(episode: Episode) -> Mapping[int, Mapping[str, float | None]]:
    """How many different characters a reply has: cheap, and rarely the same within a group."""
    return {index: {"variety": float(len(set(turn.reply)))} for index, turn in enumerate(episode.turns)}


class OneTurn(AECEnv):  # type: ignore[misc]  # PettingZoo has no types
    """One agent is asked once. The game itself pays nothing, unless the answer is illegal."""

    def __init__(self) -> None:
        super().__init__()
        self.possible_agents = [AGENT]
        self.agents: list[str] = []
        self.metadata = {
            "name": "one_turn",
            "rules": "",
            "utility_range": (0.0, 0.0),
            "zero_sum": False,
            "roles": (AGENT,),
            "seeded": True,
            "clone": False,
            "state_key": False,
            "is_parallelizable": False,
            "render_modes": [],
        }

    @cached_property
    def _observation_space(self) -> spaces.Dict:
        return spaces.Dict({"text": AnyText(1000)})

    @cached_property
    def _action_space(self) -> AnyText:
        return AnyText(100)

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return self._observation_space

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return self._action_space

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Draw the words."""
        words = np.random.default_rng(seed).choice(WORDS, size=65).tolist()
        self._text = f"{' '.join(words)}. Does amber come first?"
        self.agents = list(self.possible_agents)
        self.agent_selection = AGENT
        self.rewards = {AGENT: 0.0}
        self._cumulative_rewards = {AGENT: 0.0}
        self.terminations = {AGENT: False}
        self.truncations = {AGENT: False}
        self.infos = {AGENT: {"legal_actions": ACTIONS, "role": AGENT, "illegal": False, "reward_parts": {}}}

    def step(self, action: str | None) -> None:
        """Take the answer; None removes the agent when the game is over."""
        if self.terminations[AGENT]:
            self._was_dead_step(action)
            return
        legal = action in ACTIONS
        parts = {} if legal else {"illegal": -1.0}
        self.rewards = {AGENT: sum(parts.values())}
        self._accumulate_rewards()
        self.terminations = {AGENT: True}
        self.infos = {AGENT: {"legal_actions": (), "role": AGENT, "illegal": not legal, "reward_parts": parts}}

    def observe(self, agent: str) -> dict[str, str]:
        """The prompt."""
        return {"text": self._text}
