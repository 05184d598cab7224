"""Head to head: how a policy scores against an opponent, from each seat, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from marl_llm.config import GameConfig
from marl_llm.matchmaking import one_against, series
from marl_llm.play import make_game, play
from marl_llm.policies.base import Policy
from marl_llm.types import Episode

Z95 = 1.959964


@dataclass(frozen=True, kw_only=True)
class Score:
    """Results of one policy in one seat against one opponent; intervals are 95 %."""

    games: int
    """Games played."""
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

    The seats play the same deals, so that the comparison of seats is not one of luck.
    """
    agents: Sequence[str] = make_game(game.name, game.settings).unwrapped.possible_agents
    scores = {}
    for seat in agents:
        seats = one_against(agents, seat, policy, opponent)
        matches = series(game, seats, name=f"{policy}-{opponent}", games=num_games, seed=seed)
        scores[seat] = score(list(play(matches, policies, max_turns=max_turns)), seat)
    return scores


def score(episodes: Sequence[Episode], seat: str) -> Score:
    """The score of whoever sat in `seat`."""
    mine = np.array([episode.returns[seat] for episode in episodes])
    best_other = np.array([max(v for k, v in episode.returns.items() if k != seat) for episode in episodes])
    turns = [turn for episode in episodes for turn in episode.turns if turn.agent == seat]
    wins = float(np.mean(mine > best_other))
    spread = Z95 * float(mine.std(ddof=1)) / sqrt(len(mine)) if len(mine) > 1 else 0.0
    low, high = wilson(wins, len(mine))
    return Score(
        games=len(mine),
        mean=float(mine.mean()),
        low=float(mine.mean()) - spread,
        high=float(mine.mean()) + spread,
        win_rate=wins,
        win_low=low,
        win_high=high,
        not_lost=float(np.mean(mine >= best_other)),
        turns=len(turns),
        illegal_fraction=sum(turn.legal is False for turn in turns) / max(1, len(turns)),
    )


def wilson(rate: float, n: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a rate observed in n trials."""
    centre = (rate + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 * sqrt(rate * (1 - rate) / n + Z95**2 / (4 * n**2)) / (1 + Z95**2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)
