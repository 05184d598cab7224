"""The pool of a league: who is in it, how everybody fares, and whom to meet next. Nothing here plays or writes.

Opponents are drawn by prioritised fictitious self-play (Vinyals et al., Nature 575, 2019): the more often, the harder
they are to beat, so that what was learned against one of them is not forgotten against another.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from marl_llm.config import LeagueConfig
from marl_llm.ratings import Rating, ratings
from marl_llm.seeds import generator

_WEIGHTS: Mapping[str, Callable[[float], float]] = {
    "hard": lambda p: (1 - p) ** 2,
    "even": lambda p: p * (1 - p),
    "uniform": lambda p: 1.0,
}


class Duel(NamedTuple):
    """The games of one group in which two policies met."""

    one: str
    """Who sat alone in a seat."""
    other: str
    """Who had all other seats."""
    share: float
    """Mean win rate of `one`: between 0 and 1, a draw is half a win."""
    games: int
    """How many games that were."""


class Record(NamedTuple):
    """How one policy fared against another, old games counting less."""

    won: float
    """Games won, a draw being half a win."""
    played: float
    """Games played."""


@dataclass(frozen=True, kw_only=True)
class League:
    """What a run knows of its pool; part of every checkpoint."""

    snapshots: tuple[str, ...] = ()
    """Those in the pool, as NAME@STEP, in the order of joining."""
    records: Mapping[str, Mapping[str, Record]] = field(default_factory=dict)
    """By policy that learns, then by opponent."""
    ratings: Mapping[str, Rating] = field(default_factory=dict)
    """Of everybody who has met somebody, or joined."""

    def win_rate(self, policy: str, opponent: str) -> float:
        """How likely a policy that learns wins, between 0 and 1: one draw is added to what was played."""
        won, played = self.records.get(policy, {}).get(opponent, (0.0, 0.0))
        return (won + 0.5) / (played + 1)

    def to_json(self) -> dict[str, Any]:
        """JSON values that keep every number exactly."""
        return {
            "snapshots": list(self.snapshots),
            "records": {
                name: {other: list(record) for other, record in of.items()} for name, of in self.records.items()
            },
            "ratings": {name: asdict(rating) for name, rating in self.ratings.items()},
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "League":
        """The inverse of `to_json`."""
        return League(
            snapshots=tuple(data["snapshots"]),
            records={n: {other: Record(*record) for other, record in of.items()} for n, of in data["records"].items()},
            ratings={name: Rating(**rating) for name, rating in data["ratings"].items()},
        )

    def metrics(self, main: str) -> dict[str, float]:
        """`league/win_rate/NAME` of the trained policy against those it has met, and `league/rating/NAME` (mu)."""
        met = {other: record.won / record.played for other, record in self.records.get(main, {}).items()}
        return {
            **{f"league/win_rate/{name}": rate for name, rate in met.items()},
            **{f"league/rating/{name}": rating.mu for name, rating in self.ratings.items()},
        }


def pool(config: LeagueConfig, league: League) -> tuple[str, ...]:
    """Everybody who can be drawn."""
    return (*config.members, *league.snapshots)


def draw(config: LeagueConfig, league: League, policy: str, *, groups: int, seed: int) -> list[str]:
    """The opponent of a policy in each of `groups` groups: at most `per_step` different ones, equal ones in a row.

    `per_step` are drawn independently and share the groups evenly, so that each is met as often as its weight says.
    """
    names = pool(config, league)
    weights = [_WEIGHTS[config.weighting](league.win_rate(policy, name)) for name in names]
    chances = [weight / sum(weights) for weight in weights]
    drawn = generator(seed, "league", policy).choice(len(names), size=config.per_step, p=chances)
    return [names[drawn[group * config.per_step // groups]] for group in range(groups)]


def record(config: LeagueConfig, league: League, duels: Sequence[Duel], learning: Iterable[str]) -> League:
    """The league after the games of one step; a group is one duel for the ratings, in the order given.

    `learning`: whose win rates are kept.
    """
    new: dict[tuple[str, str], Record] = defaultdict(lambda: Record(0.0, 0.0))
    for duel in duels:
        for one, other, share in ((duel.one, duel.other, duel.share), (duel.other, duel.one, 1 - duel.share)):
            won, played = new[one, other]
            new[one, other] = Record(won + share * duel.games, played + duel.games)
    records = {name: dict(league.records.get(name, {})) for name in learning}
    for (one, other), (won, played) in new.items():
        if one in records:
            old, left = records[one].get(other, Record(0.0, 0.0)), 0.5 ** (played / config.memory)
            records[one][other] = Record(left * old.won + won, left * old.played + played)
    met = {name for duel in duels for name in (duel.one, duel.other)}
    margins = [(duel.one, duel.other, duel.share - 0.5) for duel in duels]
    players = [*league.ratings, *sorted(met - league.ratings.keys())]
    return replace(league, records=records, ratings=ratings(players, margins, league.ratings))


def join(config: LeagueConfig, league: League, name: str, *, policy: str, main: str) -> League:
    """The league with a snapshot of `policy`, which begins with its rating; a pool that is too large loses somebody.

    `main`: the trained policy; whom it beats most easily goes, but never the newest.
    """
    rating = ratings([policy], [], league.ratings)[policy]
    joined = replace(league, snapshots=(*league.snapshots, name), ratings={**league.ratings, name: rating})
    if len(joined.snapshots) <= config.keep:
        return joined
    older = joined.snapshots[:-1] or joined.snapshots
    gone = max(older, key=lambda snapshot: joined.win_rate(main, snapshot))
    return forget(replace(joined, snapshots=tuple(s for s in joined.snapshots if s != gone)), gone)


def forget(league: League, name: str) -> League:
    """The league without the record and rating of somebody who has left, or begins anew."""
    return replace(
        league,
        records={
            one: {other: record for other, record in of.items() if other != name}
            for one, of in league.records.items()
            if one != name
        },
        ratings={one: rating for one, rating in league.ratings.items() if one != name},
    )
