"""Connect four."""

from typing import Any

import pyspiel

from games.base import Board, Cell
from games.openspiel import OpenSpielEnv
from games.settings import OnIllegal


def env(*, opening: int = 0, on_illegal: OnIllegal = "forfeit", scale: float | None = None) -> OpenSpielEnv:
    """Connect four on 6 rows; the columns are called 1 to 7. `opening`, `scale`: see `OpenSpielEnv`.

    Raises:
        ValueError: a setting is out of range.
    """
    return ConnectFour(opening=opening, on_illegal=on_illegal, scale=scale)


class ConnectFour(OpenSpielEnv):
    """Utility: 1 for a win, -1 for a loss, 0 for a draw. `player_0` plays x and moves first."""

    def __init__(self, *, opening: int, on_illegal: OnIllegal, scale: float | None) -> None:
        rules = (
            "Connect four. player_0 plays x and moves first, player_1 plays o. In turn, drop a mark into a "
            "column, 1 to 7, that is not full; it falls to the lowest empty cell. Four equal marks in a row, "
            "column or diagonal win; a full board without them is a draw."
        )
        super().__init__(
            pyspiel.load_game("connect_four"),
            name="connect_four",
            rules=rules,
            action_names=tuple("1234567"),
            on_illegal=on_illegal,
            scale=scale,
            opening=opening,
        )

    def see(self, state: Any, player: int) -> str:
        return f"You play {'xo'[player]}. Board:\n{state}1234567\n"

    def board(self, agent: str) -> Board:
        """Choosing the cell that a mark would fall into drops it there."""
        legal = self._legal if agent == self._mover else {}
        rows = [line.replace(".", " ") for line in str(self.position).split()]
        lowest = [sum(marks[column] == " " for marks in rows) - 1 for column in range(len(self.action_names))]
        return [
            [
                Cell(mark.strip(), name if row == lowest[column] and name in legal else None)
                for column, (name, mark) in enumerate(zip(self.action_names, marks, strict=True))
            ]
            for row, marks in enumerate(rows)
        ]

    def action_text(self, state: Any, action: int) -> str:
        return self.action_names[action]
