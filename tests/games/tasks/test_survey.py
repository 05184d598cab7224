"""Several questions at once: each of them is one of `multihop`, and they have nothing in common."""

import pytest

from games.tasks import check, task_set
from games.tasks.corpus import corpus
from games.tasks.survey import questions_of

SMALL = {"documents": 60}


@pytest.mark.parametrize(("questions", "hops"), [(1, 1), (3, 1), (4, 2)])
def test_whoever_walks_the_facts_of_each_question_has_the_answer(questions: int, hops: int) -> None:
    things = corpus(**SMALL).things
    for task in task_set("survey", **SMALL, questions=questions, hops=hops, size=50):
        parts = questions_of(task.metadata)
        found = []
        for part in parts:
            thing = part["chain"][0]
            assert thing in task.prompt
            for relation in part["relations"]:
                thing = things[thing].facts[relation]
                assert thing not in task.prompt
            found.append(thing)
        names = [name for part in parts for name in part["chain"]]
        assert len(parts) == questions == task.prompt.count("?")
        assert len(set(names)) == len(names) == questions * (hops + 1)
        assert check(task, "; ".join(found)) == 1.0
        assert check(task, "; ".join(["nobody", *found[1:]])) == (questions - 1) / questions


def test_no_thing_is_asked_about_in_both_splits() -> None:
    asked = {
        split: {
            part["chain"][0]
            for task in task_set("survey", **SMALL, questions=2, split=split, size=150)
            for part in questions_of(task.metadata)
        }
        for split in ("train", "test")
    }
    assert len(asked["train"]) > 40
    assert len(asked["test"]) > 8
    assert not asked["train"] & asked["test"]


def test_another_task_is_one_question() -> None:
    task = task_set("multihop", **SMALL)[0]
    assert questions_of(task.metadata) == (task.metadata,)


@pytest.mark.parametrize("questions", [0, 9])
def test_a_number_of_questions_out_of_range_is_refused(questions: int) -> None:
    with pytest.raises(ValueError, match=f"questions={questions} is not allowed"):
        task_set("survey", questions=questions)


def test_a_corpus_too_small_for_so_many_questions_is_refused() -> None:
    with pytest.raises(ValueError, match="found no 8 questions that share no name; use more documents"):
        task_set("survey", documents=20, questions=8, hops=3, split="test")[0]
