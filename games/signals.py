"""Signals: one sees a symbol and says a word, the other hears the word alone and picks a symbol."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal

from games.base import Legal, Parts
from games.settings import OnIllegal, check_choice, refused
from games.text_game import TextGame

NAME = "signals"
SPEAKER, LISTENER = "player_0", "player_1"
SYMBOLS = ("sun", "moon", "star", "tree", "fish", "bird")
WORDS = ("ba", "du", "ki", "lo", "me", "zu")
MOST_ROUNDS = 8
Code = Literal["given", "free"]


def env(*, symbols: int = 3, rounds: int = 3, code: Code = "given", on_illegal: OnIllegal = "forfeit") -> "Signals":
    """Signals with that many symbols, as many words, and `rounds` symbols drawn one by one.

    Both are paid at the end alone, and never told which rounds were right. `code`: with `given` each symbol has a word
    of its own, which nobody is told, and a round is right if that is said and the symbol is picked; with `free` any
    word will do, so that its meaning is a convention (Lewis 1969). The optimum is 1; random play has 1 / `symbols`
    squared with `given`, and 1 / `symbols` with `free`.

    Raises:
        ValueError: a setting is out of range.
    """
    check_choice(NAME, Code, code=code)
    for setting, value, least, most in (("symbols", symbols, 2, len(SYMBOLS)), ("rounds", rounds, 1, MOST_ROUNDS)):
        if value not in range(least, most + 1):
            raise refused(NAME, setting, value, f"a whole number from {least} to {most}")
    return Signals(symbols=symbols, rounds=rounds, free=code == "free", on_illegal=on_illegal)


@dataclass(frozen=True, kw_only=True, slots=True)
class Signs:
    """How far a game of signals has come."""

    symbols: tuple[str, ...]
    """Those that are not picked yet, this round's first."""
    word: str | None = None
    """What was said in this round."""
    right: int = 0
    """Rounds that were right."""


class Signals(TextGame[Signs]):
    """Utility, for both: the share of rounds that are right."""

    def __init__(self, *, symbols: int, rounds: int, free: bool, on_illegal: OnIllegal) -> None:
        self._symbols, self._words, self._rounds, self._free = SYMBOLS[:symbols], WORDS[:symbols], rounds, free
        means = (
            "Words mean nothing yet; a round is right if the symbol is picked."
            if free
            else "Each word stands for one symbol, and you must find out which; a round is right if the right word is "
            "said and the symbol is picked."
        )
        super().__init__(
            name=NAME,
            rules=(
                "Signals. In each round the speaker sees a symbol and says a word; the listener hears the word and "
                f"picks a symbol. {means} At the end both score the share of rounds that were right."
            ),
            seats={SPEAKER: "speaker", LISTENER: "listener"},
            utility_range=(0.0, 1.0),
            on_illegal=on_illegal,
        )

    def deal(self, draws: Random) -> Signs:
        return Signs(symbols=tuple(draws.choice(self._symbols) for _ in range(self._rounds)))

    def legal(self, agent: str) -> Legal:
        speaking = self.position.word is None
        if (agent == SPEAKER) != speaking:
            return ()
        return self._words if speaking else self._symbols

    def see(self, agent: str) -> str:
        position = self.position
        if not position.symbols:
            return "The game is over."
        text = f"Round {self._rounds - len(position.symbols) + 1} of {self._rounds}."
        if agent == SPEAKER:
            text += f" Symbol: {position.symbols[0]}."
        return text if position.word is None else f"{text} Word: {position.word}."

    def state_key(self, agent: str) -> str:
        return f"{agent} {self.see(agent)}"

    def after(self, actions: Mapping[str, str]) -> tuple[Signs, Parts]:
        ((agent, action),) = actions.items()
        position = self.position
        if agent == SPEAKER:
            return replace(position, word=action), {}
        symbol = position.symbols[0]
        said = self._free or position.word == WORDS[SYMBOLS.index(symbol)]
        right = position.right + (said and action == symbol)
        position = Signs(symbols=position.symbols[1:], right=right)
        score = 0.0 if position.symbols else right / self._rounds
        return position, {seat: {"outcome": score} for seat in (SPEAKER, LISTENER)}

    def over(self, agent: str) -> bool:
        return not self.position.symbols

    @property
    def hidden(self) -> dict[str, Any]:
        """How many rounds were right."""
        return {"right": self.position.right}
