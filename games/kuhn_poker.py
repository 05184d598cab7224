"""Kuhn poker: one card each, one chip to bet. The smallest game in which bluffing pays."""

from typing import Any

import pyspiel

from games.cards import rank_names
from games.openspiel import OpenSpielEnv
from games.settings import OnIllegal, refused

_NAMES = {False: ("check", "bet"), True: ("fold", "call")}


def env(*, players: int = 2, on_illegal: OnIllegal = "forfeit", scale: float | None = None) -> OpenSpielEnv:
    """Kuhn poker for 2 to 10 players. `scale`: see `OpenSpielEnv`.

    Raises:
        ValueError: a setting is out of range.
    """
    return KuhnPoker(players=players, on_illegal=on_illegal, scale=scale)


class KuhnPoker(OpenSpielEnv):
    """Utility: chips won or lost. Who moves first is `player_0`."""

    def __init__(self, *, players: int, on_illegal: OnIllegal, scale: float | None) -> None:
        if not 2 <= players <= 10:
            raise refused("kuhn_poker", "players", players, "between 2 and 10")
        self._ranks = rank_names(players + 1)
        rules = (
            f"Kuhn poker. Cards, low to high: {', '.join(self._ranks)}, one of each. {players} players pay 1 "
            "chip each into the pot and get one card each. In turn, check or bet 1 chip. After a bet, every "
            "other player once may fold or call (pay 1 chip). The highest card not folded wins the pot."
        )
        super().__init__(
            pyspiel.load_game("kuhn_poker", {"players": players}),
            name="kuhn_poker",
            rules=rules,
            action_names=("check/fold", "bet/call"),
            on_illegal=on_illegal,
            scale=scale,
        )

    def see(self, state: Any, player: int) -> str:
        history = state.history()
        moves, done = history[len(self.possible_agents) :], []
        facing = False
        for move in moves:
            done.append(_NAMES[facing][move])
            facing = facing or move == 1
        return f"Your card: {self._ranks[history[player]]}. Moves so far: {', '.join(done) or 'none'}."

    def action_text(self, state: Any, action: int) -> str:
        return _NAMES[1 in state.history()[len(self.possible_agents) :]][action]
