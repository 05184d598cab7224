"""Games in the open with few positions: best responses and results, exact, by dynamic programming over positions."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import eq, gt, lt
from typing import Any

import pyspiel

from games.openspiel import OpenSpielEnv
from marl_llm.config import GameConfig
from marl_llm.evaluation.states import by_sight, look, zero_sum_rules
from marl_llm.policies.base import Policy, View
from marl_llm.policies.openspiel import MAX_MOVES

MOST_POSITIONS = 20_000

_Board = tuple[str, ...]
Chances = Mapping[str, float]
"""Action to its probability."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Exact chances of how a game ends for one seat, given that all replies are legal."""

    win: float
    """Probability of a return above the other seat's."""
    draw: float
    """Probability of equal returns."""
    loss: float
    """Probability of a return below the other seat's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """A position, however it was reached."""

    view: View | None
    """What the player to move sees; None: the game is over."""
    after: Mapping[str, int]
    """Action to the place in the list of the position that it leads to."""
    returns: tuple[float, ...]
    """Of both players, in units of the game's utility; what counts is where the game is over."""


class Positions:
    """All positions of a game, and what policies do in them; each policy is asked once, in one batch.

    A policy is left out that does not decide by what it sees alone, or whose probabilities are estimates.
    """

    def __init__(self, agents: Sequence[str], listed: Sequence[Position], policies: Mapping[str, Policy]) -> None:
        """`listed`: what each position leads to comes before it; the last one is where the game begins."""
        self._agents = agents
        self._listed = listed
        self._policies = policies
        self._asked: dict[str, Sequence[Chances] | None] = {}

    def __len__(self) -> int:
        return len(self._listed)

    def best_response(self, seats: Mapping[str, str]) -> dict[str, float] | None:
        """What the best response in each seat wins from the policy in the other one, in units of the game's utility.

        `seats`: agent to the name of its policy. None where one of the policies is left out.
        """
        chances = {agent: self._chances(seats[agent]) for agent in self._agents}
        first, second = chances.values()
        if first is None or second is None:
            return None
        one, other = self._agents
        return {
            one: self._value({one: None, other: second}, lambda mine, theirs: mine),
            other: self._value({one: first, other: None}, lambda mine, theirs: theirs),
        }

    def outcomes(self, policy: str, opponent: str) -> dict[str, Outcome]:
        """How games of the policy in each seat against the opponent end; empty where one of the two is left out."""
        mine, theirs = self._chances(policy), self._chances(opponent)
        if mine is None or theirs is None:
            return {}
        one, other = self._agents
        found = {}
        for seat, seats, won, lost in (
            (one, {one: mine, other: theirs}, gt, lt),
            (other, {one: theirs, other: mine}, lt, gt),
        ):
            win, loss = self._value(seats, won), self._value(seats, lost)
            found[seat] = Outcome(win=win, draw=self._value(seats, eq), loss=loss)
        return found

    def _value(self, seats: Mapping[str, Sequence[Chances] | None], payoff: Callable[[float, float], float]) -> float:
        """The mean of `payoff` of the two returns; a seat that is None takes what makes it greatest."""
        values: list[float] = []
        for number, position in enumerate(self._listed):
            if position.view is None:
                values.append(payoff(*position.returns))
                continue
            below = {action: values[place] for action, place in position.after.items()}
            chances = seats[position.view.agent]
            if chances is None:
                values.append(max(below.values()))
            else:
                values.append(sum(chance * below[action] for action, chance in chances[number].items()))
        return values[-1]

    def _chances(self, name: str) -> Sequence[Chances] | None:
        """By position, what the policy does there (nothing where the game is over); None: it is left out."""
        if name not in self._asked:
            self._asked[name] = self._ask(self._policies[name])
        return self._asked[name]

    def _ask(self, policy: Policy) -> Sequence[Chances] | None:
        views = [position.view for position in self._listed if position.view is not None]
        # One view tells whether it is worth asking about all.
        if not by_sight(policy) or policy.strategies(views[-1:])[0].samples is not None:
            return None
        answers = iter(policy.strategies(views))
        return [{} if position.view is None else next(answers).actions for position in self._listed]


def positions_of(game: GameConfig, policies: Mapping[str, Policy]) -> Positions | None:
    """The positions of a two-player zero-sum game on OpenSpiel's rules; None where they cannot be listed.

    They can where nothing is hidden and nothing drawn, there are at most `MOST_POSITIONS`, and none can come up twice
    in one game: no rule about repetition then makes two histories of a position differ.
    """
    found = _found(game.name, json.dumps(game.settings))
    return None if found is None else Positions(*found, policies)


def _fits(env: OpenSpielEnv) -> bool:
    """Whether nothing is hidden or drawn, and the walk is not too deep."""
    game, kind = env.game, env.game.get_type()
    in_the_open = kind.information == pyspiel.GameType.Information.PERFECT_INFORMATION
    without_chance = kind.chance_mode == pyspiel.GameType.ChanceMode.DETERMINISTIC
    return bool(in_the_open and without_chance and game.max_game_length() <= MAX_MOVES)


@lru_cache(maxsize=8)
def _found(name: str, settings_json: str) -> tuple[Sequence[str], Sequence[Position]] | None:
    """Agents and positions."""
    game = GameConfig(name=name, settings=json.loads(settings_json))
    env = zero_sum_rules(game)
    if env is None or not _fits(env):
        return None
    listed: list[Position] = []
    places: dict[_Board, int | None] = {}
    """None: the walk is on its way from there."""
    ahead: dict[_Board, Sequence[_Board]] = {}

    def walk(state: Any) -> int | None:
        view, legal = (None, {}) if state.is_terminal() else look(env, game, state, purpose="positions")
        board = (*_board(state), "" if view is None else view.observation)
        leads_to = [_board(state.child(number)) for number in legal.values()]
        if board in places:
            return places[board] if leads_to == ahead[board] else None
        if len(places) == MOST_POSITIONS:
            return None
        places[board], ahead[board] = None, leads_to
        after = {}
        for action, number in legal.items():
            place = walk(state.child(number))
            if place is None:
                return None
            after[action] = place
        listed.append(Position(view=view, after=after, returns=tuple(map(float, state.returns()))))
        places[board] = len(listed) - 1
        return places[board]

    return None if walk(env.game.new_initial_state()) is None else (env.possible_agents, listed)


def _board(state: Any) -> _Board:
    """What is there, who is to move, and what was won where nobody is."""
    over = state.is_terminal()
    return str(state), str(state.current_player()), *(map(str, state.returns()) if over else ())
