"""What evaluations share about games on OpenSpiel's rules: which they can measure, what a seat sees and does there."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyspiel

from games.openspiel import OpenSpielEnv
from marl_llm.config import GameConfig
from marl_llm.play import make_game
from marl_llm.policies.base import Policy, Strategy, View
from marl_llm.policies.llm import LLMPolicy
from marl_llm.policies.scripted import MinimaxPolicy, RandomPolicy
from marl_llm.seeds import derive

ATTEMPTS = 16
"""Replies drawn until one is legal; after that any legal action is as good as another."""

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


class Asked:
    """What the policies do, by seat; nobody is asked twice about the same thing."""

    def __init__(self, policies: Mapping[str, Policy]) -> None:
        self._policies = policies
        self._known: dict[Hashable, Strategy] = {}
        self._estimated: set[str] = set()
        self._replied = 0
        self.histories_matter = not all(by_sight(policy) for policy in policies.values())
        """Whether a policy goes by more than what it sees."""

    def strategies(self, views: Sequence[View]) -> list[Strategy]:
        """What the policy in each view's seat does there, asked in one batch per seat."""
        bases = [self._basis(view) for view in views]
        for agent, policy in self._policies.items():
            new = {b: view for b, view in zip(bases, views) if view.agent == agent and b not in self._known}
            if new:
                self._known.update(zip(new, policy.strategies(list(new.values())), strict=True))
                if any(self._known[basis].samples is not None for basis in new):
                    self._estimated.add(agent)
        return [self._known[basis] for basis in bases]

    def afresh(self, views: Sequence[View]) -> list[Strategy]:
        """The same for a test: where strategies are estimates, to whose noise a response may be fitted, the actions of
        new replies."""
        exact = [number for number, view in enumerate(views) if view.agent not in self._estimated]
        found = dict(zip(exact, self.strategies([views[number] for number in exact]), strict=True))
        waiting = {number: view for number, view in enumerate(views) if number not in found}
        for _ in range(ATTEMPTS):
            for number, action in self._replies(waiting).items():
                if action in (waiting[number].legal_actions or ()):
                    found[number] = Strategy(actions={action: 1.0})
                    del waiting[number]
        for number, view in waiting.items():
            legal = view.legal_actions or ()
            found[number] = Strategy(actions=dict.fromkeys(legal, 1 / len(legal)))
        return [found[number] for number in range(len(views))]

    def _replies(self, views: Mapping[int, View]) -> dict[int, str | None]:
        """One new reply to each view, as an action."""
        for number, view in views.items():
            self._replied += 1
            self._policies[view.agent].submit(number, replace(view, seed=derive(view.seed, self._replied)))
        found: dict[int, str | None] = {}
        while len(found) < len(views):
            for policy in self._policies.values():
                for ticket, reply in policy.poll():
                    assert isinstance(ticket, int)
                    found[ticket] = reply.action
        return found

    def _basis(self, view: View) -> Hashable:
        """What the policy in the view's seat goes by."""
        policy, seen = self._policies[view.agent], (view.agent, view.observation, view.legal_actions)
        if by_sight(policy):
            return seen
        if isinstance(policy, LLMPolicy):
            return (*seen, view.history)
        return (*seen, view.history, view.state_key, view.seed)
