"""What turns were really worth: exact values of all states of a small game under the policies' own probabilities."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marl_llm.config import GameConfig
from marl_llm.evaluation.states import Asked, by_sight
from marl_llm.matchmaking import seat_policy
from marl_llm.play import make_game
from marl_llm.policies.base import Policy, View
from marl_llm.seeds import derive
from marl_llm.types import Episode, Turn

MOST_STATES = 200_000
ILLEGAL = ""
"""A reply that no game accepts."""

Payment = Mapping[str, float]
"""Agent to what it is paid."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _State:
    """Where somebody decides."""

    view: View
    """What the agent sees who is to move."""
    after: Mapping[str, tuple[Payment, int | None]]
    """Action, or `ILLEGAL`, to what it pays at once and to the place of the state that follows; None: it is over."""


class StateGraph:
    """The states of a game that can be reached from some deals; it grows with the deals that are asked about.

    A state is all that the game knows: what others see, what was chosen in this round already, and what the seed will
    draw later. However it was reached it is one state, if the game can tell (`whole`); else each history is one. Every
    game can be listed that can be cloned, lists its actions, comes to no state twice and has at most `MOST_STATES`.
    """

    def __init__(self, game: GameConfig) -> None:
        """
        Raises:
            ValueError: the game cannot be cloned.
        """
        self.game = game
        self._env = make_game(game.name, game.settings).unwrapped
        if not self._env.metadata["clone"]:
            raise ValueError(f"game {game.name} cannot be cloned, so that its states cannot be listed")
        self.agents: Sequence[str] = tuple(self._env.possible_agents)
        self.states: list[_State] = []
        """What follows a state comes before it."""
        self._places: dict[Hashable, int] = {}
        self._roots: dict[int, int] = {}

    def root(self, seed: int) -> int:
        """Place of the state in which the deal begins.

        Raises:
            ValueError: an action is any text, or there are too many states.
        """
        if seed not in self._roots:
            self._env.reset(seed=seed)
            self._roots[seed] = self._walk(self._env.clone(), (seed,))
        return self._roots[seed]

    def _walk(self, env: Any, history: tuple[Hashable, ...]) -> int:
        whole = getattr(env, "whole", None)
        key = history if whole is None else whole
        if key in self._places:
            return self._places[key]
        agent = env.agent_selection
        legal = env.infos[agent]["legal_actions"]
        if not legal:
            raise ValueError(f"game {self.game.name} lists no actions in {env.observe(agent)['text']!r}")
        after: dict[str, tuple[Payment, int | None]] = {}
        for action in (*legal, ILLEGAL):
            twin = env.clone()
            twin.step(action)
            paid = {who: value for who, value in twin.rewards.items() if value}
            after[action] = paid, self._walk(twin, (*history, action)) if _goes_on(twin) else None
        if len(self.states) == MOST_STATES:
            raise ValueError(f"game {self.game.name} has more than {MOST_STATES} states")
        self.states.append(_State(view=self._view(env, agent, tuple(legal)), after=after))
        self._places[key] = len(self.states) - 1
        return self._places[key]

    def _view(self, env: Any, agent: str, legal: tuple[str, ...]) -> View:
        text = env.observe(agent)["text"]
        return View(
            game=self.game.name,
            settings=self.game.settings,
            match="values",
            agent=agent,
            rules=env.metadata.get("rules", ""),
            observation=text,
            legal_actions=legal,
            state_key=env.infos[agent].get("state_key"),
            seed=derive("values", text),
        )


class Values:
    """What every state so far of a graph is worth to every agent, given who sits where; all are asked in one batch."""

    def __init__(self, graph: StateGraph, policies: Mapping[str, Policy], seats: Mapping[str, str]) -> None:
        """`seats`: agent, or a pattern, to the name of its policy, whose present weights count. Exact, unless a policy
        thinks first.

        Raises:
            ValueError: a policy goes by more than what it sees.
        """
        seated = {agent: policies[seat_policy(seats, agent)] for agent in graph.agents}
        if not all(by_sight(policy) for policy in seated.values()):
            raise ValueError("values need policies that go by what they see alone (play.context: turn)")
        self._graph = graph
        self._worth: list[Mapping[str, float]] = []
        strategies = Asked(seated).strategies([state.view for state in graph.states])
        for state, strategy in zip(graph.states, strategies, strict=True):
            legal = 1 - strategy.illegal_mass
            chances = {action: legal * chance for action, chance in strategy.actions.items()}
            chances[ILLEGAL] = strategy.illegal_mass
            worth = dict.fromkeys(graph.agents, 0.0)
            for action, chance in chances.items():
                if chance:
                    for agent in graph.agents:
                        worth[agent] += chance * self._after(state, action, agent)
            self._worth.append(worth)

    def returns(self, seeds: Sequence[int]) -> dict[str, float]:
        """Expected return of each agent, as a mean over deals that the graph has."""
        roots = [self._worth[self._graph.root(seed)] for seed in seeds]
        return {agent: sum(worth[agent] for worth in roots) / len(roots) for agent in self._graph.agents}

    def advantages(self, episodes: Iterable[Episode]) -> dict[tuple[str, int], float]:
        """(match id, turn index) to Q(state, action) - V(state) of the agent that decided.

        The state is the whole one, private symbols of others included, and the expectation in V is over the agent's own
        action: COMA's counterfactual advantage (arXiv 1705.08926) with full information. A reply that is no legal
        action counts as what it leads to, with the probability of all such replies. Turns that were cut off by a full
        context have none. The graph must have the deals.
        """
        return {
            (episode.match.id, index): value
            for episode in episodes
            if episode.status != "fault"
            for index, value in self._along(episode)
        }

    def _along(self, episode: Episode) -> Iterable[tuple[int, float]]:
        place: int | None = self._graph.root(episode.match.seed)
        for index, turn in enumerate(episode.turns):
            if place is None or turn.legal is None:
                return
            state, action = self._graph.states[place], _said(turn)
            yield index, self._after(state, action, turn.agent) - self._worth[place][turn.agent]
            place = state.after[action][1]

    def _after(self, state: _State, action: str, agent: str) -> float:
        paid, place = state.after[action]
        return paid.get(agent, 0.0) + (0.0 if place is None else self._worth[place][agent])


def _said(turn: Turn) -> str:
    return turn.action if turn.legal and turn.action is not None else ILLEGAL


def _goes_on(env: Any) -> bool:
    """Whether somebody decides in the game; agents that are out are buried first."""
    while env.agents and (env.terminations[env.agent_selection] or env.truncations[env.agent_selection]):
        env.step(None)
    return bool(env.agents)
