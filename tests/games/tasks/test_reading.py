"""Questions with documents: those that they need, and as many others as there is room for."""

import pytest

from games.tasks import task_set
from games.tasks.corpus import corpus


def test_a_question_comes_with_the_documents_that_it_needs_and_others() -> None:
    tasks, texts = task_set("reading", documents=60, hops=2, given=3), corpus(documents=60)
    places = set()
    for number in range(50):
        task = tasks[number]
        question, _, given = task.prompt.partition(" Given: ")
        assert question.endswith("?")
        shown = [document for document in texts.documents if document.text in given]
        assert len(shown) == 3
        assert sum(len(document.text) for document in shown) + 2 == len(given)
        assert set(task.metadata["support"]) <= {document.id for document in shown}
        first = next(document for document in shown if document.id == task.metadata["support"][0])
        places.add(given.index(first.text) == 0)
    assert places == {True, False}


def test_the_splits_ask_about_different_things() -> None:
    starts = [
        {task_set("reading", documents=60, split=split)[number].metadata["chain"][0] for number in range(200)}
        for split in ("train", "test")
    ]
    assert starts[0].isdisjoint(starts[1])


def test_fewer_documents_than_a_question_needs_are_refused() -> None:
    with pytest.raises(ValueError, match="given=1 is not allowed; it must be a whole number, 2 to 60"):
        task_set("reading", documents=60, hops=2, given=1)
