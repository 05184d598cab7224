"""Questions over a corpus of made-up documents, each answered by one to four facts from as many documents."""

import re
from collections.abc import Sequence
from random import Random

from games.tasks.base import check_between
from games.tasks.corpus import Corpus, Style, corpus
from games.tasks.generated import ATTEMPTS, TEST_SHARE, Draft, Maker, hashed
from games.tasks.world import Thing

NAME = "multihop"
MAX_HOPS = 4
PHRASES: dict[str, tuple[str, ...]] = {
    "birthplace": ("the birthplace of {}", "the city where {} was born"),
    "born": ("the birth year of {}", "the year in which {} was born"),
    "capital": ("the capital of {}", "the city from which {} is governed"),
    "country": ("the country of {}", "the country to which {} belongs"),
    "employer": ("the employer of {}", "the organisation that employed {}"),
    "first": ("the first year of {}", "the year in which {} began"),
    "founded": ("the founding year of {}", "the year in which {} was set up"),
    "founder": ("the founder of {}", "the person who founded {}"),
    "head": ("the head of {}", "the person who heads {}"),
    "leader": ("the leader of {}", "the person who leads {}"),
    "mayor": ("the mayor of {}", "the person who is mayor of {}"),
    "organiser": ("the organiser of {}", "the organisation behind {}"),
    "seat": ("the seat of {}", "the city where {} is based"),
    "spouse": ("the spouse of {}", "the person married to {}"),
    "teacher": ("the teacher of {}", "the person who taught {}"),
    "venue": ("the venue of {}", "the city that is home to {}"),
    "winner": ("the winner of {}", "the person who won {}"),
}
"""How a relation of what stands in {} is asked for: the plain phrase first."""
PERSONS = ("founder", "head", "leader", "mayor", "spouse", "teacher", "winner")
"""Relations that lead to a person."""
WITH_ARTICLE = ("organisation", "event")
"""Kinds of things that are named as `the NAME`."""


def maker(*, documents: int = 2000, hops: int | None = None, style: Style = "plain", world_seed: int = 0) -> Maker:
    """Questions of so many `hops`, 1 to 4, or of 1 to 4 at random; the rest says which corpus.

    A question names the thing where its chain of facts starts, and none that the chain comes by. Metadata: `hops`; the
    `relations` and the `chain` of names from start to answer; `support`, the ids of the documents that state the
    facts, in the order of the chain; `corpus`, the settings that make the corpus. All questions that start from the
    same thing are in the same split.

    Raises:
        ValueError: a setting is out of range.
    """
    if hops is not None:
        check_between(NAME, 1, MAX_HOPS, hops=hops)
    texts = corpus(documents=documents, world_seed=world_seed, style=style)
    # By rank and not by hash alone, so that a small corpus has its share of test questions too.
    test = set(sorted(texts.things, key=hashed)[: round(TEST_SHARE * documents)])
    made_by = {"documents": documents, "world_seed": world_seed, "style": style}

    def make(draws: Random) -> Draft:
        relations, chain = _chain(draws, texts, hops or draws.randint(1, MAX_HOPS))
        return Draft(
            prompt=_question(draws, texts.things[chain[0]], relations, style),
            answer=chain[-1],
            check="exact",
            split="test" if chain[0] in test else "train",
            metadata={
                "hops": len(relations),
                "relations": relations,
                "chain": chain,
                "support": [texts.ids[name] for name in chain[:-1]],
                "corpus": made_by,
            },
        )

    return make


def ask(thing: Thing | None, name: str, relation: str) -> str:
    """The plain question for one fact about a thing; None: nothing is known of it but the name."""
    phrase = f"the {name}" if thing is not None and thing.kind in WITH_ARTICLE else name
    return f"{'Who' if relation in PERSONS else 'What'} is {PHRASES[relation][0].format(phrase)}?"


def read_question(question: str) -> tuple[str, str] | None:
    """The relation and the name that a plain question for one fact is about; None: it is another question."""
    for relation, (plain, *_) in PHRASES.items():
        before, _, after = plain.partition("{}")
        found = re.fullmatch(f"(?:Who|What) is {re.escape(before)}(?:the )?(.+){re.escape(after)}\\?", question)
        if found and " of " not in found[1]:
            return relation, found[1]
    return None


def _chain(draws: Random, texts: Corpus, hops: int) -> tuple[list[str], list[str]]:
    """Relations from a thing on, and the names that they lead to, no two of them the same."""
    for _ in range(ATTEMPTS):
        chain: list[str] = [draws.choice(texts.documents).title]
        relations: list[str] = []
        while len(relations) < hops and chain[-1] in texts.things:
            relation, other = draws.choice(list(texts.things[chain[-1]].facts.items()))
            relations.append(relation)
            chain.append(other)
        if len(relations) == hops and len(set(chain)) == len(chain):
            return relations, chain
    raise ValueError(f"tasks {NAME}: found no chain of {hops} hops; use more documents")


def _question(draws: Random, start: Thing, relations: Sequence[str], style: Style) -> str:
    """The question in words, from the inside out."""
    phrase = f"the {start.name}" if start.kind in WITH_ARTICLE else start.name
    for relation in relations:
        phrases = PHRASES[relation]
        phrase = (phrases[0] if style == "plain" else draws.choice(phrases)).format(phrase)
    return f"{'Who' if relations[-1] in PERSONS else 'What'} is {phrase}?"
