"""Donor game: give to somebody who cannot pay you back, and be known for it, over several generations."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random

from games.base import Legal, Parts
from games.settings import OnIllegal, check_whole, refused
from games.text_game import TextGame

NAME = "donor_game"
GIVE, KEEP = "give", "keep"


def env(
    *,
    players: int = 4,
    rounds: int = 3,
    generations: int = 2,
    benefit: float = 3.0,
    cost: float = 1.0,
    reputation: bool = True,
    on_illegal: OnIllegal = "forfeit",
) -> "DonorGame":
    """A population of `players` per generation; every generation has agents of its own, who leave when it ends.

    In each of `rounds` rounds the generation stands in a ring drawn from the seed: everybody once decides whether
    the next one gets `benefit` at the giver's `cost`. `reputation`: donors see how often the receiver gave.

    Raises:
        ValueError: a setting is out of range.
    """
    check_whole(NAME, least=2, players=players)
    check_whole(NAME, rounds=rounds, generations=generations)
    if not 0 < cost < benefit:
        raise refused(NAME, "cost", cost, f"more than 0 and less than benefit={benefit!r}")
    return DonorGame(
        players=players,
        rounds=rounds,
        generations=generations,
        benefit=float(benefit),
        cost=float(cost),
        reputation=reputation,
        on_illegal=on_illegal,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Gifts:
    """How far a donor game has come."""

    pairs: tuple[tuple[int, int], ...]
    """Donor and receiver of every turn of the game."""
    turn: int = 0
    """Number of decisions made."""
    asked: tuple[int, ...]
    """How often each player has been donor."""
    gave: tuple[int, ...]
    """How often each gave."""
    got: tuple[int, ...]
    """How often each was given something."""


class DonorGame(TextGame[Gifts]):
    """Utility: points, paid at once, as parts `benefit` and `cost` (donor game with generations, arXiv 2412.10270).

    A generation sees what the one before it did on the whole, and its best member.
    """

    def __init__(
        self,
        *,
        players: int,
        rounds: int,
        generations: int,
        benefit: float,
        cost: float,
        reputation: bool,
        on_illegal: OnIllegal,
    ) -> None:
        self._players, self._rounds, self._generations = players, rounds, generations
        self._benefit, self._cost, self._reputation = benefit, cost, reputation
        known = "Donors see how often the receiver gave. " if reputation else ""
        later = f" There are {generations} generations; each sees how the last one did." if generations > 1 else ""
        super().__init__(
            name=NAME,
            rules=(
                f"Donor game. {players} players, {rounds} rounds. In each round everybody once is donor to another "
                f"player: give costs the donor {cost:g} and brings the receiver {benefit:g} points, keep does "
                f"nothing. The receiver cannot pay back, others may. {known}You want many points.{later}"
            ),
            seats={f"player_{number}": "donor" for number in range(players * generations)},
            utility_range=(-cost * rounds, benefit * rounds),
            on_illegal=on_illegal,
            state_key=False,
        )
        self._number = {agent: number for number, agent in enumerate(self.possible_agents)}

    def deal(self, draws: Random) -> Gifts:
        pairs: list[tuple[int, int]] = []
        for generation in range(self._generations):
            members = range(generation * self._players, (generation + 1) * self._players)
            for _ in range(self._rounds):
                ring = draws.sample(members, self._players)
                pairs += zip(ring, ring[1:] + ring[:1])
        none = (0,) * len(self.possible_agents)
        return Gifts(pairs=tuple(pairs), asked=none, gave=none, got=none)

    def legal(self, agent: str) -> Legal:
        donor, _ = self.position.pairs[self.position.turn]
        return (GIVE, KEEP) if donor == self._number[agent] else ()

    def see(self, agent: str) -> str:
        position, me = self.position, self._number[agent]
        own = me // self._players
        now, in_generation = divmod(position.turn, self._rounds * self._players)
        if own > now:
            return f"Your generation, {own + 1} of {self._generations}, has not begun."
        text = f"Generation {own + 1} of {self._generations}"
        if own < now:
            return f"{text}, over. Your points: {self._points(me):g}."
        text += f", round {in_generation // self._players + 1} of {self._rounds}. Your points: {self._points(me):g}."
        donor, receiver = position.pairs[position.turn]
        if donor == me:
            text += f" The receiver is player_{receiver}{self._known(receiver)}."
        return f"{text}{self._summary(own - 1)}" if own else text

    def after(self, actions: Mapping[str, str]) -> tuple[Gifts, Parts]:
        (action,) = actions.values()
        position = self.position
        donor, receiver = position.pairs[position.turn]
        position = replace(position, turn=position.turn + 1, asked=_one_more(position.asked, donor))
        if action == KEEP:
            return position, {}
        agents = self.possible_agents
        return (
            replace(position, gave=_one_more(position.gave, donor), got=_one_more(position.got, receiver)),
            {agents[donor]: {"cost": -self._cost}, agents[receiver]: {"benefit": self._benefit}},
        )

    def over(self, agent: str) -> bool:
        end = (self._number[agent] // self._players + 1) * self._rounds * self._players
        return self.position.turn >= end

    def _points(self, number: int) -> float:
        return self._benefit * self.position.got[number] - self._cost * self.position.gave[number]

    def _known(self, number: int) -> str:
        if not self._reputation:
            return ""
        gave, asked = self.position.gave[number], self.position.asked[number]
        return f", who gave {gave} of {asked} times" if asked else ", who has not been donor yet"

    def _summary(self, generation: int) -> str:
        """What the next generation is told about this one."""
        members = range(generation * self._players, (generation + 1) * self._players)
        gave, best = self.position.gave, max(members, key=self._points)
        return (
            f" The last generation gave {sum(gave[member] for member in members)} of {self._rounds * self._players} "
            f"times; its best member gave {gave[best]} of {self._rounds} times and got {self._points(best):g} points."
        )


def _one_more(counts: tuple[int, ...], number: int) -> tuple[int, ...]:
    return (*counts[:number], counts[number] + 1, *counts[number + 1 :])
