"""Surveys: several questions of `multihop` at once, about different things."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from games.tasks import multihop
from games.tasks.base import check_between
from games.tasks.corpus import Style
from games.tasks.generated import ATTEMPTS, Draft, Maker

NAME = "survey"
MAX_QUESTIONS = 8


def maker(
    *, questions: int = 3, hops: int = 1, documents: int = 2000, style: Style = "plain", world_seed: int = 0
) -> Maker:
    """So many `questions`, 1 to 8, of so many `hops` each; the answer is theirs, in order, with `; ` between
    them, and counts by the share that is right.

    No name is in two of their chains, and their split is the same. Metadata: `questions`, that of each as in
    `multihop`, and `corpus`.

    Raises:
        ValueError: a setting is out of range.
    """
    ask = multihop.maker(documents=documents, hops=hops, style=style, world_seed=world_seed)
    check_between(NAME, 1, MAX_QUESTIONS, questions=questions)

    def make(draws: Random) -> Draft:
        drafts = [ask(draws)]
        for _ in range(ATTEMPTS):
            if len(drafts) == questions:
                break
            draft = ask(draws)
            names = [name for each in (*drafts, draft) for name in each.metadata["chain"]]
            if draft.split == drafts[0].split and len(set(names)) == len(names):
                drafts.append(draft)
        else:
            raise ValueError(f"tasks {NAME}: found no {questions} questions that share no name; use more documents")
        return Draft(
            prompt=" ".join(draft.prompt for draft in drafts),
            answer="; ".join(draft.answer for draft in drafts),
            check="list",
            split=drafts[0].split,
            metadata={
                "questions": [draft.metadata for draft in drafts],
                "corpus": drafts[0].metadata["corpus"],
            },
        )

    return make


def questions_of(metadata: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The metadata of each question of a survey, or of the only one of another task."""
    found: Sequence[Mapping[str, Any]] = metadata.get("questions", (metadata,))
    return found
