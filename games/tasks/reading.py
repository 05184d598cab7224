"""Reading: the questions of `multihop` with the documents that they need, and others, behind them."""

from dataclasses import replace
from random import Random

from games.tasks import multihop
from games.tasks.base import check_between
from games.tasks.corpus import Style, corpus
from games.tasks.generated import Draft, Maker

NAME = "reading"


def maker(
    *, given: int = 1, hops: int = 1, documents: int = 2000, style: Style = "plain", world_seed: int = 0
) -> Maker:
    """Questions of so many `hops`, 1 to 4, each with `given` documents in random order: those that state its facts, and
    others about whatever. Metadata and splits: as in `multihop`.

    Raises:
        ValueError: a setting is out of range.
    """
    ask = multihop.maker(documents=documents, hops=hops, style=style, world_seed=world_seed)
    check_between(NAME, hops, documents, given=given)
    texts = corpus(documents=documents, world_seed=world_seed, style=style)

    def make(draws: Random) -> Draft:
        draft = ask(draws)
        needed = draft.metadata["support"]
        shown = [document for document in texts.documents if document.id in needed]
        others = [document for document in texts.documents if document.id not in needed]
        shown += draws.sample(others, given - len(shown))
        draws.shuffle(shown)
        return replace(draft, prompt=f"{draft.prompt} Given: {' '.join(document.text for document in shown)}")

    return make
