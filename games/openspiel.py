"""OpenSpiel's rules as a PettingZoo environment that speaks text."""

from abc import abstractmethod
from bisect import bisect_right
from functools import cached_property
from itertools import accumulate
from typing import Any, Self

import numpy as np
import pyspiel
from gymnasium import spaces
from pettingzoo import AECEnv

from games.settings import OnIllegal as OnIllegal
from games.settings import check_on_illegal
from games.spaces import AnyText

MAX_OBSERVATION = 4096
MAX_ACTION = 256

Text = dict[str, str]


class OpenSpielEnv(AECEnv):  # type: ignore[misc]  # PettingZoo has no types
    """A turn-based OpenSpiel game with rewards at the end, in which every observation and action is text.

    A game is a subclass that says what a seat sees (`see`) and how an action is called (`action_text`). All
    draws come from the seed of `reset`. Public for evaluators: `game` (pyspiel game), `position` (the current
    pyspiel state, not to be changed), `describe`, `legal`, `action_names` (a distinct text per action id).

    `opening`: up to that many random moves are made before the first decision, as many as the seed says, so that
    training meets more positions than good play leads to. They leave the game undecided.

    Raises:
        ValueError: `on_illegal` is not one of its two values, or `opening` is negative.
    """

    def __init__(
        self,
        game: Any,
        *,
        name: str,
        rules: str,
        action_names: tuple[str, ...],
        on_illegal: OnIllegal,
        opening: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(opening, int) or opening < 0:
            raise ValueError(f"game {name}: opening={opening!r} is not allowed; it must be 0 or more")
        check_on_illegal(name, on_illegal)
        kind = game.get_type()
        assert kind.dynamics == pyspiel.GameType.Dynamics.SEQUENTIAL
        assert kind.reward_model == pyspiel.GameType.RewardModel.TERMINAL
        assert len(set(action_names)) == len(action_names) == game.num_distinct_actions()
        self.game = game
        self.action_names = action_names
        self.possible_agents = [f"player_{player}" for player in range(game.num_players())]
        self.agents: list[str] = []
        self.agent_selection: str = self.possible_agents[0]
        self.infos: dict[str, dict[str, Any]] = {}
        self._mover: str | None = None
        self._legal: dict[str, int] = {}
        self._player = {agent: player for player, agent in enumerate(self.possible_agents)}
        self._has_key = bool(kind.provides_information_state_string)
        self._on_illegal = on_illegal
        self._opening = opening
        otherwise = "forfeits" if on_illegal == "forfeit" else "plays the first of them"
        self.metadata = {
            "name": name,
            "rules": f"{rules} Answer with one of the legal actions; anything else {otherwise}.",
            "utility_range": (float(game.min_utility()), float(game.max_utility())),
            "zero_sum": kind.utility == pyspiel.GameType.Utility.ZERO_SUM,
            "roles": tuple(self.possible_agents),
            "on_illegal": on_illegal,
            "seeded": True,
            "clone": True,
            "state_key": self._has_key,
            "is_parallelizable": False,
            "render_modes": [],
        }

    @cached_property
    def observation_spaces(self) -> dict[str, spaces.Dict]:
        """The space of each agent's observations; made when first asked for, since play does without."""
        return {agent: spaces.Dict({"text": AnyText(MAX_OBSERVATION)}) for agent in self.possible_agents}

    @cached_property
    def action_spaces(self) -> dict[str, AnyText]:
        """The space of each agent's actions."""
        return {agent: AnyText(MAX_ACTION) for agent in self.possible_agents}

    @abstractmethod
    def see(self, state: Any, player: int) -> str:
        """What the seat may know of the state, without the legal actions."""

    @abstractmethod
    def action_text(self, state: Any, action: int) -> str:
        """What the player to move calls the action; in lower case, without spaces around it."""

    def legal(self, state: Any, player: int) -> dict[str, int]:
        """Text to OpenSpiel id of the player's legal actions, by id; empty unless it is to move."""
        if state.current_player() != player:
            return {}
        return {self.action_text(state, action): action for action in state.legal_actions()}

    def describe(self, state: Any, player: int) -> str:
        """The text that the seat observes in the state."""
        return self._describe(state, player, self.legal(state, player))

    def _describe(self, state: Any, player: int, legal: dict[str, int]) -> str:
        text = f"You are player_{player}. {self.see(state, player)}"
        if not legal:
            return text
        return f"{text}{'' if text[-1] == chr(10) else ' '}Legal actions: {', '.join(legal)}"

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Deal anew; the same seed gives the same game, None a fresh one."""
        self._rng = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self._skip_agent_selection = None
        self.position = self.game.new_initial_state()
        self._advance()
        if self._opening:
            self._open()
        self._inform({}, None)

    def step(self, action: str | None) -> None:
        """Play the action of `agent_selection`; None removes an agent whose game is over."""
        agent = self.agent_selection
        if self.terminations[agent]:
            self._was_dead_step(action)
            for info in self.infos.values():
                info["reward_parts"] = {}
            return
        assert action is not None
        chosen = self._legal.get(action.strip().casefold())
        offender = agent if chosen is None else None
        parts: dict[str, tuple[str, float]] = {}
        if chosen is None and self._on_illegal == "forfeit":
            parts[agent] = ("illegal", self.metadata["utility_range"][0] - 1.0)
            self._legal = {}
            over = True
        else:
            self.position.apply_action(next(iter(self._legal.values())) if chosen is None else chosen)
            self._advance()
            over = self.position.is_terminal()
            if over:
                returns = self.position.returns()
                parts = {a: ("outcome", returns[i]) for a, i in self._player.items() if returns[i] != 0}
        self._cumulative_rewards[agent] = 0.0
        for other in self.agents:
            self.rewards[other] = parts[other][1] if other in parts else 0.0
        self._accumulate_rewards()
        self._inform(parts, offender)
        if over:
            self.terminations = dict.fromkeys(self.agents, True)
            self._deads_step_first()

    def observe(self, agent: str) -> Text:
        """What the agent may know now, as `{"text": ...}`."""
        legal = self._legal if agent == self._mover else {}
        return {"text": self._describe(self.position, self._player[agent], legal)}

    def clone(self) -> Self:
        """An independent copy, future draws included; rules and spaces are shared."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        if not hasattr(self, "position"):
            return twin
        twin.position = self.position.clone()
        twin._rng = np.random.default_rng()
        twin._rng.bit_generator.state = self._rng.bit_generator.state
        twin.agents = list(self.agents)
        twin.infos = {agent: dict(info) for agent, info in self.infos.items()}
        for kept in ("rewards", "_cumulative_rewards", "terminations", "truncations"):
            setattr(twin, kept, dict(getattr(self, kept)))
        return twin

    def close(self) -> None:
        """Nothing to release."""

    def _open(self) -> None:
        """Make the random moves of the opening; stops before a move that would end the game."""
        for _ in range(int(self._rng.integers(self._opening + 1))):
            action = int(self._rng.choice(self.position.legal_actions()))
            if self.position.child(action).is_terminal():
                return
            self.position.apply_action(action)
            self._advance()

    def _advance(self) -> None:
        """Draw what chance decides and find who is to move; changes `position`, `agent_selection`."""
        state = self.position
        while state.is_chance_node():
            outcomes, probabilities = zip(*state.chance_outcomes())
            # As `Generator.choice` would draw, at a tenth of its cost.
            edges = list(accumulate(probabilities))
            drawn = bisect_right(edges, self._rng.random() * edges[-1], hi=len(edges) - 1)
            state.apply_action(outcomes[drawn])
        self._mover, self._legal = None, {}
        if not state.is_terminal():
            self._mover = self.agent_selection = self.possible_agents[state.current_player()]
            self._legal = self.legal(state, state.current_player())

    def _inform(self, parts: dict[str, tuple[str, float]], offender: str | None) -> None:
        state = self.position
        self.infos = {
            agent: {
                "legal_actions": tuple(self._legal) if agent == self._mover else (),
                "role": agent,
                "state_key": state.information_state_string(self._player[agent]) if self._has_key else None,
                "illegal": agent == offender,
                "reward_parts": dict((parts[agent],)) if agent in parts else {},
            }
            for agent in self.agents
        }
