"""Hanabi (arXiv 1902.00506): everybody sees all hands but the own, and hints are dear. In three sizes."""

from typing import Any

import pyspiel

from games.base import Board, Cell
from games.openspiel import OpenSpielEnv
from games.settings import OnIllegal, refused

_COLORS = "RYGWB"


def env(*, players: int = 2, on_illegal: OnIllegal = "forfeit", scale: float | None = None) -> OpenSpielEnv:
    """Hanabi in full size: 5 colors of 5 ranks, 8 hint tokens, 3 lives; 2 to 5 players.

    `scale`: see `OpenSpielEnv`; a perfect game is worth 25 without it.

    Raises:
        ValueError: a setting is out of range.
    """
    if players not in (2, 3, 4, 5):
        raise refused("hanabi", "players", players, "between 2 and 5")
    hand = 5 if players < 4 else 4
    return Hanabi("hanabi", players=players, colors=5, ranks=5, hand=hand, tokens=8, on_illegal=on_illegal, scale=scale)


def mini(*, on_illegal: OnIllegal = "forfeit", scale: float | None = None) -> OpenSpielEnv:
    """Hanabi for 2 players with 2 colors of 2 ranks, hands of 3, 3 hint tokens, 3 lives; perfect is 4.

    Raises:
        ValueError: a setting is out of range.
    """
    return Hanabi("mini_hanabi", players=2, colors=2, ranks=2, hand=3, tokens=3, on_illegal=on_illegal, scale=scale)


def simple(*, on_illegal: OnIllegal = "forfeit", scale: float | None = None) -> OpenSpielEnv:
    """Hanabi for 2 players with 3 colors of 2 ranks, hands of 5, 8 hint tokens, 3 lives.

    The deck allows for 4 cards to be played, of 6: that is the greatest utility.

    Raises:
        ValueError: a setting is out of range.
    """
    return Hanabi("simple_hanabi", players=2, colors=3, ranks=2, hand=5, tokens=8, on_illegal=on_illegal, scale=scale)


class Hanabi(OpenSpielEnv):
    """Utility, the same for all: 1 per card played (part `card`), all of it lost again with the last life (`bomb`)."""

    max_observation = 8192

    def __init__(
        self,
        name: str,
        *,
        players: int,
        colors: int,
        ranks: int,
        hand: int,
        tokens: int,
        on_illegal: OnIllegal,
        scale: float | None,
    ) -> None:
        sizes = {"players": players, "colors": colors, "ranks": ranks, "hand_size": hand}
        game = pyspiel.load_game("hanabi", {**sizes, "max_information_tokens": tokens, "max_life_tokens": 3})
        copies = ", ".join(f"{rank} ({3 if rank == 1 else 1 if rank == ranks else 2})" for rank in range(1, ranks + 1))
        rules = (
            f"Hanabi for {players} players, who win or lose together. You see all hands but your own. Colors: "
            f"{', '.join(_COLORS[:colors])}; ranks, with copies per color: {copies}. Play every color upwards from 1: "
            "a card that fits scores 1 for all, any other costs a life. Without lives the game ends and all points "
            "are lost. A hint costs a token; a discard or a finished color regains one. After the last draw everybody "
            "moves once more. Y?/Y12 is a card hinted as Y that may be Y1 or Y2, ? may be any. Actions: play "
            "card 1, discard card 1, hint player_1 color Y, hint player_1 rank 1."
        )
        deck = colors * 2 * ranks - players * hand
        most = min(colors * ranks, deck + players)  # each card drawn is one played or discarded; then one move each
        self._any_card = _COLORS[:colors] + "".join(map(str, range(1, ranks + 1)))
        shown = game.new_initial_state()
        names = tuple(_action_name(shown.action_to_string(0, i)) for i in range(game.num_distinct_actions()))
        super().__init__(
            game,
            name=name,
            rules=rules,
            action_names=names,
            on_illegal=on_illegal,
            scale=scale,
            utility_range=(0.0, float(most)),
        )

    def see(self, state: Any, player: int) -> str:
        top, hands, bottom = self._told(state, player)
        lives, tokens, fireworks = top
        deck, _, discards = bottom.partition("\nDiscards:")
        own, *others = (_numbered(self._cards(hand)) for hand in hands)
        seats = len(self.possible_agents)
        lines = [
            f"Lives: {lives}. Hint tokens: {tokens}. Played: {fireworks}. Discarded: {discards.strip() or 'none'}. "
            f"Deck: {deck}.",
            f"Last moves: {', '.join(self._last_moves(state)) or 'none'}.",
            f"Your hand: {own}.",
            *(f"Hand of player_{(player + seat) % seats}: {cards}." for seat, cards in enumerate(others, start=1)),
        ]
        return "\n".join(lines) + "\n"

    def board(self, agent: str) -> Board:
        """What was played of each color, then the hands, the own one first; a card may be played or discarded, so that
        none means an action."""
        player = self._player[agent]
        (_, _, fireworks), hands, _ = self._told(self.position, player)
        seats = [self.possible_agents[(player + seat) % len(hands)] for seat in range(len(hands))]
        rows = [["played", *fireworks.split()], *([seat, *self._cards(hand)] for seat, hand in zip(seats, hands))]
        return [list(map(Cell, row)) for row in rows]

    def action_text(self, state: Any, action: int) -> str:
        return self._called(state.current_player(), action)

    def reward_part(self, gain: float) -> str:
        return "card" if gain > 0 else "bomb"

    def _called(self, player: int, action: int) -> str:
        """What the action is called when the player makes it: hints name their receiver."""
        head, plus, tail = self.action_names[action].partition("+")
        if not plus:
            return head
        receiver = (player + int(tail[0])) % len(self.possible_agents)
        return f"{head}player_{receiver}{tail[1:]}"

    def _told(self, state: Any, player: int) -> tuple[list[str], list[str], str]:
        """What OpenSpiel tells a seat: lives, hint tokens and what was played; the hands, its own first; the rest."""
        top, _, rest = state.observation_string(player).partition("Hands:\n")
        hands, _, bottom = rest.partition("Deck size: ")
        return [line.partition(": ")[2].strip() for line in top.splitlines()], hands.split("-----\n"), bottom

    def _cards(self, hand: str) -> list[str]:
        """Each card as what it is (where that is seen), what was hinted and what it may be."""
        cards = [card.split(" || ") for card in hand.splitlines() if "||" in card]
        shown = []
        for face, knowledge in cards:
            hinted, _, possible = knowledge.partition("|")
            known = "?" if possible == self._any_card else f"{hinted.replace('X', '?')}/{possible}"
            shown.append(known if face == "XX" else f"{face} {known}")
        return shown

    def _last_moves(self, state: Any) -> list[str]:
        """The latest move of each other player, oldest first."""
        made = [(move.player, move.action) for move in state.full_history() if move.player >= 0]
        return [f"player_{seat} {self._called(seat, action)}" for seat, action in made[1 - len(self.possible_agents) :]]


def _numbered(cards: list[str]) -> str:
    return ", ".join(f"{number} {card}" for number, card in enumerate(cards, start=1)) or "empty"


def _action_name(text: str) -> str:
    """`(Play 0)` is called `play card 1`, `(Reveal player +1 color R)` is called `hint +1 color R`."""
    kind, _, rest = text.strip("()").partition(" ")
    if kind == "Reveal":
        return f"hint {rest.removeprefix('player ')}"
    return f"{kind.lower()} card {int(rest) + 1}"
