"""Head to head: how a policy scores against an opponent, from each seat, with intervals; and all against all."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, groupby, permutations, zip_longest
from math import sqrt
from typing import Any

import numpy as np

from marl_llm.config import GameConfig
from marl_llm.errors import ConfigError, RunError
from marl_llm.evaluation.meetings import Deal, Meeting, meet, tables
from marl_llm.evaluation.ranking import alpha_rank, rings
from marl_llm.matchmaking import one_against, series
from marl_llm.metrics import action_shares, facts
from marl_llm.play import agents_of, make_game, play
from marl_llm.policies.base import Policy
from marl_llm.ratings import Rating, ratings
from marl_llm.types import Episode

Z95 = 1.959964


@dataclass(frozen=True, kw_only=True)
class Score:
    """Results of one policy in one seat against one opponent; intervals are 95 %."""

    games: int
    """Games played to the end; only these count."""
    mean: float
    """Mean return."""
    low: float
    """Lower end of the mean's interval (normal approximation)."""
    high: float
    """Upper end of the mean's interval."""
    win_rate: float
    """Share of games with a return above every opponent's."""
    win_low: float
    """Lower end of the win rate's interval (Wilson)."""
    win_high: float
    """Upper end of the win rate's interval."""
    not_lost: float
    """Share of games in which no opponent's return was higher."""
    turns: int
    """Decisions of the policy."""
    illegal_fraction: float
    """Share of those decisions that were no legal action."""
    details: Mapping[str, float] = field(default_factory=dict)
    """`action/NAME`: share of its actions where they are few; `fact/NAME`: mean of a number that the games told."""


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean with its 95 % interval (normal approximation)."""

    mean: float
    low: float
    """Lower end."""
    high: float
    """Upper end."""


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """How a player does alone against another one in all other seats; intervals are over deals, paired by deal."""

    deals: int
    """Deals that were played to the end from every seat, by both; only these count."""
    payoff: Mean
    """Its return, averaged over the seats."""
    advantage: Mean
    """Its return less the mean return of the other seats, less the same of the other one against it, halved."""
    win_rate: float
    """Share of games with a return above every opponent's."""

    @property
    def won(self) -> bool:
        """Whether it beats the other: the interval of its advantage lies above 0 (no correction for many pairs)."""
        return self.deals > 1 and self.advantage.low > 0


@dataclass(frozen=True, kw_only=True)
class Tournament:
    """What a tournament measured."""

    game: GameConfig
    """What was played."""
    players: tuple[str, ...]
    """Who took part."""
    meetings: tuple[Meeting, ...]
    """What all of the following is computed from."""
    pairings: Mapping[tuple[str, str], Pairing]
    """By player and opponent, those left out who did not meet or of whose deals none could be played to the end."""
    ratings: Mapping[str, Rating]
    """OpenSkill, by player; a deal, played from every seat, is one duel."""
    alpha_rank: Mapping[str, float]
    """Alpha-rank on who beats whom."""
    cycles: tuple[tuple[str, ...], ...]
    """Rings in which each player beats the next, and the last the first."""
    episodes: int
    """Episodes played, those at fault included."""
    faults: Mapping[str, int]
    """Why episodes ended at fault, to how many did; they are in no score."""

    def to_json(self) -> dict[str, Any]:
        """One JSON object; matrices have a row per player and a column per opponent, null where there is nothing."""

        def matrix(value: Callable[[Pairing], float]) -> list[list[float | None]]:
            found = {pair: value(pairing) for pair, pairing in self.pairings.items()}
            return [[found.get((row, column)) for column in self.players] for row in self.players]

        def with_interval(mean: Callable[[Pairing], Mean]) -> dict[str, Any]:
            return {
                "mean": matrix(lambda pairing: mean(pairing).mean),
                "low": matrix(lambda pairing: mean(pairing).low),
                "high": matrix(lambda pairing: mean(pairing).high),
            }

        return {
            "game": self.game.name,
            "settings": self.game.settings,
            "players": list(self.players),
            "payoff": with_interval(lambda pairing: pairing.payoff),
            "advantage": with_interval(lambda pairing: pairing.advantage),
            "win_rate": matrix(lambda pairing: pairing.win_rate),
            "deals": matrix(lambda pairing: pairing.deals),
            "ratings": {name: {**asdict(rating), "ordinal": rating.ordinal} for name, rating in self.ratings.items()},
            "alpha_rank": dict(self.alpha_rank),
            "cycles": [list(ring) for ring in self.cycles],
            "episodes": self.episodes,
            "faults": sum(self.faults.values()),
            "fault_notes": dict(self.faults),
        }


def head_to_head(
    game: GameConfig,
    policies: Mapping[str, Policy],
    policy: str,
    opponent: str,
    *,
    num_games: int,
    seed: int,
    max_turns: int = 1000,
) -> dict[str, Score]:
    """Play `num_games` games from each seat; seat name -> score of `policy` there.

    The seats play the same deals, so that the comparison of seats is not one of luck. Games at fault do not count.

    Raises:
        RunError: every game from a seat ended at fault.
    """
    agents = agents_of(game)
    scores = {}
    for seat in agents:
        seats = one_against(agents, seat, policy, opponent)
        matches = series(game, seats, name=f"{policy}-{opponent}", games=num_games, seed=seed)
        episodes = list(play(matches, policies, max_turns=max_turns))
        finished = [episode for episode in episodes if episode.status != "fault"]
        if not finished:
            raise RunError(f"{policy} against {opponent}: every game as {seat} ended at fault: {episodes[-1].note}")
        scores[seat] = score(finished, seat)
    return scores


def score(episodes: Sequence[Episode], seat: str) -> Score:
    """The score of whoever sat in `seat`."""
    mine = np.array([episode.returns[seat] for episode in episodes])
    best_other = np.array([max(v for k, v in episode.returns.items() if k != seat) for episode in episodes])
    turns = [turn for episode in episodes for turn in episode.turns if turn.agent == seat]
    wins = float(np.mean(mine > best_other))
    mean = mean_of(mine.tolist())
    low, high = wilson(wins, len(mine))
    return Score(
        games=len(mine),
        mean=mean.mean,
        low=mean.low,
        high=mean.high,
        win_rate=wins,
        win_low=low,
        win_high=high,
        not_lost=float(np.mean(mine >= best_other)),
        turns=len(turns),
        illegal_fraction=sum(turn.legal is False for turn in turns) / max(1, len(turns)),
        details={
            **{f"action/{name}": share for name, share in action_shares(turns).items()},
            **{f"fact/{name}": value for name, value in facts(episodes).items()},
        },
    )


def tournament(
    game: GameConfig,
    policies: Mapping[str, Policy],
    *,
    num_games: int,
    seed: int,
    max_turns: int = 1000,
    watch: Callable[[Iterable[Episode], int], Iterable[Episode]] = lambda episodes, total: episodes,
) -> Tournament:
    """Let every policy meet every other one on the same `num_games` deals, alone in each seat against the other.

    With two seats this is both orders. Where a game is not zero-sum everybody also meets itself, which tells how well
    it gets on with its like. `watch` gets the episodes as they end, and how many there will be, and passes them on.

    Raises:
        ConfigError: the game has one seat only.
    """
    env = make_game(game.name, game.settings).unwrapped
    agents: Sequence[str] = env.possible_agents
    if len(agents) < 2:
        raise ConfigError(f"game {game.name}: has one seat only, so that nobody can meet there")
    players = tuple(policies)
    pairs = list(permutations(players, 2))
    if not env.metadata.get("zero_sum", False):
        pairs += [(player, player) for player in players]
    matches = tables(game, agents, pairs, num_games=num_games, seed=seed)
    total = sum(map(len, matches.values()))
    played = play(chain.from_iterable(matches.values()), policies, max_turns=max_turns)
    episodes = {episode.match.id: episode for episode in watch(played, total)}
    games = {seating: [episodes[match.id] for match in table] for seating, table in matches.items()}
    met = dict.fromkeys(tuple(sorted(pair)) for pair in pairs)
    return tally(
        game,
        players,
        [meet(game, agents, games, (one, other), num_games=num_games, seed=seed) for one, other in met],
        faults=Counter(episode.note for episode in episodes.values() if episode.status == "fault"),
    )


def tally(
    game: GameConfig, players: Sequence[str], meetings: Iterable[Meeting], *, faults: Mapping[str, int]
) -> Tournament:
    """Payoffs, ratings and ranking from what was played in one game; deals of different seeds are pooled.

    The numbers depend neither on the order of the players nor on that of the meetings.
    """
    ordered = tuple(sorted(meetings, key=lambda meeting: (meeting.seed, meeting.players)))
    deals: dict[tuple[str, str], list[Deal]] = defaultdict(list)
    for meeting in ordered:
        deals[meeting.players] += [deal for deal in meeting.deals if deal is not None]
    pairings = {
        pair: _pairing(played, side)
        for (one, other), played in deals.items()
        for side, pair in enumerate([(one, other), (other, one)])
        if played
    }
    beats = {pair for pair, pairing in pairings.items() if pairing.won}
    shares = alpha_rank(sorted(players), beats)
    return Tournament(
        game=game,
        players=tuple(players),
        meetings=ordered,
        pairings=pairings,
        ratings=ratings(players, _duels(ordered)),
        alpha_rank={player: shares[player] for player in players},
        cycles=rings(players, beats),
        episodes=sum(meeting.episodes for meeting in ordered),
        faults=faults,
    )


def _pairing(deals: Sequence[Deal], side: int) -> Pairing:
    """As the one (0) or the other (1) of the two sees it."""
    sign = 1 - 2 * side
    return Pairing(
        deals=len(deals),
        payoff=mean_of([deal.payoffs[side] for deal in deals]),
        advantage=mean_of([0.0 + sign * deal.advantage for deal in deals]),
        win_rate=float(np.mean([deal.wins[side] for deal in deals])),
    )


def _duels(meetings: Sequence[Meeting]) -> Iterator[tuple[str, str, float]]:
    """Who was how far ahead of whom, seed after seed, deal after deal, so that no pair has the last word in the
    ratings."""
    for _, together in groupby(meetings, key=lambda meeting: meeting.seed):
        rivals = [meeting for meeting in together if meeting.players[0] != meeting.players[1]]
        for deals in zip_longest(*(meeting.deals for meeting in rivals)):
            for meeting, deal in zip(rivals, deals, strict=True):
                if deal is not None:
                    yield (*meeting.players, deal.advantage)


def mean_of(values: Sequence[float]) -> Mean:
    """The mean of independent values; a single one has an interval of no width."""
    mean = float(np.mean(values))
    spread = Z95 * float(np.std(values, ddof=1)) / sqrt(len(values)) if len(values) > 1 else 0.0
    return Mean(mean=mean, low=mean - spread, high=mean + spread)


def ratio_of(parts: Sequence[tuple[float, float]]) -> Mean:
    """Sum over count of independent games that have one of each; its interval is by linearisation (delta method)."""
    sums, counts = np.array(parts, dtype=np.float64).T
    ratio = sums.sum() / counts.sum()
    return mean_of((ratio + (sums - ratio * counts) / counts.mean()).tolist())


def wilson(rate: float, n: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a rate observed in n trials."""
    centre = (rate + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 * sqrt(rate * (1 - rate) / n + Z95**2 / (4 * n**2)) / (1 + Z95**2 / n)
    return max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half))  # for rounding
