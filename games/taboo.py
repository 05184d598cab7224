"""Taboo: describe a word without the words that come to mind first; a partner who sees only the clues guesses it."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from games.base import Legal, Parts
from games.settings import OnIllegal, check_whole
from games.text_game import TextGame

NAME = "taboo"
DESCRIBER, GUESSER = "player_0", "player_1"
MAX_WORDS = 15
"""Words that a clue may have."""

CARDS: dict[str, tuple[str, ...]] = {
    "apple": ("fruit", "tree", "cider", "orchard"),
    "bicycle": ("wheel", "pedal", "ride", "cycle"),
    "bridge": ("river", "cross", "water", "span"),
    "butter": ("bread", "milk", "spread", "toast"),
    "candle": ("wax", "flame", "light", "burn"),
    "castle": ("king", "queen", "tower", "knight"),
    "clock": ("time", "hour", "watch", "minute"),
    "cloud": ("rain", "sky", "white", "weather"),
    "desert": ("sand", "camel", "cactus", "sahara"),
    "doctor": ("hospital", "nurse", "sick", "medicine"),
    "dream": ("sleep", "night", "bed", "nightmare"),
    "elephant": ("trunk", "grey", "animal", "tusk"),
    "garden": ("flower", "plant", "grow", "green"),
    "guitar": ("string", "music", "instrument", "play"),
    "honey": ("bee", "sweet", "hive", "sugar"),
    "island": ("water", "ocean", "beach", "land"),
    "ladder": ("climb", "step", "rung", "roof"),
    "library": ("book", "read", "borrow", "quiet"),
    "mirror": ("reflect", "glass", "face", "look"),
    "moon": ("night", "earth", "lunar", "space"),
    "mountain": ("climb", "high", "peak", "hill"),
    "newspaper": ("news", "read", "print", "journal"),
    "penguin": ("bird", "antarctic", "black", "white"),
    "piano": ("key", "music", "instrument", "play"),
    "pirate": ("ship", "treasure", "captain", "robber"),
    "pizza": ("cheese", "italy", "tomato", "italian"),
    "rainbow": ("colour", "color", "arch", "weather"),
    "robot": ("machine", "metal", "android", "automat"),
    "school": ("teach", "learn", "student", "class"),
    "shadow": ("light", "dark", "sun", "shade"),
    "snow": ("winter", "white", "cold", "flake"),
    "spider": ("web", "insect", "eight", "legs"),
    "telephone": ("call", "ring", "speak", "number"),
    "umbrella": ("rain", "wet", "open", "weather"),
    "volcano": ("lava", "erupt", "mountain", "magma"),
    "window": ("glass", "house", "pane", "curtain"),
}
"""Words to be guessed, each with its taboo words, none of which is in a clue such as `it has 5 letters`."""


def env(*, clues: int = 4, on_illegal: OnIllegal = "forfeit") -> "Taboo":
    """Taboo for a describer and a guesser, with up to `clues` clues and a guess after each; words are built in.

    Raises:
        ValueError: a setting is out of range.
    """
    check_whole(NAME, clues=clues)
    return Taboo(clues=clues, on_illegal=on_illegal)


def uses(clue: str, forbidden: str) -> bool:
    """Whether a clue holds a forbidden word, inside another word or spelled out (`s-n-o-w`, `s n o w`) too."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", clue.casefold()) if not unicodedata.combining(c))
    words = re.sub(r"[^\w\s]|_", "", bare).split()
    spelled = re.sub(r"(?<=\b\w) (?=\w\b)", "", " ".join(words))
    return any(forbidden in word for word in (*words, *spelled.split()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Clues:
    """How far a game of taboo has come."""

    word: str
    """What is to be guessed."""
    clues: tuple[str, ...] = ()
    """What was said about it."""
    guesses: tuple[str, ...] = ()
    """The guess after each clue."""


class Taboo(TextGame[Clues]):
    """Utility, for both: 1 if the first guess is right, less by 1/clues for every wrong one, 0 if none is."""

    def __init__(self, *, clues: int, on_illegal: OnIllegal) -> None:
        self._clues = clues
        super().__init__(
            name=NAME,
            rules=(
                "Taboo. The describer knows a secret word and gives clues; the guesser guesses after each. A clue has "
                f"up to {MAX_WORDS} words and must not hold the secret or a taboo word, not even inside another word "
                f"or spelled out. Both score 1 if the first guess is right, less for later ones, 0 after {clues} "
                "wrong ones."
            ),
            answer="Answer with the clue alone, or with one word as the guess",
            default="is replaced by some clue or guess",
            seats={DESCRIBER: "describer", GUESSER: "guesser"},
            utility_range=(0.0, 1.0),
            on_illegal=on_illegal,
        )

    def deal(self, draws: Random) -> Clues:
        return Clues(word=draws.choice(list(CARDS)))

    def legal(self, agent: str) -> Legal:
        describing = len(self.position.clues) == len(self.position.guesses)
        return None if (agent == DESCRIBER) == describing else ()

    def read(self, agent: str, text: str) -> str | None:
        words = text.split()
        if agent == GUESSER:
            guess = [word.strip(".,;:!?'\"").casefold() for word in words]
            guess = guess[1:] if guess[:1] in (["a"], ["an"], ["the"]) else guess
            return guess[0] or None if len(guess) == 1 else None
        clean = not any(uses(text, word) for word in (self.position.word, *CARDS[self.position.word]))
        return " ".join(words) if clean and 1 <= len(words) <= MAX_WORDS else None

    def examples(self, agent: str) -> tuple[str, ...]:
        if agent == GUESSER:
            return tuple(CARDS)
        word = self.position.word
        return f"it has {len(word)} letters", f"it begins with {word[0]}"

    def offer(self, agent: str) -> str:
        return "Your clue?" if agent == DESCRIBER else "Your guess?"

    def see(self, agent: str) -> str:
        position = self.position
        past = [f"{clue!r}, guess {guess}" for clue, guess in zip(position.clues, position.guesses)]
        past += [f"{clue!r}" for clue in position.clues[len(past) :]]
        text = f"Clues so far: {'; '.join(past) or 'none'}. Guesses left: {self._clues - len(position.guesses)}."
        if agent == GUESSER:
            return text
        return f"The secret word: {position.word}. Taboo: {', '.join(CARDS[position.word])}. {text}"

    def state_key(self, agent: str) -> str:
        return f"{agent} {self.see(agent)}"

    def after(self, actions: Mapping[str, str]) -> tuple[Clues, Parts]:
        ((agent, action),) = actions.items()
        position = self.position
        if agent == DESCRIBER:
            return replace(position, clues=(*position.clues, action)), {}
        score = 1 - len(position.guesses) / self._clues if action == position.word else 0.0
        paid = {seat: {"outcome": score} for seat in (DESCRIBER, GUESSER)}
        return replace(position, guesses=(*position.guesses, action)), paid

    def over(self, agent: str) -> bool:
        guesses = self.position.guesses
        return len(guesses) == self._clues or guesses[-1:] == (self.position.word,)

    @property
    def hidden(self) -> dict[str, Any]:
        """The word, and whether it was guessed."""
        return {"word": self.position.word, "guessed": self.position.word in self.position.guesses}
