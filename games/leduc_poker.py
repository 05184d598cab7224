"""Leduc poker: two rounds of betting and a table card that may pair."""

from typing import Any

import pyspiel

from games.cards import rank_names
from games.openspiel import OpenSpielEnv
from games.settings import OnIllegal, refused

_NAMES = {False: ("fold", "check", "bet"), True: ("fold", "call", "raise")}
_BET = "2"


def env(*, players: int = 2, on_illegal: OnIllegal = "forfeit", scale: float | None = None) -> OpenSpielEnv:
    """Leduc poker for 2 to 10 players. `scale`: see `OpenSpielEnv`.

    Raises:
        ValueError: a setting is out of range.
    """
    return LeducPoker(players=players, on_illegal=on_illegal, scale=scale)


class LeducPoker(OpenSpielEnv):
    """Utility: chips won or lost. Who moves first, in both rounds, is `player_0`.

    Suits play no part in Leduc poker, so information states that differ by suit only are one (288 instead of
    936 for two players); values and exploitability are the same.
    """

    def __init__(self, *, players: int, on_illegal: OnIllegal, scale: float | None) -> None:
        if not 2 <= players <= 10:
            raise refused("leduc_poker", "players", players, "between 2 and 10")
        self._ranks = rank_names(players + 1)
        rules = (
            f"Leduc poker. Cards, low to high: {', '.join(self._ranks)}, two of each. {players} players pay "
            "1 chip and get one card each. A bet or raise is 2 chips in round 1 and 4 in round 2, at most "
            "two per round. Before round 2 a table card is shown. Whoever pairs it wins the pot, else the "
            "highest card; equals split."
        )
        super().__init__(
            pyspiel.load_game("leduc_poker", {"players": players, "suit_isomorphism": True}),
            name="leduc_poker",
            rules=rules,
            action_names=("fold", "check/call", "bet/raise"),
            on_illegal=on_illegal,
            scale=scale,
        )

    def see(self, state: Any, player: int) -> str:
        public, first, second = _table(state.information_state_string(player))
        text = f"Your card: {self._ranks[state.history()[player]]}. Round 1: {_moves(first)}."
        if public is None:
            return text
        return f"{text} Table card: {self._ranks[public]}. Round 2: {_moves(second)}."

    def action_text(self, state: Any, action: int) -> str:
        public, first, second = _table(state.information_state_string(0))
        return _NAMES[_BET in (first if public is None else second)][action]


def _table(key: str) -> tuple[int | None, list[str], list[str]]:
    """Table card and the action ids of both rounds, read from OpenSpiel's information state string."""
    head, _, rounds = key.partition("][Round1: ")
    first, _, second = rounds[:-1].partition("][Round2: ")
    public = head.partition("[Public: ")[2]
    return (int(public) if public else None), first.split(), second.split()


def _moves(ids: list[str]) -> str:
    facing, done = False, []
    for move in ids:
        done.append(_NAMES[facing][int(move)])
        facing = facing or move == _BET
    return ", ".join(done) or "none"
