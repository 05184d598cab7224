"""The base of games whose rules are somebody else's, one seat moving at a time: the adapters and `OpenSpielEnv`."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

from pettingzoo import AECEnv

from games.base import GameBase, Parts, Text, find


class TurnGame(GameBase, AECEnv):  # type: ignore[misc]  # PettingZoo has no types
    """A game in which every observation is text and every action one of a list.

    A game says how it begins (`_begin`), what a move does and pays (`_play`), whether it is over (`_over`) and what an
    agent sees (`observe`); `_begin` and `_play` leave in `agent_selection` and `_mover` who is to move and in `_legal`
    what it may do: the text of each action with what `_play` shall be given for it. Settings: see `GameBase`.
    """

    separator = ", "
    """What stands between legal actions in an observation; no action holds it."""

    agent_selection: str
    rewards: dict[str, float]
    terminations: dict[str, bool]
    truncations: dict[str, bool]
    infos: dict[str, dict[str, Any]]
    _cumulative_rewards: dict[str, float]
    _mover: str | None
    _legal: Mapping[str, Any]

    @abstractmethod
    def _begin(self, seed: int | None) -> None:
        """Deal anew; the same seed gives the same game, None a fresh one."""

    @abstractmethod
    def _play(self, move: Any) -> Parts:
        """Make the move of `agent_selection`; what it brings to whom."""

    @abstractmethod
    def _over(self) -> bool:
        """Whether nobody is to move any more."""

    @abstractmethod
    def observe(self, agent: str) -> Text:
        """What the agent may know now, as `{"text": ...}`."""

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Begin a new game; the same seed gives the same game, None a fresh one."""
        self.agents = list(self.possible_agents)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self._returns = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self._skip_agent_selection = None
        self._begin(seed)
        self._inform({}, None)

    def step(self, action: str | None) -> None:
        """Play the action of `agent_selection`; None removes an agent whose game is over."""
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._leave(action)
            return
        assert action is not None
        parts = self._try(action)
        illegal = parts is None
        forfeit = illegal and self._forfeits
        if forfeit:
            parts = self._forfeit([agent])
            self._mover = None
        elif parts is None:
            parts = self._play(self._default())
        self._pay(agent, parts)
        self._inform(parts, agent if illegal else None)
        if forfeit or self._over():
            self.terminations = dict.fromkeys(self.agents, True)
            self._deads_step_first()

    def clone(self) -> Self:
        """An independent copy, future draws included; rules and spaces are shared."""
        twin = super().clone()
        if not hasattr(self, "infos"):  # not reset yet
            return twin
        twin.agents = list(self.agents)
        twin.infos = {agent: dict(info) for agent, info in self.infos.items()}
        for kept in ("rewards", "_cumulative_rewards", "_returns", "terminations", "truncations"):
            setattr(twin, kept, dict(getattr(self, kept)))
        return twin

    def _try(self, action: str) -> Parts | None:
        """Make the move that the text means; what it brings to whom, None if it is illegal and nothing was done."""
        chosen = find(action, self._legal)
        return None if chosen is None else self._play(self._legal[chosen])

    def _default(self) -> Any:
        """What is played instead of an illegal move that does not forfeit."""
        return next(iter(self._legal.values()))

    def _leave(self, action: str | None) -> None:
        """The dead step of `agent_selection`."""
        self._was_dead_step(action)
        for info in self.infos.values():
            info["reward_parts"] = {}

    def _pay(self, mover: str, parts: Parts) -> None:
        self._cumulative_rewards[mover] = 0.0
        for agent in self.agents:
            reward = sum(parts[agent].values()) if agent in parts else 0.0
            self.rewards[agent] = reward
            self._returns[agent] += reward
        self._accumulate_rewards()

    def _inform(self, parts: Parts, offender: str | None) -> None:
        legal = tuple(self._legal)
        self.infos = {
            agent: self._info(agent, legal if agent == self._mover else (), parts, illegal=agent == offender)
            for agent in self.agents
        }
