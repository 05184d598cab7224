"""The base of games in which one seat moves at a time: reading an action, forfeits, paying by part, infos."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Self

from gymnasium import spaces
from pettingzoo import AECEnv

from games.settings import OnIllegal, check_on_illegal
from games.spaces import AnyText

MAX_OBSERVATION = 4096
MAX_ACTION = 256

Text = dict[str, str]
Parts = Mapping[str, Mapping[str, float]]
"""Agent to its rewards by named part; whoever gets nothing is left out."""


class TurnGame(AECEnv):  # type: ignore[misc]  # PettingZoo has no types
    """A game in which every observation and every action is text.

    A game says how it begins (`_begin`), what a move does and pays (`_play`), whether it is over (`_over`) and what an
    agent sees (`observe`); `_begin` and `_play` leave in `agent_selection` who is to move and in `_legal` what it may
    do: the text of each action with what `_play` shall be given for it, or None when any text is an action.

    Raises:
        ValueError: `on_illegal` is not one of its two values.
    """

    separator = ", "
    """What stands between legal actions in an observation; no action holds it."""
    max_observation = MAX_OBSERVATION
    """Length of the longest observation, in characters."""
    max_action = MAX_ACTION
    """Length of the longest action, in characters."""

    def __init__(
        self,
        *,
        name: str,
        agents: Sequence[str],
        rules: str,
        utility_range: tuple[float, float],
        zero_sum: bool,
        on_illegal: OnIllegal,
        clone: bool = True,
        state_key: bool = True,
    ) -> None:
        super().__init__()
        check_on_illegal(name, on_illegal)
        self.possible_agents = list(agents)
        self.agents: list[str] = []
        self.agent_selection: str = self.possible_agents[0]
        self.rewards: dict[str, float] = {}
        self._cumulative_rewards: dict[str, float] = {}
        self.terminations: dict[str, bool] = {}
        self.truncations: dict[str, bool] = {}
        self.infos: dict[str, dict[str, Any]] = {}
        self._mover: str | None = None
        self._legal: Mapping[str, Any] | None = {}
        self._returns: dict[str, float] = {}
        self._on_illegal = on_illegal
        self.metadata: dict[str, Any] = {
            "name": name,
            "rules": rules,
            "utility_range": utility_range,
            "zero_sum": zero_sum,
            "roles": tuple(self.possible_agents),
            "on_illegal": on_illegal,
            "seeded": True,
            "clone": clone,
            "state_key": state_key,
            "is_parallelizable": False,
            "render_modes": [],
        }

    @cached_property
    def observation_spaces(self) -> dict[str, spaces.Dict]:
        """The space of each agent's observations; made when first asked for, since play does without."""
        return {agent: spaces.Dict({"text": AnyText(self.max_observation)}) for agent in self.possible_agents}

    @cached_property
    def action_spaces(self) -> dict[str, AnyText]:
        """The space of each agent's actions."""
        return {agent: AnyText(self.max_action) for agent in self.possible_agents}

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return self.action_spaces[agent]

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

    def state_key(self, agent: str) -> str | None:
        """Names the agent's information state; None in a game without keys."""
        return None

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
        move = self._find(action)
        offender = agent if move is None else None
        forfeit = move is None and self._on_illegal == "forfeit"
        if forfeit:
            least = self.metadata["utility_range"][0]
            parts: Parts = {agent: {"illegal": least - 1.0 - self._returns[agent]}}
            self._mover = None
        else:
            parts = self._play(self._default() if move is None else move)
        self._pay(agent, parts)
        self._inform(parts, offender)
        if forfeit or self._over():
            self.terminations = dict.fromkeys(self.agents, True)
            self._deads_step_first()

    def clone(self) -> Self:
        """An independent copy, future draws included; rules and spaces are shared."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.agents = list(self.agents)
        twin.infos = {agent: dict(info) for agent, info in self.infos.items()}
        for kept in ("rewards", "_cumulative_rewards", "_returns", "terminations", "truncations"):
            setattr(twin, kept, dict(getattr(self, kept)))
        return twin

    def close(self) -> None:
        """Nothing to release."""

    def _find(self, action: str) -> Any:
        """The move that a text stands for; None when it is no legal action.

        Case matters only where actions differ by nothing else, as `Bxc3` and `bxc3` do in chess.
        """
        text = action.strip()
        if self._legal is None:
            return text or None
        if text in self._legal:
            return self._legal[text]
        folded = text.casefold()
        alike = [move for name, move in self._legal.items() if name.casefold() == folded]
        return alike[0] if len(alike) == 1 else None

    def _default(self) -> Any:
        """What is played for an illegal move under `default_action`."""
        assert self._legal, f"game {self.metadata['name']} has no list of actions to play the first of"
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
        legal = None if self._legal is None else tuple(self._legal)
        self.infos = {
            agent: {
                "legal_actions": legal if agent == self._mover else (),
                "role": agent,
                "state_key": self.state_key(agent),
                "illegal": agent == offender,
                "reward_parts": dict(parts[agent]) if agent in parts else {},
            }
            for agent in self.agents
        }
