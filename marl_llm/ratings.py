"""OpenSkill ratings, from who was ahead of whom."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from openskill.models import PlackettLuce


@dataclass(frozen=True, kw_only=True)
class Rating:
    """An OpenSkill rating; everybody starts with 25 ± 8.33."""

    mu: float
    """Estimated skill."""
    sigma: float
    """Its standard deviation."""

    @property
    def ordinal(self) -> float:
        """Skill that is surpassed with near certainty: mu - 3 sigma."""
        return self.mu - 3 * self.sigma


def ratings(
    players: Sequence[str], duels: Iterable[tuple[str, str, float]], known: Mapping[str, Rating] | None = None
) -> dict[str, Rating]:
    """Plackett-Luce ratings of OpenSkill (arXiv 2401.05451) after all duels (one, other, margin of the one), in order.

    A margin of 0 is a draw. `known`: ratings to go on from; whoever is not there starts anew.
    """
    model, known = PlackettLuce(), known or {}
    current = {
        player: model.rating(mu=known[player].mu, sigma=known[player].sigma) if player in known else model.rating()
        for player in players
    }
    for one, other, margin in duels:
        ranks = [float(margin < 0), float(margin > 0)]
        (current[one],), (current[other],) = model.rate([[current[one]], [current[other]]], ranks=ranks)
    return {player: Rating(mu=rating.mu, sigma=rating.sigma) for player, rating in current.items()}
