"""Tic-tac-toe."""

from typing import Any

import pyspiel

from games.openspiel import OpenSpielEnv
from games.settings import OnIllegal


def env(*, opening: int = 0, on_illegal: OnIllegal = "forfeit", scale: float | None = None) -> OpenSpielEnv:
    """Tic-tac-toe; the cells are called 1 to 9. `opening`, `scale`: see `OpenSpielEnv`.

    Raises:
        ValueError: a setting is out of range.
    """
    return TicTacToe(opening=opening, on_illegal=on_illegal, scale=scale)


class TicTacToe(OpenSpielEnv):
    """Utility: 1 for a win, -1 for a loss, 0 for a draw. `player_0` plays x and moves first."""

    def __init__(self, *, opening: int, on_illegal: OnIllegal, scale: float | None) -> None:
        rules = (
            "Tic-tac-toe. player_0 plays x and moves first, player_1 plays o. In turn, put your mark in an "
            "empty cell; the board shows empty cells as their numbers, 1 to 9. Three equal marks in a row, "
            "column or diagonal win; a full board without them is a draw."
        )
        super().__init__(
            pyspiel.load_game("tic_tac_toe"),
            name="tic_tac_toe",
            rules=rules,
            action_names=tuple("123456789"),
            on_illegal=on_illegal,
            scale=scale,
            opening=opening,
        )

    def see(self, state: Any, player: int) -> str:
        marks = str(state).replace("\n", "")
        cells = [str(number) if mark == "." else mark for number, mark in enumerate(marks, start=1)]
        rows = "\n".join(" ".join(cells[start : start + 3]) for start in (0, 3, 6))
        return f"You play {'xo'[player]}. Board:\n{rows}\n"

    def action_text(self, state: Any, action: int) -> str:
        return self.action_names[action]
