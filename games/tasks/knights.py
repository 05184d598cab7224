"""Knights and knaves: knights always tell the truth, knaves always lie, and everyone says one thing."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, product
from random import Random

from games.tasks.base import Task, check_between, refused
from games.tasks.generated import Draft, Maker

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
    true_in: frozenset[Kinds]
    """The ways things can be in which it is true."""


def maker(*, people: int = 3) -> Maker:
    """Puzzles with one solution for `people`, 2 to 5.

    Raises:
        ValueError: so many people are not allowed.
    """
    check_between(NAME, 2, len(PEOPLE), people=people)
    worlds = list(product((False, True), repeat=people))
    sayings = [_sayings(people, speaker) for speaker in range(people)]

    def make(draws: Random) -> Draft:
        said: list[Statement] = []
        possible: set[Kinds] = set()
        while len(possible) != 1:
            said = [draws.choice(draws.choice(kinds)) for kinds in sayings]
            possible = {world for world in worlds if _consistent(world, said)}
        (solution,) = possible
        lines = [f"{PEOPLE[speaker]} says: {statement.text}." for speaker, statement in enumerate(said)]
        example = ", ".join(f"{person} {KINDS[1 - i % 2]}" for i, person in enumerate(PEOPLE[:people]))
        return Draft(
            prompt=(
                f"Knights always tell the truth, knaves always lie. {' '.join(lines)} Who is what? "
                f"Answer in this form: {example}."
            ),
            answer=named(solution),
            check=NAME,
            key=" ".join(lines),
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


def _consistent(world: Kinds, said: Sequence[Statement]) -> bool:
    return all((world in statement.true_in) == knight for knight, statement in zip(world, said))


@lru_cache(maxsize=32)
def _sayings(people: int, speaker: int) -> list[list[Statement]]:
    """All that a person may say, by form, so that forms with many statements are not said more often."""
    worlds = list(product((False, True), repeat=people))
    others = [person for person in range(people) if person != speaker]

    def statement(text: str, *, true_in: Sequence[Kinds]) -> Statement:
        return Statement(text=text, true_in=frozenset(true_in))

    about_one = [
        statement(f"{PEOPLE[who]} is a {KINDS[kind]}", true_in=[world for world in worlds if world[who] == kind])
        for who in others
        for kind in (False, True)
    ]
    pairs = [(speaker, who) for who in others] + list(combinations(others, 2))
    alike = [
        statement(
            f"{_name(one, speaker)} and {PEOPLE[other]} are {'the same' if same else 'different'}",
            true_in=[world for world in worlds if (world[one] == world[other]) == same],
        )
        for one, other in pairs
        for same in (False, True)
    ]
    both = [
        statement(
            f"{_name(one, speaker)} and {PEOPLE[other]} are both {KINDS[kind]}s",
            true_in=[world for world in worlds if world[one] == kind and world[other] == kind],
        )
        for one, other in pairs
        for kind in (False, True)
    ]
    counted = [
        statement(
            f"exactly {count} of us {'is a knight' if count == 1 else 'are knights'}",
            true_in=[world for world in worlds if sum(world) == count],
        )
        for count in range(people + 1)
    ]
    return [about_one, alike, both, counted]


def _name(person: int, speaker: int) -> str:
    return "I" if person == speaker else PEOPLE[person]
