"""How many games each group of a step gets: numbers only, nothing of matches and policies."""

import heapq
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import cos, inf, log, pi, sin, sqrt, tan
from statistics import fmean, stdev

from marl_llm.budget.keep import Successes, kept
from marl_llm.config import BudgetConfig

Played = Mapping[int, Successes]
"""Group -> how all its games went so far; those that count, which may be fewer than were played."""
Orders = Generator[Mapping[int, int], Played, None]
"""Yields how many further games each group is to have, and is sent how all games of the step went so far. Numbers from
`Asked.groups` on are groups of their own. Ends when the step has enough."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a step may spend."""

    groups: int
    """Groups that it begins with, numbered from 0."""
    size: int
    """Games of a group, or their mean."""
    remembered: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """Group -> its deal's mean success when it came last, for each who learns; absent where it has not come yet."""


def equal(settings: BudgetConfig, asked: Asked) -> Orders:
    """Groups of one size; those that are not kept are replaced by others, batch by batch (DAPO, arXiv 2503.14476)."""
    played = yield dict.fromkeys(range(asked.groups), asked.size)
    begun = asked.groups
    for _ in range(settings.max_batches - 1):
        missing = asked.groups - len(kept(settings, played))
        if missing <= 0:
            return
        played = yield dict.fromkeys(range(begun, begun + missing), asked.size)
        begun += missing


def knapsack(settings: BudgetConfig, asked: Asked) -> Orders:
    """Most games where they are most likely to show success and failure, and success is rare (arXiv 2509.25849).

    Deals that come for the first time have the mean size; the others share theirs.
    """
    known = sorted(asked.remembered)
    chances = [tuple(asked.remembered[number].values()) for number in known]
    shared = allotted(chances, asked.size * len(known), least=settings.least, most=settings.most)
    yield dict.fromkeys(range(asked.groups), asked.size) | dict(zip(known, shared, strict=True))


def knapsack_value(games: int, chance: float) -> float:
    """What so many games of a deal with this chance of success are worth: (1 - p^N - (1-p)^N) p (1-p)^2."""
    return (1 - chance**games - (1 - chance) ** games) * chance * (1 - chance) ** 2


def allotted(chances: Sequence[Sequence[float]], budget: int, *, least: int, most: int) -> list[int]:
    """Games of each group, of `budget` together, so that the sum of their values is greatest; by marginal gain, which
    is exact since values are concave.

    `chances`: of each group, of one or several who learn in it; its value is the mean of theirs. What is left when no
    game adds anything goes to groups where somebody never succeeds, and if nothing is worth anything, and there are no
    such groups, to all; above `most` games of a group it is not spent.
    """
    sizes = [least] * len(chances)
    left = budget - sum(sizes)
    useful = [place for place, of in enumerate(chances) if any(0 < p < 1 for p in of)]
    gains = [(-_gain(least, chances[place]), place) for place in useful if least < most]
    heapq.heapify(gains)
    while gains and left > 0:
        _, place = heapq.heappop(gains)
        sizes[place] += 1
        left -= 1
        if sizes[place] < most:
            heapq.heappush(gains, (-_gain(sizes[place], chances[place]), place))
    hopeless = [place for place, of in enumerate(chances) if place not in set(useful) and 0.0 in of]
    rest = hopeless or ([] if useful else list(range(len(chances))))
    while left > 0 and (rest := [place for place in rest if sizes[place] < most]):
        for place in rest[:left]:
            sizes[place] += 1
        left -= len(rest[:left])
    return sizes


def _gain(games: int, chances: Sequence[float]) -> float:
    return fmean(knapsack_value(games + 1, p) - knapsack_value(games, p) for p in chances)


def needed(chance: float, certainty: float = 0.9) -> float:
    """Games after which a deal with this chance of success shows a success and a failure with so much certainty, as
    Knapsack RL estimates it: ln(1 - certainty) / ln(max(p, 1-p)); infinite where the chance is 0 or 1."""
    larger = max(chance, 1 - chance)
    return log(1 - certainty) / log(larger) if larger < 1 else inf


def xrpo(settings: BudgetConfig, asked: Asked) -> Orders:
    """A few games for all groups, then phase by phase more for those of the highest priority (arXiv 2510.06672)."""
    sizes = dict.fromkeys(range(asked.groups), settings.least)
    played = yield dict(sizes)
    left = asked.groups * (asked.size - settings.least)
    while left > 0:
        added = _phase(settings, sizes, played, min(left, settings.phase or asked.groups))
        if not added:
            return
        for number, more in added.items():
            sizes[number] += more
        left -= sum(added.values())
        played = yield added


def _phase(settings: BudgetConfig, sizes: Mapping[int, int], played: Played, games: int) -> dict[int, int]:
    """Further games of each group, one after the other to the highest priority; of equals to the smallest group."""
    spent = sum(sizes.values())

    def entry(number: int, more: int) -> tuple[float, int, int]:
        by = played.get(number, {})
        found = [
            priority(values, spent, games=len(values) + more, exploration=settings.exploration, alpha=settings.alpha)
            for values in by.values()
        ]
        return -max(found, default=inf), sizes[number] + more, number

    added: dict[int, int] = {}
    waiting = [entry(number, 0) for number, size in sizes.items() if size < settings.most]
    heapq.heapify(waiting)
    for _ in range(games):
        if not waiting:
            break
        _, size, number = heapq.heappop(waiting)
        added[number] = added.get(number, 0) + 1
        if size + 1 < settings.most:
            heapq.heappush(waiting, entry(number, added[number]))
    return added


def priority(
    values: Sequence[float], spent: int, *, games: int | None = None, exploration: float = 1.0, alpha: float = 0.05
) -> float:
    """What one game more is worth: by how much it narrows the t-interval around the mean, and lambda sqrt(log(1+T)/n).

    `spent`: T, the games of all groups. `games`: n, if more were begun than have a value; the deviation stays what it
    is. Infinite with fewer than two values, which have no deviation. Source: arXiv 2510.06672.
    """
    if len(values) < 2:
        return inf
    count = len(values) if games is None else games
    deviation = stdev(values)
    narrowed = half_width(deviation, count, alpha) - half_width(deviation, count + 1, alpha)
    return narrowed + exploration * sqrt(log(1 + spent) / count)


def half_width(deviation: float, count: int, alpha: float) -> float:
    """Half of the two-sided t-interval of a mean with confidence 1 - `alpha`."""
    return t_quantile(1 - alpha, count - 1) * deviation / sqrt(count)


@lru_cache(maxsize=4096)
def t_quantile(confidence: float, freedom: int) -> float:
    """The t with P(|T| <= t) = `confidence` for Student's t with a whole number of degrees of freedom.

    Bisection of the finite series in the angle atan(t / sqrt(freedom)) (Abramowitz and Stegun 26.7.3 and 26.7.4).
    """
    low, high = 0.0, pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < confidence else (low, middle)
    return sqrt(freedom) * tan((low + high) / 2)


def _within(angle: float, freedom: int) -> float:
    odd = freedom % 2
    term = total = (cos(angle) if odd else 1.0) if freedom > 1 else 0.0
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= cos(angle) ** 2 * (k - 1) / k
        total += term
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total


SIZES: Mapping[str, Callable[[BudgetConfig, Asked], Orders]] = {"equal": equal, "knapsack": knapsack, "xrpo": xrpo}
"""By the name that `matchmaking.budget.sizes` has for it."""
