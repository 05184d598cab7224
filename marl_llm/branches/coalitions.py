"""What agents are worth to their team: it plays on without some of them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import factorial

from marl_llm.branches.calls import DIFFERENCE
from marl_llm.branches.forks import branch, mean, states
from marl_llm.branches.found import Found, Place
from marl_llm.play import Playing
from marl_llm.seeds import generator
from marl_llm.types import Episode, Match

SHAPLEY = "shapley"
"""Reward part of an agent's last turn: its Shapley value. Those of a team sum to what it gets more than if all of it
were silent."""

Coalition = frozenset[str]
Worth = Callable[[Coalition], float | None]
"""What a coalition gets; None: unknown."""


def shapley(players: Sequence[str], worth: Worth) -> dict[str, float | None]:
    """Shapley values, exactly; None where a coalition that is needed is worth nobody knows what."""
    return {player: _exact(player, [p for p in players if p != player], worth) for player in players}


def _exact(player: str, others: Sequence[str], worth: Worth) -> float | None:
    total, count = 0.0, len(others) + 1
    for size in range(count):
        weight = factorial(size) * factorial(count - size - 1) / factorial(count)
        for chosen in combinations(others, size):
            with_, without = worth(frozenset((*chosen, player))), worth(frozenset(chosen))
            if with_ is None or without is None:
                return None
            total += weight * (with_ - without)
    return total


def sampled_shapley(orders: Sequence[Sequence[str]], worth: Worth) -> dict[str, float | None]:
    """The mean over `orders`, in which a team is put together, of what each player adds."""
    added: dict[str, list[float | None]] = {player: [] for player in orders[0]}
    for order in orders:
        for place, player in enumerate(order):
            with_, without = worth(frozenset(order[: place + 1])), worth(frozenset(order[:place]))
            added[player].append(None if with_ is None or without is None else with_ - without)
    return {
        player: None if None in values else mean([value for value in values if value is not None])
        for player, values in added.items()
    }


def antithetic(players: Sequence[str], pairs: int, *seed: int | str) -> list[tuple[str, ...]]:
    """Random orders, each followed by itself reversed."""
    chance = generator(*seed)
    drawn = [tuple(players[place] for place in chance.permutation(len(players))) for _ in range(pairs)]
    return [order for one in drawn for order in (one, one[::-1])]


@dataclass(frozen=True)
class _Team:
    """An episode, and the agents of it that learn."""

    place: int
    episode: Episode
    players: tuple[str, ...]
    orders: Sequence[Sequence[str]]
    """In which it is put together; empty: every coalition is looked at."""
    wants: frozenset[str]
    """Reward parts."""

    def parts(self, worth: Worth) -> dict[str, dict[str, float | None]]:
        """Each player's; `worth` is asked for what they need."""
        found: dict[str, dict[str, float | None]] = {player: {} for player in self.players}
        if SHAPLEY in self.wants:
            values = sampled_shapley(self.orders, worth) if self.orders else shapley(self.players, worth)
            for player, value in values.items():
                found[player][SHAPLEY] = value
        if DIFFERENCE in self.wants:
            whole = worth(frozenset(self.players))
            for player in self.players:
                without = worth(frozenset(self.players) - {player})
                found[player][DIFFERENCE] = None if whole is None or without is None else whole - without
        return found


def coalitions(
    episodes: Sequence[Episode],
    *,
    rollouts: int,
    parts: Collection[str],
    exact: int,
    permutations: int,
    muted: str | None,
    learning: Collection[str],
) -> Playing[Found]:
    """The parts `shapley` and `difference`, whichever are wanted, of the last turn of each agent whose policy learns.

    The team are those agents. A coalition plays without the others: from the first turn of one of these on, they do
    nothing but `muted` (None: a reply that cannot be read), `rollouts` times; it is worth the mean, over the team, of
    the returns. All of them together are worth what the episode gave. `difference` is what the team loses without the
    agent (Wolpert and Tumer 2001); a Shapley value is exact for up to `exact` agents, and beyond that a mean over
    `permutations` orders of the team and their reverses. Episodes of the group before whose fork all was the same share
    a coalition's rollouts. Unknown (None) where all of these ended at fault.
    """
    teams = [
        _team(place, episode, set(learning), frozenset(parts), exact, permutations)
        for place, episode in enumerate(episodes)
        if episode.status != "fault"
    ]
    teams = [team for team in teams if team.players]
    before = states(episodes)
    forks: dict[object, list[Match]] = {}
    keys: dict[tuple[int, Coalition], object] = {}
    for team in teams:
        for coalition in _needed(team):
            silent = [player for player in team.players if player not in coalition]
            fork = next(index for index, turn in enumerate(team.episode.turns) if turn.agent in silent)
            key = keys[team.place, coalition] = (before[team.place][fork], tuple(sorted(silent)))
            if key not in forks:
                purpose = f"c{len(forks)}"
                actions = dict.fromkeys(silent, muted)
                forks[key] = [
                    branch(team.episode, fork, number=n, muted=actions, purpose=purpose) for n in range(rollouts)
                ]
    replayed = yield [match for matches in forks.values() for match in matches]
    ended = {episode.match.id: episode for episode in replayed if episode.status != "fault"}
    rewards: dict[Place, Mapping[str, float | None]] = {}
    for team in teams:

        def worth(coalition: Coalition, team: _Team = team) -> float | None:
            if len(coalition) == len(team.players):
                return _payoff(team.episode, team.players)
            played = [ended[match.id] for match in forks[keys[team.place, coalition]] if match.id in ended]
            return mean([_payoff(episode, team.players) for episode in played])

        last = {turn.agent: index for index, turn in enumerate(team.episode.turns)}
        for player, found in team.parts(worth).items():
            rewards[team.place, last[player]] = found
    return Found(replayed=replayed, rewards=rewards)


def _team(
    place: int, episode: Episode, learning: Collection[str], wants: frozenset[str], exact: int, permutations: int
) -> _Team:
    players = tuple(dict.fromkeys(turn.agent for turn in episode.turns if turn.policy in learning))
    match = episode.match
    many = len(players) > exact
    orders = antithetic(players, permutations, match.seed, match.member, "coalitions") if many else ()
    return _Team(place, episode, players, orders, wants)


def _needed(team: _Team) -> list[Coalition]:
    """Those but the whole team whose worth its parts go by, each once."""
    asked: dict[Coalition, None] = {}

    def note(coalition: Coalition) -> float:
        asked[coalition] = None
        return 0.0

    team.parts(note)
    return [coalition for coalition in asked if len(coalition) < len(team.players)]


def _payoff(episode: Episode, players: Sequence[str]) -> float:
    return sum(episode.returns[player] for player in players) / len(players)
