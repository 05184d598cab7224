"""Treasure hunt: walk from room to room with few moves; nothing is paid but the treasure, at the very end."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from games.base import Legal, Parts
from games.settings import OnIllegal, check_whole, refused
from games.text_game import TextGame

NAME = "treasure_hunt"
SEEKER = "player_0"


@dataclass(frozen=True, kw_only=True, slots=True)
class Map:
    """Rooms, and where a hunt may begin and end."""

    ways: Mapping[str, tuple[str, ...]]
    """Room to those that it leads to; not all ways lead back, and a room may have none."""
    starts: tuple[str, ...]
    """Where the seeker may begin."""
    treasures: tuple[str, ...]
    """Where the treasure may be."""


MAPS = {
    "cottage": Map(
        ways={"door": ("kitchen", "well"), "kitchen": ("door", "attic"), "attic": ("kitchen",), "well": ()},
        starts=("door",),
        treasures=("attic",),
    ),
    "castle": Map(
        ways={
            "gate": ("yard", "stable", "well"),
            "yard": ("gate", "hall", "kitchen"),
            "stable": ("gate", "kitchen", "garden"),
            "garden": ("stable", "well", "crypt"),
            "hall": ("yard", "library", "gallery"),
            "kitchen": ("yard", "cellar", "gallery"),
            "cellar": ("kitchen", "crypt", "tunnel"),
            "gallery": ("hall", "tower", "library"),
            "library": ("hall", "gallery", "attic"),
            "crypt": ("cellar", "garden", "vault"),
            "tunnel": ("gate",),
            "tower": ("gallery", "attic", "roof"),
            "attic": ("library", "tower", "roof"),
            "roof": ("well",),
            "vault": ("crypt", "tunnel"),
            "well": (),
        },
        starts=("gate", "stable"),
        treasures=("tower", "attic", "vault"),
    ),
}
"""Maps by name. On both the treasure is at most 4 moves away, and different routes meet in the same rooms."""


def env(*, place: str = "castle", moves: int = 6, on_illegal: OnIllegal = "forfeit") -> "TreasureHunt":
    """A hunt on the map called `place` (`castle` or `cottage`) with that many moves; start and treasure are drawn.

    Whoever knows the map finds the treasure always: the optimum is 1 (with 4 moves or more). Random play on the castle
    finds it in 6.5 % of all hunts with 6 moves.

    Raises:
        ValueError: a setting is out of range.
    """
    if place not in MAPS:
        raise refused(NAME, "place", place, " or ".join(MAPS))
    check_whole(NAME, moves=moves)
    return TreasureHunt(place=place, moves=moves, on_illegal=on_illegal)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hunt:
    """How far a hunt has come."""

    room: str
    """Where the seeker is."""
    treasure: str
    """Where the treasure is."""
    left: int
    """Moves left."""


class TreasureHunt(TextGame[Hunt]):
    """Utility: 1 if the treasure's room is reached, else 0."""

    def __init__(self, *, place: str, moves: int, on_illegal: OnIllegal) -> None:
        self._map, self._moves = MAPS[place], moves
        super().__init__(
            name=NAME,
            rules=(
                "Treasure hunt. You walk from room to room and score 1 if you reach the treasure before your moves are "
                "used up, else 0. Some ways lead in one direction only, and from some rooms there is no way on."
            ),
            seats={SEEKER: "seeker"},
            utility_range=(0.0, 1.0),
            on_illegal=on_illegal,
        )

    def deal(self, draws: Random) -> Hunt:
        start, treasure = draws.choice(self._map.starts), draws.choice(self._map.treasures)
        return Hunt(room=start, treasure=treasure, left=self._moves)

    def legal(self, agent: str) -> Legal:
        return self._map.ways[self.position.room]

    def see(self, agent: str) -> str:
        position = self.position
        return f"Room: {position.room}. Treasure: {position.treasure}. Moves left: {position.left}."

    def state_key(self, agent: str) -> str:
        return f"{agent} {self.see(agent)}"

    def after(self, actions: Mapping[str, str]) -> tuple[Hunt, Parts]:
        position = replace(self.position, room=actions[SEEKER], left=self.position.left - 1)
        return position, {SEEKER: {"outcome": float(position.room == position.treasure)}}

    def over(self, agent: str) -> bool:
        position = self.position
        return position.room == position.treasure or not position.left or not self._map.ways[position.room]

    @property
    def hidden(self) -> dict[str, Any]:
        """Whether the treasure was found."""
        return {"found": self.position.room == self.position.treasure}
