"""Rankings of players, from who beat whom."""

from collections import deque
from collections.abc import Collection, Mapping, Sequence

import numpy as np

Beats = Collection[tuple[str, str]]
"""(Winner, loser) of every pair that is decided."""

MUTATION = 0.01
"""How often a population goes against the arrows, relative to along them, in `alpha_rank`."""


def alpha_rank(players: Sequence[str], beats: Beats) -> dict[str, float]:
    """Share of time that evolving populations spend with each player (alpha-rank, arXiv 1903.01373); sums to 1.

    In the limit of strong selection, where only the arrows count: a population is taken over by whoever beats it, and
    half as readily by whom it neither beats nor loses to. A ring shares its time equally.
    """
    # Brings plotting and graph libraries along, a second or two that training, which never ranks, need not wait for.
    from open_spiel.python.egt import alpharank

    if len(players) == 1:
        return {players[0]: 1.0}
    number = {player: index for index, player in enumerate(players)}
    payoffs_PP = np.zeros((len(players), len(players)))
    for winner, loser in beats:
        payoffs_PP[number[winner], number[loser]] = 1.0
        payoffs_PP[number[loser], number[winner]] = -1.0
    shares = alpharank.compute([payoffs_PP], use_inf_alpha=True, inf_alpha_eps=MUTATION)[2]
    return {player: float(share) for player, share in zip(players, shares, strict=True)}


def rings(players: Sequence[str], beats: Beats) -> tuple[tuple[str, ...], ...]:
    """Who beats whom in rings: for every player that is in one, a shortest; each beats the next, the last the first."""
    prey = {player: [other for other in players if (player, other) in beats] for player in players}
    found = (_ring(player, prey) for player in players)
    return tuple(dict.fromkeys(_turned(ring, players) for ring in found if ring))


def _ring(start: str, prey: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """A shortest way along the arrows from `start` back to it; empty when there is none."""
    ways: deque[tuple[str, ...]] = deque([(start,)])
    seen = {start}
    while ways:
        way = ways.popleft()
        for player in prey[way[-1]]:
            if player == start:
                return way
            if player not in seen:
                seen.add(player)
                ways.append((*way, player))
    return ()


def _turned(ring: tuple[str, ...], players: Sequence[str]) -> tuple[str, ...]:
    """The same ring, beginning with the player who comes first."""
    first = min(range(len(ring)), key=lambda index: players.index(ring[index]))
    return ring[first:] + ring[:first]
