"""Public goods: what all put into a common pot grows and is shared by all; then whoever did not pay can be punished."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random

from games.base import Legal, Parts
from games.settings import OnIllegal, check_whole, refused
from games.text_game import TextGame

NAME = "public_goods"
NOBODY = "nobody"


def env(
    *,
    players: int = 4,
    rounds: int = 5,
    endowment: int = 10,
    levels: int = 3,
    multiplier: float = 1.6,
    punishment: bool = True,
    cost: float = 1.0,
    fine: float = 3.0,
    on_illegal: OnIllegal = "forfeit",
) -> "PublicGoods":
    """A public-goods game of `players` (2 or more), as a PettingZoo `ParallelEnv`; all moves are simultaneous.

    In every round each has `endowment` points and contributes one of `levels` evenly spaced shares of it; the sum
    times `multiplier` is divided equally. With `punishment`, everybody then sees all contributions and may name one
    player, who loses `fine` at the `cost` of whoever named it.

    Raises:
        ValueError: a setting is out of range.
    """
    check_whole(NAME, least=2, players=players, levels=levels)
    check_whole(NAME, rounds=rounds, endowment=endowment)
    if endowment % (levels - 1):
        raise refused(NAME, "endowment", endowment, f"a multiple of {levels - 1}, to have {levels} whole levels")
    for setting, value in {"multiplier": multiplier, "cost": cost, "fine": fine}.items():
        if value < 0:
            raise refused(NAME, setting, value, "0 or more")
    return PublicGoods(
        players=players,
        rounds=rounds,
        contributions=tuple(range(0, endowment + 1, endowment // (levels - 1))),
        multiplier=float(multiplier),
        punishment=punishment,
        cost=float(cost),
        fine=float(fine),
        on_illegal=on_illegal,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Pots:
    """How far a public-goods game has come."""

    paid: tuple[tuple[int, ...], ...] = ()
    """Contribution of each player, by round."""
    named: tuple[tuple[int | None, ...], ...] = ()
    """Whom each player punished, by round."""


class PublicGoods(TextGame[Pots]):
    """Utility: points, paid as parts `income` (endowment kept and share of the pot) and `punishment` (both its sides).

    Public goods with costly punishment, after Fehr and Gaechter (2000).
    """

    def __init__(
        self,
        *,
        players: int,
        rounds: int,
        contributions: tuple[int, ...],
        multiplier: float,
        punishment: bool,
        cost: float,
        fine: float,
        on_illegal: OnIllegal,
    ) -> None:
        self._players, self._rounds, self._contributions = players, rounds, contributions
        self._endowment, self._multiplier = contributions[-1], multiplier
        self._punishment, self._cost, self._fine = punishment, cost, fine
        then = (
            f"Then all see who paid what, and each may punish one player: it loses {fine:g}, the punisher {cost:g}. "
            if punishment
            else ""
        )
        worst = -(cost + fine * (players - 1)) if punishment else 0.0
        alone, free = multiplier / players, 1 + multiplier * (players - 1) / players
        super().__init__(
            name=NAME,
            rules=(
                f"Public goods. {players} players, {rounds} rounds. In each round all choose at once how many of "
                f"{self._endowment} points to put into a common pot. It is multiplied by {multiplier:g} and divided "
                f"equally among all; the rest you keep. {then}"
                "You want many points."
            ),
            seats={f"player_{number}": "player" for number in range(players)},
            utility_range=(
                rounds * (self._endowment * min(1.0, alone) + worst),
                rounds * self._endowment * max(free, multiplier),
            ),
            on_illegal=on_illegal,
        )
        self._number = {agent: number for number, agent in enumerate(self.possible_agents)}

    def deal(self, draws: Random) -> Pots:
        return Pots()

    def legal(self, agent: str) -> Legal:
        if not self._punishing():
            return tuple(str(contribution) for contribution in self._contributions)
        return (NOBODY, *(other for other in self.possible_agents if other != agent))

    def offer(self, agent: str) -> str:
        return f"{'Whom do you punish?' if self._punishing() else 'How many?'} {super().offer(agent)}"

    def see(self, agent: str) -> str:
        position, me = self.position, self._number[agent]
        number = min(len(position.paid) + (not self._punishing()), self._rounds)
        text = f"Round {number} of {self._rounds}. Your points: {sum(self._points(me).values()):g}."
        if not position.paid:
            return text
        paid = ", ".join(f"{other} {amount}" for other, amount in zip(self.possible_agents, position.paid[-1]))
        text += f" {'Paid now' if self._punishing() else 'Paid last'}: {paid}."
        if position.named and not self._punishing():
            text += f" Punished you: {position.named[-1].count(me)}."
        return text

    def state_key(self, agent: str) -> str:
        me = self._number[agent]
        known = [(named[me], named.count(me)) for named in self.position.named]
        return f"{agent} {self.position.paid} {known}"

    def after(self, actions: Mapping[str, str]) -> tuple[Pots, Parts]:
        position = self.position
        if self._punishing():
            named = tuple(None if choice == NOBODY else self._number[choice] for choice in actions.values())
            fines = {agent: {"punishment": self._fined(named, self._number[agent])} for agent in actions}
            return replace(position, named=(*position.named, named)), fines
        paid = tuple(int(choice) for choice in actions.values())
        incomes = {agent: {"income": self._income(paid, self._number[agent])} for agent in actions}
        return replace(position, paid=(*position.paid, paid)), incomes

    def over(self, agent: str) -> bool:
        return len(self.position.paid) == self._rounds and not self._punishing()

    def _punishing(self) -> bool:
        return self._punishment and len(self.position.named) < len(self.position.paid)

    def _points(self, number: int) -> dict[str, float]:
        """Points so far, by part."""
        return {
            "income": sum(self._income(paid, number) for paid in self.position.paid),
            "punishment": sum(self._fined(named, number) for named in self.position.named),
        }

    def _income(self, paid: tuple[int, ...], number: int) -> float:
        return self._endowment - paid[number] + self._multiplier * sum(paid) / self._players

    def _fined(self, named: tuple[int | None, ...], number: int) -> float:
        return -self._cost * (named[number] is not None) - self._fine * named.count(number)
