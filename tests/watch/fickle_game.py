"""Games that do not follow from their seed: one says so, the other one does not."""

from collections.abc import Mapping
from itertools import count
from random import Random

from games.base import Legal, Parts
from games.text_game import TextGame

DEALS = count()


class Fickle(TextGame[int]):
    """Every deal is another one, whatever its seed."""

    def __init__(self, *, seeded: bool) -> None:
        super().__init__(
            name="fickle",
            rules="Say yes.",
            seats={"player_0": "player"},
            utility_range=(0.0, 1.0),
            on_illegal="forfeit",
        )
        self.metadata["seeded"] = seeded

    def deal(self, draws: Random) -> int:
        return next(DEALS)

    def legal(self, agent: str) -> Legal:
        return ("yes",)

    def see(self, agent: str) -> str:
        return f"Deal {self.position}."

    def after(self, actions: Mapping[str, str]) -> tuple[int, Parts]:
        return -1, {"player_0": {"outcome": 1.0}}

    def over(self, agent: str) -> bool:
        return self.position < 0


def env(*, seeded: bool = True) -> Fickle:
    """The game; `seeded`: what it says of itself."""
    return Fickle(seeded=seeded)
