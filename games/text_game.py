"""The base of games with rules of our own: what is the same in all of them, written once."""

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from random import Random
from typing import Any, Generic, Self, TypeVar

from gymnasium import spaces
from pettingzoo import ParallelEnv

from games.settings import OnIllegal, check_on_illegal
from games.spaces import AnyText

MAX_OBSERVATION = 4096
MAX_ACTION = 1024
ANSWER = "Answer with one of the legal actions"

Text = dict[str, str]
Legal = tuple[str, ...] | None
Parts = Mapping[str, Mapping[str, float]]
"""Agent to its rewards by named part."""

Position = TypeVar("Position")


class TextGame(ParallelEnv, Generic[Position]):  # type: ignore[misc]  # PettingZoo has no types
    """A game in which every observation and action is text, and whoever has legal actions moves.

    A game is a subclass with a frozen dataclass as its `position`: `deal` draws the first one, `legal` and `see`
    look at it, `after` says which one follows and what it pays, `over` who is out. `deal` makes all the draws
    there are, so that clones share them. Where one agent moves at a time the others have no legal actions. A forfeit
    takes back what the offender has been paid, so that it is worth the same in every round.

    `seats`: agent to role, in the order of play. `answer` and `default` end the rules: how to answer, and what
    anything else does unless it forfeits.

    Raises:
        ValueError: `on_illegal` is not one of its two values.
    """

    position: Position

    def __init__(
        self,
        *,
        name: str,
        rules: str,
        seats: Mapping[str, str],
        utility_range: tuple[float, float],
        on_illegal: OnIllegal,
        answer: str = ANSWER,
        default: str = "plays the first of them",
        zero_sum: bool = False,
        state_key: bool = True,
    ) -> None:
        super().__init__()
        check_on_illegal(name, on_illegal)
        self.possible_agents = list(seats)
        self.agents: list[str] = []
        self._seats = dict(seats)
        self._on_illegal = on_illegal
        self._legal: dict[str, Legal] = {}
        self._returns: dict[str, float] = {}
        self.metadata: dict[str, Any] = {
            "name": name,
            "rules": f"{rules} {answer}; anything else {'forfeits' if on_illegal == 'forfeit' else default}.",
            "utility_range": utility_range,
            "zero_sum": zero_sum,
            "roles": tuple(dict.fromkeys(seats.values())),
            "on_illegal": on_illegal,
            "seeded": True,
            "clone": True,
            "state_key": state_key,
            "is_parallelizable": False,
            "render_modes": [],
        }

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

    def key(self, agent: str) -> str | None:
        """All that the agent knows, as text; equal keys mean equal decision problems."""
        return None

    def read(self, agent: str, text: str) -> str | None:
        """The action that a text means, in the game's own spelling; None: it is illegal.

        Case and blank space around it do not matter. A game whose actions are not a list says more.
        """
        action = text.strip().casefold()
        return action if action in (self._legal[agent] or ()) else None

    def examples(self, agent: str) -> tuple[str, ...]:
        """Some legal actions where they are not a list; the first is what `default_action` plays."""
        return ()

    def offer(self, agent: str) -> str:
        """How the legal actions are told to the agent; empty where the rules tell it."""
        return f"Legal actions: {', '.join(self._legal[agent] or ())}"

    @property
    def hidden(self) -> dict[str, Any]:
        """Facts for evaluation that no seat may see; JSON values."""
        return {}

    @cached_property
    def observation_spaces(self) -> dict[str, spaces.Dict]:
        """The space of each agent's observations."""
        return {agent: spaces.Dict({"text": AnyText(MAX_OBSERVATION)}) for agent in self.possible_agents}

    @cached_property
    def action_spaces(self) -> dict[str, AnyText]:
        """The space of each agent's actions."""
        return {agent: AnyText(MAX_ACTION) for agent in self.possible_agents}

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return self.action_spaces[agent]

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
        parts: Parts
        if offenders and self._on_illegal == "forfeit":
            worst = self.metadata["utility_range"][0] - 1.0
            parts = {agent: {"illegal": worst - self._returns[agent]} for agent in offenders}
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

    def clone(self) -> Self:
        """An independent copy; rules and spaces are shared."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def close(self) -> None:
        """Nothing to release."""

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
        infos: dict[str, dict[str, Any]] = {
            agent: {
                "legal_actions": self._legal[agent],
                "role": self._seats[agent],
                "state_key": self.key(agent),
                "illegal": agent in offenders,
                "reward_parts": {part: float(value) for part, value in parts.get(agent, {}).items() if value},
            }
            for agent in agents
        }
        for agent in agents:
            if self._legal[agent] is None:
                infos[agent]["examples"] = self.examples(agent)
        return observations, infos

    def _text(self, agent: str) -> str:
        offer = "" if self._legal[agent] == () else self.offer(agent)
        return f"You are {agent}. {self.see(agent)}{' ' if offer else ''}{offer}"
