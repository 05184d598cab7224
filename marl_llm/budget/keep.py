"""Which groups of a step are learned from: rules over the successes of their games."""

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from statistics import fmean, pstdev

from marl_llm.config import BudgetConfig

Successes = Mapping[str, Sequence[float]]
"""Who learns in a group -> how each game of it went for them, from 0 to 1."""


def kept(settings: BudgetConfig, played: Mapping[int, Successes]) -> list[int]:
    """The numbers of the groups that are kept, in order; one without a game that counts is not."""
    counted = {number: {who: won for who, won in by.items() if won} for number, by in sorted(played.items())}
    return KEEPERS[settings.keep](settings, {number: by for number, by in counted.items() if by})


def spread(values: Sequence[float]) -> bool:
    """Whether they differ, or there is one only (DAPO, arXiv 2503.14476)."""
    return len(values) == 1 or max(values) > min(values)


def _all(settings: BudgetConfig, played: Mapping[int, Successes]) -> list[int]:
    return list(played)


def _spread(settings: BudgetConfig, played: Mapping[int, Successes]) -> list[int]:
    return [number for number, by in played.items() if any(map(spread, by.values()))]


def _between(settings: BudgetConfig, played: Mapping[int, Successes]) -> list[int]:
    """PRIME's filter (arXiv 2502.01456)."""
    low, high = settings.between
    return [number for number, by in played.items() if any(low <= fmean(values) <= high for values in by.values())]


def _top(settings: BudgetConfig, played: Mapping[int, Successes]) -> list[int]:
    """The largest standard deviations (SPEAR, arXiv 2509.22601), of several roles the largest; of equals the first."""
    deviation = {number: max(pstdev(values) for values in by.values()) for number, by in played.items()}
    best = sorted(deviation, key=lambda number: -deviation[number])
    return sorted(best[: ceil(settings.top * len(best))])


KEEPERS: Mapping[str, Callable[[BudgetConfig, Mapping[int, Successes]], list[int]]] = {
    "all": _all,
    "spread": _spread,
    "between": _between,
    "top": _top,
}
"""By the name that `matchmaking.budget.keep` has for it."""
