"""What the games of two players came to, deal by deal: all that tournaments and leaderboards are computed from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum

from marl_llm.config import GameConfig
from marl_llm.matchmaking import one_against, series
from marl_llm.types import Episode, Match

Seating = tuple[str, ...]
"""Who sits where, in the order of the game's agents."""
Games = Mapping[Seating, Sequence[Episode]]
"""Episodes by seating, in the order of the deals."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Deal:
    """One deal, which each of two players played alone in every seat, the other one in all other seats."""

    payoffs: tuple[float, float]
    """Return of the one and of the other, each where it is alone, averaged over the seats."""
    wins: tuple[float, float]
    """Share of those seats in which its return was above every other's."""
    advantage: float
    """Return of the one less the mean of the other seats, less the same of the other one, halved."""


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """All deals of two players, or of one with itself, with one seed."""

    game: GameConfig
    """What was played."""
    seed: int
    """What the deals follow from."""
    players: tuple[str, str]
    """Names, in alphabetical order."""
    deals: tuple[Deal | None, ...]
    """In order; None where a game ended at fault: half a deal would favour a seat."""
    episodes: int
    """Episodes played, those at fault included."""
    faults: int
    """Episodes at fault."""


def tables(
    game: GameConfig, agents: Sequence[str], pairs: Sequence[tuple[str, str]], *, num_games: int, seed: int
) -> dict[Seating, list[Match]]:
    """The matches of each seating that the pairs need, once, all on the same deals."""
    seatings = dict.fromkeys(_seating(agents, seat, *pair) for pair in pairs for seat in agents)
    return {
        seating: [
            replace(match, id=f"{number}/{match.id}")
            for match in series(game, dict(zip(agents, seating)), name="tournament", games=num_games, seed=seed)
        ]
        for number, seating in enumerate(seatings)
    }


def meet(
    game: GameConfig, agents: Sequence[str], games: Games, pair: tuple[str, str], *, num_games: int, seed: int
) -> Meeting:
    """What two players made of their deals."""
    one, other = sorted(pair)
    sides = [[games[_seating(agents, seat, *turned)] for seat in agents] for turned in ((one, other), (other, one))]
    episodes = {episode.match.id: episode for side in sides for played in side for episode in played}
    return Meeting(
        game=game,
        seed=seed,
        players=(one, other),
        deals=tuple(
            _deal(agents, *[[played[number] for played in side] for side in sides]) for number in range(num_games)
        ),
        episodes=len(episodes),
        faults=sum(episode.status == "fault" for episode in episodes.values()),
    )


def _seating(agents: Sequence[str], seat: str, policy: str, opponent: str) -> Seating:
    return tuple(one_against(agents, seat, policy, opponent).values())


def _deal(agents: Sequence[str], mine: Sequence[Episode], theirs: Sequence[Episode]) -> Deal | None:
    """From the episodes of each of the two, by its seat."""
    if any(episode.status == "fault" for episode in (*mine, *theirs)):
        return None
    one, other = ([_result(episode, seat) for seat, episode in zip(agents, side)] for side in (mine, theirs))
    ahead = _mean([own - mean for own, mean, _ in one]) - _mean([own - mean for own, mean, _ in other])
    return Deal(
        payoffs=(_mean([own for own, _, _ in one]), _mean([own for own, _, _ in other])),
        wins=(_mean([won for _, _, won in one]), _mean([won for _, _, won in other])),
        advantage=round(ahead / 2, 9),  # so that equal sums of rewards are a draw
    )


def _result(episode: Episode, seat: str) -> tuple[float, float, float]:
    """Return of a seat, mean return of the others, and 1.0 if it is above all of them."""
    own = episode.returns[seat]
    others = [value for agent, value in episode.returns.items() if agent != seat]
    return own, _mean(others), float(own > max(others))


def _mean(values: Sequence[float]) -> float:
    """The same on every version of Python, so that the same games are the same in all leaderboards."""
    return fsum(values) / len(values)
