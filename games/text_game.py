"""The base of games with rules of our own, in which any number of seats move at a time."""

from abc import abstractmethod
from collections.abc import Hashable, Mapping
from random import Random
from typing import Any, Generic, TypeVar

from pettingzoo import ParallelEnv

from games.base import GameBase, Legal, Parts, Text, find

Position = TypeVar("Position")


class TextGame(GameBase, ParallelEnv, Generic[Position]):  # type: ignore[misc]  # PettingZoo has no types
    """A game in which every observation and action is text, and whoever has legal actions moves.

    A game is a subclass with a frozen dataclass as its `position`: `deal` draws the first one, `legal` and `see`
    look at it, `after` says which one follows and what it pays, `over` who is out. `deal` makes all the draws
    there are, so that clones share them. Where one agent moves at a time the others have no legal actions.
    Settings: see `GameBase`.
    """

    position: Position
    _legal: dict[str, Legal]

    @abstractmethod
    def deal(self, draws: Random) -> Position:
        """The first position."""

    @abstractmethod
    def legal(self, agent: str) -> Legal:
        """The agent's actions: none if it is not to move, None if they are not a list (see `read`)."""

    @abstractmethod
    def see(self, agent: str) -> str:
        """What the agent may know of the position, without the legal actions."""

    @abstractmethod
    def after(self, actions: Mapping[str, str]) -> tuple[Position, Parts]:
        """The position after the legal actions of all who are to move, and what it pays."""

    @abstractmethod
    def over(self, agent: str) -> bool:
        """Whether the game is over for the agent."""

    def read(self, agent: str, text: str) -> str | None:
        """The action that a text means, in the game's own spelling; None: it is illegal.

        A game whose actions are not a list says more.
        """
        return find(text, self._legal[agent] or ())

    def examples(self, agent: str) -> tuple[str, ...]:
        """Some legal actions where they are not a list; the first is what `default_action` plays."""
        return ()

    def offer(self, agent: str) -> str:
        """How the legal actions are told to the agent; empty where the rules tell it."""
        return f"Legal actions: {', '.join(self._legal[agent] or ())}"

    @property
    def hidden(self) -> dict[str, Any]:
        """Facts for evaluation that no seat may see; JSON values. The mean of each number among them is a metric."""
        return {}

    @property
    def whole(self) -> Hashable:
        """Equal where all that may follow is: the position, and what was paid if an illegal move takes it back."""
        return self.position, tuple(self.agents), tuple(self._returns.items()) if self._forfeits else ()

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Text], dict[str, dict[str, Any]]]:
        """Deal anew; the same seed gives the same game, None a fresh one."""
        self.position = self.deal(Random(seed))
        self.agents = list(self.possible_agents)
        self._returns = dict.fromkeys(self.agents, 0.0)
        return self._report(self.agents, {}, ())

    def step(self, actions: Mapping[str, str]) -> tuple[dict[str, Any], ...]:
        """Play the actions of all who are to move; those of others are not looked at, and none is an illegal one."""
        playing = self.agents
        read = {agent: self.read(agent, actions.get(agent, "")) for agent in self._movers()}
        offenders = tuple(agent for agent, action in read.items() if action is None)
        if offenders and self._forfeits:
            parts = self._forfeit(offenders)
            self.agents = []
        else:
            self.position, parts = self.after(
                {agent: self._default(agent) if action is None else action for agent, action in read.items()}
            )
            self.agents = [agent for agent in playing if not self.over(agent)]
        observations, infos = self._report(playing, parts, offenders)
        rewards = {agent: float(sum(infos[agent]["reward_parts"].values())) for agent in playing}
        self._returns = {agent: self._returns[agent] + reward for agent, reward in rewards.items()}
        terminations = {agent: agent not in self.agents for agent in playing}
        return observations, rewards, terminations, dict.fromkeys(playing, False), infos

    def accepts(self, agent: str, action: str) -> bool:
        """Whether the action is legal for an agent that is to move."""
        return self.read(agent, action) is not None

    def _movers(self) -> list[str]:
        return [agent for agent in self.agents if self._legal[agent] != ()]

    def _default(self, agent: str) -> str:
        legal = self._legal[agent]
        return (self.examples(agent) if legal is None else legal)[0]

    def _report(
        self, agents: list[str], parts: Parts, offenders: tuple[str, ...]
    ) -> tuple[dict[str, Text], dict[str, dict[str, Any]]]:
        """Observations and infos of the agents, of whom those in `self.agents` play on."""
        self._legal = {agent: self.legal(agent) if agent in self.agents else () for agent in agents}
        observations = {agent: {"text": self._text(agent)} for agent in agents}
        infos = {agent: self._info(agent, self._legal[agent], parts, illegal=agent in offenders) for agent in agents}
        for agent in agents:
            if self._legal[agent] is None:
                infos[agent]["examples"] = self.examples(agent)
        return observations, infos

    def _text(self, agent: str) -> str:
        offer = "" if self._legal[agent] == () else self.offer(agent)
        return f"You are {agent}. {self.see(agent)}{' ' if offer else ''}{offer}"
