"""Tic-tac-toe."""

from typing import Any

import pyspiel

from games.base import Board, Cell
from games.openspiel import OpenSpielEnv
from games.settings import OnIllegal, check_flag

NAME = "tic_tac_toe"
LINES = ("abc", "def", "ghi", "adg", "beh", "cfi", "aei", "ceg")
"""Rows, columns and diagonals, by the cells' names."""


def env(
    *, lines: bool = False, opening: int = 0, on_illegal: OnIllegal = "forfeit", scale: float | None = None
) -> OpenSpielEnv:
    """Tic-tac-toe; the cells are called a to i, row by row. `opening`, `scale`: see `OpenSpielEnv`.

    `lines`: beside the board all rows, columns and diagonals are spelled out, each cell as its mark or its name
    (`XOc`), for small models that do not see what lies in a line.

    Raises:
        ValueError: a setting is out of range.
    """
    check_flag(NAME, lines=lines)
    return TicTacToe(lines=lines, opening=opening, on_illegal=on_illegal, scale=scale)


class TicTacToe(OpenSpielEnv):
    """Utility: 1 for a win, -1 for a loss, 0 for a draw. `player_0` plays X and moves first."""

    def __init__(self, *, lines: bool, opening: int, on_illegal: OnIllegal, scale: float | None) -> None:
        self._lines = LINES if lines else ()
        rules = (
            "Tic-tac-toe. player_0 plays X and moves first, player_1 plays O. In turn, put your mark in an "
            "empty cell; the board shows the cells' names, a to i, each followed by its mark if it has one. "
            "Three equal marks in a row, column or diagonal win; a full board without them is a draw."
        )
        super().__init__(
            pyspiel.load_game("tic_tac_toe"),
            name=NAME,
            rules=rules,
            action_names=tuple("abcdefghi"),
            on_illegal=on_illegal,
            scale=scale,
            opening=opening,
        )

    def see(self, state: Any, player: int) -> str:
        # Name and mark are one word, and so one token or two: a small model need not count cells.
        marks = str(state).replace("\n", "").replace(".", " ").upper()
        cells = [(name + mark).strip() for name, mark in zip(self.action_names, marks)]
        rows = "\n".join(" ".join(cells[start : start + 3]) for start in (0, 3, 6))
        drawn = f"You play {'XO'[player]}. Board:\n{rows}\n"
        if not self._lines:
            return drawn
        shown = str.maketrans({name: mark.strip() or name for name, mark in zip(self.action_names, marks)})
        return f"{drawn}Lines: {' '.join(self._lines).translate(shown)}\n"

    def board(self, agent: str) -> Board:
        legal = self._legal if agent == self._mover else {}
        marks = str(self.position).replace("\n", "").replace(".", " ").upper()
        cells = [
            Cell(mark.strip(), name if name in legal else None)
            for name, mark in zip(self.action_names, marks, strict=True)
        ]
        return [cells[start : start + 3] for start in (0, 3, 6)]

    def action_text(self, state: Any, action: int) -> str:
        return self.action_names[action]
