"""Documents about a made-up world: one about each person, place, organisation and event, with the facts about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Literal, get_args

from games.tasks.base import check_between, refused
from games.tasks.world import Thing, world

NAME = "corpus"
SMALLEST = 20
"""Documents of the smallest corpus."""
Style = Literal["plain", "varied"]
"""`plain`: one wording for each relation. `varied`: several, and facts in any order."""

WORDINGS: dict[str, tuple[str, ...]] = {
    "birthplace": ("{0} was born in {1}.", "{0} came from {1}.", "The birthplace of {0} was {1}."),
    "born": (
        "{0} was born in the year {1}.",
        "The year in which {0} was born was {1}.",
        "{0}, born {1}, is well known.",
    ),
    "capital": ("The capital of {0} is {1}.", "{0} is governed from {1}, its capital.", "{0} has {1} as its capital."),
    "country": ("{0} is a city in {1}.", "{0} lies in {1}.", "The city of {0} belongs to {1}."),
    "employer": ("{0} worked for the {1}.", "The employer of {0} was the {1}.", "{0} was employed by the {1}."),
    "first": ("The {0} was first held in the year {1}.", "The {0} began in {1}.", "The year of the first {0} was {1}."),
    "founded": ("The {0} was founded in the year {1}.", "The {0} dates from {1}.", "The {0} was set up in {1}."),
    "founder": ("The {0} was founded by {1}.", "{1} founded the {0}.", "The founder of the {0} was {1}."),
    "head": ("The head of the {0} is {1}.", "{1} leads the {0}.", "The {0} is headed by {1}."),
    "leader": ("The leader of {0} is {1}.", "{1} leads {0}.", "{0} is led by {1}."),
    "mayor": ("The mayor of {0} is {1}.", "{1} is mayor of {0}.", "{0} has {1} as its mayor."),
    "organiser": ("The {0} is organised by the {1}.", "The {1} organises the {0}.", "Behind the {0} is the {1}."),
    "seat": ("The seat of the {0} is in {1}.", "The {0} has its seat in {1}.", "The {0} is based in {1}."),
    "spouse": ("{0} was married to {1}.", "The spouse of {0} was {1}.", "{0} and {1} were married."),
    "teacher": ("{0} was a student of {1}.", "{1} taught {0}.", "The teacher of {0} was {1}."),
    "venue": ("The {0} takes place in {1}.", "The venue of the {0} is {1}.", "{1} is home to the {0}."),
    "winner": ("The {0} was won by {1}.", "{1} won the {0}.", "The winner of the {0} was {1}."),
}
"""How a relation ({0} has it to {1}) is stated: the plain wording first."""
ASIDES = {
    "city": "Travellers often go from {0} to {1}.",
    "country": "Some like {0} less than {1}.",
    "event": "The {0} and the {1} are often mixed up.",
    "organisation": "The {0} and the {1} are often mixed up.",
    "person": "Few know that {0} once wrote to {1}.",
}
"""By kind, the sentence that states no fact: it names another thing of the kind at random, to mislead a search."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A text about one thing."""

    id: str
    """Its name in the corpus, `d0001` and so on."""
    title: str
    """The thing's name, which no other document has."""
    text: str
    """Sentences that state its facts, one each, and one that states none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """Documents, and the world that they are about."""

    documents: tuple[Document, ...]
    """All documents, in random order."""
    things: Mapping[str, Thing]
    """What is true: title of a document to what it is about."""
    ids: Mapping[str, str]
    """Title of a document to its id."""


def corpus(*, documents: int = 2000, world_seed: int = 0, style: Style = "plain") -> Corpus:
    """The corpus of so many `documents`, 20 or more; made once in a process, the same in all.

    Raises:
        ValueError: a setting is out of range.
    """
    check_between(NAME, SMALLEST, 20_000, documents=documents)
    check_between(NAME, 0, None, world_seed=world_seed)
    if style not in get_args(Style):
        raise refused(NAME, "style", style, " or ".join(get_args(Style)))
    return _corpus(documents, world_seed, style)


@lru_cache(maxsize=4)
def _corpus(size: int, seed: int, style: Style) -> Corpus:
    things = world(size, seed)
    kinds: dict[str, list[str]] = {kind: [] for kind in ASIDES}
    for thing in things.values():
        kinds[thing.kind].append(thing.name)
    draws = Random(f"corpus {size} {seed} {style}")
    width = max(4, len(str(size)))
    written = tuple(
        Document(id=f"d{number:0{width}}", title=thing.name, text=_text(draws, thing, kinds[thing.kind], style))
        for number, thing in enumerate(things.values(), start=1)
    )
    return Corpus(documents=written, things=things, ids={document.title: document.id for document in written})


def _text(draws: Random, thing: Thing, alike: list[str], style: Style) -> str:
    facts = list(thing.facts.items())
    if style == "varied":
        draws.shuffle(facts)
    sentences = []
    for relation, other in facts:
        wordings = WORDINGS[relation]
        wording = wordings[0] if style == "plain" else draws.choice(wordings)
        sentences.append(wording.format(thing.name, other))
    other = draws.choice(alike)
    while other == thing.name:
        other = draws.choice(alike)
    sentences.append(ASIDES[thing.kind].format(thing.name, other))
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)
