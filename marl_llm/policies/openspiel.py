"""What scripted players know of a game on OpenSpiel's rules: states by state key, values of actions."""

import json
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from typing import Any

import pyspiel

import games
from games.openspiel import OpenSpielEnv
from marl_llm.errors import ConfigError

MAX_NODES = 1_000_000
"""Largest game tree of a game with hidden information that is walked."""
MAX_MOVES = 200
"""Longest game whose tree is walked: a longer one is too deep, and has too many states to be listed."""
MAX_BOARD_GAMES = 10**9
"""Upper bound of actions ** moves up to which every board of a game is evaluated; tic-tac-toe has 9**9."""


class Rules:
    """One game with its settings, and the way from a state key to a state."""

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        env = games.make(name, **settings).unwrapped
        if not isinstance(env, OpenSpielEnv):
            raise ConfigError(f"game {name}: only the random scripted policy can play it, it is not on OpenSpiel")
        kind = env.game.get_type()
        self.name = name
        self.env = env
        self._trees: dict[str | None, Tree] = {}
        self.hidden = kind.information != pyspiel.GameType.Information.PERFECT_INFORMATION
        self.small_board = (
            not self.hidden
            and kind.chance_mode == pyspiel.GameType.ChanceMode.DETERMINISTIC
            and kind.utility == pyspiel.GameType.Utility.ZERO_SUM
            and env.game.num_players() == 2
            and env.game.num_distinct_actions() ** env.game.max_game_length() <= MAX_BOARD_GAMES
        )

    @cached_property
    def tree(self) -> "Tree":
        return self.tree_without(None)

    def tree_without(self, never: str | None) -> "Tree":
        """The game's tree, with the values of play in which nobody afterwards takes the action called `never`."""
        if never not in self._trees:
            self._trees[never] = Tree(self.env, never)
        return self._trees[never]

    def state(self, key: str) -> Any:
        """A state in which the player to move knows exactly `key`; not to be changed."""
        if self.hidden:
            return self.tree.states[key]
        state = self.env.game.new_initial_state()
        for action in key.split(", ") if key else ():
            state.apply_action(int(action))
        return state


def rules_of(name: str, settings: Mapping[str, Any]) -> Rules:
    """The game's `Rules`: the same object for equal settings, since walking a tree is not free.

    Raises:
        ConfigError: the game is not on OpenSpiel's rules.
    """
    return _rules_of(name, json.dumps(dict(settings), sort_keys=True))


@lru_cache(maxsize=64)
def _rules_of(name: str, settings: str) -> Rules:
    return Rules(name, json.loads(settings))


class Tree:
    """The information states of a game, with the mean return of each action under uniformly random play.

    What comes after the action does without the action called `never`, where there is another one.
    """

    def __init__(self, env: OpenSpielEnv, never: str | None) -> None:
        self.states: dict[str, Any] = {}
        """One of the states behind each key."""
        self._env = env
        self._never = never
        self._reach: dict[str, float] = {}
        self._sums: dict[str, dict[int, float]] = {}
        self._nodes = 0
        if env.game.max_game_length() > MAX_MOVES:
            raise ConfigError(
                f"game {env.metadata['name']}: too long to be walked (over {MAX_MOVES} moves); use random"
            )
        self._walk(env.game.new_initial_state(), 1.0)

    def returns(self, key: str) -> dict[int, float]:
        """Mean return of each action for the player to move, all seats playing at random before and after."""
        return {action: total / self._reach[key] for action, total in self._sums[key].items()}

    def _walk(self, state: Any, reach: float) -> list[float]:
        """Mean returns of all players from `state`, which random play meets with probability `reach`."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            name = self._env.metadata["name"]
            raise ConfigError(f"game {name}: too large to be walked (over {MAX_NODES} nodes); use random")
        if state.is_terminal():
            return list(state.returns())
        if state.is_chance_node():
            chances = state.chance_outcomes()
            below = {action: self._walk(state.child(action), reach * chance) for action, chance in chances}
            return [sum(p * below[a][i] for a, p in chances) for i in range(state.num_players())]
        player = state.current_player()
        legal = self._env.legal(state, player)
        below = {action: self._walk(state.child(action), reach / len(legal)) for action in legal.values()}
        key = state.information_state_string()
        self.states.setdefault(key, state)
        self._reach[key] = self._reach.get(key, 0.0) + reach
        sums = self._sums.setdefault(key, dict.fromkeys(below, 0.0))
        for action, values in below.items():
            sums[action] += reach * values[player]
        taken = [below[action] for text, action in legal.items() if text != self._never] or list(below.values())
        return [sum(values[i] for values in taken) / len(taken) for i in range(state.num_players())]


def board_values(
    state: Any, memo: dict[str, float], combine: Callable[[int, list[float]], float], *, best: int = 0
) -> dict[int, float]:
    """Value of each action for the player to move.

    `combine(player, values)` makes the value of a board out of those of its successors, all for player 0;
    `memo` keeps it by board, since many orders of moves lead to one board. The `best` moves after the action
    are the best ones by these values.
    """

    def value(of: Any) -> float:
        if of.is_terminal():
            return float(of.returns()[0])
        board = str(of)
        if board not in memo:
            memo[board] = combine(of.current_player(), [value(of.child(action)) for action in of.legal_actions()])
        return memo[board]

    def foreseen(of: Any, moves: int) -> float:
        if moves == 0 or of.is_terminal():
            return value(of)
        choose = (max, min)[of.current_player()]
        return choose(foreseen(of.child(action), moves - 1) for action in of.legal_actions())

    sign = 1 if state.current_player() == 0 else -1
    return {action: sign * foreseen(state.child(action), best) for action in state.legal_actions()}
