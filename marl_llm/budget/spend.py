"""A step's games under a budget: what is begun, what more is begun when it is over, and what is learned from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from marl_llm.budget.keep import kept
from marl_llm.budget.sizes import SIZES, Asked, needed
from marl_llm.config import BudgetConfig, Config
from marl_llm.league import League
from marl_llm.matchmaking import Group, groups, matches, seat_policy
from marl_llm.types import Episode, Match

Remembered = Mapping[str, Mapping[str, float]]
"""Deal -> who learned in it -> their mean success when it came last."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a step's games came to."""

    episodes: list[Episode]
    """Those that are learned from, in the order in which they were given."""
    remembered: Remembered
    """With what this step showed."""
    metrics: dict[str, float]
    """`play/budget/NAME`; empty without a budget."""


class Round:
    """The games of one step. The same episodes always lead to the same further matches."""

    def __init__(
        self,
        config: Config,
        step: int,
        parts: Mapping[str, float],
        agents: Mapping[str, Sequence[str]],
        league: League,
        remembered: Remembered,
        ranges: Mapping[str, tuple[float, float]],
    ) -> None:
        """`parts`, `agents`, `league`: see `schedule`. `ranges`: game -> its utility range; not used without a
        budget."""
        making = config.matchmaking
        self._config, self._step, self._parts, self._agents, self._league = config, step, parts, agents, league
        self._settings = making.budget or BudgetConfig()
        self._remembered, self._ranges = remembered, ranges
        self._groups: dict[int, Group] = {}
        self._sizes: dict[int, int] = {}
        self._batches = 0
        self._draw(making.groups)
        known = {number: remembered[group.deal] for number, group in self._groups.items() if group.deal in remembered}
        self._known = len(known)
        asked = Asked(groups=making.groups, size=making.group_size, remembered=known)
        self._orders = SIZES[self._settings.sizes](self._settings, asked)
        self.matches = self._begin(next(self._orders))
        """Those that the step begins with."""

    def further(self, episodes: Iterable[Episode]) -> list[Match]:
        """What is to be begun now that all is over that was: `episodes`, of the whole step. Empty if that is enough."""
        if not self._settings.in_turn:
            return []
        try:
            return self._begin(self._orders.send(self._successes(episodes)))
        except StopIteration:
            return []

    def over(self, episodes: Sequence[Episode]) -> Spent:
        """What is learned from, when all that was begun is over."""
        if self._config.matchmaking.budget is None:
            return Spent(episodes=list(episodes), remembered=self._remembered, metrics={})
        played = self._successes(episodes)
        stay = kept(self._settings, played)
        names = {f"s{self._step}/g{number}" for number in stay}
        means = {number: {who: fmean(won) for who, won in by.items()} for number, by in played.items()}
        deals = {group.deal: means[number] for number, group in self._groups.items() if group.deal and means[number]}
        needs = [needed(chance) for by in means.values() for chance in by.values() if 0 < chance < 1]
        told: dict[str, float] = {
            "batches": self._batches,
            "groups": len(self._groups),
            "dropped": len(self._groups) - len(stay),
            "games": sum(self._sizes.values()),
            "dropped_games": sum(size for number, size in self._sizes.items() if number not in set(stay)),
            "size_min": min(self._sizes.values()),
            "size_max": max(self._sizes.values()),
            "known": self._known,
        }
        if needs:
            told["needed"] = fmean(needs)
        return Spent(
            episodes=[episode for episode in episodes if episode.match.group in names],
            remembered={**self._remembered, **deals},
            metrics={f"play/budget/{name}": float(value) for name, value in told.items()},
        )

    def _draw(self, count: int) -> None:
        first = len(self._groups)
        drawn = groups(self._config, self._step, self._parts, self._league, first=first, count=count)
        self._groups |= {group.number: group for group in drawn}

    def _begin(self, order: Mapping[int, int]) -> list[Match]:
        self._batches += 1
        if new := order.keys() - self._groups.keys():
            self._draw(len(new))
        begun = []
        for number in sorted(order):
            group, size = self._groups[number], self._sizes.get(number, 0)
            members = range(size, size + order[number])
            begun += matches(self._config, self._step, group, members, self._agents.get(group.label, ()))
            self._sizes[number] = members.stop
        return begun

    def _successes(self, episodes: Iterable[Episode]) -> dict[int, dict[str, list[float]]]:
        """Of each group and who learns in it (`POLICY/ROLE`); games at fault say nothing, forks what they fork from."""
        found: dict[int, dict[str, list[float]]] = {number: {} for number in self._groups}
        numbers = {f"s{self._step}/g{number}": number for number in self._groups}
        for episode in episodes:
            if episode.status == "fault" or episode.match.branch is not None:
                continue
            number = numbers[episode.match.group]
            roles = {turn.agent: turn.role for turn in episode.turns}
            for agent, value in sorted(episode.returns.items()):
                policy = seat_policy(episode.match.seats, agent)
                settings = self._config.policies.get(policy)
                if settings is not None and settings.learns:
                    success = self._success(value, self._groups[number].label)
                    found[number].setdefault(f"{policy}/{roles.get(agent, agent)}", []).append(success)
        return found

    def _success(self, value: float, label: str) -> float:
        if self._settings.success is not None:
            return float(value > self._settings.success)
        low, high = self._ranges[label]
        return (value - low) / (high - low) if high > low else 0.0
