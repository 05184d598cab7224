"""What evaluations share about games on OpenSpiel's rules: which ones they can measure, and what a seat sees."""

from collections.abc import Mapping
from typing import Any

import pyspiel

from games.openspiel import OpenSpielEnv
from marl_llm.config import GameConfig
from marl_llm.play import make_game
from marl_llm.policies.base import Policy, View
from marl_llm.policies.llm import LLMPolicy
from marl_llm.policies.scripted import MinimaxPolicy, RandomPolicy
from marl_llm.seeds import derive

History = tuple[tuple[str, str], ...]
"""Earlier (observation, reply) pairs of a seat."""


def zero_sum_rules(game: GameConfig) -> OpenSpielEnv | None:
    """The game where it is two-player, zero-sum and on OpenSpiel's rules; None otherwise."""
    env = make_game(game.name, game.settings).unwrapped
    if not isinstance(env, OpenSpielEnv) or env.game.num_players() != 2:
        return None
    zero_sum = env.game.get_type().utility == pyspiel.GameType.Utility.ZERO_SUM
    return env if zero_sum else None


def look(
    env: OpenSpielEnv, game: GameConfig, state: Any, history: History = (), *, purpose: str
) -> tuple[View, Mapping[str, int]]:
    """What the player to move sees in the state, and OpenSpiel's ids of its actions.

    `purpose`: with what the player knows, it fixes the draws of the decision.
    """
    player = state.current_player()
    legal = env.legal(state, player)
    observation = env.describe(state, player)
    key = state.information_state_string(player) if env.metadata["state_key"] else None
    view = View(
        game=game.name,
        settings=game.settings,
        match=purpose,
        agent=env.possible_agents[player],
        rules=env.metadata["rules"],
        observation=observation,
        legal_actions=tuple(legal),
        state_key=key,
        seed=derive(purpose, observation if key is None else key),
        history=history,
    )
    return view, legal


def by_sight(policy: Policy) -> bool:
    """Whether the policy's strategy depends on rules, observation and legal actions alone, however they came about.

    Minimax reads the state key, but plays by the board that it leads to.
    """
    if isinstance(policy, LLMPolicy):
        return policy.forgetful
    return isinstance(policy, RandomPolicy | MinimaxPolicy)
