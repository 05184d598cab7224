"""Our games in the form that other libraries expect."""

from typing import Any, Self

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv
from pettingzoo.utils.wrappers import BaseWrapper

from games.openspiel import OpenSpielEnv


def masked(env: AECEnv) -> "MaskedEnv":
    """The game with OpenSpiel's tensors as observations and action ids as actions.

    Observation: `Dict{observation: Box float32, action_mask: int8 (num_actions,)}`. Action:
    `Discrete(num_actions)`, named by `env.unwrapped.action_names`. An action outside the mask is an illegal
    move, as in the text form. Stepping the result steps `env`.

    Raises:
        ValueError: `env` is not one of our OpenSpiel games.
    """
    if not isinstance(env.unwrapped, OpenSpielEnv):
        raise ValueError(f"masked() needs a game on OpenSpiel's rules, not {type(env.unwrapped).__name__}")
    return MaskedEnv(env)


class MaskedEnv(BaseWrapper):  # type: ignore[misc]  # PettingZoo has no types
    """See `masked`."""

    def __init__(self, env: AECEnv) -> None:
        super().__init__(env)
        game, kind = env.unwrapped.game, env.unwrapped.game.get_type()
        self._from_history = bool(kind.provides_information_state_tensor)
        self._shape = tuple(
            game.information_state_tensor_shape() if self._from_history else game.observation_tensor_shape()
        )
        self._num_actions = game.num_distinct_actions()
        self._observation_spaces = {agent: self._make_space() for agent in env.possible_agents}
        self._action_spaces = {agent: spaces.Discrete(self._num_actions) for agent in env.possible_agents}

    def _make_space(self) -> spaces.Dict:
        return spaces.Dict(
            {
                "observation": spaces.Box(-np.inf, np.inf, self._shape, np.float32),
                "action_mask": spaces.Box(0, 1, (self._num_actions,), np.int8),
            }
        )

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return self._action_spaces[agent]

    def observe(self, agent: str) -> dict[str, np.ndarray]:
        """Tensor and mask of the agent; the mask is all zeros when the agent is not to move."""
        state, player = self.unwrapped.position, self.possible_agents.index(agent)
        tensor = state.information_state_tensor(player) if self._from_history else state.observation_tensor(player)
        mask = np.zeros(self._num_actions, np.int8)
        # After a forfeit the state still has a player to move, but nobody may.
        if not self.unwrapped.terminations.get(agent, True):
            mask[list(self.unwrapped.legal(state, player).values())] = 1
        return {"observation": np.asarray(tensor, np.float32).reshape(self._shape), "action_mask": mask}

    def step(self, action: int | None) -> None:
        if action is None:
            self.env.step(None)
            return
        inner = self.unwrapped
        texts = {i: text for text, i in inner.legal(inner.position, inner.position.current_player()).items()}
        # No action is called by an empty text, so that an id outside the mask is refused by the game itself.
        self.env.step(texts.get(int(action), ""))

    def clone(self) -> Self:
        """An independent copy in the same form, with the same spaces."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.env = self.env.clone()
        return twin
