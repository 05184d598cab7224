"""OpenSpiel's rules as a PettingZoo environment that speaks text."""

import math
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, Self

import numpy as np
import pyspiel

from games.base import Parts, Text
from games.settings import OnIllegal, check_whole, refused
from games.turn_game import TurnGame


class OpenSpielEnv(TurnGame):
    """A turn-based OpenSpiel game in which every observation and action is text.

    A game is a subclass that says what a seat sees (`see`) and how an action is called (`action_text`), and, where
    it pays before its end, what it pays for (`reward_part`). All draws come from the seed of `reset`. Public for
    evaluators: `game` (pyspiel game), `position` (the current pyspiel state, not to be changed), `describe`, `legal`,
    `action_names` (a distinct text per action id).

    `opening`: up to that many random moves are made before the first decision, as many as the seed says, so that
    training meets more positions than good play leads to. They leave the game undecided.

    `scale`: utilities are multiplied so that the largest in size is this, which lets games of different stakes be
    mixed in one training; None leaves them as they are. `game` and `position` keep OpenSpiel's own.

    `utility_range`: the least and greatest utility, where OpenSpiel's bounds are wider than what can be reached.

    Raises:
        ValueError: `on_illegal` is not one of its two values, `opening` is negative, or `scale` is not positive.
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
        scale: float | None = None,
        utility_range: tuple[float, float] | None = None,
    ) -> None:
        kind = game.get_type()
        assert kind.dynamics == pyspiel.GameType.Dynamics.SEQUENTIAL
        assert len(set(action_names)) == len(action_names) == game.num_distinct_actions()
        check_whole(name, least=0, opening=opening)
        low, high = utility_range or (float(game.min_utility()), float(game.max_utility()))
        if scale is not None and not (isinstance(scale, (int, float)) and 0 < scale < math.inf):
            raise refused(name, "scale", scale, "more than 0, or null")
        self._factor = 1.0 if scale is None else scale / max(-low, high)
        super().__init__(
            name=name,
            rules=rules,
            seats={agent: agent for agent in (f"player_{player}" for player in range(game.num_players()))},
            utility_range=(low * self._factor, high * self._factor),
            zero_sum=kind.utility == pyspiel.GameType.Utility.ZERO_SUM,
            on_illegal=on_illegal,
            state_key=bool(kind.provides_information_state_string),
        )
        self.game = game
        self.action_names = action_names
        self._player = {agent: player for player, agent in enumerate(self.possible_agents)}
        self._has_key = self.metadata["state_key"]
        self._pays_on_the_way = kind.reward_model == pyspiel.GameType.RewardModel.REWARDS
        self._opening = opening

    _rng_is_shared: bool
    """With a clone: whoever draws next takes a copy first."""

    @abstractmethod
    def see(self, state: Any, player: int) -> str:
        """What the seat may know of the state, without the legal actions."""

    @abstractmethod
    def action_text(self, state: Any, action: int) -> str:
        """What the player to move calls the action; without spaces around it."""

    def reward_part(self, gain: float) -> str:
        """What a reward is for: the name of the part that it becomes."""
        return "step" if self._pays_on_the_way else "outcome"

    def legal(self, state: Any, player: int) -> dict[str, int]:
        """Text to OpenSpiel id of the player's legal actions, by id; empty unless it is to move."""
        if state.current_player() != player:
            return {}
        return {self.action_text(state, action): action for action in state.legal_actions()}

    def describe(self, state: Any, player: int) -> str:
        """The text that the seat observes in the state."""
        return self._describe(state, player, self.legal(state, player))

    def _describe(self, state: Any, player: int, legal: Mapping[str, int]) -> str:
        text = f"You are player_{player}. {self.see(state, player)}"
        if not legal:
            return text
        return f"{text}{'' if text[-1] == chr(10) else ' '}Legal actions: {self.separator.join(legal)}"

    def observe(self, agent: str) -> Text:
        """What the agent may know now, as `{"text": ...}`."""
        legal = self._legal if agent == self._mover else {}
        return {"text": self._describe(self.position, self._player[agent], legal)}

    def state_key(self, agent: str) -> str | None:
        """OpenSpiel's information state string, where the game has one."""
        return self.position.information_state_string(self._player[agent]) if self._has_key else None

    def clone(self) -> Self:
        """An independent copy, future draws included; rules and spaces are shared."""
        twin = super().clone()
        if hasattr(self, "position"):
            twin.position = self.position.clone()
            self._rng_is_shared = twin._rng_is_shared = True
        return twin

    def _begin(self, seed: int | None) -> None:
        self._rng = np.random.default_rng(seed)
        self._rng_is_shared = False
        self._deal()
        while self.position.is_terminal():  # rare deals of some games leave nothing to decide
            self._deal()
        if self._opening:
            self._open()
        self._paid = self.position.returns() if self._pays_on_the_way else [0.0] * len(self.possible_agents)

    def _deal(self) -> None:
        self.position = self.game.new_initial_state()
        self._advance()

    def _open(self) -> None:
        """Make the random moves of the opening; stops before a move that would end the game."""
        rng = self._draws()
        for _ in range(int(rng.integers(self._opening + 1))):
            action = int(rng.choice(self.position.legal_actions()))
            if self.position.child(action).is_terminal():
                return
            self.position.apply_action(action)
            self._advance()

    def _play(self, move: int) -> Parts:
        self.position.apply_action(move)
        self._advance()
        if not (self._pays_on_the_way or self.position.is_terminal()):
            return {}
        before, self._paid = self._paid, self.position.returns()
        gains = {a: (self._paid[i] - before[i]) * self._factor for a, i in self._player.items()}
        return {agent: {self.reward_part(gain): gain} for agent, gain in gains.items() if gain}

    def _over(self) -> bool:
        return bool(self.position.is_terminal())

    def _advance(self) -> None:
        """Draw what chance decides and find who is to move; changes `position`, `agent_selection`."""
        state = self.position
        if state.is_chance_node():
            draw_chance(state, self._draws())
        self._mover, self._legal = None, {}
        if not state.is_terminal():
            self._mover = self.agent_selection = self.possible_agents[state.current_player()]
            self._legal = self.legal(state, state.current_player())

    def _draws(self) -> np.random.Generator:
        """The generator, which is this environment's own from here on."""
        if self._rng_is_shared:
            state = self._rng.bit_generator.state
            self._rng = np.random.default_rng()
            self._rng.bit_generator.state = state
            self._rng_is_shared = False
        return self._rng


def draw_chance(state: Any, rng: np.random.Generator) -> None:
    """Let chance decide until a player has to, or the game is over; changes the state."""
    while state.is_chance_node():
        outcomes, probabilities = zip(*state.chance_outcomes())
        # As `Generator.choice` would draw, at a tenth of its cost.
        edges = list(accumulate(probabilities))
        drawn = bisect_right(edges, rng.random() * edges[-1], hi=len(edges) - 1)
        state.apply_action(outcomes[drawn])
