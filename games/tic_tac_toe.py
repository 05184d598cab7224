"""Tic-tac-toe."""

from typing import Any

import pyspiel

from games.openspiel import OpenSpielEnv
from games.settings import OnIllegal


def env(*, opening: int = 0, on_illegal: OnIllegal = "forfeit", scale: float | None = None) -> OpenSpielEnv:
    """Tic-tac-toe; the cells are called a to i, row by row. `opening`, `scale`: see `OpenSpielEnv`.

    Raises:
        ValueError: a setting is out of range.
    """
    return TicTacToe(opening=opening, on_illegal=on_illegal, scale=scale)


class TicTacToe(OpenSpielEnv):
    """Utility: 1 for a win, -1 for a loss, 0 for a draw. `player_0` plays X and moves first."""

    def __init__(self, *, opening: int, on_illegal: OnIllegal, scale: float | None) -> None:
        rules = (
            "Tic-tac-toe. player_0 plays X and moves first, player_1 plays O. In turn, put your mark in an "
            "empty cell; the board shows the cells' names, a to i, each followed by its mark if it has one. "
            "Three equal marks in a row, column or diagonal win; a full board without them is a draw."
        )
        super().__init__(
            pyspiel.load_game("tic_tac_toe"),
            name="tic_tac_toe",
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
        return f"You play {'XO'[player]}. Board:\n{rows}\n"

    def action_text(self, state: Any, action: int) -> str:
        return self.action_names[action]
