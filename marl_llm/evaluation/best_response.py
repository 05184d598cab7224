"""How much a response that is made to beat a policy wins from it: exploitability, exact or bounded from below.

Where a game's positions can be listed and the policy decides by what it sees alone, the best response is computed.
Elsewhere a response is searched for and then plays fresh games; what it wins there is a lower bound, since no
response wins more than the best one.
"""

import random
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import log, sqrt
from typing import Any, TypeVar

import numpy as np
import pyspiel

from games.openspiel import OpenSpielEnv
from marl_llm.config import GameConfig
from marl_llm.evaluation.positions import Positions
from marl_llm.evaluation.states import Asked, History, look, zero_sum_rules
from marl_llm.evaluation.tournament import Mean, mean_of
from marl_llm.policies.base import Policy, Strategy, View
from marl_llm.seeds import derive
from marl_llm.text import canonical_reply

FRESH_GAMES = 1000
"""Games per seat in which a response that was found is measured."""
ROUND = 128
"""Simulations side by side, whose questions to a policy are asked together."""
EXPLORATION = 2.0
"""Weight of the bonus for actions that were tried little, in standard deviations of the returns."""
TRUSTED = 2
"""Simulations per action from which on a node of the search is believed rather than the policy itself."""
SMALLEST = 1e-6
"""Standard deviation that is reckoned with at least, so that something is explored where all returns were equal."""

T = TypeVar("T")
Game = Generator[View, Strategy, float]
"""A game being played: it asks what a policy does in a view, and ends with the return of the response."""
Choose = Callable[[Hashable, Sequence[int]], int | None]
"""What the response plays by what it knows, in OpenSpiel's ids; None: as the policy in its seat would."""


@dataclass(frozen=True, kw_only=True)
class BestResponse:
    """What responses win against the policies in their seats, averaged over the seats."""

    value: float
    """In units of the game's utility: the exploitability, or a lower bound of it."""
    low: float
    """Lower end of the 95 % interval of `value` over fresh games; with 97.5 % confidence, exploitability is no less."""
    high: float
    """Upper end of that interval: of the lower bound, not of the exploitability."""
    exact: bool
    """Whether the responses are the best ones and `value` is the exploitability itself."""
    simulations: int
    """Simulations per seat of the search; 0 where the best responses were computed."""
    seats: Mapping[str, Mean]
    """By the seat of the response: its mean return there."""


def best_response(
    game: GameConfig,
    policies: Mapping[str, Policy],
    seats: Mapping[str, str],
    *,
    simulations: int,
    seed: int,
    positions: Positions | None = None,
    games: int = FRESH_GAMES,
) -> BestResponse | None:
    """What responses win against the policies in their seats (agent -> policy name).

    None where the game is not two-player, zero-sum and on OpenSpiel's rules. `positions`: those of the game, where
    they can be listed. `simulations`, `games`: of the search and of its test, per seat. As in `Strategy`, illegal
    replies are left out.
    """
    env = zero_sum_rules(game)
    if env is None:
        return None
    exact = positions.best_response(seats) if positions is not None else None
    if exact is not None:
        won = {seat: Mean(mean=value, low=value, high=value) for seat, value in exact.items()}
    else:
        asked = Asked({agent: policies[seats[agent]] for agent in env.possible_agents})
        won = {}
        for player, seat in enumerate(env.possible_agents):
            search = _Search(env, game, player, asked)
            search.run(simulations, derive(seed, "search", seat))
            won[seat] = mean_of(search.test(games, derive(seed, "fresh", seat)))
    value = sum(mean.mean for mean in won.values()) / len(won)
    spread = sqrt(sum((mean.high - mean.mean) ** 2 for mean in won.values())) / len(won)
    return BestResponse(
        value=value,
        low=value - spread,
        high=value + spread,
        exact=exact is not None,
        simulations=0 if exact is not None else simulations,
        seats=won,
    )


class _Node:
    """What has come of each action at one of the response's decisions.

    Values are those of the best action so far at every node below, not of the simulations that explored there (full
    Bellman backups along the path), since only the best action will be played.
    """

    def __init__(self, actions: int) -> None:
        self.begun = [0] * actions
        """Simulations that took the action, those under way included."""
        self._ended = [0] * actions
        self._totals = [0.0] * actions
        """Sums over the simulations that ended: the value of the node that came next, or the return where none did."""
        self._next: list[dict[_Node, tuple[int, float]]] = [{} for _ in range(actions)]
        """By the node that came next: how often it did, and its value as counted in the total."""
        self._returns = 0.0

    def select(self, spread: float) -> int:
        """UCB over the actions, by place. Simulations under way count as tried, their returns not yet as known, so
        that those side by side spread out (arXiv 1810.11755)."""
        if 0 in self.begun:
            return self.begun.index(0)
        tried = log(sum(self.begun))
        values = [self._mean(place) + spread * sqrt(tried / begun) for place, begun in enumerate(self.begun)]
        return values.index(max(values))

    def learn(self, place: int, after: "_Node | None", won: float) -> None:
        """Count a simulation in which the action led to the node `after`, if any, and in the end to the return."""
        self._returns += won
        self._ended[place] += 1
        if after is None:
            self._totals[place] += won
            return
        times, value = self._next[place].get(after, (0, 0.0))
        self._next[place][after] = (times + 1, after.value)
        self._totals[place] += (times + 1) * after.value - times * value

    @property
    def value(self) -> float:
        """What the response wins from here on."""
        best = self.best()
        return self._returns / sum(self._ended) if best is None else self._mean(best)

    def best(self) -> int | None:
        """The place of the best action; None while too little is known."""
        if sum(self._ended) < TRUSTED * len(self.begun):
            return None
        means = [self._mean(place) for place in range(len(self.begun))]
        return means.index(max(means))

    def _mean(self, place: int) -> float:
        ended = self._ended[place]
        return self._totals[place] / ended if ended else self._returns / max(1, sum(self._ended))


class _Search:
    """Monte-Carlo tree search for a response in one seat, in the manner of arXiv 2004.09677.

    Against a fixed policy a game is a decision problem for one. Every simulation plays from the deal on, with the true
    chances of cards and of the other seat's actions, so that hidden things are as likely at a node as they really are.
    A node is what the seat knows (in the open: the board); beyond the nodes the policy in its own seat plays on.
    """

    def __init__(self, env: OpenSpielEnv, game: GameConfig, player: int, asked: Asked) -> None:
        self._env = env
        self._game = game
        self._player = player
        self._asked = asked
        self._hidden = env.game.get_type().information != pyspiel.GameType.Information.PERFECT_INFORMATION
        self._nodes: dict[Hashable, _Node] = {}
        self._seen: dict[Hashable, tuple[View, Mapping[str, int]]] = {}
        self._returns: list[float] = []
        self._spread = 0.0

    def run(self, simulations: int, seed: int) -> None:
        """Grow the tree by so many simulations."""
        for start in range(0, simulations, ROUND):
            self._spread = EXPLORATION * max(float(np.std(self._returns or [1.0])), SMALLEST)
            numbers = range(start, min(start + ROUND, simulations))
            _together([self._simulation(derive(seed, number)) for number in numbers], self._asked.strategies)

    def test(self, games: int, seed: int) -> list[float]:
        """Returns of what was found, in so many fresh games."""

        def choose(known: Hashable, actions: Sequence[int]) -> int | None:
            place = self._nodes[known].best() if known in self._nodes else None
            return None if place is None else actions[place]

        return _together([self._play(choose, derive(seed, number)) for number in range(games)], self._asked.afresh)

    def _simulation(self, seed: int) -> Game:
        path: list[tuple[_Node, int]] = []
        grown = False

        def choose(known: Hashable, actions: Sequence[int]) -> int | None:
            nonlocal grown
            if known not in self._nodes:
                if grown:
                    return None
                grown = True
                self._nodes[known] = _Node(len(actions))
            node = self._nodes[known]
            place = node.select(self._spread)
            node.begun[place] += 1
            path.append((node, place))
            return actions[place]

        won = yield from self._play(choose, seed)
        after = None
        for node, place in reversed(path):
            node.learn(place, after, won)
            after = node
        self._returns.append(won)
        return won

    def _play(self, choose: Choose, seed: int) -> Game:
        """A game from the deal on, with `choose` in the response's seat."""
        draws = random.Random(seed)
        state = self._env.game.new_initial_state()
        histories: list[History] = [(), ()]
        while not state.is_terminal():
            if state.is_chance_node():
                action = _drawn(dict(state.chance_outcomes()), draws)
            else:
                action = yield from self._decide(state, choose, histories, draws, str(seed))
            state.apply_action(action)
        return float(state.returns()[self._player])

    def _decide(
        self, state: Any, choose: Choose, histories: list[History], draws: random.Random, purpose: str
    ) -> Generator[View, Strategy, int]:
        """OpenSpiel's id of what the player to move does; its history grows by it where histories matter."""
        player = state.current_player()
        actions: list[int] = state.legal_actions()
        known = (player, state.information_state_string(player) if self._hidden else str(state), *actions)
        chosen: int | None = actions[0] if len(actions) == 1 else None
        if chosen is None and player == self._player:
            chosen = choose(known, actions)
        if chosen is not None and not self._asked.histories_matter:
            return chosen
        view, legal = self._look(state, known, histories[player], purpose)
        if chosen is None:
            text = _drawn((yield view).actions, draws)
        else:
            text = next(text for text, action in legal.items() if action == chosen)
        histories[player] = (*histories[player], (view.observation, canonical_reply(text)))
        return legal[text]

    def _look(self, state: Any, known: Hashable, history: History, purpose: str) -> tuple[View, Mapping[str, int]]:
        """What the player to move sees; put into words once, where its history does not matter."""
        if self._asked.histories_matter:
            return look(self._env, self._game, state, history, purpose=purpose)
        if known not in self._seen:
            self._seen[known] = look(self._env, self._game, state, purpose="best response")
        return self._seen[known]


def _together(games: Sequence[Game], answer: Callable[[Sequence[View]], Sequence[Strategy]]) -> list[float]:
    """Play games side by side, with one call for what they ask in a round; their returns."""
    returns = [0.0] * len(games)
    asking: dict[int, View] = {}

    def go_on(number: int, step: Callable[[], View]) -> None:
        try:
            asking[number] = step()
        except StopIteration as end:
            returns[number] = end.value

    for number, game in enumerate(games):
        go_on(number, partial(next, game))
    while asking:
        numbers, views = zip(*asking.items(), strict=True)
        asking.clear()
        for number, strategy in zip(numbers, answer(views), strict=True):
            go_on(number, partial(games[number].send, strategy))
    return returns


def _drawn(chances: Mapping[T, float], draws: random.Random) -> T:
    (drawn,) = draws.choices(list(chances), list(chances.values()))
    return drawn
