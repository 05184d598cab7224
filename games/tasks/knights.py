"""Knights and knaves: knights always tell the truth, knaves always lie, and everyone says one thing."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, product
from random import Random

from games.tasks.base import Task, check_between, refused
from games.tasks.generated import Draft, Maker, split_of

NAME = "knights"
PEOPLE = "ABCDE"
KINDS = ("knave", "knight")

Kinds = tuple[bool, ...]
"""Whether each person is a knight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """What one of the people may say."""

    text: str
    """In words."""
    possible: int
    """The worlds in which this person can say it, as bits: those where it is true exactly if the person is a knight."""


def maker(*, people: int = 3) -> Maker:
    """Puzzles with one solution for `people`, 2 to 5.

    Raises:
        ValueError: so many people are not allowed.
    """
    check_between(NAME, 2, len(PEOPLE), people=people)
    sayings = [_sayings(people, speaker) for speaker in range(people)]

    def make(draws: Random) -> Draft:
        while True:
            said = [draws.choice(draws.choice(kinds)) for kinds in sayings]
            possible = -1
            for statement in said:
                possible &= statement.possible
            if possible.bit_count() == 1:
                break
        lines = [f"{PEOPLE[speaker]} says: {statement.text}." for speaker, statement in enumerate(said)]
        example = ", ".join(f"{person} {KINDS[1 - i % 2]}" for i, person in enumerate(PEOPLE[:people]))
        return Draft(
            prompt=(
                f"Knights always tell the truth, knaves always lie. {' '.join(lines)} Who is what? "
                f"Answer in this form: {example}."
            ),
            answer=named(_worlds(people)[possible.bit_length() - 1]),
            check=NAME,
            split=split_of(" ".join(lines)),
            metadata={"people": people, "statements": [statement.text for statement in said]},
        )

    return make


def named(world: Kinds) -> str:
    """The answer in words: `A knight, B knave`."""
    return ", ".join(f"{person} {KINDS[kind]}" for person, kind in zip(PEOPLE, world))


def check(task: Task, answer: str) -> float:
    """1.0 if every person is said to be what they are, in any order, and nobody else is mentioned; else 0.0.

    `A knight`, `A is a knight`, `A: knight` and `A = knight` are all read.
    """
    said = _read(answer)
    return float(said is not None and said == _read(task.answer))


def validate(task: Task) -> None:
    """Refuse a gold answer that cannot be read.

    Raises:
        ValueError: see above.
    """
    if _read(task.answer) is None:
        raise refused(NAME, "answer", task.answer, "like 'A knight, B knave'")


def _read(answer: str) -> dict[str, str] | None:
    """Person to kind; None: it is no such list, or contradicts itself."""
    parts = [part for part in re.split(r"\s*(?:[,;\n]|\band\b)\s*", answer.strip().strip(".").casefold()) if part]
    read: dict[str, str] = {}
    for part in parts:
        found = re.fullmatch(r"(\w+)\s*(?:[:=]|\bis\b)?\s*(?:\ban?\s)?\s*\b(knight|knave)", part)
        if found is None or read.setdefault(found[1], found[2]) != found[2]:
            return None
    return read or None


def _worlds(people: int) -> list[Kinds]:
    """All that the people can be."""
    return list(product((False, True), repeat=people))


@lru_cache(maxsize=32)
def _sayings(people: int, speaker: int) -> list[list[Statement]]:
    """All that a person may say, by form, so that forms with many statements are not said more often."""
    worlds = _worlds(people)
    others = [person for person in range(people) if person != speaker]
    pairs = [(speaker, who) for who in others] + list(combinations(others, 2))
    kinds = (False, True)

    def statement(text: str, true_in: Iterable[Kinds]) -> Statement:
        true = set(true_in)
        bits = (1 << number for number, world in enumerate(worlds) if (world in true) == world[speaker])
        return Statement(text=text, possible=sum(bits))

    def name(person: int) -> str:
        return "I" if person == speaker else PEOPLE[person]

    def is_a(person: int, kind: bool) -> str:
        return f"{name(person)} {'am' if person == speaker else 'is'} a {KINDS[kind]}"

    return [
        [statement(is_a(who, kind), (w for w in worlds if w[who] == kind)) for who in others for kind in kinds],
        [
            statement(
                f"{name(a)} and {name(b)} are {'the same' if same else 'different'}",
                (w for w in worlds if (w[a] == w[b]) == same),
            )
            for a, b in pairs
            for same in kinds
        ],
        [
            statement(f"{name(a)} and {name(b)} are both {KINDS[kind]}s", (w for w in worlds if w[a] == w[b] == kind))
            for a, b in pairs
            for kind in kinds
        ],
        [
            statement(f"{is_a(a, x)} or {is_a(b, y)}", (w for w in worlds if w[a] == x or w[b] == y))
            for a, b in pairs
            for x in kinds
            for y in kinds
        ],
        [
            statement(
                f"exactly {count} of us {'is a knight' if count == 1 else 'are knights'}",
                (w for w in worlds if sum(w) == count),
            )
            for count in range(people + 1)
        ],
    ]
